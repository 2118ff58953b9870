"""Fills masked tokens in a few rounds, the surest ones first: how masked diffusion writes.

In each round the model predicts all tokens that are still masked. Those of which it is surest stay,
about as many in each round; the others are masked again, and the next round sees the new ones
(Nie et al. 2025, LLaDA, arXiv 2502.09992: "low-confidence remasking").

T positions, K gaps, A tokens that may be written, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from minicpt.common.errors import WorkError

ROUNDS = 16


def unmask(
    logits_at: Callable[[Tensor, Tensor], Tensor],
    tokens: Tensor,
    gaps: Tensor,
    allowed: Tensor,
    temperature: float,
    generator: Generator,
    rounds: int | None = None,
) -> Tensor:
    """The tokens (T,) with an allowed token at each gap.

    logits_at    from tokens (T,) and places (K,) to the logits (K, V) of the tokens at these places
    gaps         (K,) the places that are filled
    allowed      (A,) the ids that may be written
    temperature  0: the likeliest token; 1: as predicted
    rounds       passes of the model; None: 16. With more rounds than gaps, each fills one

    Raises WorkError where the logits are not finite.
    """
    tokens = tokens.clone()
    for left in range(min(rounds or ROUNDS, len(gaps)), 0, -1):
        scores = logits_at(tokens, gaps)[:, allowed].cpu().double()  # (K, A)
        if not scores.isfinite().all():
            raise WorkError("the model's numbers are not finite any more: use an older checkpoint")
        drawn = draw(scores, temperature, generator)  # (K,)
        sure = scores.softmax(dim=1).gather(1, drawn[:, None])[:, 0]  # (K,)
        ranked = sure.argsort(descending=True, stable=True)
        count = -(-len(gaps) // left)  # rounded up: the first rounds fill one more
        tokens[gaps[ranked[:count]]] = allowed[drawn[ranked[:count]]]
        gaps = gaps[ranked[count:]]
    return tokens


def draw(scores: Tensor, temperature: float, generator: Generator) -> Tensor:
    """A column of each row of ``scores`` (K, A): (K,)."""
    if temperature < 1e-6:  # so cold that the division would overflow
        return scores.argmax(dim=1)
    probabilities = (scores / temperature).softmax(dim=1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
