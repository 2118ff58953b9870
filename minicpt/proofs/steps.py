"""A decoder that reads a text one position after the other: the text itself, or its own words.

T positions, V classes.
"""

import torch
import torch.nn.functional as F
from torch import nn

from minicpt.batch import Batch, sees_the_past


def reads_its_targets(batch: Batch, visibility) -> bool:
    """Whether a batch of one row is purely causal, and each input but the first was a target."""
    if not batch.inputs.keys() <= {"tokens", "mask"} or "tokens" not in batch.targets:
        return False
    tokens, seen = batch.inputs["tokens"], visibility["tokens"]["tokens"]
    causal = sees_the_past(torch.ones_like(tokens, dtype=torch.bool))
    follows = batch.targets["tokens"][:, :-1] == tokens[:, 1:]
    return torch.equal(seen, causal) and bool(follows.all())


def in_steps(
    model: nn.Module, tokens: torch.Tensor, targets: torch.Tensor, own: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each position (T,), one after the other, and what was read (T,).

    own  after the first token, read what the model finds likeliest instead of the text
    """
    read = tokens[:1]
    losses = []
    with torch.no_grad():
        for place in range(len(tokens)):
            logits = model.heads["tokens"](model(**whole(read))[:, -1])  # (1, V)
            losses.append(F.cross_entropy(logits, targets[place : place + 1]))
            if place + 1 < len(tokens):
                following = logits[0].argmax() if own else tokens[place + 1]
                read = torch.cat([read, following[None]])
    return torch.stack(losses), read


def whole(tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """A row (T,) of tokens, all real, as the decoder reads it."""
    return {"tokens": tokens[None], "mask": torch.ones(1, len(tokens), dtype=torch.bool)}
