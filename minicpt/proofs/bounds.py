"""How far two computations of one number may lie apart by rounding alone.

The one place that derives such a tolerance, for the proofs, the tests and the benchmarks. What
differs by more is a mistake; what differs by less depends on the machine: on its processor, on the
number of threads, on the libraries that torch was built with.

Each operation is exact up to a factor 1 + d, |d| <= u, where u is half of the ``eps`` of the
number format. A summand that takes part in n operations collects n such factors, in whatever order
the sum is made. So a computed sum of x_1, ..., x_m lies within

    gamma_n * (|x_1| + ... + |x_m|),   gamma_n = n u / (1 - n u)

of the exact one (Higham 2002, Accuracy and Stability of Numerical Algorithms, sections 3.1 and
4.2), and two computed sums lie at most twice as far apart. This is the worst case: the factors
mostly cancel, and what is measured is 10 to 1,000 times smaller. Mistakes are larger by far: a
single wrong summand of a million still counts a millionth.

    gap(one, other, size) <= tolerance(additions)

``size`` is the sum of the magnitudes of what is added, or more. Where summands cancel, it is larger
than the result, and so is the error.
"""

import math

import torch
from torch import Tensor, nn

from minicpt.batch import Batch


def tolerance(additions: int, dtype: torch.dtype = torch.float64) -> float:
    """How far apart two sums may lie, relative to the size of what is added: 2 gamma_n.

    Raises ValueError for more additions than the number format can take: u n must be below 1.

    >>> f"{tolerance(1000):.1e}, {tolerance(1000, torch.float32):.1e}"
    '2.2e-13, 1.2e-04'
    """
    share = additions * torch.finfo(dtype).eps / 2
    if share >= 1:
        raise ValueError(f"{additions} additions in {dtype} have no bound")
    return 2 * share / (1 - share)


def additions(model: nn.Module, batch: Batch, rows: int = 0) -> int:
    """How many operations lie on the way of a number from the inputs to a loss or a gradient.

    A matrix is summed over once forward (its columns) and once backward (its rows). Attention sums
    over positions between its matrices, and has fewer such sums than a layer has parameters. The
    gradient of a weight, like a mean, is a sum over all positions of all rows.

    rows  as long as those of the batch, that are added up; 0: those of the batch
    """
    shapes = [value.shape for value in batch.inputs.values()]  # (B, T, ...) each
    length = max(shape[1] for shape in shapes)
    path = sum(sum(parameter.shape) + length for parameter in model.parameters())
    return path + (rows or shapes[0][0]) * length


def gap(one: Tensor, other: Tensor, size: float) -> float:
    """The largest difference, relative to ``size``; infinite where one is not a number.

    >>> gap(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]), size=5.0)
    0.1
    """
    found = (one.detach().double() - other.detach().double()).abs()
    worst = float(found.max()) if found.numel() else 0.0
    if worst == 0:
        return 0.0
    return math.inf if math.isnan(worst) or not size > 0 else worst / size


def largest(*tensors: Tensor) -> float:
    """The largest magnitude in all of them; 0 where there is no number."""
    return max((float(each.detach().abs().max()) for each in tensors if each.numel()), default=0.0)


def nats(*losses: Tensor) -> float:
    """The size of what is added for losses of this size.

    A loss is the logarithm of a sum, of which one summand is 1, less the target's logit. So it is
    known to the precision of 1 nat at best, however small it is.
    """
    return max(1.0, largest(*losses))
