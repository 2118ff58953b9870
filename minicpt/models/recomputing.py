"""Layers that are computed twice, so that what they compute on the way need not be kept.

Chen et al. 2016, arXiv 1604.06174 ("gradient checkpointing"). Of a layer its input alone is kept.
The backward pass computes the layer again, from that input and with the same dropout. So gradients
are the same to the last bit, memory holds one layer at a time, and a step takes a forward pass
more.
"""

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from minicpt.models.cache import LayerCache

LAYER = re.compile(r"(.*\.)?layers\.\d+")


def recompute_layers(module: nn.Module) -> None:
    """From now on, computes each of the layers in ``module`` again for the backward pass.

    A layer stands in a list that is called ``layers``, as in all our models.
    """
    for name, layer in module.named_modules():
        if LAYER.fullmatch(name):
            layer.forward = functools.partial(_recomputed, layer)


def recomputed_layers(module: nn.Module) -> list[nn.Module]:
    """Those of which ``recompute_layers`` has been told."""
    return [
        each for each in module.modules()
        if getattr(vars(each).get("forward"), "func", None) is _recomputed
    ]  # fmt: skip


@contextlib.contextmanager
def kept_whole(layers: Sequence[nn.Module]) -> Iterator[None]:
    """While it lasts, these layers are computed once, and all of them is kept."""
    forwards = [vars(each).pop("forward") for each in layers]
    try:
        yield
    finally:
        for layer, forward in zip(layers, forwards, strict=True):
            layer.forward = forward


def _recomputed(layer: nn.Module, *inputs, **named):
    forward = functools.partial(type(layer).forward, layer)
    caching = any(isinstance(each, LayerCache) for each in (*inputs, *named.values()))
    # Keys and values would enter the cache twice. Without gradients there is nothing to keep.
    if caching or not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, **named)
