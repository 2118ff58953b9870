"""Files and folders on the disk: read within bounds, written whole or not at all.

What is written gets a temporary name (hidden, ending in .tmp) until it is synced, and is renamed
then. A folder that it replaces is put aside first as .NAME.previous, so that at every moment one of
the two is there whole; ``recover`` puts it back after a kill in between. Leaves out what the files
mean.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from minicpt.common.errors import InputError, WorkError

MEBIBYTE = 1 << 20


def check_file(path: Path) -> int:
    """The size in bytes of a file that can be opened without waiting.

    Raises InputError for what is missing, and for a folder, pipe or device.
    """
    try:
        if path.is_file():  # follows links: the Hub keeps its folders as links
            return path.stat().st_size
        reason = "is no regular file" if os.path.lexists(path) else "is missing"
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({error})"
    raise InputError(f"{path} {reason}; give a whole checkpoint folder")


def read_json(path: Path, most: int = MEBIBYTE, remedy: str = "use another checkpoint") -> dict:
    """The object in a JSON file of at most ``most`` bytes, or an InputError."""
    size = check_file(path)
    if size > most:
        raise InputError(f"{path} has {size:,} bytes, and such a file at most {most:,}; look at it")
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: it is not JSON ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object; {remedy}")
    return content


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def digest(content: dict) -> str:
    """The SHA-256 of JSON content, the same in any order of its names.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(MEBIBYTE):
            digest.update(block)
    return digest.hexdigest()


def write_file(path: Path, text: str) -> None:
    """Writes a file under a temporary name, puts it on the disk, and renames it to ``path``.

    Raises WorkError when the disk refuses; then what was there before is whole.
    """
    temporary = hidden(path, "tmp")
    with refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """As ``put_folder``, for one writer alone.

    Raises WorkError when the disk refuses; then what was there before is whole.
    """
    with refusals(folder):
        put_folder(folder, write)


def put_folder(folder: Path, write: Callable[[Path], None], shared: bool = False) -> None:
    """Fills a temporary folder by ``write``, puts it on the disk, and renames it to ``folder``.

    shared  other processes may write the same folder at the same time. The first one that is done
            stays, and what is there is never replaced: that is an OSError

    Raises OSError when the disk refuses; then what was there before is whole.
    """
    suffix = f"{secrets.token_hex(4)}.tmp" if shared else "tmp"
    temporary = hidden(folder, suffix)
    try:
        fresh(temporary)
        write(temporary)
        put_in_place(temporary, folder, shared)
    finally:
        remove(temporary)


def fresh(temporary: Path) -> None:
    """An empty folder. Raises OSError."""
    remove(temporary)
    temporary.mkdir()


def put_in_place(temporary: Path, folder: Path, shared: bool = False) -> None:
    """The second half of ``put_folder``: what was written is synced, and renamed to ``folder``."""
    previous = hidden(folder, "previous")
    for path in [*sorted(temporary.iterdir()), temporary]:
        sync(path)
    if folder.exists() and not shared:
        folder.rename(previous)
    try:
        temporary.rename(folder)
    except OSError:
        if previous.exists():
            previous.rename(folder)
        raise
    sync(folder.parent)
    remove(previous)


@contextlib.contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """Turns what the disk raises into one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        if not folder.parent.is_dir():
            raise WorkError(f"cannot write {folder}: {folder.parent} is gone") from error
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:120]
        raise WorkError(
            f"cannot write {folder}: {reason}; what was there before is whole"
        ) from error


def recover(parent: Path, pattern: str) -> None:
    """Clears away what killed writers left beside the folders that match ``pattern``.

    A folder that was put aside and not replaced is put back. Only for the one that may write here.
    """
    with refusals(parent):
        for previous in parent.glob(f".{pattern}.previous"):
            folder = parent / previous.name.removeprefix(".").removesuffix(".previous")
            if not folder.exists():
                previous.rename(folder)
            else:
                remove(previous)
    for temporary in parent.glob(f".{pattern}.tmp"):
        remove(temporary)


def discard(folder: Path) -> None:
    """Removes a folder; a kill on the way leaves no half of it under its name."""
    with contextlib.suppress(OSError):
        temporary = hidden(folder, "tmp")
        folder.rename(temporary)
        remove(temporary)


def hidden(folder: Path, suffix: str) -> Path:
    return folder.parent / f".{folder.name}.{suffix}"


def remove(folder: Path) -> None:
    """Removes a folder as far as the disk lets."""
    shutil.rmtree(folder, ignore_errors=True)


def sync(path: Path) -> None:
    """Asks the system to put a file or folder on the disk (folders: not possible on Windows)."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
