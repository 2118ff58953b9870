"""A decoder read one token at a time, with a key-value cache, as generation does it.

Each token runs through all layers alone, and looks at the keys and values that the tokens before
it left behind. A decoder does this itself (``Model.step``). For T5 it is written out here, around
the modules of ``models/t5.py``: the encoder runs once, and each layer's keys and values of the
encoder's states are made once. The gradient is kept through the cache, so the hidden states and
their gradients are those of one pass over all positions.

Dropout must be 0, and the batch has one row.

B batch, T positions, S decoder positions, D width, H heads, K width of a head.
"""

from collections.abc import Iterator, Mapping

from torch import Tensor

from minicpt.common.errors import InputError
from minicpt.models.cache import Cache
from minicpt.models.layers import Model, attention, padding_mask, split_heads

# The inputs that each role reads here.
READABLE = {
    "decoder": {"tokens", "mask"},
    "encoder-decoder": {"tokens", "mask", "decoder_tokens", "decoder_mask"},
}


def can_step(model: Model, inputs: Mapping[str, Tensor]) -> bool:
    """Whether ``states`` can read these inputs."""
    if not set(inputs) <= READABLE.get(model.ROLE, set()):
        return False
    if model.ROLE == "encoder-decoder":
        return hasattr(model, "decoder")
    try:
        model.cache(1, 1)
    except InputError:
        return False
    return True


def states(model: Model, inputs: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """The hidden state (B, D) of each position of a decoder, one after the other."""
    if "decoder_tokens" in inputs:
        yield from encoder_decoder_states(model, inputs)
        return
    cache = model.cache(*inputs["tokens"].shape)
    for token in inputs["tokens"].split(1, dim=1):  # (B, 1)
        yield model.step(token, cache)[:, 0]  # (B, D)


def encoder_decoder_states(model: Model, inputs: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """T5."""
    memory = model.encode(inputs["tokens"], inputs["mask"])  # (B, T, D)
    memory_mask = padding_mask(inputs["mask"])  # (B, 1, 1, T)
    tokens, layers = inputs["decoder_tokens"], model.decoder.layers
    crossed = [keys_and_values(layer.cross_attention, memory) for layer in layers]
    cache = Cache(model, *tokens.shape)
    biases = model.decoder.position_bias(tokens.size(1)).unbind(-2)  # S times (H, S)
    for place, bias in enumerate(biases):
        cache.open(1)
        x = model.embed(tokens[:, place, None])  # (B, 1, D)
        seen = bias[..., None, : place + 1]  # (H, 1, S so far)
        for layer, kept, (key, value) in zip(layers, cache.layers, crossed, strict=True):
            x = x + layer.attention(layer.attention_norm(x), seen, kept)
            cross = layer.cross_attention
            query = split_heads(cross.query(layer.cross_norm(x)), cross.num_heads)
            mixed = attention(query, key, value, memory_mask, scale=1.0, fused=cross.fused)
            x = x + cross.output(mixed.transpose(1, 2).flatten(2))
            x = x + layer.feed_forward(layer.feed_forward_norm(x))
        yield model.decoder.norm(x)[:, 0]  # (B, D)


def keys_and_values(cross, memory: Tensor) -> list[Tensor]:
    """What a layer's cross-attention looks at, (B, H, T, K) each."""
    return [split_heads(part, cross.num_heads) for part in cross.key_value(memory).chunk(2, dim=-1)]
