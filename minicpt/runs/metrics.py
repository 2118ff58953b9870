"""``metrics.jsonl`` in the folder of a run: a line of JSON for each step and each evaluation.

    {"kind": "step", "step": 7, "loss": 3.2, "losses": {"tokens": 3.2}, "terms": {"kl": 0.01},
     "learning_rate": 0.001, "tokens": 512, "tokens_per_second": 9000.0, "seconds": 0.057}
    {"kind": "evaluation", "step": 10, "held out": {...}, "old text": {...},
     "gained": {"bits/byte": 0.2}, "forgotten": {"bits/byte": 0.1}, "seconds": 1.2}

Of a step:

    loss           nats per target: the sum over heads of head weight times the head's loss
    losses         nats per target by head; a head without a target in this step is left out
    terms          what each term and remedy added to the loss, by name
    learning_rate  with which the weights were changed
    tokens         the real positions that the model read

Of an evaluation:

    held out, old text   as ``Evaluation.summary`` gives them; ``total`` is what ``loss`` is above
    gained, forgotten    by unit, see ``table``; only where there is a base
    also                 objective -> text -> summary, with ``--also``

Seconds are those of this step or evaluation alone. A number that is not finite is null.
``history`` reads the file.

Each line goes to the system at once, so a kill leaves at most a torn last line. ``resume`` cuts off
all that came after its checkpoint. So no step stands here twice, and the file ends as that of a run
that was never interrupted, times apart.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from minicpt import checkpoint

NAME = "metrics.jsonl"
BEGIN = b'{"kind": "'  # of every line


class Metrics:
    """The file of one run, open for the next line; without a folder, nothing is written.

    step, evaluated  the last step, and the last evaluation, that the run's checkpoint knows
    say              is told once where the file cannot be written; the training goes on
    """

    def __init__(
        self, folder: Path | None, step: int, evaluated: int, say: Callable[[str], None]
    ):
        self.path, self.say, self.file = folder and folder / NAME, say, None
        self.stepped = step > 0
        if self.path:
            try:
                cut(self.path, step, evaluated)
                self.file = open(self.path, "ab", buffering=0)
            except OSError as error:
                self.refused(error)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *exception) -> None:
        """Closes the file; that of a run without a single step is removed."""
        if self.file:
            self.file.close()
            if not self.stepped:
                self.path.unlink(missing_ok=True)

    def add(self, kind: str, step: int, **values) -> None:
        self.stepped = self.stepped or kind == "step"
        if self.file:
            line = json.dumps(finite({"kind": kind, "step": step} | values)).encode() + b"\n"
            try:
                if self.file.write(line) < len(line):
                    raise OSError(None, "the disk is full")
            except OSError as error:
                self.file.close()
                self.file = None
                self.refused(error)

    def refused(self, error: OSError) -> None:
        self.say(f"{self.path} cannot be written ({error.strerror}); going on without it")


def finite(value):
    """The same plain data with None for numbers that JSON does not know.

    >>> finite({"a": [1.5, float("nan")]})
    {'a': [1.5, None]}
    """
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cut(path: Path, step: int, evaluated: int) -> None:
    """Cuts off the lines after a step and after an evaluation, and one that a kill tore."""
    if not path.exists():
        return
    last, size = {"step": step, "evaluation": evaluated}, 0
    with open(path, "rb") as file:
        for line in file:
            try:
                found = json.loads(line)
                if not line.endswith(b"\n") or found["step"] > last[found["kind"]]:
                    break
            except (ValueError, TypeError, LookupError):
                break
            size += len(line)
    os.truncate(path, size)


def clear(folder: Path) -> None:
    """Removes the file of a killed run that had no checkpoint yet; never one of somebody else."""
    path = folder / NAME
    if path.is_file() and not checkpoint.steps(folder):
        with open(path, "rb") as file:
            begin = file.read(len(BEGIN))
        if BEGIN.startswith(begin):
            path.unlink()
