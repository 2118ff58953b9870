"""What a trained model does with a text: continue it, fill its gaps, or write another one.

It works with any model through its ``forward`` or ``step``, and its head "tokens".

T positions, D width, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from minicpt.batch import IGNORE
from minicpt.common.errors import InputError, WorkError
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.order import Draw
from minicpt.data.patterns import prefix_mask
from minicpt.data.tokenizer import Tokenizer

SPECIAL = 2  # [CLS] and [SEP] around a text that an encoder reads


@dataclass(frozen=True)
class Sampling(Checked):
    length: int = setting(80, "the most tokens to write", least=1)
    temperature: float = setting(0.8, "0: the likeliest token; 1: as predicted", least=0)
    suffix: str | None = setting(
        None, "of fill in the middle: what stands behind the gap that is filled", metavar="TEXT"
    )
    rounds: int | None = setting(
        None, "of masked diffusion: passes that fill masked tokens (default: 16)", least=1
    )


def choose(logits: Tensor, allowed: Tensor, temperature: float, generator: Generator) -> int:
    """One token id drawn from ``logits`` (V,) among the ids ``allowed`` (K,)."""
    scores = logits[allowed].cpu().double()  # some devices have no float64
    if scores.isnan().any() or scores.max() == float("inf"):
        raise WorkError("the model's numbers are not finite any more: use an older checkpoint")
    if temperature < 1e-6:  # so cold that the division would overflow
        return int(allowed[scores.argmax()])
    probabilities = (scores / temperature).softmax(dim=0)
    return int(allowed[torch.multinomial(probabilities, 1, generator=generator)])


def check_length(ids: list[int], most: int) -> None:
    """InputError for a text that is longer than what the model was trained to read."""
    if len(ids) > most:
        raise InputError(
            f"the text takes {len(ids)} tokens, and the model reads {most} at once; shorten it"
        )


# --- writing ---------------------------------------------------------------------------------


def write(
    logits_after: Callable[[list[int]], Tensor],
    allowed: Tensor,
    end: int,
    sampling: Sampling,
    generator: Generator,
) -> list[int]:
    """Draws tokens among ``allowed`` (K,) until ``end``; returns them without it.

    logits_after  the logits (V,) of the token that follows what was written so far
    """
    written: list[int] = []
    while len(written) < sampling.length:
        token = choose(logits_after(written), allowed, sampling.temperature, generator)
        if token == end:
            break
        written.append(token)
    return written


@torch.no_grad()
def continue_tokens(
    model: nn.Module,
    prompt: list[int],
    window: int,
    tokenizer: Tokenizer,
    sampling: Sampling,
    generator: Generator,
) -> list[int]:
    """The tokens that a decoder writes after ``prompt``.

    It reads at most ``window`` tokens. As long as the text fits, it reads each token once and keeps
    the keys and values. Beyond that it reads the last ``window`` tokens anew for each new one.
    """
    device = next(model.parameters()).device
    cache = model.cache(1, window)

    def logits_after(written: list[int]) -> Tensor:
        text = prompt + written
        if len(text) <= window:
            new = torch.tensor([text[int(cache.place[0]) :]], device=device)
            hidden = model.step(new, cache)[:, -1]  # (1, D)
        else:
            hidden = model(tokens=torch.tensor([text[-window:]], device=device))[:, -1]
        return model.heads["tokens"](hidden)[0]

    with evaluating(model):
        end = tokenizer.need("end")
        return write(logits_after, or_end(tokenizer), end, sampling, generator)


@torch.no_grad()
def continue_prefix(
    model: nn.Module,
    prompt: list[int],
    window: int,
    tokenizer: Tokenizer,
    sampling: Sampling,
    generator: Generator,
) -> list[int]:
    """The tokens that a decoder writes after ``prompt``, which it reads in both directions.

    It reads the last ``window`` tokens anew for each new one. What it wrote is read causally.
    """
    device = next(model.parameters()).device

    def logits_after(written: list[int]) -> Tensor:
        tokens = torch.tensor([[*prompt, *written][-window:]], device=device)
        given = torch.tensor([tokens.shape[1] - len(written)], device=device)  # of the prompt
        mask = prefix_mask(torch.ones_like(tokens, dtype=torch.bool), given)
        return model.heads["tokens"](model(tokens=tokens, mask=mask)[:, -1])[0]

    with evaluating(model):
        end = tokenizer.need("end")
        return write(logits_after, or_end(tokenizer), end, sampling, generator)


@torch.no_grad()
def rewrite_tokens(
    model: nn.Module,
    tokens: list[int],
    tokenizer: Tokenizer,
    sampling: Sampling,
    generator: Generator,
) -> list[int]:
    """The tokens that an encoder-decoder writes after reading ``tokens``. It starts with the pad.
    """
    device = next(model.parameters()).device
    start = tokenizer.need("pad")

    def logits_after(written: list[int]) -> Tensor:
        decoder_tokens = torch.tensor([[start, *written]], device=device)
        return model.heads["tokens"](model.decode(decoder_tokens, None, memory, None)[:, -1])[0]

    with evaluating(model):
        memory = model.encode(torch.tensor([tokens], device=device), None)  # (1, T, D)
        end = tokenizer.need("end")
        return write(logits_after, or_end(tokenizer), end, sampling, generator)


@torch.no_grad()
def write_after(
    model: nn.Module,
    objective,
    read: list[int],
    start: int,
    sampling: Sampling,
    generator: Generator,
    front: Sequence[int] = (),
    sentinels: Sequence[int] = (),
) -> list[list[int]]:
    """The tokens that a model writes after ``read``, which it reads in both directions.

    start      the token before the first one that is written (or, by a decoder, read)
    front      tokens that stand before all of that, outside the objective's window
    sentinels  they are written in this order, and the result has the tokens behind each of them.
               Without any it has one list: all that is written
    """
    tokenizer, decoder = objective.tokenizer, objective.role == "decoder"
    given = [*front, start, *read] if decoder else [*front, *read]
    window, least = objective.length + len(front), max(1, len(sentinels))
    room = window - len(sentinels)  # for what is written beside these
    check_length(given, room - least if decoder else window)
    room -= len(given) if decoder else 0
    stops = [*sentinels[1:], tokenizer.need("end")]  # each span ends where the next one begins
    found: list[list[int]] = []
    written: list[int] = []
    with evaluating(model):
        logits_after = reading(model, objective.role, given, start)
        for place, stop in enumerate(stops):
            written += sentinels[place : place + 1]
            left = min(sampling.length, room) - sum(map(len, found))
            share = replace(sampling, length=max(1, left // (len(stops) - place)))
            allowed = torch.cat([tokenizer.ordinary, torch.tensor([stop])])
            found.append(
                write(lambda more, so_far=tuple(written): logits_after([*so_far, *more]),
                      allowed, stop, share, generator)
            )  # fmt: skip
            written += found[-1]
    return found


def reading(
    model: nn.Module, role: str, given: list[int], start: int
) -> Callable[[list[int]], Tensor]:
    """What ``write`` calls, of a model that has read ``given`` in both directions."""
    device = next(model.parameters()).device
    if role == "decoder":

        def logits_after(written: list[int]) -> Tensor:
            row = torch.tensor([given + written], device=device)
            both_ways = torch.tensor([len(given)], device=device)
            mask = prefix_mask(torch.ones_like(row, dtype=torch.bool), both_ways)
            return model.heads["tokens"](model(tokens=row, mask=mask)[:, -1])[0]

        return logits_after
    memory = model.encode(torch.tensor([given], device=device), None)  # (1, T, D)

    def logits_after(written: list[int]) -> Tensor:
        row = torch.tensor([[start, *written]], device=device)
        return model.heads["tokens"](model.decode(row, None, memory, None)[:, -1])[0]

    return logits_after


def or_end(tokenizer: Tokenizer) -> Tensor:
    """The ids that may be written: ordinary tokens, and the end of the text."""
    return torch.cat([tokenizer.ordinary, torch.tensor([tokenizer.need("end")])])


@torch.no_grad()
def predict(model, inputs: dict[str, Tensor], head: str, row: int, positions) -> Tensor:
    """The probabilities of a head's classes at some positions of a row: (N, classes)."""
    device = next(model.parameters()).device
    with evaluating(model):
        hidden = model(**{name: value.to(device) for name, value in inputs.items()})
        return model.heads[head](hidden[row, positions]).cpu().double().softmax(dim=-1)


