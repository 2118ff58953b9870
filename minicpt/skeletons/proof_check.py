"""Toy piece: the proof holds on the real pieces, and fails on mistaken ones."""

from dataclasses import replace

from minicpt.proofs import suite


def test_the_proof_holds_and_can_fail():
    prove = suite.known()["toy piece"]
    sound, *_ = suite.subjects(["causal-lm"])
    assert prove(sound).passed

    def negative(learner, batch):
        found = sound.losses(learner, batch)
        return {name: replace(each, losses=-each.losses) for name, each in found.items()}

    assert prove(replace(sound, losses=negative)).passed is False
