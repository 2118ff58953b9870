"""How many multiplications and additions the matrix products of a forward pass take.

For a stack of L layers whose projections hold P weights in each layer and whose attention has the
inner width I, over t positions that look at s positions:

    projections   2 P L t        each weight is multiplied and added once for each position
    attention     4 I L t s      scores 2 I t s, and the weighted sum of the values 2 I t s
    head          2 M n          n targets, M weights: V D, and what stands before the projection

An attention mask saves nothing: what it hides is computed and thrown away. So for a decoder over
T positions and n = T targets, with V D for M:

    whole sequence   2 P L T            + 4 I L T^2              + 2 M T
    one by prefixes  2 P L T (T+1)/2    + 4 I L T(T+1)(2T+1)/6   + 2 M T
    cached           2 P L T            + 4 I L T (T+1)/2        + 2 M T

An encoder-decoder adds its encoder, the keys and values of the encoder's states for the cross
attention, and 4 I L t s for the cross attention itself. The backward pass takes twice as many (for
each product one with respect to either factor), so that the ratios hold for both passes together.
Leaves out what is not a matrix product: norms, activations, softmax, embeddings, moving data.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch


def whole(model: nn.Module, batch: Batch) -> int:
    """Operations of one forward pass over the whole sequence, a batch of one row."""
    lengths = {name: batch.inputs[name].shape[1] for name in streams(batch.inputs)}
    return body(model, **lengths) + heads(model, batch)


def separate(
    model: nn.Module, batch: Batch, visibility: Mapping[str, Mapping[str, Tensor]]
) -> int:
    """Operations of one forward pass for each target over what that target may see."""
    total = heads(model, batch)
    for name, target in batch.targets.items():
        for place in (target[0] != IGNORE).nonzero()[:, 0].tolist():
            seen = {stream: int(may[0, place].sum()) for stream, may in visibility[name].items()}
            total += body(model, **seen)
    return total


def cached(model: nn.Module, batch: Batch) -> int:
    """Operations of one token at a time: those of the whole, less what the causal mask hides."""
    stream = streams(batch.inputs)[-1]
    length = batch.inputs[stream].shape[1]
    stack = model.decoder if stream == "decoder_tokens" else model
    hidden = length * length - length * (length + 1) // 2
    return whole(model, batch) - 4 * inner(stack) * len(stack.layers) * hidden


def streams(inputs: Mapping[str, Tensor]) -> list[str]:
    """The input streams, that of the targets last."""
    return [name for name in ("tokens", "decoder_tokens") if name in inputs]


def body(model: nn.Module, tokens: int, decoder_tokens: int = 0) -> int:
    """Operations of the layers over ``tokens`` positions (and ``decoder_tokens`` of a decoder)."""
    if not decoder_tokens:
        return stack_operations(model, tokens)
    layers = model.decoder.layers
    memory = sum(layer.cross_attention.key_value.weight.numel() for layer in layers)
    return (
        stack_operations(model.encoder, tokens)
        + stack_operations(model.decoder, decoder_tokens)
        + 2 * memory * (tokens - decoder_tokens)  # counted per decoder position just above
        + 4 * inner(model.decoder) * len(layers) * decoder_tokens * tokens
    )


def stack_operations(stack: nn.Module, length: int) -> int:
    """Projections of all layers and their self-attention over ``length`` positions."""
    weights = sum(
        module.weight.numel() for module in stack.layers.modules() if isinstance(module, nn.Linear)
    )
    return 2 * weights * length + 4 * inner(stack) * len(stack.layers) * length * length


def inner(stack: nn.Module) -> int:
    """I: the width of all attention heads together."""
    return stack.layers[0].attention.output.in_features


def heads(model: nn.Module, batch: Batch) -> int:
    """Operations of the heads: each target's hidden state times each of the head's matrices."""
    return sum(
        2 * count * sum(weight.numel() for weight in model.heads[name].parameters() if
                        weight.dim() == 2)
        for name, count in batch.counts().items()
    )
