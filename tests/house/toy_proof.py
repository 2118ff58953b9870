"""Toy proof: a small model has parameters (of this test alone)."""

from minicpt.proofs.result import Proof

ORDER = 55


def toy_proof(subject):
    count = sum(each.numel() for each in subject.model.parameters())
    return Proof(
        name="toy proof",
        passed=count > 0,
        compared="the number of parameters with 0",
        why="A model without parameters cannot learn.",
        not_covered="What they are.",
        worst=0.0,
        tolerance=1.0,
    )
