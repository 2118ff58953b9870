"""Kullback-Leibler divergence from the base's predictions: kl times KL(base || model).

Li & Hoiem 2016, arXiv 1606.09282 (Learning without Forgetting), with the direction and temperature
1 of Hinton et al. 2015, arXiv 1503.02531: at every position that has a target, of whichever head,

    sum over classes of p_base (log p_base - log p_model)

in nats, on the text that is being learnt. The base reads the same input, without dropout, and
nothing flows back into it. Its logits, like the model's, exist a few rows at a time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.common.settings import Checked, setting
from minicpt.fast.loss import swept_losses
from minicpt.loss import Loss, TargetLosses
from minicpt.possible import pooled
from minicpt.remedies.base import Remedy, Situation


@dataclass(frozen=True)
class Settings(Checked):
    kl: float = setting(0.0, "weight of the divergence from the base's predictions", least=0)


class KL(Remedy):
    Settings = Settings
    measured = {"kl": 1.0}
    swept = (0.1, 1.0, 10.0, 100.0)

    @classmethod
    def refuses(cls, objective) -> str:
        if objective.asks:
            return ""
        return "no head of the base predicts what this objective asks; use --l2, or another remedy"

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        self.base = situation.base
        if state is not None:
            self.base.load_state_dict(state)

    def state(self, model: nn.Module) -> dict:
        return self.base.state_dict()

    def on_targets(self, model: nn.Module, found: Mapping[str, TargetLosses]) -> dict[str, Loss]:
        read, result = {}, {}
        for head, each in found.items():
            if head not in self.base.heads or not each.inputs:  # a part, and not the model, spoke
                continue
            if id(each.inputs) not in read:
                with torch.no_grad():
                    read[id(each.inputs)] = self.base(**each.inputs)  # (B, T, D)
            hidden = pooled(self.base.heads[head], read[id(each.inputs)], each.inputs)
            expected = hidden[each.rows, each.positions]  # (N, D)
            losses = divergences(model.heads[head], each.hidden, self.base.heads[head], expected)
            weighed = self.settings.kl * (losses * each.weights).sum()
            result[head] = Loss(weighed, each.count)
        return result


def divergences(head: nn.Module, hidden: Tensor, base_head: nn.Module, expected: Tensor) -> Tensor:
    """KL(base || model) in nats, (N,), from the hidden states of model and base, (N, D) each."""
    with torch.no_grad():
        if hasattr(base_head, "transform"):
            expected = base_head.transform(expected)

    def divergence(logits: Tensor, rows: slice, again: Callable[[], Tensor]) -> Tensor:
        base = F.linear(expected[rows], base_head.weight, base_head.bias)  # (n, V)
        base = base.to(logits.dtype).log_softmax(dim=1)
        found = logits.log_softmax(dim=1)
        weights = base.exp()
        torch.exp(found, out=logits).sub_(weights)  # the gradient: p_model - p_base
        return torch.linalg.vecdot(weights, base.sub_(found))

    return swept_losses(head, hidden, divergence)
