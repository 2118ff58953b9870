"""The whole sequence in one pass, and one target at a time: the same losses, the same gradient."""

from minicpt.batch import IGNORE, target_stream
from minicpt.proofs.both_ways import BothWays, gradient
from minicpt.proofs.bounds import largest
from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.subject import Subject

ORDER = 30
PASSAGES = 4


def equivalence(subject: Subject) -> Proof:
    """Holds ``subject.losses`` against the per-token loss: every loss, the mean, every gradient."""
    learner = subject.learner()
    passages = subject.passages(PASSAGES)
    batch = subject.batch(passages)
    if not any(batch.counts().values()):
        raise NotChecked("needs a target; the first passages have none")
    visibility = subject.objective.visibility(batch)
    for head, target in batch.targets.items():
        own = visibility[head][target_stream(batch)].diagonal(dim1=1, dim2=2)  # (B, T)
        if bool(((target != IGNORE) & ~own).any()):
            return failed(f"head {head!r} has a target where nothing is real: on padding")
    ways = BothWays(learner, lambda some: subject.losses(learner, some), batch, visibility)
    if missing := ways.missing():
        return failed(missing)
    # The gradients of the passages are added, and may cancel.
    size = 0.0
    for passage in passages:
        found = subject.losses(learner, subject.batch([passage]))
        share = gradient(learner, sum(each.total().mean for each in found.values()))
        size = max(size, largest(*share.values()))
    worst, head, at = ways.losses_apart()
    steepest, of = ways.gradients_apart(size)
    one = ways.together[head]
    place = f"head {head!r}, {passages[int(one.rows[at])].place}, position {int(one.positions[at])}"
    count = sum(batch.counts().values())
    once, apiece = ways.seconds
    mean, alone = (f"{float(each.detach()):.12f}" for each in ways.means())
    passed = worst <= ways.tolerance and steepest <= ways.tolerance
    return Proof(
        name="equivalence",
        passed=passed,
        compared=f"one forward pass with {count}, one for each target, run on just what that target"
        " may see",
        numbers={
            "targets": count,
            "loss in one pass": mean,
            "loss token by token": alone,
            "largest difference of a loss": worst,
            "its place": place,
            "largest difference of a gradient": steepest,
            "of": of,
            "tolerance of both, relative to what is added": ways.tolerance,
            "one forward pass took": f"{1000 * once:.1f} ms",
            f"{count} forward passes took": f"{1000 * apiece:.1f} ms",
        },
        why="Each position computes the same from what it may see, whether or not the rest is"
        " there.",
        not_covered="Other sizes of the model, other texts, lower precision.",
        message=""
        if passed
        else f"a loss differs by {worst:.1e} ({place}), a gradient by {steepest:.1e} ({of}),"
        " relative to what is added",
        worst=max(worst, steepest),
        tolerance=ways.tolerance,
    )


def failed(message: str) -> Proof:
    return Proof("equivalence", False, "the number of losses with the number of targets",
                 message=message)  # fmt: skip
