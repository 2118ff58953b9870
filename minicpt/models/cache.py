"""The key-value cache: a decoder reads on without reading its text again.

Generation, self-replay and the benchmark of the loss by steps share it. A row may begin a new text
while others go on with theirs.

B rows, T new positions, S positions of the text so far, H heads, K width of a head.
"""

import torch
from torch import Tensor

from minicpt.models.layers import Model, padding_mask


class Cache:
    """The keys and values of what each row of a decoder has read so far.

    place  (B,) int64: how many positions of each row are filled. Set one to 0, and that row begins
           a text anew
    """

    def __init__(self, model: Model, rows: int, window: int) -> None:
        device = next(model.parameters()).device
        self.place = torch.zeros(rows, dtype=torch.int64, device=device)
        self.slots = torch.arange(window, device=device)
        self.layers = [LayerCache(self) for _ in range(model.config.layers)]

    def open(self, count: int) -> tuple[Tensor, Tensor]:
        """Positions (B, T) of the next ``count`` tokens, and what they may look at (B, 1, T, S)."""
        self.positions = self.place[:, None] + torch.arange(count, device=self.place.device)
        self.longest = int(self.place.max()) + count
        self.place = self.place + count
        seen = self.slots[: self.longest] <= self.positions[:, :, None]  # (B, T, S)
        return self.positions, padding_mask(seen)


class LayerCache:
    """One layer's part: keys and values (B, H, window, K) each."""

    def __init__(self, whole: Cache) -> None:
        self.whole, self.kept = whole, None

    def add(self, key: Tensor, value: Tensor) -> list[Tensor]:
        """Keeps keys and values (B, H, T, K) of new positions; returns all, (B, H, S, K) each."""
        rows, heads, _, width = key.shape
        if self.kept is None:
            size = (rows, heads, len(self.whole.slots), width)
            self.kept = [key.new_zeros(size), value.new_zeros(size)]
        places = self.whole.positions[:, None, :, None].expand_as(key)
        pairs = zip(self.kept, (key, value), strict=True)
        # With a gradient not in place: the backward pass of earlier steps needs what these read.
        write = Tensor.scatter if key.requires_grad else Tensor.scatter_
        self.kept = [write(kept, 2, places, new) for kept, new in pairs]
        return [kept[:, :, : self.whole.longest] for kept in self.kept]
