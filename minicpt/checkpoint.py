"""Checkpoint folders: written whole or not at all, and checked before anything in them is read.

    config.json, pytorch_model.bin         the model under Hugging Face names, tied weights once
    tokenizer.json, tokenizer_config.json  the tokenizer
    training.json                          what was trained, on what, how far (the record)
    state.pt                               what resuming needs: optimizer, random state, step
    manifest.json                          size and SHA-256 of each of these; written last

A folder is written under a temporary name, synced and renamed, so a kill at any moment leaves the
previous checkpoint whole. Loading runs no code (``weights_only=True``). A folder of somebody else
has no manifest: it can be started from, as unverified, but not resumed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from minicpt import pretrained
from minicpt.data.tokenizer import Tokenizer
from minicpt.errors import InputError, WorkError

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "pytorch_model.bin"
RECORD = "training.json"
STATE = "state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded folder. ``record`` is empty for a folder that minicpt has not written."""

    folder: Path
    model: nn.Module
    tokenizer: Tokenizer
    record: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def state(self) -> dict:
        """What ``Trainer.restore`` takes."""
        return load_tensors(self.folder / STATE)


# --- writing ---------------------------------------------------------------------------------


def save(folder: Path, model: nn.Module, tokenizer: Tokenizer, record: dict, state: dict) -> None:
    """Writes a checkpoint at ``folder``, in place of one that is there.

    What a process that was killed while it wrote has left in the same run is cleared away. Raises
    WorkError when the disk refuses; then what was there before is whole.
    """
    for stale in folder.parent.glob(".step-*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)
    config = pretrained.export_config(model) | token_ids(tokenizer)

    def write(temporary: Path) -> None:
        write_json(temporary / "config.json", config)
        torch.save(pretrained.export_state(model), temporary / WEIGHTS)
        tokenizer.save(temporary)
        write_json(temporary / RECORD, record)
        torch.save(state, temporary / STATE)

    write_folder(folder, write)


def token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The special tokens as config.json names them."""
    names = {"pad": "pad_token_id", "end": "eos_token_id", "cls": "bos_token_id"}
    ids = {names[role]: id for role, id in tokenizer.roles.items() if role in names}
    if "end" in tokenizer.roles:
        ids["bos_token_id"] = tokenizer.roles["end"]
    if "pad" in tokenizer.roles:
        ids["decoder_start_token_id"] = tokenizer.roles["pad"]
    return ids


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fills a temporary folder by ``write``, adds the manifest, and renames it to ``folder``."""
    temporary = folder.parent / f".{folder.name}.tmp"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        paths = sorted(temporary.iterdir())
        files = {path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in paths}
        write_json(temporary / MANIFEST, {"format": FORMAT, "files": files})
        for path in [*paths, temporary / MANIFEST, temporary]:
            sync(path)
        if folder.exists():
            old = folder.parent / f".{folder.name}.old.tmp"
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(folder)
        sync(folder.parent)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise WorkError(
            f"cannot write the checkpoint {folder}: {reason}; what was there before is whole"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    """Asks the system to put a file or folder on the disk (folders: not possible on Windows)."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# --- reading ---------------------------------------------------------------------------------


def find(path: str | Path) -> tuple[Path, list[str]]:
    """The checkpoint that ``path`` stands for, and what there is to say about the choice.

    A folder with a config.json is one itself; in the folder of a run it is the newest step whose
    manifest holds. Raises InputError where there is none.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; give one that `minicpt train` wrote")
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
    return sorted(path for path in run.glob("step-*") if path.is_dir())


def verify(folder: Path) -> None:
    """Holds every file against the manifest; InputError names the first that differs."""
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT or not isinstance(manifest.get("files"), dict):
        raise InputError(
            f"{folder / MANIFEST} is of format {manifest.get('format')!r}, and this minicpt reads"
            f" {FORMAT}; use the minicpt that wrote it"
        )
    for name, expected in manifest["files"].items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise InputError(f"{folder} is damaged: {name} is missing; use another checkpoint")
        if [path.stat().st_size, sha256(path)] != [expected.get("size"), expected.get("sha256")]:
            raise InputError(
                f"{folder} is damaged: {name} differs from the manifest; use another checkpoint"
            )
    for name in ("config.json", WEIGHTS, "tokenizer.json", RECORD):
        if name not in manifest["files"]:
            raise InputError(f"{folder} is damaged: the manifest does not list {name}")


def load(path: str | Path, **changes) -> Checkpoint:
    """Loads the checkpoint that ``path`` stands for. Raises InputError with one line.

    ``changes`` replace values of the model's config that no weight depends on, such as dropout.
    """
    folder, notes = find(path)
    record = {}
    if (folder / MANIFEST).exists():
        verify(folder)
        record = read_json(folder / RECORD)
        changes = {"fused": record["fused"]} | changes
    else:
        notes.append(f"{folder} has no manifest: its files are unverified")
    model = pretrained.build(read_json(folder / "config.json"), **changes)
    notes += pretrained.import_state(model, load_tensors(folder / WEIGHTS))
    return Checkpoint(folder, model, Tokenizer.load(folder), record, notes)


def load_tensors(path: Path) -> dict:
    """A file of torch's own format, loaded without running anything in it."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; use another checkpoint") from None
    except Exception as error:  # torch raises many kinds for a file it cannot read
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} cannot be loaded ({reason[:120]}); use another checkpoint"
        ) from error


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; give a whole checkpoint folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); use another checkpoint") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold a JSON object; use another checkpoint")
    return content


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
