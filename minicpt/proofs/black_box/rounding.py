"""Telling a leak from rounding, for models whose arithmetic we do not know.

What may not be seen has, in a sound model, often exactly no influence; but a convolution by Fourier
transform, or tokens grouped by expert, lets it move other numbers in their last digits. How many
digits that are depends on the model: some compute in float32 whatever their weights are. So

1. an influence of more than a thousandth of the output is a leak;
2. a smaller one is put to the test. All parameters are moved by a thousandth of themselves, and it
   is measured again. The influence of a leak is a smooth function of the weights, and comes out
   nearly the same; rounding comes out anew;
3. what is smaller than some dozens of roundings of float64 is rounding. So is, in a Fourier
   transform, what is smaller than the rounding of its own precision: its constants are rounded
   too, and that comes back as a leak does. A transform by matrices of one's own in float32 is not
   recognised, and neither is cancellation: a sound model that computes what came before as a total
   less what comes later may be refused, as its rounding can come back too;
4. where no parameters can be reached, the tolerance is a few times the noise that the model shows
   when the same tokens come in other company, or at the start of longer rows.

B batch, T positions, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minicpt.proofs.black_box.calling import Guest

CEILING = 1e-3  # relative; no rounding is as large
MOST = 1e-5  # relative; the largest tolerance taken from noise, lest it swallow a leak
ALIKE, TRIES = 0.8, 3  # cosine between two measurements, and of how many tries most decide


@torch.no_grad()
def noise(guest: Guest, samples: Sequence[Tensor]) -> float:
    """How far the same tokens' logits move, relative to the largest, with what should not matter.

    samples  (B, T) int64 each, of different lengths T. Each is run alone, in the other order, with
             copies of itself, and cut to the lengths of the shorter ones.
    """
    worst = 0.0
    for tokens in samples:
        whole = guest.logits(tokens)
        scale = torch.where(whole.isfinite(), whole, 0.0).abs().max().clamp(min=1e-300)
        others = [(whole.flip(0), tokens.flip(0)), (whole[:1], tokens[:1])]
        others.append((whole[:1].expand(len(tokens), -1, -1), tokens[:1].expand_as(tokens)))
        shorter = {each.shape[1] for each in samples if each.shape[1] < tokens.shape[1]}
        others += [(whole[:, :length], tokens[:, :length]) for length in sorted(shorter)]
        for expected, changed in others:
            try:
                found = guest.logits(changed.contiguous())
            except Exception:  # a company that the model refuses shows no noise
                continue
            moved = torch.where(found == expected, 0.0, (found - expected).abs()).max()
            worst = max(worst, float((moved / scale).nan_to_num(0.0)))
    return worst


def tolerance(noise: float, dtype: torch.dtype) -> float:
    """The largest relative influence that passes for rounding where it cannot be put to the test.

    >>> tolerance(4e-7, torch.float64), tolerance(0.5, torch.float64)
    (1.6e-06, 1e-05)
    """
    return min(max(4 * noise, 64 * torch.finfo(dtype).eps), MOST)


def least(guest: Guest) -> float:
    """The smallest relative influence that is looked at, for the model that was just run."""
    least_of_all = 64 * torch.finfo(torch.float64).eps  # a transform by matrices of one's own
    return max(16 * guest.coarsest, least_of_all) if guest.fourier else least_of_all


def returns(guest: Guest, first: Tensor, again: Callable[[], Tensor]) -> bool:
    """Whether a measured influence comes back when the parameters are moved a little.

    first, again()  the influence as a vector, before and after
    """
    votes = 0
    for key in range(TRIES):
        with guest.jittered(key):
            second = again()
        one, other = (each / each.abs().max().clamp(min=1e-300) for each in (first, second))
        votes += float(F.cosine_similarity(one, other, dim=0)) > ALIKE
    return votes > TRIES // 2


def can_test(guest: Guest) -> bool:
    return any(each.is_floating_point() and bool(each.any()) for each in guest.parameters)
