"""Gaps of a text: found, filled with the likeliest tokens, and shown in brackets.

V vocabulary, N positions, K gaps.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from minicpt.common.evaluating import evaluating
from minicpt.data.tokenizer import Tokenizer
from minicpt.possible import pooled


@torch.no_grad()
def predict(model, inputs: dict[str, Tensor], head: str, row: int, positions) -> Tensor:
    """The probabilities of a head's classes at some positions of a row: (N, classes)."""
    device = next(model.parameters()).device
    with evaluating(model):
        inputs = {name: value.to(device) for name, value in inputs.items()}
        hidden = model(**inputs)
        hidden = pooled(model.heads[head], hidden, inputs)
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


def bracketed(tokenizer: Tokenizer, ids: Sequence[int], places: Sequence[int]) -> str:
    """The text of ``ids`` with the tokens at ``places`` in brackets: "The [cat] sat"."""
    return joined(tokenizer, [([index], at in places) for at, index in enumerate(ids)])


def with_spans(
    tokenizer: Tokenizer, ids: Sequence[int], spans: Mapping[int, Sequence[int]]
) -> str:
    """The text of ``ids``, in which some ids stand for spans, in brackets: "The [cat sat] on"."""
    return joined(tokenizer, [(spans.get(index, [index]), index in spans) for index in ids])


def joined(tokenizer: Tokenizer, pieces: Iterable[tuple[Sequence[int], bool]]) -> str:
    """The text of some runs of ids, one after the other; those marked True stand in brackets.

    A piece of text is what its tokens add to all the text before them, since tokenizers differ in
    where they keep the space between two words. What is between brackets is one piece: a character
    may take several tokens.
    """
    merged: list[tuple[list[int], bool]] = []
    for ids, inside in pieces:
        if merged and not inside and not merged[-1][1]:
            merged[-1][0].extend(ids)
        else:
            merged.append((list(ids), inside))
    text, before, so_far = "", "", []
    for ids, inside in merged:
        so_far += ids
        whole = tokenizer.decode(so_far)
        piece, before = whole[len(before) :], whole
        space = piece[: len(piece) - len(piece.lstrip())]
        text += f"{space}[{piece.strip()}]" if inside else piece
    return text
