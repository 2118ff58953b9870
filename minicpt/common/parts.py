"""Parts, which learn beside a model: taken over from another run as far as they fit."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn


def take_over(parts: nn.ModuleDict, state: Mapping[str, Tensor]) -> list[str]:
    """Puts a state into those parts that it fits, each whole; returns the names of the others."""
    new = []
    for name, part in parts.items():
        own = part.state_dict()
        found = {key: state[f"{name}.{key}"] for key in own if f"{name}.{key}" in state}
        if {key: each.shape for key, each in found.items()} == {k: v.shape for k, v in own.items()}:
            part.load_state_dict(found)
        else:
            new.append(name)
    return new


def said(new: Sequence[str]) -> str:
    """What there is to say of new parts."""
    return f"new beside the model, and not learnt yet: {', '.join(new)}"
