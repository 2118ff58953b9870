"""The exercises: right solutions pass, wrong ones are named, and a learner's code harms nothing."""

import json
import textwrap
from pathlib import Path

import pytest
import torch
from learners import RIGHT, WRONG

from minicpt import exercises
from minicpt.exercises.child import called, decode, encode
from minicpt.exercises.judging import judge
from minicpt.exercises.runner import Answer, Failed

KNOWN = exercises.known()


def source(name: str, body: str) -> str:
    """The file of an exercise, filled in."""
    text = KNOWN[name].as_file(1, 1)
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ").strip()
    return text.replace("raise NotImplementedError  # your lines take the place of this", lines)


def verdict(name: str, body: str):
    """Judged in this process: but for that, as the command does it."""
    space = {}
    exec(source(name, body), space)
    function = space[KNOWN[name].function]

    def answer(*inputs):
        try:
            value, changed = called(function, [decode(encode(each)) for each in inputs])
        except Exception as error:
            raise Failed("raised", repr(error)) from None
        return Answer(decode(encode(value)), tuple(changed))

    return judge(KNOWN[name], answer)


@pytest.mark.parametrize("name, body", [(name, body) for name in RIGHT for body in RIGHT[name]])
def test_a_right_solution_passes(name, body):
    found = verdict(name, body)
    assert found.state == "right", found.problem
    assert all(proof.passed for proof in found.proofs)
    assert bool(found.proofs) == bool(KNOWN[name].proofs)


@pytest.mark.parametrize(
    "name, fault, body", [(name, *each) for name in WRONG for each in WRONG[name]]
)
def test_a_typical_wrong_solution_is_named(name, fault, body):
    found = verdict(name, body)
    assert found.state == "wrong"
    assert found.fault == fault, found.problem
