"""A model that has shapes and no numbers: what a config asks for is known before any memory is."""

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from minicpt.common.errors import InputError


def without_memory(kind: type[nn.Module], config: Any) -> nn.Module:
    """A model on the meta device. InputError for sizes beyond any tensor's."""
    try:
        with torch.device("meta"), Undrawn():
            return kind(config)
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"the model's sizes are beyond any tensor's ({reason})") from None


class Undrawn(TorchFunctionMode):
    """Skips ``torch.nn.init``. A draw on the meta device changes nothing, and torch would first
    load its compiler for it, which takes a second."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)
