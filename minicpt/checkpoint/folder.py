"""Checkpoint folders: written whole or not at all, and checked before anything in them is read.

    config.json, pytorch_model.bin         the model under Hugging Face names, tied weights once
    tokenizer.json, tokenizer_config.json  the tokenizer
    training.json                          what was trained, on what, how far (the record)
    state.pt                               what resuming needs: optimizer, random state, step
    manifest.json                          size and SHA-256 of each of these, and of itself

Where the weights are spread over processes, what ``sharded`` says stands in place of the two files
of numbers.

A folder is written under a temporary name, synced and renamed, so a kill at any moment leaves the
previous checkpoint whole. Loading runs no code (``weights_only=True``). A folder of somebody else
has no manifest: it can be started from, as unverified, but not resumed. ``export`` writes such a
folder: config, ``model.safetensors`` and tokenizer, and nothing else.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from minicpt.checkpoint import huggingface, sharded, weights
from minicpt.checkpoint.pieces import is_sharded
from minicpt.common.disk import (
    MEBIBYTE,
    digest,
    put_folder,
    read_json,
    recover,
    sha256,
    write_folder,
    write_json,
)
from minicpt.common.errors import InputError
from minicpt.common.shown import Shown, Table
from minicpt.data.tokenizer import Tokenizer

FORMAT = 3
MANIFEST = "manifest.json"
WEIGHTS = weights.TORCH
RECORD = "training.json"
STATE = "state.pt"
OURS = (RECORD, STATE, sharded.INDEX, sharded.STATE)  # nobody else writes these
MOST_RECORD = 256 * MEBIBYTE  # it grows with the evaluations of a run


@dataclass(frozen=True, repr=False)
class Checkpoint(Shown):
    """A loaded folder. ``record`` is empty for a folder that minicpt has not written."""

    folder: Path
    model: nn.Module
    tokenizer: Tokenizer
    record: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def shown(self) -> Table:
        numbers = sum(each.numel() for each in self.model.parameters())
        rows = [["parameters", f"{numbers:,}"], ["vocabulary", f"{self.tokenizer.size:,}"]]
        known = {"objective": " and ".join(trained_by(self.record)) or None}
        known["steps"] = self.record.get("step")
        rows += [[name, str(value)] for name, value in known.items() if value is not None]
        title = f"{type(self.model).__name__}, from {self.folder}"
        return Table(title, ["of it", "value"], rows, self.notes)

    def state(self) -> dict:
        """What ``resuming.restore`` takes."""
        if (self.folder / sharded.INDEX).exists():
            return sharded.read_state(self.folder)
        return weights.load_tensors(self.folder / STATE)


def trained_by(record: Mapping[str, dict]) -> list[str]:
    """The names of the objectives that trained a run, by its record: one, or two that are mixed."""
    if "config" not in record:
        return []
    config = record["config"]
    return [config["objective"], *config.get("mixing", {}).get("mix", ())[:1]]


# --- writing ---------------------------------------------------------------------------------


def save(folder: Path, model: nn.Module, tokenizer: Tokenizer, record: dict, state: dict) -> None:
    """Writes a checkpoint at ``folder``, in place of one that is there.

    All processes of a run call it. Where they hold the same weights, the first one writes. Raises
    WorkError in all of them when the disk refuses; then what was there before is whole.
    """

    def finish(temporary: Path) -> None:
        describe(temporary, model, tokenizer)
        write_json(temporary / RECORD, record)
        write_manifest(temporary)

    def write(temporary: Path) -> None:
        torch.save(huggingface.export_state(model, copy=False), temporary / WEIGHTS)
        torch.save(state, temporary / STATE)
        finish(temporary)

    if is_sharded(model):
        sharded.save(folder, model, state, finish)
    else:
        sharded.agreed(folder, lambda: put_folder(folder, write), alone=True)


def export(folder: Path, model: nn.Module, tokenizer: Tokenizer) -> None:
    """Writes a Hugging Face folder with safetensors, and nothing of ours, at ``folder``.

    Raises InputError where something is there already, or safetensors is not installed.
    """
    check_export(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); name another") from None

    def write(temporary: Path) -> None:
        describe(temporary, model, tokenizer)
        state = huggingface.export_state(model, copy=False)
        weights.save_safetensors(state, temporary / weights.SAFETENSORS)

    write_folder(folder, write)


def check_export(folder: Path) -> None:
    """Raises InputError where ``export`` to ``folder`` would."""
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists already, and nothing is overwritten; name a new folder")
    if "\0" in str(folder):
        raise InputError(f"{str(folder)!r} cannot be the name of a folder; name another")
    weights.need_safetensors(folder)


def describe(folder: Path, model: nn.Module, tokenizer: Tokenizer) -> None:
    """Writes all that other tools need beside the weights: they feed the model as it was trained.

    Which names the inputs have, which special tokens stand around a text, and how long it may be,
    stands in the tokenizer's files: see ``huggingface.feeding``.
    """
    config = huggingface.export_config(model) | tokenizer.config_ids
    write_json(folder / "config.json", config)
    tokenizer.save(folder, huggingface.feeding(model))


def write_manifest(folder: Path) -> None:
    """Adds the manifest of what the folder holds so far."""
    paths = sorted(folder.iterdir())
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in paths}
    content = {"format": FORMAT, "files": files}
    write_json(folder / MANIFEST, content | {"sha256": digest(content)})


# --- reading ---------------------------------------------------------------------------------


def find(path: str | Path) -> tuple[Path, list[str]]:
    """The checkpoint that ``path`` stands for, and what there is to say about the choice.

    A folder with a config.json is one itself; in the folder of a run it is the newest step whose
    manifest holds. Raises InputError where there is none.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; give a run of minicpt or a downloaded one")
    if (path / "config.json").exists() or (path / MANIFEST).exists():
        return path, []
    notes = []
    for folder in reversed(steps(path)):
        try:
            verify(folder)
        except InputError as error:
            notes.append(f"{error}; taking an older one")
            continue
        return folder, notes
    raise InputError(
        f"{path} holds no checkpoint that can be loaded: neither config.json nor a whole step-…"
        f" folder{'; ' + notes[0].split(';')[0] if notes else ''}; give the folder of a run"
    )


