"""Who influences whom in a model: measured for all pairs of an output and an input, in two ways.

    by derivatives   of a random mix of the K outputs at (b, t), with respect to the embedding of
                     the token at (c, j). Finds the tiniest leak, but is blind to discrete ones
                     (an argmax, the choice of an expert), whose derivative is zero.
    by changes       another token is put at (c, j), and all that moves is noted; and for each
                     (b, t) everything that it may not see is replaced at once.

A model is a function from ids to outputs here. ``leaks`` judges what is measured.

B batch, T positions of the outputs, S positions of a stream of inputs, K outputs, D width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minicpt.common.randomness import generator
from minicpt.proofs.tracing import Tracer

Ids = Mapping[str, Tensor]  # stream -> (B, S) int64
Run = Callable[[Ids], Tensor]  # -> (B, T, K)


class NoDerivatives(Exception):
    """The derivative form cannot be run on this model; the text says why."""


@dataclass(frozen=True)
class Influence:
    """How strongly outputs depend on inputs.

    sizes    stream -> (B, T, B, S): row and position of the output, then of the input; in units
             of the output's own size
    jointly  (B, T): the output's change when all that it may not see is replaced at once; or None
    scale    (B, T): the unit
    """

    sizes: dict[str, Tensor]
    scale: Tensor
    jointly: Tensor | None = None


# --- by derivatives --------------------------------------------------------------------------


def gradients(run: Run, ids: Ids, cells: Sequence[tuple[int, int]]) -> Iterator[dict[str, Tensor]]:
    """For each output (row, position), stream -> the derivatives (B, S, D) by its embeddings.

    Raises NoDerivatives where there is nothing to differentiate, and whatever the model raises.
    """
    with torch.enable_grad(), Tracer(ids) as tracer:
        outputs = run(ids)  # (B, T, K)
        if not tracer.lookups:
            raise NoDerivatives("the model looks its tokens up in no table")
        if not outputs.requires_grad:
            raise NoDerivatives("its outputs carry no gradient back to the embedded tokens")
        mix = torch.randn(outputs.shape[-1], generator=generator("mix"), dtype=torch.float64)
        values = (outputs * mix.to(outputs)).sum(-1)  # (B, T)
    leaves = [each.leaf for each in tracer.lookups]
    for row, position in cells:
        found = backward(values[row, position], leaves, retain_graph=True)
        totals: dict[tuple[str, int], Tensor] = {}
        for lookup, gradient in zip(tracer.lookups, found, strict=True):
            width = lookup.leaf.shape[-1]
            total = totals.setdefault(
                (lookup.stream, width),
                lookup.leaf.new_zeros(ids[lookup.stream].numel(), width),
            )
            if gradient is not None:
                total.index_add_(0, lookup.places.flatten(), gradient.reshape(-1, width))
        yield {
            stream: torch.cat(
                [each for (name, _), each in totals.items() if name == stream], dim=-1
            ).view(*ids[stream].shape, -1)
            for stream in {name for name, _ in totals}
        }


def backward(
    value: Tensor, leaves: Sequence[Tensor], retain_graph: bool = False
) -> list[Tensor | None]:
    """The derivative of the scalar ``value`` by each leaf, None where it does not depend on it.

    Dropout is off where something checkpointed runs again. So the engine is called by itself:
    torch.autograd.grad and torch.autograd.backward leave the mode that they are called in.
    """
    engine = torch.autograd.Variable._execution_engine
    with Tracer():
        return list(engine.run_backward(
            (value,), (torch.ones_like(value),), retain_graph, False, tuple(leaves), True,
            accumulate_grad=False,
        ))  # fmt: skip


def by_derivatives(run: Run, ids: Ids, visible: Ids, wanted: Tensor) -> Influence:
    """The influence of every input on every output that is ``wanted`` (B, T) bool."""
    sizes = {name: torch.zeros(*wanted.shape, *each.shape).double() for name, each in ids.items()}
    cells = wanted.nonzero().tolist()
    for (row, position), found in zip(cells, gradients(run, ids, cells), strict=True):
        for stream, gradient in found.items():
            sizes[stream][row, position] = gradient.abs().amax(-1)  # (B, S)
    # The unit of a position is the largest derivative by what it may see.
    scale = torch.zeros(wanted.shape).double()
    for stream, size in sizes.items():
        seen = size.masked_fill(hidden_from(visible[stream]), 0.0).nan_to_num(0.0)
        scale = torch.maximum(scale, seen.amax(dim=(2, 3)))
    unit = torch.where(scale > 0, scale, scale.max() if scale.max() > 0 else 1.0)
    return Influence({name: each / unit[..., None, None] for name, each in sizes.items()}, unit)


# --- by changes ------------------------------------------------------------------------------


def by_changes(
    run: Run, ids: Ids, visible: Ids, wanted: Tensor, allowed: Tensor, key: int | str = 0
) -> Influence:
    """The same, told by changing tokens; ``allowed`` holds the ids to change them to."""
    with torch.no_grad():
        before = run(ids)  # (B, T, K)
        sizes = {}
        for stream, tokens in ids.items():
            sizes[stream] = torch.zeros(*wanted.shape, *tokens.shape).double()
            for row, position in every(tokens):
                after = run(changed(ids, stream, row, position, allowed, key))
                sizes[stream][:, :, row, position] = moved(before, after).amax(-1)
        jointly = torch.zeros(wanted.shape).double()
        for row, position in wanted.nonzero().tolist():
            after = run(replaced(ids, visible, row, position, allowed, key))
            jointly[row, position] = moved(before, after)[row, position].amax()
    finite = torch.where(before.isfinite(), before, 0.0)
    unit = finite.abs().amax(-1).double().cpu()  # (B, T)
    unit = torch.where(unit > 0, unit, 1.0)
    sizes = {n: e.where(wanted[..., None, None], 0.0) / unit[..., None, None]
             for n, e in sizes.items()}  # fmt: skip
    return Influence(sizes, unit, jointly / unit)


def moved(before: Tensor, after: Tensor) -> Tensor:
    """How far each output moved (B, T, K), float64; infinities that stay where they are did not."""
    before, after = before.double().cpu(), after.double().cpu()
    return torch.where(before == after, 0.0, (after - before).abs())


def changed(
    ids: Ids, stream: str, row: int, position: int, allowed: Tensor, key: int | str
) -> dict[str, Tensor]:
    """The ids with another token at one place."""
    old = ids[stream][row, position]
    others = allowed[allowed != old.cpu()]
    draw = torch.randint(len(others), (), generator=generator(key, stream, row, position))
    tokens = ids[stream].clone()
    tokens[row, position] = others[draw]
    return {**ids, stream: tokens}


def replaced(
    ids: Ids, visible: Ids, row: int, position: int, allowed: Tensor, key: int | str
) -> dict[str, Tensor]:
    """The ids with other tokens at all places that the output at (row, position) may not see."""
    result = {}
    for stream, tokens in ids.items():
        draws = generator(key, "jointly", stream, row, position)
        other = allowed[torch.randint(len(allowed), tokens.shape, generator=draws)].to(tokens)
        keep = torch.zeros(tokens.shape, dtype=torch.bool, device=tokens.device)
        keep[row] = visible[stream][row, position].to(keep)
        result[stream] = torch.where(keep, tokens, other)
    return result


def every(tokens: Tensor) -> Iterator[tuple[int, int]]:
    rows, positions = tokens.shape
    return ((row, position) for row in range(rows) for position in range(positions))


def hidden_from(visible: Tensor) -> Tensor:
    """(B, T, S), True = may see, as (B, T, B, S), True = may not: no row may see another."""
    rows = len(visible)
    same = torch.eye(rows, dtype=torch.bool)[:, None, :, None]  # (B, 1, B, 1)
    return ~(same & visible.cpu()[:, :, None, :])
