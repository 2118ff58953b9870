"""The loss does not move with the amount of padding, the pad id, or the order of the batch."""

import torch
import torch.nn.functional as F

from minicpt.batch import IGNORE, Batch, valid_positions
from minicpt.proofs.bounds import additions, gap, nats, tolerance
from minicpt.proofs.result import Proof
from minicpt.proofs.subject import Subject

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
    model = subject.copy_of_model()
    expected = [losses(subject, model, subject.batch([passage])) for passage in passages]
    found = {
        "together": rows(subject, model, batch, range(count)),
        "in reverse order": rows(
            subject, model, permuted(batch, range(count)[::-1]), range(count)[::-1]
        ),
        f"with {EXTRA} more columns": rows(subject, model, widened(batch, 0), range(count)),
        "with another pad id": rows(subject, model, widened(batch, last, True), range(count)),
        "beside a row of padding alone": rows(
            subject, model, with_empty_row(batch), range(count)
        ),
    }
    problems, worst = [], 0.0
    unit, allowed = nats(*expected), tolerance(additions(model, batch))
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
    model.zero_grad()
    with_it = subject.losses(model, with_empty_row(batch))
    sum(each.total().mean for each in with_it.values()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        problems.append("a row of padding alone makes the gradient NaN")
    return Proof(
        name="padding and order",
        passed=not problems,
        compared=f"the losses of {count} passages, each alone, with those of one batch: in"
        f" order, reversed, with {EXTRA} more columns of padding, with another pad id, beside a"
        " row of padding alone",
        numbers={"largest difference of a loss": worst, "tolerance": allowed},
        why="No real position may look at padding, and padding has no target.",
        not_covered="Padding inside a text.",
        message="; ".join(problems[:2]),
        worst=worst,
        tolerance=allowed,
    )


def losses(subject: Subject, model, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([each.losses for each in subject.losses(model, batch).values()])


def rows(subject: Subject, model, batch: Batch, order) -> dict[int, torch.Tensor]:
    """The losses of each passage; row i of the batch holds passage ``order[i]``."""
    with torch.no_grad():
        found = list(subject.losses(model, batch).values())
    return {
        passage: torch.cat([each.losses[each.rows == row] for each in found])
        for row, passage in enumerate(order)
    }


def permuted(batch: Batch, order) -> Batch:
    order = list(order)
    return Batch(
        {name: value[order] for name, value in batch.inputs.items()},
        {head: target[order] for head, target in batch.targets.items()},
    )


def widened(batch: Batch, pad: int, everywhere: bool = False) -> Batch:
    """More padding on the right; ``everywhere`` puts ``pad`` into the padding that is there too."""
    inputs = {}
    for name, value in batch.inputs.items():
        fill = {torch.bool: False}.get(value.dtype, pad if "tokens" in name else 0)
        if everywhere and "tokens" in name:
            mask = batch.inputs["decoder_mask" if name.startswith("decoder_") else "mask"]
            value = torch.where(valid_positions(mask), value, pad)
        # A pattern of who sees whom grows by rows and columns.
        inputs[name] = F.pad(value, (0, EXTRA) * (value.dim() - 1), value=fill)
    targets = {
        head: torch.cat([target, target.new_full((len(target), EXTRA), IGNORE)], dim=1)
        for head, target in batch.targets.items()
    }
    return Batch(inputs, targets)


def with_empty_row(batch: Batch) -> Batch:
    """One more row in which nothing is real and nothing has a target."""
    inputs = {
        name: torch.cat([value, torch.zeros_like(value[:1])])
        for name, value in batch.inputs.items()
    }
    targets = {
        head: torch.cat([target, torch.full_like(target[:1], IGNORE)])
        for head, target in batch.targets.items()
    }
    return Batch(inputs, targets)