def with_gaps(tokenizer: Tokenizer, text: str, mask: int) -> list[int]:
    """The ids of a text in which mask tokens are the gaps."""
    *parts, rest = text.split(tokenizer.token(mask))
    # The space before a gap belongs to the token that fills it.
    ids = [id for part in parts for id in (*tokenizer.encode(part.removesuffix(" ")), mask)]
    return ids + tokenizer.encode(rest)


def fill_gaps(
    model: nn.Module,
    tokenizer: Tokenizer,
    inputs: dict[str, Tensor],
    gaps: Tensor,
    shifted: bool = False,
) -> list[int]:
    """The ids of the one row of ``inputs``, with the likeliest ordinary token at each gap (K,).

    shifted  the token of a gap is predicted at the position before it, as decoders do
    """
    likely = predict(model, inputs, "tokens", 0, gaps - 1 if shifted else gaps)
    ids = inputs["tokens"][0].clone()
    ids[gaps] = tokenizer.ordinary[likely[:, tokenizer.ordinary].argmax(dim=-1)]
    return ids.tolist()


def bracketed(tokenizer: Tokenizer, ids: list[int], places: list[int]) -> str:
    """The text of ``ids`` with the tokens at ``places`` in brackets: "The [cat] sat".

    A piece of text is what its tokens add to all the text before them, since tokenizers differ in
    where they keep the space between two words.
    """
    text, done = "", 0
    for place in places:
        before = tokenizer.decode(ids[:place])
        piece = tokenizer.decode(ids[: place + 1])[len(before) :]
        space = piece[: len(piece) - len(piece.lstrip())]
        text += f"{before[done:]}{space}[{piece.strip()}]"
        done = len(before) + len(piece)
    return text + tokenizer.decode(ids)[done:]


