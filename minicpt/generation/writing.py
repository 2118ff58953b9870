"""Tokens that a decoder or an encoder-decoder writes, one after the other.

T positions, D width, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from minicpt.common.evaluating import evaluating
from minicpt.data.patterns import prefix_mask
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation.sampling import Sampling, check_length, choose


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
    with evaluating(model):
        logits_after = reading(model, "decoder", prompt, window=window)
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
    with evaluating(model):
        logits_after = reading(model, "encoder-decoder", tokens, tokenizer.need("pad"))
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
    model: nn.Module, role: str, given: list[int], start: int | None = None, window: int = 0
) -> Callable[[list[int]], Tensor]:
    """What ``write`` calls, of a model that has read ``given`` in both directions.

    start   an encoder-decoder's token before the first one that is written
    window  the most tokens that a decoder reads, the last ones; 0: all
    """
    device = next(model.parameters()).device
    if role == "decoder":

        def logits_after(written: list[int]) -> Tensor:
            row = torch.tensor([(given + written)[-window:]], device=device)
            both_ways = torch.tensor([row.shape[1] - len(written)], device=device)
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
