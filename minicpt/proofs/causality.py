"""Causality, and any other declared pattern of who may see whom, held against a model.

A declared pattern is a bool tensor (B, T, S) for each stream of inputs, True = position t may see
position j of its own row; no row may see another row. It is the pattern of the whole model, not of
one layer: what is seen by what is seen, is seen (prefixes, documents, causality are all so).

Between pieces of our own nothing but zero will do: a weight of zero times a value is zero. For
models of others ``worst_leak`` takes a judge, which tells a leak from rounding.

B batch, T positions of the outputs, S positions of a stream of inputs, D width.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch
from minicpt.loss import target_stream
from minicpt.proofs.influence import Ids, Influence, by_changes, by_derivatives, hidden_from
from minicpt.proofs.result import Proof

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

    ``position`` None: no single token does it, but all that may not be seen together.
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


def idle(influence: Influence, visible: Ids, wanted: Tensor) -> list[tuple[int, int]]:
    """The wanted outputs (row, position) that depend on nothing at all that they may see."""
    depends = torch.zeros(wanted.shape, dtype=torch.bool)
    for stream, size in influence.sizes.items():
        depends |= ((size > 0) & ~hidden_from(visible[stream])).any(dim=(2, 3))
    return [tuple(each) for each in (wanted.cpu() & ~depends).nonzero().tolist()]


def pairs(visible: Ids, wanted: Tensor) -> int:
    """How many pairs of an output and an input that it may not see there are."""
    return sum(int(hidden_from(each)[wanted.cpu()].sum()) for each in visible.values())


# --- our own models --------------------------------------------------------------------------


def prove_causality(
    model: nn.Module,
    batch: Batch,
    visibility: Mapping[str, Mapping[str, Tensor]],
    name: str = "",
    wanted: Tensor | None = None,
) -> list[Proof]:
    """Both forms, for every head of a batch: exactly zero, at every position that has a target.

    model       one of ours, or a copy of one with a fault: read through forward and its heads. A
                copy in float64 is used, in eval mode; it is left as it is
    visibility  head -> stream -> (B, T, S) bool, as ``objective.visibility(batch)`` declares it
    name        goes in front of the proofs' names
    wanted      (B, T) bool: the outputs to prove; None: those that have a target
    """
    model = deepcopy(model).double().eval()
    allowed = torch.arange(model.config.vocabulary)
    proofs = []
    for head, visible in visibility.items():
        target = batch.targets[head]
        cells = (target != IGNORE) if wanted is None else wanted
        ids = {stream: batch.inputs[stream].contiguous() for stream in visible}

        def run(tokens: Ids, head: str = head) -> Tensor:
            hidden = model(**{**batch.inputs, **tokens})  # (B, T, D)
            return model.heads[head](hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])

        for form in (BY_DERIVATIVES, BY_CHANGES):
            if form == BY_DERIVATIVES:
                influence = by_derivatives(run, ids, visible, cells)
            else:
                influence = by_changes(run, ids, visible, cells, allowed)
            title = " ".join(filter(None, [name, f"causality by {form}, head {head}"]))
            proofs.append(exact_proof(title, form, influence, visible, cells, target_stream(batch)))
    return proofs


def exact_proof(
    title: str, form: str, influence: Influence, visible: Ids, wanted: Tensor, stream: str
) -> Proof:
    """The proof that what may not be seen has no influence at all, and what may, has some."""
    leak = worst_leak(influence, visible)
    blind = idle(influence, visible, wanted)
    outputs = int(wanted.sum())
    if leak is not None:
        message = leak.text()
    elif blind or not outputs:
        place = f"position {blind[0][1]} of row {blind[0][0]}" if blind else "no position"
        message = f"vacuous: {place} depends on nothing that it may see" if blind else (
            "vacuous: no position has a target"
        )
    else:
        message = f"no influence where none may be; {outputs} of {outputs} outputs see something"
    return Proof(
        name=title,
        passed=leak is None and not blind and outputs > 0,
        compared=f"the declared pattern of who may see whom with what the logits along {stream} "
        f"depend on, told by {form}",
        numbers={
            "worst": strongest_hidden(influence, visible),
            "place": leak.place() if leak else None,
            "tolerance": 0.0,
            "outputs": outputs,
            "invisible pairs": pairs(visible, wanted),
            "precision": "float64",
        },
        why=WHY[form],
        not_covered=NOT_COVERED[form],
        message=message,
        worst=strongest_hidden(influence, visible),
        tolerance=0.0,
    )