def with_spans(
    tokenizer: Tokenizer, ids: Sequence[int], spans: Mapping[int, Sequence[int]]
) -> str:
    """The text of ``ids``, in which some ids stand for spans, in brackets: "The [cat sat] on".

    A piece of text is what its tokens add to all the text before them: see ``bracketed``.
    """
    text, before, so_far = "", "", []
    for index in ids:
        so_far += spans.get(index, [index])
        whole = tokenizer.decode(so_far)
        piece, before = whole[len(before) :], whole
        space = piece[: len(piece) - len(piece.lstrip())]
        text += f"{space}[{piece.strip()}]" if index in spans else piece
    return text


# --- what a role does with a text, unless its objective says otherwise -------------------------


class Continue:
    """A decoder goes on with the text."""

    @staticmethod
    def generate(objective, model: nn.Module, text: str, sampling, generator: Generator) -> str:
        tokenizer = objective.tokenizer
        prompt = [tokenizer.need("end"), *tokenizer.encode(text)]
        reads = model, prompt, objective.length, tokenizer
        return text + tokenizer.decode(continue_tokens(*reads, sampling, generator))

    @staticmethod
    def probe(objective, model: nn.Module, passage, sampling, draw) -> str:
        """A continuation of the first third of a passage, set off by a bar.

        Of a row that holds several passages the first is taken.
        """
        tokenizer = objective.tokenizer
        passage = getattr(passage, "passages", (passage,))[0]
        prompt = passage.tokens[: max(1, min(len(passage.tokens) // 3, 24))].tolist()
        opening = [tokenizer.need("end")] if passage.first else []
        reads = model, opening + prompt, objective.length, tokenizer
        written = continue_tokens(*reads, sampling, draw.generator)
        return f"{tokenizer.decode(prompt)} | {tokenizer.decode(written)}"


class Fill:
    """An encoder fills gaps, each with the likeliest token."""

    @staticmethod
    def generate(objective, model: nn.Module, text: str, sampling, generator: Generator) -> str:
        """Mask tokens in the text are the gaps; without one, the objective makes some."""
        tokenizer = objective.tokenizer
        mask = tokenizer.need("mask")
        inner = with_gaps(tokenizer, text, mask)
        if mask not in inner:
            corpus = Corpus.build([Document("the text", text)], tokenizer)
            passage = corpus.passage(0, len(corpus.tokens))
            check_length(passage.tokens, objective.length - SPECIAL)
            return Fill.probe(objective, model, passage, sampling, Draw(0, generator))
        ids = [tokenizer.need("cls"), *inner, tokenizer.need("sep")]
        check_length(ids, objective.length)
        tokens = torch.tensor(ids)
        return Fill.shown(model, tokenizer, {"tokens": tokens[None]}, tokens == mask)

    @staticmethod
    def probe(objective, model: nn.Module, passage, sampling, draw) -> str:
        """The passage with what the model puts at each target, in brackets."""
        batch = objective.batch([passage], [draw])
        chosen = batch.targets["tokens"][0] != IGNORE
        return Fill.shown(model, objective.tokenizer, batch.inputs, chosen)

    @staticmethod
    def shown(model: nn.Module, tokenizer: Tokenizer, inputs: dict, chosen: Tensor) -> str:
        gaps = chosen.nonzero()[:, 0]
        ids = fill_gaps(model, tokenizer, inputs, gaps)[1:-1]  # without [CLS] and [SEP]
        return bracketed(tokenizer, ids, [gap - 1 for gap in gaps.tolist()])


class Rewrite:
    """An encoder-decoder reads a text and writes another one."""

    @staticmethod
    def generate(objective, model: nn.Module, text: str, sampling, generator: Generator) -> str:
        tokenizer = objective.tokenizer
        ids = tokenizer.encode(" ".join(text.split()))
        if not ids:
            raise InputError("the model rewrites words, but the text holds none; give some")
        check_length(ids, objective.length)
        return tokenizer.decode(rewrite_tokens(model, ids, tokenizer, sampling, generator)).strip()

    @staticmethod
    def probe(objective, model: nn.Module, passage, sampling, draw) -> str:
        """What the encoder reads of a passage, and what the model writes."""
        batch, tokenizer = objective.batch([passage], [draw]), objective.tokenizer
        ids = batch.inputs["tokens"][0].tolist()
        written = rewrite_tokens(model, ids, tokenizer, sampling, draw.generator)
        return f"{tokenizer.decode(ids).strip()} -> {tokenizer.decode(written).strip()}"


BY_ROLE = {"decoder": Continue, "encoder": Fill, "encoder-decoder": Rewrite}


class evaluating:
    """Switches a model to evaluation (no dropout) for a while, and then each part back."""

    def __init__(self, model: nn.Module):
        self.model = model

    def __enter__(self):
        self.before = [(part, part.training) for part in self.model.modules()]
        self.model.eval()

    def __exit__(self, *exception):
        for part, training in self.before:
            part.training = training
