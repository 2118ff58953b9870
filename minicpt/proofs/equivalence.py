"""The whole sequence in one pass, and one target at a time: the same losses, the same gradient."""

import time

from minicpt.batch import IGNORE
from minicpt.loss import per_token_losses, target_stream
from minicpt.proofs.bounds import additions, gap, largest, nats, tolerance
from minicpt.proofs.result import Proof
from minicpt.proofs.subject import Subject

PASSAGES = 4


def equivalence(subject: Subject) -> Proof:
    """Holds ``subject.losses`` against the per-token loss: every loss, the mean, every gradient."""
    model = subject.copy_of_model()
    passages = subject.passages(PASSAGES)
    batch = subject.batch(passages)
    begun = time.perf_counter()
    together = subject.losses(model, batch)
    once = time.perf_counter() - begun
    visibility = subject.objective.visibility(batch)
    for head, target in batch.targets.items():
        own = visibility[head][target_stream(batch)].diagonal(dim1=1, dim2=2)  # (B, T)
        if bool(((target != IGNORE) & ~own).any()):
            return failed(f"head {head!r} has a target where nothing is real: on padding")
    begun = time.perf_counter()
    alone = per_token_losses(model, batch, visibility)
    apiece = time.perf_counter() - begun
    counts = batch.counts()
    if not sum(counts.values()):
        return failed("vacuous: no position has a target")
    for head, one in together.items():
        if len(one.losses) != counts[head] or len(alone[head].losses) != counts[head]:
            return failed(f"head {head!r}: {len(one.losses)} losses of {counts[head]} targets")
    allowed = tolerance(additions(model, batch))
    unit = nats(*(each.losses for each in alone.values()))
    worst, place = 0.0, ""
    for head, one in together.items():
        found = gap(one.losses, alone[head].losses, unit)
        if len(one.losses) and not found < worst:
            worst, at = found, int((one.losses - alone[head].losses).detach().abs().argmax())
            row, position = int(one.rows[at]), int(one.positions[at])
            place = f"head {head!r}, {passages[row].place}, position {position}"
    gradients = [gradient(model, losses) for losses in (together, alone)]
    # The gradients of the passages are added, and may cancel.
    shares = (gradient(model, subject.losses(model, subject.batch([each]))) for each in passages)
    size = max(largest(*share.values()) for share in shares)
    differences = {name: gap(one, gradients[1][name], size) for name, one in gradients[0].items()}
    steepest = max(differences, key=differences.get)
    passed = worst <= allowed and differences[steepest] <= allowed
    return Proof(
        name="equivalence",
        passed=passed,
        compared=f"{sum(counts.values())} targets: one forward pass against one for each target, "
        "run on just what that target may see",
        numbers={
            "targets": sum(counts.values()),
            "loss in one pass": f"{mean(together):.12f}",
            "loss token by token": f"{mean(alone):.12f}",
            "largest difference of a loss": worst,
            "its place": place,
            "largest difference of a gradient": differences[steepest],
            "of": steepest,
            "tolerance of both, relative to what is added": allowed,
            "one forward pass took": f"{1000 * once:.1f} ms",
            f"{sum(counts.values())} forward passes took": f"{1000 * apiece:.1f} ms",
        },
        why="Each position computes the same from what it may see, whether or not the rest is"
        " there.",
        not_covered="Other sizes of the model, other texts, lower precision.",
        message=""
        if passed
        else f"a loss differs by {worst:.1e} ({place}), a gradient by {differences[steepest]:.1e} "
        f"({steepest}), relative to what is added",
        worst=max(worst, differences[steepest]),
        tolerance=allowed,
    )


def mean(losses) -> float:
    return float(sum(each.total().mean for each in losses.values()).detach())


def gradient(model, losses) -> dict:
    model.zero_grad()
    sum(each.total().mean for each in losses.values()).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def failed(message: str) -> Proof:
    return Proof(
        name="equivalence",
        passed=False,
        compared="the number of losses with the number of targets",
        numbers={},
        why="",
        not_covered="",
        message=message,
    )
