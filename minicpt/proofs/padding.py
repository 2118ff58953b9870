"""The loss does not move with the amount of padding, the pad id, or the order of the batch."""

from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from minicpt.batch import IGNORE, Batch, valid_positions
from minicpt.proofs.bounds import additions, gap, nats, tolerance
from minicpt.proofs.result import Proof
from minicpt.proofs.subject import Subject

ORDER = 50
PASSAGES = 5  # at most
EXTRA = 3  # columns of padding added


def padding(subject: Subject) -> Proof:
    """Each target's loss with company, alone, in another order, with more and other padding.

    A row of padding alone is added too: it must leave losses and gradients finite and as they are.
    """
    passages = subject.passages(PASSAGES)
    count = len(passages)
    batch = subject.batch(passages)
    last = subject.tokenizer.size - 1
    learner = subject.learner()
    expected = [losses(subject, learner, subject.batch([passage])) for passage in passages]
    found = {
        "together": rows(subject, learner, batch, range(count)),
        "in reverse order": rows(
            subject, learner, permuted(batch, range(count)[::-1]), range(count)[::-1]
        ),
        f"with {EXTRA} more columns": rows(subject, learner, widened(batch, 0), range(count)),
        "with another pad id": rows(subject, learner, widened(batch, last, True), range(count)),
        "beside a row of padding alone": rows(
            subject, learner, with_empty_row(batch), range(count)
        ),
    }
    problems, worst = [], 0.0
    unit, allowed = nats(*expected), tolerance(additions(learner, batch))
    for way, each in found.items():
        for place, passage in enumerate(passages):
            one, other = expected[place], each[place]
            if one.shape != other.shape:
                problems.append(
                    f"{way}, {passage.place} has {len(other)} targets instead of {len(one)}"
                )
                continue
            difference = gap(one, other, unit)
            worst = max(worst, difference)
            if difference > allowed:
                problems.append(f"{way}, a loss of {passage.place} differs by {difference:.1e}")
    with_it = subject.losses(learner, with_empty_row(batch))
    sum(each.total().mean for each in with_it.values()).backward()
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        problems.append("a row of padding alone makes the gradient NaN")
    return Proof(
        name="padding and order",
        passed=not problems,
        compared=f"{count} passages alone with the same in one batch, each target's loss: in"
        f" order, reversed, with {EXTRA} more columns of padding, with another pad id, beside a"
        " row of padding alone",
        numbers={"largest difference of a loss": worst, "tolerance": allowed},
        why="No real position may look at padding, and padding has no target.",
        not_covered="Padding inside a text.",
        message="; ".join(problems[:2]),
        worst=worst,
        tolerance=allowed,
    )


def losses(subject: Subject, learner, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([each.losses for each in subject.losses(learner, batch).values()])


def rows(subject: Subject, learner, batch: Batch, order) -> dict[int, torch.Tensor]:
    """The losses of each passage; row i of the batch holds passage ``order[i]``."""
    with torch.no_grad():
        found = list(subject.losses(learner, batch).values())
    return {
        passage: torch.cat([each.losses[each.rows == row] for each in found])
        for row, passage in enumerate(order)
    }


def changed(batch: Batch, change: Callable[[str, str, Tensor], Tensor]) -> Batch:
    """The batch with ``change(part, name, tensor)`` in each tensor's place."""
    return Batch(**{
        field.name: {
            name: change(field.name, name, value)
            for name, value in getattr(batch, field.name).items()
        }
        for field in fields(Batch)
    })  # fmt: skip


def permuted(batch: Batch, order: Sequence[int]) -> Batch:
    return changed(batch, lambda part, name, value: value[list(order)])


def widened(batch: Batch, pad: int, everywhere: bool = False) -> Batch:
    """More padding on the right; ``everywhere`` puts ``pad`` into the padding that is there too."""

    def wide(part: str, name: str, value: Tensor) -> Tensor:
        ids = part == "inputs" and "tokens" in name
        if everywhere and ids:
            real = valid_positions(batch.inputs[name.replace("tokens", "mask")])
            value = torch.where(real, value, pad)
        fill = pad if ids else IGNORE if part == "targets" else 0
        both_ways = value.dim() == 3 and name.endswith("mask")  # who sees whom: rows and columns
        sides = (0, EXTRA) * 2 if both_ways else (0, 0) * (value.dim() - 2) + (0, EXTRA)
        return F.pad(value, sides, value=fill)

    return changed(batch, wide)


def with_empty_row(batch: Batch) -> Batch:
    """One more row in which nothing is real and nothing has a target."""

    def more(part: str, name: str, value: Tensor) -> Tensor:
        row = torch.full_like(value[:1], IGNORE if part == "targets" else 0)
        return torch.cat([value, row])

    return changed(batch, more)
