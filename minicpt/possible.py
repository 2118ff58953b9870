"""A head as the loss uses it: what it reads, and which of its classes an objective never predicts.

Masked diffusion never predicts the mask token: no text holds it. Its logit is taken out, that is,
set to -inf. So its probability is 0, and the other classes share all of it.

B batch, T positions, D width, V classes of the head, N targets.
"""

import math
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Possible:
    """A head of the model as ``loss.head_losses`` uses it, some classes taken out.

    Its bias is -inf at these classes. Both forms of the loss add the bias, so both leave them out.
    """

    def __init__(self, head: nn.Module, never: Sequence[int]) -> None:
        self.weight = head.weight
        self.transform = getattr(head, "transform", lambda hidden: hidden)
        bias = head.weight.new_zeros(len(head.weight)) if head.bias is None else head.bias
        self.bias = bias.index_fill(0, bias.new_tensor(list(never)).long(), -math.inf)  # (V,)

    def __call__(self, hidden: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), self.weight, self.bias)  # (N, D) -> (N, V)


def without(head: nn.Module, never: Sequence[int] = ()) -> nn.Module | Possible:
    """The head; where there are classes that are never predicted, without these."""
    return Possible(head, never) if len(never) else head


def pooled(head: nn.Module, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """What a head reads of a model's hidden states: (B, T, D).

    hidden  (B, T, D)
    inputs  what the model has read

    The hidden states themselves, or what the head's ``pool`` makes of them: one that pools reads,
    at every position, the whole text.
    """
    return head.pool(hidden, inputs.get("mask")) if hasattr(head, "pool") else hidden
