"""How deep each weight of a model lies: what LiNeS, rates by layer, and unfreezing share.

The model files register their parts in the order of computation, and a tied matrix with the
embedding. So the place of a weight among the parameters tells its level:

    0             the embeddings, all that stands before the first layer
    1, 2, …, L    the layers; in an encoder-decoder the encoder's come first
    L + 1         what follows the last layer: the final norm, and the heads' own weights

What stands between two layers, as the encoder's final norm, has the level of the layer before it.
"""

from torch import nn


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers in the order of computation."""
    stacks = [model] if hasattr(model, "layers") else [model.encoder, model.decoder]
    return [layer for stack in stacks for layer in stack.layers]


def levels(model: nn.Module) -> dict[str, int]:
    """The level of each parameter by its name, tied ones once."""
    layers = layers_of(model)
    own = {id(each): n for n, layer in enumerate(layers, 1) for each in layer.parameters()}
    last = [name for name, each in model.named_parameters() if id(each) in own][-1]
    found, level = {}, 0
    for name, each in model.named_parameters():
        level = found[name] = own.get(id(each), level)
        if name == last:
            level = len(layers) + 1
    return found


def levels_above(model: nn.Module) -> dict[str, int]:
    """By the name of each parameter that learns: how many levels above it have some that do."""
    learn = {name for name, each in model.named_parameters() if each.requires_grad}
    found = {name: level for name, level in levels(model).items() if name in learn}
    order = sorted(set(found.values()), reverse=True)
    return {name: order.index(level) for name, level in found.items()}
