"""How a token is drawn, and how many are written at most.

V vocabulary, K ids.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from minicpt.common.errors import InputError, WorkError
from minicpt.common.settings import Checked, setting


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