def steps(run: Path) -> list[Path]:
    """The checkpoints of a run's folder, oldest first."""
    found = [path for path in run.glob("step-*") if is_step(path) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def is_step(path: Path) -> bool:
    """Whether a path has the name of a run's checkpoint."""
    return re.fullmatch(r"step-\d{1,20}", path.name) is not None


def clean(run: Path) -> None:
    """Clears away what a killed process left in a run's folder. The caller holds its lock."""
    recover(run, "step-*")


def verify(folder: Path, contents: bool = True) -> None:
    """Holds every file against the manifest; InputError names the first that differs.

    contents  whether they are read, which takes a while; otherwise their sizes must do
    """
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files")
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{folder / MANIFEST} is of format {str(manifest.get('format'))[:20]!r}, and this"
            f" minicpt reads {FORMAT}; use the minicpt that wrote it"
        )
    content = {"format": FORMAT, "files": files}
    if not isinstance(files, dict) or manifest != content | {"sha256": digest(content)}:
        raise InputError(f"{folder} is damaged: {MANIFEST} was changed; use another checkpoint")
    for name, expected in files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise InputError(f"{folder} is damaged: {name} is missing; use another checkpoint")
        known = isinstance(expected, dict) and not contents
        hashed = expected.get("sha256") if known else sha256(path)
        if expected != {"size": path.stat().st_size, "sha256": hashed}:
            raise InputError(
                f"{folder} is damaged: {name} differs from the manifest; use another checkpoint"
            )
    numbers = (sharded.INDEX, sharded.STATE) if sharded.INDEX in files else (WEIGHTS, STATE)
    for name in ("config.json", "tokenizer.json", RECORD, *numbers):
        if name not in files:
            raise InputError(f"{folder} is damaged: the manifest does not list {name}")
    for path in folder.iterdir():
        if path.name not in files and path.name != MANIFEST and not path.name.startswith("."):
            raise InputError(
                f"{folder} holds {path.name}, which the manifest does not list; take it out"
            )


def load(path: str | Path, seed: int = 0, **changes) -> Checkpoint:
    """Loads the checkpoint, or a folder of somebody else, that ``path`` stands for.

    A head that the folder lacks is initialised from ``seed``, and a note says so. ``changes``
    replace values of the model's config that no weight depends on, such as dropout. What the
    files claim to hold is held against the config before it is allocated. Raises InputError with
    one line.
    """
    folder, notes = find(path)
    record = {}
    if (folder / MANIFEST).exists():
        verify(folder)
        record = read_json(folder / RECORD, MOST_RECORD)
        changes = {"fused": bool(record.get("fused", True))} | changes
    elif left := [name for name in OURS if os.path.lexists(folder / name)]:
        raise InputError(
            f"{folder} is damaged: it holds {left[0]} and no {MANIFEST}; use another checkpoint"
        )
    else:
        notes.append(f"{folder} has no manifest: its files are unverified")
    config = read_json(folder / "config.json")
    huggingface.read_config(config)  # a model that is not ours is refused before it is read
    if record and (folder / sharded.INDEX).exists():
        model, lacking = sharded.read_model(folder, config, **changes), []
    else:
        model, lacking = read_model(folder, config, bool(record), seed, **changes)
    tokenizer = Tokenizer.load(folder)
    start, pad = getattr(model.config, "pad", None), tokenizer.roles.get("pad")
    if start is not None and pad not in (None, start):
        raise InputError(
            f"{folder}: pad_token_id is {start} in config.json, and the tokenizer's pad token is"
            f" {pad}; use files that belong together"
        )
    return Checkpoint(folder, model, tokenizer, record, notes + lacking)


def read_model(
    folder: Path, config: dict, ours: bool, seed: int, **changes
) -> tuple[nn.Module, list[str]]:
    """The model in a folder with a weights file, and one note for each part that it lacks.

    ours  whether minicpt wrote the file
    """
    file = folder / WEIGHTS if ours else weights.chosen(folder)
    described, size = weights.describe(file)
    huggingface.check_size(config, size)
    if described:
        huggingface.check(config, described, size, **changes)
    tensors = weights.read(file)
    mapped = bool(described)  # what can be described, is
    return huggingface.load(config, tensors, seed, mapped, **changes)
