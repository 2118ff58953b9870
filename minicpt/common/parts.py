"""Parts, which learn beside a model: taken over from another run as far as they fit."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def copy_each(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(sources[name])


def take_over(
    parts: nn.ModuleDict, state: Mapping[str, Tensor], put: Callable = copy_each
) -> list[str]:
    """Puts a state into those parts that it fits, each whole; returns the names of the others.

    put  copies (targets, sources), by name; another one where parts are spread over processes
    """
    new = []
    for name, part in parts.items():
        own = part.state_dict()
        found = {key: state[f"{name}.{key}"] for key in own if f"{name}.{key}" in state}
        if {key: each.shape for key, each in found.items()} == {k: v.shape for k, v in own.items()}:
            put(own, found)
        else:
            new.append(name)
    return new


def said(new: Sequence[str]) -> str:
    """What there is to say of new parts."""
    return f"new beside the model, and not learnt yet: {', '.join(new)}"
