"""Windows: a position looks at near positions alone (Beltagy et al. 2020, arXiv 2004.05150).

B batch, T positions of the queries, S positions of the keys.
"""

from torch import Tensor


def window_mask(queries: Tensor, keys: Tensor, window: int) -> Tensor:
    """(B, 1, T, S) bool: which keys stand fewer than ``window`` positions from each query.

    queries  (B, T) int64: the positions of the queries
    keys     (B, S) int64: those of the keys

    The distance counts to both sides, and the query itself has distance 0. Together with a causal
    mask, ``window`` keys are left, the query's own among them. In packed documents, the positions
    that count are those inside the document; the pattern of the documents keeps others out.

    >>> import torch
    >>> places = torch.arange(4)[None]
    >>> window_mask(places, places, window=2)[0, 0].int().tolist()
    [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    """
    return ((queries[:, :, None] - keys[:, None, :]).abs() < window)[:, None]
