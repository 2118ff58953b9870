"""Leaks: an influence, as it was measured, where the declared pattern allows none.

A declared pattern is a bool tensor (B, T, S) for each stream of inputs, True = position t may see
position j of its own row. No row may see another row. The pattern is that of the whole model, not
of one layer, and visibility is transitive: if t sees s, and s sees r, then t can depend on r.

Between pieces of our own nothing but zero will do: a weight of zero times a value is zero. For
models of others ``worst_leak`` takes a judge, which tells a leak from rounding.

B batch, T positions of the outputs, S positions of a stream of inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minicpt.proofs.influence import Ids, Influence, hidden_from

BY_DERIVATIVES, BY_CHANGES = "derivatives", "changed tokens"
WHY = {
    BY_DERIVATIVES: "what may not be seen enters with weight zero, so its derivative is zero and "
    "the loss at a position is the same whether or not the rest of the sequence stands there",
    BY_CHANGES: "an output that is computed from the visible tokens alone cannot move when others "
    "are exchanged",
}
NOT_COVERED = {
    BY_DERIVATIVES: "discrete leaks (an argmax, a choice of experts) have no derivative: the "
    "changed tokens look for those",
    BY_CHANGES: "a leak that only tokens open which were not tried, or one smaller than rounding",
}


@dataclass(frozen=True)
class Leak:
    """An output, the input that it may not depend on but does, and how strongly.

    position  of the input; None: only all hidden tokens together have the influence
    """

    to_row: int
    to: int
    stream: str
    row: int
    position: int | None
    size: float

    def place(self) -> dict[str, int | str]:
        source = "invisible tokens, all at once" if self.position is None else self.position
        return {
            "from": source, "to": self.to, "from row": self.row, "to row": self.to_row,
            "stream": self.stream,
        }  # fmt: skip

    def text(self) -> str:
        if self.position is None:
            return (
                f"the output at position {self.to} (row {self.to_row}) moves when the tokens that "
                f"it may not see are replaced together, though by none of them alone"
            )
        where = f"position {self.position} of {self.stream}"
        if self.row != self.to_row:
            where += f" in another row ({self.row})"
        return (
            f"leak from {where} to position {self.to} (row {self.to_row}): "
            f"relative size {self.size:.2g}"
        )


# --- holding the influence against the declaration -----------------------------------------------


def worst_leak(
    influence: Influence,
    visible: Ids,
    judge: Callable[[Leak], bool] = lambda leak: True,
    most: int = 8,
) -> Leak | None:
    """The strongest influence that may not be, and that ``judge`` does not hold for rounding.

    The judge is asked about the ``most`` strongest. What all tokens do together counts only where
    none of them does it alone.
    """
    found = []
    for stream, sizes in influence.sizes.items():
        forbidden = sizes.nan_to_num(torch.inf) * hidden_from(visible[stream])
        forbidden = forbidden.nan_to_num(0.0, posinf=torch.inf)  # inf * 0 = nan
        values, places = forbidden.flatten().topk(min(most, forbidden.numel()))
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            if value > 0:
                to_row, to, row, position = map(int, torch.unravel_index(
                    torch.tensor(place), forbidden.shape))  # fmt: skip
                found.append(Leak(to_row, to, stream, row, position, value))
    found.sort(key=lambda leak: -leak.size)
    together = []
    if influence.jointly is not None:
        values = influence.jointly.nan_to_num(torch.inf)
        ranked = values.flatten().argsort(descending=True)[:most].tolist()
        width = values.shape[1]
        together = [
            Leak(place // width, place % width, "", place // width, None, float(size))
            for place in ranked
            if (size := values.flatten()[place]) > 0
        ]
    return next((leak for leak in [*found[:most], *together] if judge(leak)), None)


def strongest_hidden(influence: Influence, visible: Ids) -> float:
    """The largest influence that may not be, leak or rounding."""
    sizes = [size[hidden_from(visible[stream])] for stream, size in influence.sizes.items()]
    together = [] if influence.jointly is None else [influence.jointly.flatten()]
    return float(torch.cat([*sizes, *together, torch.zeros(1).double()]).max())


def without_source(influence: Influence, visible: Ids, wanted: Tensor) -> list[tuple[int, int]]:
    """The wanted outputs (row, position) that depend on nothing at all that they may see."""
    depends = torch.zeros(wanted.shape, dtype=torch.bool)
    for stream, size in influence.sizes.items():
        depends |= ((size > 0) & ~hidden_from(visible[stream])).any(dim=(2, 3))
    return [tuple(each) for each in (wanted.cpu() & ~depends).nonzero().tolist()]


def pairs(visible: Ids, wanted: Tensor) -> int:
    """How many pairs of an output and an input that it may not see there are."""
    return sum(int(hidden_from(each)[wanted.cpu()].sum()) for each in visible.values())
