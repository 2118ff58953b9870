"""A model without memory, or without random numbers: what its config asks for, known first."""

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
    """Inside, nothing is drawn: tensors that would get random numbers stay as they were allocated.

    On the meta device torch would first load its compiler for a draw, which takes a second.

    >>> with Undrawn():
    ...     layer = torch.nn.Linear(1000, 1000)  # takes no time, and no memory until it is filled
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in DRAWS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)
