"""A decoder read one token at a time, with a key-value cache, as generation does it.

Around the modules of ``models/decoder.py`` and of the decoder of ``models/encoder_decoder.py``:
each token runs through all layers alone, and looks at the keys and values that the tokens before
it left behind. No mask is needed, for nothing later is there yet. The gradient is kept through the
cache, so that the hidden states and their gradients are those of one pass over all positions.

The cache grows by concatenation: written in place, it would destroy what the backward pass of the
tokens before needs. Leaves out dropout (it must be 0), padding, and batches of more than one row
of unequal lengths.

B batch, T positions, S decoder positions, D width, H heads, K width of a head.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from minicpt.models.layers import attention, padding_mask

# The inputs that the forward passes below know how to read.
READABLE = {
    "decoder": {"tokens", "mask"},
    "encoder-decoder": {"tokens", "mask", "decoder_tokens", "decoder_mask"},
}


def states(model: nn.Module, inputs: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """The hidden state (B, D) of each position of a decoder, one after the other."""
    if "decoder_tokens" in inputs:
        return encoder_decoder_states(model, inputs)
    return decoder_states(model, inputs["tokens"])


def decoder_states(model: nn.Module, tokens: Tensor) -> Iterator[Tensor]:
    """GPT-2."""
    caches = [Cache() for _ in model.layers]
    for place in range(tokens.size(1)):
        x = model.embed(tokens[:, place, None], torch.tensor([[place]]))  # (B, 1, D)
        seen = torch.ones(1, place + 1, dtype=torch.bool)
        for layer, cache in zip(model.layers, caches, strict=True):
            x = x + cache.attend(layer.attention, layer.attention_norm(x), seen, scale=None)
            x = x + layer.feed_forward(layer.feed_forward_norm(x))
        yield model.norm(x)[:, 0]  # (B, D)


def encoder_decoder_states(model: nn.Module, inputs: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """T5: the encoder runs once, and each layer's keys and values of it are made once."""
    memory = model.encode(inputs["tokens"], inputs["mask"])  # (B, T, D)
    memory_mask = padding_mask(inputs["mask"])  # (B, 1, 1, T)
    tokens, layers = inputs["decoder_tokens"], model.decoder.layers
    caches = [Cache() for _ in layers]
    crossed = [
        by_head(layer.cross_attention.key_value(memory), 2, layer.cross_attention.heads)
        for layer in layers
    ]
    biases = model.decoder.position_bias(tokens.size(1)).unbind(1)  # S times (H, S)
    for place, bias in enumerate(biases):
        x = model.embed(tokens[:, place, None])  # (B, 1, D)
        seen = bias[:, None, : place + 1]  # (H, 1, S so far)
        for layer, cache, (key, value) in zip(layers, caches, crossed, strict=True):
            x = x + cache.attend(layer.attention, layer.attention_norm(x), seen, scale=1.0)
            cross = layer.cross_attention
            (query,) = by_head(cross.query(layer.cross_norm(x)), 1, cross.heads)
            mixed = attention(query, key, value, memory_mask, scale=1.0, fused=cross.fused)
            x = x + cross.output(mixed.transpose(1, 2).flatten(2))
            x = x + layer.feed_forward(layer.feed_forward_norm(x))
        yield model.decoder.norm(x)[:, 0]  # (B, D)


class Cache:
    """One layer's keys and values of all positions so far."""

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def attend(self, module: nn.Module, x: Tensor, seen: Tensor, scale: float | None) -> Tensor:
        """Self-attention of one new position (B, 1, D) over itself and all before it."""
        query, key, value = by_head(module.qkv(x), 3, module.heads)  # (B, H, 1, K)
        self.key = key if self.key is None else torch.cat([self.key, key], dim=2)
        self.value = value if self.value is None else torch.cat([self.value, value], dim=2)
        mixed = attention(query, self.key, self.value, seen, scale=scale, fused=module.fused)
        return module.output(mixed.transpose(1, 2).flatten(2))


def by_head(x: Tensor, parts: int, heads: int) -> list[Tensor]:
    """(B, T, parts * H * K) as ``parts`` tensors (B, H, T, K)."""
    return [
        part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in x.chunk(parts, dim=-1)
    ]
