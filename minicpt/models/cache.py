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
    """One layer's part: keys and values (2, B, H, window, K)."""

    def __init__(self, whole: Cache) -> None:
        self.whole, self.kept = whole, None

    def add(self, key: Tensor, value: Tensor) -> Tensor:
        """Keeps keys and values (B, H, T, K) of the new positions; returns all, (2, B, H, S, K)."""
        rows, heads, _, width = key.shape
        if self.kept is None:
            self.kept = key.new_zeros(2, rows, heads, len(self.whole.slots), width)
        places = self.whole.positions[:, None, :, None].expand_as(key)
        if key.requires_grad:  # in place would spoil what the backward pass of earlier steps needs
            new = torch.stack([key, value])  # (2, B, H, T, K)
            self.kept = self.kept.scatter(3, places.expand_as(new), new)
            return self.kept[:, :, :, : self.whole.longest]
        for kept, new in zip(self.kept, (key, value), strict=True):
            kept.scatter_(2, places, new)
        return self.kept[:, :, :, : self.whole.longest]


class Steps:
    """The steps of a decoder: mixed into a model that has ``embed``, ``dropout``, ``layers``, whose
    forward takes (x, mask, cache), and a final ``norm``."""

    def cache(self, rows: int, window: int) -> Cache:
        return Cache(self, rows, window)

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """See ``Abilities.step``."""
        positions, mask = cache.open(tokens.size(1))
        x = self.dropout(self.embed(tokens, positions))
        for layer, kept in zip(self.layers, cache.layers, strict=True):
            x = layer(x, mask, kept)
        return self.norm(x)
