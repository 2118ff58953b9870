"""What the lines of ``metrics.jsonl`` tell of a run, also while it is written, or after a kill.

Nothing of it needs the model or the text. Leaves out what the checkpoints hold: see ``inventory``.
"""

import json
import math
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from minicpt import checkpoint
from minicpt.common.errors import InputError
from minicpt.runs import metrics
from minicpt.runs.table import CHANGES


def numbers() -> array:
    return array("d")


@dataclass
class History:
    """A run's steps as columns of numbers, in the order of the steps, and its evaluations.

    steps        the number of each step
    loss         nats per target, as ``metrics.jsonl`` has it; NaN: no target, or not finite
    heads        the same of each head
    rate         the learning rate
    tokens, seconds   of each step
    evaluations  as the file has them
    notes        in words: which lines were left out, and why
    """

    folder: Path
    steps: array = field(default_factory=numbers)
    loss: array = field(default_factory=numbers)
    heads: dict[str, array] = field(default_factory=dict)
    rate: array = field(default_factory=numbers)
    tokens: array = field(default_factory=numbers)
    seconds: array = field(default_factory=numbers)
    evaluations: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def changes(self) -> dict[tuple[str, str], list[tuple[int, float]]]:
        """What was gained and forgotten: (change, unit) -> the step and value of each evaluation.

        A base has none.
        """
        found: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for entry in self.evaluations:
            for change, _ in CHANGES.values():
                for unit, value in entry.get(change, {}).items():
                    found.setdefault((change, unit), []).append((entry["step"], number(value)))
        return found

    def take(self, line: dict) -> None:
        """Adds a line. ValueError, TypeError or LookupError for one that minicpt has not written.
        """
        kind, step = line["kind"], line["step"]
        before = self.evaluations[-1]["step"] if self.evaluations else -1
        if kind == "evaluation":
            for change, _ in CHANGES.values():
                list(map(number, line.get(change, {}).values()))
            for name in CHANGES.keys() & line.keys():
                number(line[name]["total"])
            if type(step) is not int or step < before:
                raise ValueError("evaluations come in the order of their steps")
            self.evaluations.append(line)
            return
        if kind != "step" or type(step) is not int or self.steps and step <= self.steps[-1]:
            raise ValueError("steps come one after the other")
        heads = {head: number(value) for head, value in line["losses"].items()}
        loss = number(line["loss"]) if heads else math.nan
        row = [number(line[name]) for name in ("learning_rate", "tokens", "seconds")]
        for head in heads:
            self.heads.setdefault(head, array("d", [math.nan] * len(self.steps)))
        for head, column in self.heads.items():
            column.append(heads.get(head, math.nan))
        columns = self.steps, self.loss, self.rate, self.tokens, self.seconds
        for column, value in zip(columns, [step, loss, *row], strict=True):
            column.append(value)


def number(value: object) -> float:
    """A number of the file: null is NaN, since JSON does not know that."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def history(path: str | Path) -> History:
    """The history of the run whose folder, or one of whose checkpoints, ``path`` is.

    Raises InputError where there is none. Lines that are torn or damaged are left out, and named.
    """
    folder = Path(path)
    if checkpoint.is_step(Path(folder.absolute().name)) and not (folder / metrics.NAME).exists():
        folder = folder.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path} is not a folder; give the folder of a run")
    found, bad = History(folder), []
    try:
        with open(folder / metrics.NAME, "rb") as file:
            for place, line in enumerate(file, 1):
                if not line.endswith(b"\n"):  # every line is written at once, with its end
                    found.notes.append(f"{path}: the last line is half written, and left out")
                    break
                try:
                    found.take(json.loads(line))
                except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
                    bad.append(place)
    except FileNotFoundError:
        raise InputError(
            f"{path} holds no {metrics.NAME}, where a run writes its steps; give the folder of a"
            " run"
        ) from None
    except OSError as error:
        raise InputError(f"{folder / metrics.NAME} cannot be read ({error.strerror})") from None
    if bad:
        lines = f"line {bad[0]} is" if len(bad) == 1 else f"{len(bad)} lines are"
        first = "" if len(bad) == 1 else f" (the first: {bad[0]})"
        found.notes.append(
            f"{folder / metrics.NAME}: {lines} not what minicpt writes, and left out{first}"
        )
    return found
