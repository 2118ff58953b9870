"""What stands in a model in place of a linear layer, and adds something to what that one gives."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from torch import Tensor, nn


class Beside(nn.Module, ABC):
    """A linear layer, its ``weight`` and ``bias`` as they were, and something beside it.

    on  whether that something counts; False: the linear layer alone
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias, self.on = linear.weight, linear.bias, True

    @abstractmethod
    def merged(self) -> Tensor:
        """The one matrix (out, in) that would give the same as both."""


@contextlib.contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """While it lasts, what stands beside the linear layers of a model does not count."""
    found = [each for each in model.modules() if isinstance(each, Beside)]
    before = [each.on for each in found]
    for each in found:
        each.on = False
    try:
        yield
    finally:
        for each, on in zip(found, before, strict=True):
            each.on = on


def merged_weights(
    model: nn.Module, merged: Callable[[Beside], Tensor] = lambda each: each.merged()
) -> Iterator[tuple[str, Tensor]]:
    """Each parameter's name and value, tied ones once; what stands beside a matrix is added to it.

    The sums are made one by one, by ``merged``, so that no two of them exist at once.
    """
    beside = {name: each for name, each in model.named_modules() if isinstance(each, Beside)}
    for name, parameter in model.named_parameters():
        place, _, own = name.rpartition(".")
        if place not in beside or own == "bias":
            yield name, parameter
        elif own == "weight":
            yield name, merged(beside[place])
