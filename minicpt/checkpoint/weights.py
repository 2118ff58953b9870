"""Weights files: torch's own format and safetensors, each whole or in shards with an index.

    model.safetensors, model.safetensors.index.json    with the extra hf
    pytorch_model.bin, pytorch_model.bin.index.json    torch alone

Reading runs no code (``weights_only=True``), and ``describe`` tells what the files claim to hold
before it is allocated. Leaves out whose names these are: see ``pretrained``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minicpt.checkpoint import containers
from minicpt.common.disk import MEBIBYTE, check_file, read_json
from minicpt.common.errors import InputError

TORCH, SAFETENSORS = "pytorch_model.bin", "model.safetensors"
FORMS = (SAFETENSORS, SAFETENSORS + ".index.json", TORCH, TORCH + ".index.json")
# The packages of the extra hf. Their names alone: minicpt itself may be a checkout.
INSTALL = "pip install safetensors numpy"
POINTER = b"version https://git-lfs"  # what git leaves in place of a large file
MOST_INDEX = 16 * MEBIBYTE

Reader = Callable[[Path], dict[str, Tensor]]


def read(path: Path) -> dict[str, Tensor]:
    """The weights in a file, in those that an index lists, or in a folder (as ``chosen`` finds).

    The files are mapped, except for torch's old format: see ``filling``.

    Raises InputError where there is none, or a file is damaged, missing, or not what it says.
    """
    return _each_file(chosen(path) if path.is_dir() else path, _read_file)


def describe(path: Path) -> tuple[dict[str, Tensor], int]:
    """The shapes of a weights file's tensors (or an index's), on the meta device; bytes on disk.

    The old format of torch cannot be described: then there are no tensors. Raises as ``read``.
    """
    sizes: list[int] = []

    def describe_file(file: Path) -> dict[str, Tensor]:
        sizes.append(check_file(file))
        return _named_tensors(file, _claims(file))

    return _each_file(path, describe_file), sum(sizes)


def chosen(folder: Path) -> Path:
    """The weights file or index in a folder: of ``FORMS`` the first that can be read here."""
    found = [name for name in FORMS if (folder / name).is_file()]
    if not found:
        raise InputError(f"{folder} holds no weights: give a folder with {' or '.join(FORMS[::2])}")
    # Without safetensors any other form will do; if there is none, reading says what to install.
    others = [name for name in found if not name.startswith(SAFETENSORS)]
    return folder / (others[0] if others and not has_safetensors() else found[0])


def _each_file(path: Path, reader: Reader) -> dict[str, Tensor]:
    return _each_shard(path, reader) if path.suffix == ".json" else reader(path)


def has_safetensors() -> bool:
    try:
        import safetensors.torch  # noqa: F401
    except ImportError:
        return False
    return True


def _read_file(path: Path) -> dict[str, Tensor]:
    """One weights file: name -> tensor. InputError if it holds anything else."""
    load = _load_safetensors if path.suffix == ".safetensors" else map_tensors
    return _named_tensors(path, load(path))


def _named_tensors(path: Path, tensors: Any) -> dict[str, Tensor]:
    if not isinstance(tensors, dict):
        kind = type(tensors).__name__
        raise InputError(f"{path} holds a {kind} and no weights; use another checkpoint")
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            shown = repr(name[:60]) if isinstance(name, str) else f"a name of {type(name).__name__}"
            raise InputError(
                f"{path} does not hold weights alone ({shown} is no tensor); give a file of"
                " names and tensors"
            )
    return tensors


def _claims(path: Path) -> dict[str, Tensor]:
    """What a weights file says it holds, checked by ``containers``."""
    try:
        if path.suffix == ".safetensors":
            return containers.safetensors_header(path)
        if not containers.check_torch(path):
            return {}
        return torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file it cannot read
        raise unreadable(path, error) from error


def _each_shard(index: Path, reader: Reader) -> dict[str, Tensor]:
    """What ``reader`` gives for the files that an index lists: {"weight_map": {name: file}}."""
    places = read_json(index, MOST_INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(each, str) for each in places.values()):
        raise InputError(f"{index} has no weight_map of names and files; give the index it was")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise InputError(f"{index} names {name!r}, which is no file beside it; do not trust it")
        path = index.parent / name
        if not path.is_file():
            raise InputError(f"{path} is missing, and {index.name} lists it; fetch all shards")
        shard = reader(path)
        if twice := sorted(shard.keys() & tensors.keys()):
            raise InputError(f"{path} holds {twice[0]} a second time; fetch all shards anew")
        if absent := [each for each in places if places[each] == name and each not in shard]:
            raise InputError(f"{path} does not hold {absent[0]}; fetch all shards anew")
        tensors |= shard
    return tensors


def save_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a file of safetensors; ``need_safetensors`` tells before whether it can be."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        path.touch()
        usual = path.stat().st_mode  # the library would let nobody but the owner read its file
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(usual)
    except SafetensorError as error:  # a full disk, for one
        raise OSError(None, str(error)) from error


def need_safetensors(folder: Path) -> None:
    """Raises InputError where safetensors, or the NumPy that it writes with, is not installed."""
    try:
        import numpy  # noqa: F401
        import safetensors.torch  # noqa: F401
    except ImportError:
        raise InputError(f"{folder} cannot be written without safetensors: {INSTALL}") from None


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(f"{path} cannot be read without safetensors: {INSTALL}") from None
    try:
        return load_file(path)
    except Exception as error:  # the library raises its own kinds
        raise unreadable(path, error) from error


def map_tensors(path: Path) -> Any:
    """As ``load_tensors``, but the numbers stay in the file, except for torch's old format."""
    return load_tensors(path, mapped=True)


def load_tensors(path: Path, mapped: bool = False) -> Any:
    """A file of torch's own format, loaded without running anything in it."""
    check_file(path)
    try:
        mapped = containers.check_torch(path) and mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises many kinds for a file it cannot read
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """The one line for a file that its library refused."""
    if not isinstance(error, OSError) and _begins(path) == POINTER:
        return InputError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull`")
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path} cannot be loaded ({reason[:120]}); use another checkpoint")


def _begins(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(len(POINTER))
