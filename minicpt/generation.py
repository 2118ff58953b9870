"""What a trained model does with a text: continue it, fill its gaps, or write another one.

Works with any model through its forward and its "tokens" head. Nothing is cached: each new token
runs the model on the whole text again, which is slow and plain.

T positions, D width, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from minicpt.common.errors import InputError, WorkError
from minicpt.common.settings import Checked, setting


@dataclass(frozen=True)
class Sampling(Checked):
    length: int = setting(80, "the most tokens to write", least=1)
    temperature: float = setting(0.8, "0: the likeliest token; 1: as predicted", least=0)


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


def write(
    hidden_of_last: Callable[[list[int]], Tensor],
    head: nn.Module,
    tokens: list[int],
    end: int,
    ordinary: Tensor,
    sampling: Sampling,
    generator: Generator,
) -> list[int]:
    """Appends tokens to a copy of ``tokens`` until ``end``; returns the new ones without it."""
    allowed = torch.cat([ordinary, torch.tensor([end])])
    written: list[int] = []
    while len(written) < sampling.length:
        logits = head(hidden_of_last(tokens + written))[0]  # (V,)
        token = choose(logits, allowed, sampling.temperature, generator)
        if token == end:
            break
        written.append(token)
    return written


@torch.no_grad()
def continue_tokens(model, prompt, window, end, ordinary, sampling, generator) -> list[int]:
    """The tokens a decoder writes after ``prompt``, of which it reads the last ``window``."""
    device = next(model.parameters()).device

    def hidden_of_last(tokens):
        return model(tokens=torch.tensor([tokens[-window:]], device=device))[:, -1]  # (1, D)

    with evaluating(model):
        head = model.heads["tokens"]
        return write(hidden_of_last, head, prompt, end, ordinary, sampling, generator)


@torch.no_grad()
def rewrite_tokens(model, tokens, start, end, ordinary, sampling, generator) -> list[int]:
    """The tokens an encoder-decoder writes, from ``start`` on, after reading ``tokens``."""
    device = next(model.parameters()).device
    read = torch.tensor([tokens], device=device)

    def hidden_of_last(written):
        decoder_tokens = torch.tensor([written], device=device)
        return model.decode(decoder_tokens, None, memory, None)[:, -1]  # (1, D)

    with evaluating(model):
        memory = model.encode(read, None)  # (1, T, D)
        head = model.heads["tokens"]
        return write(hidden_of_last, head, [start], end, ordinary, sampling, generator)


@torch.no_grad()
def predict(model, inputs: dict[str, Tensor], head: str, row: int, positions) -> Tensor:
    """The probabilities of a head's classes at some positions of a row: (N, classes)."""
    device = next(model.parameters()).device
    with evaluating(model):
        hidden = model(**{name: value.to(device) for name, value in inputs.items()})
        return model.heads[head](hidden[row, positions]).cpu().double().softmax(dim=-1)


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
