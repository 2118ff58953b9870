"""Which runs and checkpoints a folder holds, and how far they came. Nothing is loaded or changed.

What is damaged or half written is named beside what is known of it. Leaves out models of somebody
else, all but their place and size: they do not say how they were trained.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minicpt import checkpoint
from minicpt.checkpoint.folder import MOST_RECORD, trained_by
from minicpt.common.disk import read_json
from minicpt.common.errors import InputError
from minicpt.runs import metrics
from minicpt.runs.history import history, number
from minicpt.runs.lock import running
from minicpt.runs.table import BITS, CHANGES, measures

DEPTH = 4  # levels of folders that are searched


@dataclass
class Entry:
    """A run, or a checkpoint. What is not known is None, or empty.

    name         its place, from the folder that was searched
    base         the folder of the base; None: it began from nothing
    step, steps  how many steps are done, and how many there will be
    held_out     the newest held-out loss by unit: bits/byte, or nats/target of each head
    gained, forgotten   since the base, in the same units
    size         bytes on the disk
    running      whether a process is writing to it
    problems     in words: what is damaged or half written
    """

    name: str
    objective: str = ""
    base: str | None = None
    step: int | None = None
    steps: int | None = None
    held_out: dict[str, float] = field(default_factory=dict)
    gained: dict[str, float] = field(default_factory=dict)
    forgotten: dict[str, float] = field(default_factory=dict)
    size: int = 0
    running: bool = False
    problems: list[str] = field(default_factory=list)
    checkpoints: list["Entry"] = field(default_factory=list)

    def evaluated(self, entry: Mapping) -> None:
        """Takes over what an evaluation found."""
        units = measures(entry["held out"]) if "held out" in entry else {}
        self.held_out = {BITS: units[BITS]} if BITS in units else units
        for change, _ in CHANGES.values():
            setattr(self, change, {u: number(x) for u, x in entry.get(change, {}).items()})


def inventory(folder: str | Path, contents: bool = False) -> list[Entry]:
    """All runs and checkpoints in a folder, or the one that it is, sorted by name.

    contents  every file is read and held against its checkpoint's manifest; otherwise their sizes
              are. Raises InputError where there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name one that holds runs")
    return [
        run(path, str(path), contents) if is_run(path) else saved(path, str(path), contents)
        for path in places(folder, DEPTH)
    ]


def places(folder: Path, depth: int) -> Iterator[Path]:
    """The runs and checkpoints in a folder; what stands within one of them belongs to it."""
    if is_run(folder) or is_checkpoint(folder):
        yield folder
    elif depth:
        try:
            within = sorted(path for path in folder.iterdir() if path.is_dir())
        except OSError:  # not ours to read
            return
        for path in within:
            if not path.name.startswith("."):
                yield from places(path, depth - 1)


def is_run(folder: Path) -> bool:
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return metrics.NAME in names or any(
        checkpoint.is_step(Path(name.lstrip(".").split(".")[0])) for name in names
    )


def is_checkpoint(folder: Path) -> bool:
    """Ours, or a model in Hugging Face's form."""
    ours = any((folder / name).exists() for name in (checkpoint.MANIFEST, checkpoint.RECORD))
    weights = (folder / checkpoint.WEIGHTS).exists() or any(folder.glob("*.safetensors"))
    return ours or (folder / "config.json").exists() and weights


def saved(folder: Path, name: str, contents: bool) -> Entry:
    """What a checkpoint says of itself, as far as it can be read."""
    found = Entry(name, size=size_of(folder))
    record = folder / checkpoint.RECORD
    if not (folder / checkpoint.MANIFEST).exists():
        if not record.exists():
            return found  # of somebody else
        found.problems.append(f"{folder} is damaged: {checkpoint.MANIFEST} is missing")
    else:
        try:
            checkpoint.verify(folder, contents)
        except InputError as error:
            found.problems.append(str(error))
        except OSError as error:
            found.problems.append(f"{folder} cannot be read ({error.strerror})")
    try:
        known = read_json(record, MOST_RECORD)
        found.objective = " and ".join(trained_by({"config": known["config"]}))
        found.base = known["base"]
        found.step, found.steps = int(known["step"]), int(known["steps"])
        if known["evaluations"]:
            found.evaluated(known["evaluations"][-1])
    except InputError as error:
        found.problems = found.problems or [str(error)]
    except (LookupError, TypeError, ValueError, AttributeError):
        found.problems.append(f"{record} is not what minicpt writes")
    return found


def run(folder: Path, name: str, contents: bool) -> Entry:
    """A run with its checkpoints: what the newest says, and, more up to date, its metrics."""
    found = Entry(name, size=size_of(folder), running=running(folder))
    found.checkpoints = [
        saved(path, path.name, contents) for path in checkpoint.steps(folder)
    ]
    for each in found.checkpoints:
        if each.objective:  # the newest that can be read is the last
            found.objective, found.base, found.steps = each.objective, each.base, each.steps
            found.step, found.held_out = each.step, each.held_out
            found.gained, found.forgotten = each.gained, each.forgotten
    try:
        lines = history(folder)
        if not found.running:
            found.problems += lines.notes
        if lines.steps:
            found.step = max(found.step or 0, int(lines.steps[-1]))
        if lines.evaluations:
            found.evaluated(lines.evaluations[-1])
    except InputError as error:
        found.problems.append(str(error))
    for path in [] if found.running else sorted(folder.glob(".step-*")):
        found.problems.append(f"{path} is half written: a save was cut off; resume clears it away")
    if not found.checkpoints and not found.running:
        found.problems.append(f"{folder} was stopped before its first checkpoint")
    return found


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; what goes away meanwhile counts nothing."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return size
