"""The matrix products that a training step cannot do without, and how long they take alone.

They are recorded from the model itself, in its plain form: attention written out and the head over
all targets at once. So each product of the forward pass comes with the two of its backward pass,
and nothing that a fused form computes again is counted. Leaves out everything that is no product
of matrices.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from timing import Seconds, taking_turns
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from minicpt.batch import Batch
from minicpt.loss import objective_loss, whole_sequence_loss

aten = torch.ops.aten
# Where the left matrix stands among the arguments of each operator; the right one is next.
LEFT = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.baddbmm: 1}
TURN = 0.02  # seconds that a product is repeated for


@dataclass(frozen=True)
class Layout:
    """Shape and strides of a matrix, or of a batch of them."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @staticmethod
    def of(value: Tensor) -> "Layout":
        return Layout(tuple(value.shape), value.stride())

    def filled(self) -> Tensor:
        if 0 in self.strides:
            return torch.randn(self.shape)
        return torch.empty_strided(self.shape, self.strides).normal_()


@dataclass(frozen=True)
class Product:
    left: Layout
    right: Layout

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * math.prod(self.left.shape) * self.right.shape[-1]


class Recorder(TorchDispatchMode):
    """Counts the products that run inside ``with``, those of the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        place = LEFT.get(function.overloadpacket)
        if place is not None:
            left, right = args[place : place + 2]
            self.found[Product(Layout.of(left), Layout.of(right))] += 1
        return function(*args, **(kwargs or {}))


def of_steps(model: nn.Module, batches: Iterable[Batch]) -> Counter[Product]:
    """The products of a step on each of the batches, with their number."""
    for module in model.modules():
        if hasattr(module, "fused"):
            module.fused = False
    with Recorder() as recorder:
        for batch in batches:
            losses = whole_sequence_loss(model, batch, fused=False)
            objective_loss(losses, batch.counts()).backward()
    return recorder.found


def seconds(products: Counter[Product]) -> list[Seconds]:
    """The seconds of each product, the best of its repetitions, times its number.

    One after the other, alone, into memory that is there already.
    """
    result = []
    for product, count in products.items():
        left, right = product.left.filled(), product.right.filled()
        out = torch.empty(*product.left.shape[:-1], product.right.shape[-1])
        multiply = torch.mm if left.dim() == 2 else torch.bmm

        def call(multiply=multiply, left=left, right=right, out=out) -> None:
            multiply(left, right, out=out)

        call()
        result.append(taking_turns({"it": call}, 1, TURN)["it"].times(count))
    return result
