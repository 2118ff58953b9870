"""Toy piece: no target costs less than nothing.

A skeleton: say here what is proved, and how. The function has the name of its file.
"""

from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.subject import Subject

ORDER = 55  # its place among the proofs


def toy_piece(subject: Subject) -> Proof:
    """Every loss of the first passages. Raises NotChecked without targets."""
    batch = subject.batch(subject.passages(4))
    found = subject.losses(subject.learner(), batch)
    losses = [float(loss) for head in found.values() for loss in head.losses.detach()]
    if not losses:
        raise NotChecked("needs a target; the first passages have none")
    below = max(0.0, -min(losses))
    return Proof(
        name="toy piece",
        passed=below == 0,
        compared=f"{len(losses)} losses with 0",
        why="A loss is minus the logarithm of a probability, which is at most 1.",
        not_covered="Whether the losses are right.",
        message=f"a target costs {-below:g}" if below else "",
        worst=below,
        tolerance=0,
    )
