"""Models before they have numbers: shapes alone, or memory that is filled later."""

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from minicpt.common.errors import InputError

# Of torch.Tensor and of torch.nn.init.
DRAWS = {"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_",
         "xavier_uniform_", "xavier_normal_"}  # fmt: skip


def without_memory(kind: type[nn.Module], config: Any) -> nn.Module:
    """A model on the meta device. InputError for sizes beyond any tensor's."""
    try:
        with torch.device("meta"), Undrawn():
            return kind(config)
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"the model's sizes are beyond any tensor's ({reason})") from None


class Undrawn(TorchFunctionMode):
    """A context in which tensors get zeros instead of random numbers.

    Numbers that happen to be in memory would not do: ``trunc_normal_`` draws again until all lie
    within its bounds, and it would never end. On the meta device, torch loads its compiler for a
    draw, which takes a second. This context avoids that too.

    >>> with Undrawn():
    ...     torch.nn.Linear(2, 1, bias=False).weight.tolist()
    [[0.0, 0.0]]
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in DRAWS:
            return (args[0] if args else kwargs["tensor"]).detach().zero_()
        return function(*args, **kwargs)
