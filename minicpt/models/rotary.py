"""Rotary positions: queries and keys are turned by an angle that grows with their position.

Su et al. 2021, arXiv 2104.09864. The numbers of a head come in pairs, the points of a plane. At
position p, pair number k is turned by p * frequency_k. The score of a query and a key is a sum of
scalar products of such points, so it depends on the difference of their positions alone. There is
no table, and so no last position.

Numbers k and k + K/2 make a pair ("rotate-half"), as in the folders of Hugging Face. The papers
pair the neighbours 2k and 2k + 1: their weights of queries and keys are these, in another order.

B batch, T positions, H heads, K width of a head (even).
"""

import math

import torch
from torch import Tensor

from minicpt.fast import rotary as fast


def count(x: Tensor) -> Tensor:
    """The positions 0, 1, 2, … of x (B, T, D): (1, T)."""
    return torch.arange(x.size(1), device=x.device)[None]


def frequencies(
    width: int,
    theta: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """How far each pair turns from one position to the next, in radians: (K/2,), 1 down to 1/theta.

    >>> frequencies(4, theta=100.0).tolist()
    [1.0, 0.10000000149011612]
    """
    return 1.0 / theta ** (torch.arange(0, width, 2, dtype=dtype, device=device) / width)


def llama3_frequencies(
    frequencies: Tensor, factor: float, low: float, high: float, length: int
) -> Tensor:
    """Frequencies (K/2,) that stretch a model to ``factor`` times the texts that it was trained on.

    Grattafiori et al. 2024 (The Llama 3 Herd of Models, arXiv 2407.21783), as Llama 3.1 does it.
    Pairs that turn around at least ``high`` times in ``length`` positions tell near positions
    apart: they stay. Pairs that turn around at most ``low`` times are slowed down ``factor`` times.
    In between, the two are mixed, in a line.

    length  positions of the texts before the stretch

    >>> turns = torch.tensor([5.0, 4.0, 2.5, 1.0, 0.5])  # in 100 positions
    >>> slowed = llama3_frequencies(turns * 2 * math.pi / 100, 8.0, 1.0, 4.0, 100)
    >>> (slowed * 100 / 2 / math.pi).tolist()
    [5.0, 4.0, 1.40625, 0.125, 0.0625]
    """
    turns = frequencies * length / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * frequencies + (1 - kept) * frequencies / factor


def rotation(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each pair's angle at each position, (B, 1, T, K/2): they fit all heads.

    positions  (B, T) int64

    In the type of the frequencies. Give them in float32 at least: bfloat16 has no 257.
    """
    angles = (positions[:, :, None].to(frequencies.dtype) * frequencies)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor], fused: bool = True) -> Tensor:
    """Queries or keys (B, H, T, K), turned; what ``rotation`` gives says how far.

    fused  False: written out, as below

    >>> quarter = rotation(torch.tensor([[1]]), torch.tensor([math.pi / 2]))  # one pair, K = 2
    >>> rotate(torch.tensor([[[[3.0, 1.0]]]]), quarter).round().tolist()
    [[[[-1.0, 3.0]]]]
    """
    cos, sin = rotation
    if fused:
        return fast.rotate(x, cos, sin)
    first, second = x.chunk(2, dim=-1)  # (B, H, T, K/2) each
    turned = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat(turned, dim=-1).to(x.dtype)
