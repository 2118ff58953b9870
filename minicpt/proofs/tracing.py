"""Watching a model from outside while it runs: dropout off, token embeddings found.

``Tracer`` stands between the model's code and torch's functions. So nothing of the model is
changed, and it does not matter what it is made of: modules, functions, weights in a closure.

Every call that drops something at random drops nothing; all else of train mode stays, such as the
statistics of a batch. Every look-up of a known token, ``table[tokens]`` in any spelling, becomes a
leaf of the graph, and which positions of the tokens it reads is told by where in memory its index
lies: so ``tokens[:, t]`` in a loop and ``tokens.t()`` are found as well.

Leaves out look-ups through TorchScript, which does not pass through Python, and of ids that were
computed from the tokens (hashed pairs, shifted copies): the derivative-free form sees those.

B batch, T positions, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Give back their first argument. In place or not makes no difference then.
DROPOUTS = {
    "dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "alpha_dropout_",
    "feature_dropout", "feature_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_",
}  # fmt: skip
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
ATTENTION = {"scaled_dot_product_attention": 4, "multi_head_attention_forward": 10}


@dataclass(frozen=True)
class Lookup:
    """A look-up of tokens.

    stream  which ids were looked up
    places  int64, the index's shape: which of the B*T tokens stands at each of its elements
    leaf    (*places.shape, D): what was found, where the model's graph begins
    """

    stream: str
    places: Tensor
    leaf: Tensor


class Tracer(TorchFunctionMode):
    """``with Tracer(ids) as tracer: model(**ids)`` leaves the look-ups in ``tracer.lookups``.

    ids  stream -> (B, T) int64, contiguous; None: dropout is switched off and nothing else
    """

    def __init__(self, ids: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.ids = dict(ids or {})
        self.lookups: list[Lookup] = []
        self.table: int | None = None  # rows of the smallest table of tokens
        self.coarsest = 0.0  # the largest rounding unit of all that was computed
        self.fourier = False  # whether a Fourier transform was

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in DROPOUTS:
            return args[0] if args else kwargs["input"]
        if name in ATTENTION:
            place = ATTENTION[name]
            if len(args) > place:
                args = (*args[:place], 0.0, *args[place + 1 :])
            else:
                kwargs["dropout_p"] = 0.0
        elif name in RECURRENT:  # the dropout between layers is their only floating-point number
            args = tuple(0.0 if isinstance(each, float) else each for each in args)
        found = func(*args, **kwargs)
        self.fourier |= "fft" in name
        if isinstance(found, Tensor) and (found.is_floating_point() or found.is_complex()):
            self.coarsest = max(self.coarsest, torch.finfo(found.dtype).eps)
        if self.ids:
            index, table = looked_up(func, name, args, kwargs)
            if index is not None and isinstance(found, Tensor) and found.is_floating_point():
                return self.begin(found, index, table)
        return found

    def begin(self, found: Tensor, index: Tensor, table: Tensor) -> Tensor:
        """What was looked up, as a new leaf; unchanged where the index is not of our tokens."""
        stream, places = self.match(index)
        if places is None:
            return found
        self.table = min(len(table), self.table or len(table))
        leaf = found.detach().requires_grad_()
        self.lookups.append(Lookup(stream, places, leaf))
        return leaf.clone()  # so that the model may add to it in place

    def match(self, index: Tensor) -> tuple[str, Tensor | None]:
        for stream, tokens in self.ids.items():
            if index.untyped_storage().data_ptr() == tokens.untyped_storage().data_ptr():
                return stream, numbers(tokens).as_strided(
                    index.shape, index.stride(), index.storage_offset()
                )
        for stream, tokens in self.ids.items():  # a copy of the tokens, perhaps turned
            for turned in (lambda x: x, torch.t, torch.flatten):
                if torch.equal(turned(tokens), index.to(tokens.dtype)):
                    return stream, turned(numbers(tokens))
        return "", None


def numbers(tokens: Tensor) -> Tensor:
    """0, 1, 2, ... in the shape of ``tokens``."""
    return torch.arange(tokens.numel(), device=tokens.device).view(tokens.shape)


def looked_up(func, name: str, args: tuple, kwargs: dict) -> tuple[Tensor | None, Tensor | None]:
    """The index and the table of a call that looks rows of a table up; else None, None."""
    values = [*args, *kwargs.values()]
    if func is F.embedding:
        index, table = kwargs.get("input", args[0] if args else None), kwargs.get("weight")
        table = args[1] if len(args) > 1 else table
    elif name in ("embedding", "__getitem__"):
        table, index = values[:2]
    elif name == "index_select" and 0 in values[1:2]:
        table, index = values[0], values[2]
    else:
        return None, None
    if isinstance(index, tuple) and len(index) == 1:
        index = index[0]
    if func is not F.embedding and getattr(table, "grad_fn", None) is not None:
        return None, None  # rows of hidden states are being picked, not of a table
    if not (isinstance(index, Tensor) and isinstance(table, Tensor) and table.dim() == 2):
        return None, None
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        return None, None
    return index, table
