"""A user's own base: which remedies fit it and this machine, and the command that is recommended.

Memory is counted in copies of the base's weights: a training holds the weights, their gradients and
two moments; with LoRA the weights stand still, and what learns beside them is small. A term holds
the base once more, EWC how much each weight counts as well, and what acts at the end the finished
model and the base. What a step keeps of its activations is left out.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from torch import nn

from minicpt.common.settings import flag
from minicpt.comparison.arms import CONTROL, at_end, compared, parted
from minicpt.comparison.plan import Asked
from minicpt.comparison.summary import Row, best
from minicpt.remedies.base import Remedy
from minicpt.runs.console import command
from minicpt.runs.needs import bytes_of, gib
from minicpt.training.device import Machine

OUT = "runs/continued"
WHOLE, STILL = 4, 1  # copies: weights, gradients, two moments; or weights that stand still


def copies(arm: str) -> int:
    """How many times a training with this arm holds the base's weights.

    >>> copies("nothing"), copies("lora=8"), copies("kl=0.1")
    (4, 1, 5)
    """
    kind = compared().get(parted(arm)[0], Remedy)
    held = STILL if kind.base_within else WHOLE
    held += 2 * at_end(arm)
    terms = kind.on_targets, kind.on_weights
    held += any(mine is not none for mine, none in zip(terms, TERMS, strict=True))
    return held


TERMS = Remedy.on_targets, Remedy.on_weights


def too_large(arms: Iterable[str], base: nn.Module, memory: int) -> dict[str, str]:
    """The arms that need more memory than there is, each with what it needs; 0: it is not known."""
    size = bytes_of(base.parameters())
    return {
        arm: f"about {gib(copies(arm) * size)} GiB"
        for arm in arms
        if memory and arm != CONTROL and copies(arm) * size > memory
    }


def chosen(rows: Sequence[Row], own: str | None) -> Row | None:
    """The row that is recommended: of the base's own objective, if it was compared.

    None where nothing was gained, or the text is too short to choose.
    """
    names = list(dict.fromkeys(row.objective for row in rows))
    name = own if own in names else names[0] if names else None
    found = best([row for row in rows if row.objective == name])
    return found if found and found.second_half["gained"].sign > 0 else None


def recommended(row: Row, asked: Asked, rate: float) -> str:
    """The command that trains as the row was trained, in full.

    rate  the highest learning rate of its objective
    """
    sources, comparison = asked.sources, asked.comparison
    words: list[object] = ["train", row.objective, "--init", sources.init]
    words += ["--corpus", *sources.corpus]
    if sources.old_corpus:
        words += ["--old-corpus", *sources.old_corpus]
    words += ["--blocks"] if sources.blocks else []
    words += ["--errors", sources.errors] if sources.errors != "strict" else []
    training = {"learning_rate": rate} | asked.training(row.arm)
    training |= {"steps": comparison.steps, "batch_size": comparison.batch_size}
    words += ["--window", comparison.window]
    for name, value in training.items():
        words += [f"--{name.replace('_', '-')}", f"{value:g}"]
    for name, settings in asked.remedies(row.arm).items():
        kind = compared()[name].Settings
        words += given(kind, settings)
    machine = dataclasses.asdict(asked.machine) | {"threads": None}
    return command(*words, *given(Machine, machine), "--out", OUT)


def given(kind: type, settings: dict) -> list[object]:
    """The flags for settings that are not the usual ones."""
    words: list[object] = []
    for field in dataclasses.fields(kind):
        value = settings[field.name]
        if value == field.default:
            continue
        if isinstance(value, bool):
            words.append(flag(field) if value else flag(field).replace("--", "--no-", 1))
        elif isinstance(value, tuple):
            words += [flag(field), *value]
        else:
            words += [flag(field), value]
    return words
