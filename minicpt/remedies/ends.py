"""How far from the base a model ends: what interpolation and LiNeS share.

Each weight becomes base + f (w - base), with a factor f of its own. A weight that did not move
stays what it is, f = 0 gives the base's bits, and f = 1 those of the trained weight.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from minicpt.remedies.base import Situation


class Scaled:
    """A remedy's hooks: each weight's way from the base is scaled after the last step.

    It holds a copy of the base, as large as the model, and so does the state of the run.
    """

    only_at_end = True
    needs = ("weights that move",)

    def factors(self, model: nn.Module) -> Mapping[str, float]:
        """The factor f of each parameter, by its name."""
        raise NotImplementedError

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        self.base = situation.base
        if state is not None:
            self.base.load_state_dict(state)

    def state(self, model: nn.Module) -> dict:
        return self.base.state_dict()

    @torch.no_grad()
    def at_end(self, model: nn.Module) -> None:
        base, factors = dict(self.base.named_parameters()), self.factors(model)
        for name, now in model.named_parameters():
            if factors[name] != 1:  # the sum below may turn a -0.0 into a 0.0
                then = as_spread(base[name].detach(), now)
                now.copy_(then.lerp(now, factors[name]) if factors[name] else then)


def as_spread(value: Tensor, owner: Tensor) -> Tensor:
    """A whole tensor, spread over processes as its owner is; where that is whole, as it is."""
    if hasattr(value, "full_tensor") or not hasattr(owner, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, owner.device_mesh, owner.placements)


def as_whole(value: Tensor) -> Tensor:
    """A tensor that is spread over processes, as a whole; any other as it is."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value
