"""Kullback-Leibler divergence from the base's predictions: kl times KL(base || model).

Li & Hoiem 2016, arXiv 1606.09282 (Learning without Forgetting), with the direction and temperature
1 of Hinton et al. 2015, arXiv 1503.02531: at every position that has a target, of whichever head,

    sum over classes of p_base (log p_base - log p_model)

in nats, on the text that is being learnt. The base reads the same input, without dropout, and
nothing flows back into it. Its logits, like the model's, exist a few rows at a time.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.batch import Batch
from minicpt.common.settings import Checked, setting
from minicpt.loss import Loss, places_of, swept_losses


@dataclass(frozen=True)
class Settings(Checked):
    kl: float = setting(0.0, "weight of the divergence from the base's predictions", least=0)


class Regularizer(nn.Module):
    on = "targets"

    def __init__(self, settings: Settings, base: nn.Module) -> None:
        super().__init__()
        self.weight, self.base = settings.kl, base

    def forward(self, model: nn.Module, batch: Batch, hidden: Tensor) -> dict[str, Loss]:
        with torch.no_grad():
            expected = self.base(**batch.inputs)  # (B, T, D)
        result = {}
        for name, target in batch.targets.items():
            places = places_of(target)  # (N,)
            ours, theirs = (
                each.flatten(0, 1).index_select(0, places)  # (B, T, D) -> (N, D)
                for each in (hidden, expected)
            )
            losses = divergences(model.heads[name], ours, self.base.heads[name], theirs)
            result[name] = Loss(self.weight * losses.sum(), len(losses))
        return result


def divergences(head: nn.Module, hidden: Tensor, base_head: nn.Module, expected: Tensor) -> Tensor:
    """KL(base || model) in nats, (N,), from the hidden states of model and base, (N, D) each."""
    with torch.no_grad():
        if hasattr(base_head, "transform"):
            expected = base_head.transform(expected)

    def divergence(logits: Tensor, rows: slice) -> Tensor:
        base = F.linear(expected[rows], base_head.weight, base_head.bias)  # (n, V)
        base = base.to(logits.dtype).log_softmax(dim=1)
        found = logits.log_softmax(dim=1)
        weights = base.exp()
        torch.exp(found, out=logits).sub_(weights)  # the gradient: p_model - p_base
        return torch.linalg.vecdot(weights, base.sub_(found))

    return swept_losses(head, hidden, divergence)
