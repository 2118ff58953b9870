"""No target depends on what it may not see: by derivatives, and by changed tokens.

B batch, T positions of the outputs, S positions of a stream of inputs, D width.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch, target_stream
from minicpt.possible import pooled
from minicpt.proofs.both_ways import Losses
from minicpt.proofs.influence import Ids, Influence, Run, by_changes, by_derivatives
from minicpt.proofs.leaks import (
    BY_CHANGES,
    BY_DERIVATIVES,
    NOT_COVERED,
    WHY,
    pairs,
    strongest_hidden,
    without_source,
    worst_leak,
)
from minicpt.proofs.result import Proof
from minicpt.proofs.subject import Subject

ORDER = 40
SEEN = 3  # passages of which every pair of positions is looked at


def causality(subject: Subject) -> list[Proof]:
    """Holds the model, with its objective, against what the objective declares."""
    batch = subject.batch(subject.passages(SEEN))
    learner = subject.learner()
    losses = None if subject.is_plain else lambda some: subject.losses(learner, some)
    visibility = subject.objective.visibility(batch)
    return prove_causality(learner.model, batch, visibility, losses=losses)


def prove_causality(
    model: nn.Module,
    batch: Batch,
    visibility: Mapping[str, Mapping[str, Tensor]],
    name: str = "",
    losses: Losses | None = None,
) -> list[Proof]:
    """Both forms, for every head of a batch: exactly zero, at every position that has a target.

    model       one of ours, or a copy of one with a fault: read through forward and its heads. A
                copy in float64 is used, in eval mode; it is left as it is
    visibility  head -> stream -> (B, T, S) bool, as ``objective.visibility(batch)`` declares it
    name        goes in front of the proofs' names
    losses      what takes the place of the logits, for an objective that computes more than one
                pass of the model: the losses of a batch by head
    """
    allowed = torch.arange(model.config.vocabulary)
    model = deepcopy(model).double().eval()
    proofs = []
    for head, visible in visibility.items():
        cells = asked(batch, head)
        for form in (BY_DERIVATIVES, BY_CHANGES):
            if form == BY_DERIVATIVES:
                influence = derivatives(model, batch, head, visible, losses)
            else:
                run, ids = outputs_of(model, batch, head, visible, losses)
                influence = by_changes(run, ids, visible, cells, allowed)
            title = " ".join(filter(None, [name, f"causality by {form}, head {head}"]))
            what = f"{'losses' if losses else 'logits'} along {target_stream(batch)}"
            proofs.append(exact_proof(title, form, influence, visible, cells, what))
    return proofs


def asked(batch: Batch, head: str) -> Tensor:
    """(B, T) bool: the positions whose target counts."""
    cells = batch.targets[head] != IGNORE
    return cells & (batch.weights[head] > 0) if head in batch.weights else cells


def outputs_of(
    model: nn.Module, batch: Batch, head: str, visible: Ids, losses: Losses | None
) -> tuple[Run, Ids]:
    """A head's logits, or losses, as a function of the tokens; and the tokens of the batch."""
    ids = {stream: batch.inputs[stream].contiguous() for stream in visible}

    def run(tokens: Ids) -> Tensor:
        inputs = {**batch.inputs, **tokens}
        if losses:
            found = losses(replace(batch, inputs=inputs))[head]
            outputs = found.losses.new_zeros(batch.targets[head].shape)  # (B, T)
            places = found.rows, found.positions
            return outputs.index_put(places, found.losses)[..., None]  # (B, T, 1)
        hidden = model(**inputs)  # (B, T, D)
        hidden = pooled(model.heads[head], hidden, inputs)
        return model.heads[head](hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])

    return run, ids


def derivatives(
    model: nn.Module,
    batch: Batch,
    head: str,
    visible: Ids,
    losses: Losses | None,
    cells: Tensor | None = None,
) -> Influence:
    """How much each target of a head depends on each token, by derivatives.

    cells  (B, T) bool, the positions that are asked for; None: all whose target counts
    """
    run, ids = outputs_of(model, batch, head, visible, losses)
    read = read_by(losses, batch, head) if losses else {}
    leaves = {stream: read.get(stream, each) for stream, each in ids.items()}
    cells = asked(batch, head) if cells is None else cells
    return by_derivatives(lambda _: run(ids), leaves, visible, cells)  # the tokens stay


def read_by(losses: Losses, batch: Batch, head: str) -> Mapping[str, Tensor]:
    """What the model itself reads for a head: in a second pass, other tokens at the same positions.

    The derivatives are those by the look-ups of these. Empty where a part of the objective reads in
    the model's place, which then reads what the batch holds.
    """
    with torch.no_grad():
        return losses(batch)[head].inputs


def exact_proof(
    title: str, form: str, influence: Influence, visible: Ids, wanted: Tensor, what: str
) -> Proof:
    """The proof that what may not be seen has no influence at all, and what may, has some."""
    leak = worst_leak(influence, visible)
    blind = without_source(influence, visible, wanted)
    outputs = int(wanted.sum())
    if leak is not None:
        message = leak.text()
    elif not outputs:
        return Proof(title, None, "", message="needs a target; no position has one")
    elif blind:
        place = f"position {blind[0][1]} of row {blind[0][0]}"
        message = f"vacuous: {place} depends on nothing that it may see"
    else:
        message = f"no influence where none may be; {outputs} of {outputs} outputs see something"
    return Proof(
        name=title,
        passed=leak is None and not blind,
        compared=f"what the {what} depend on, told by {form}, with the declared pattern of who may"
        " see whom",
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
