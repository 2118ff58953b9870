"""The whole sequence in one pass, and one target at a time: the same losses, the same gradient."""

import time

import torch

from minicpt.batch import IGNORE
from minicpt.loss import per_token_losses, target_stream
from minicpt.verify.result import Proof, worse
from minicpt.verify.subject import Subject

LOSS_TOLERANCE = 1e-12  # nats, in float64
GRADIENT_TOLERANCE = 1e-10
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
    worst, place = 0.0, ""
    for head, one in together.items():
        difference = (one.losses - alone[head].losses).detach().abs().nan_to_num(torch.inf)
        if len(difference) and float(difference.max()) >= worst:
            worst, at = float(difference.max()), int(difference.argmax())
            row, position = int(one.rows[at]), int(one.positions[at])
            place = f"head {head!r}, {passages[row].place}, position {position}"
    gradients = [gradient(model, losses) for losses in (together, alone)]
    apart = {
        name: float((gradients[0][name] - gradients[1][name]).abs().nan_to_num(torch.inf).max())
        for name in gradients[0]
    }
    steepest = max(apart, key=apart.get)
    passed = worst <= LOSS_TOLERANCE and apart[steepest] <= GRADIENT_TOLERANCE
    nearest = worse([(worst, LOSS_TOLERANCE), (apart[steepest], GRADIENT_TOLERANCE)])
    return Proof(
        name="equivalence",
        passed=passed,
        compared=f"one forward pass with {sum(counts.values())}, one for each target, "
        "run on just what that target may see",
        numbers={
            "targets": sum(counts.values()),
            "loss in one pass": f"{mean(together):.12f}",
            "loss token by token": f"{mean(alone):.12f}",
            "largest difference of a loss": worst,
            "its place": place,
            "tolerance of a loss": LOSS_TOLERANCE,
            "largest difference of a gradient": apart[steepest],
            "of": steepest,
            "tolerance of a gradient": GRADIENT_TOLERANCE,
            "one forward pass took": f"{1000 * once:.1f} ms",
            f"{sum(counts.values())} forward passes took": f"{1000 * apiece:.1f} ms",
        },
        why="Each position computes the same from what it may see, whether or not the rest is"
        " there.",
        not_covered="Other sizes of the model, other texts, lower precision.",
        message=""
        if passed
        else f"a loss differs by {worst:.1e} ({place}), a gradient by {apart[steepest]:.1e} "
        f"({steepest})",
        worst=nearest[0],
        tolerance=nearest[1],
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
