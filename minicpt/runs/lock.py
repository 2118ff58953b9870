"""One run at a time in a folder: a lock that the system lets go when its process ends.

The file ``.lock`` holds the process id of the one that has it. It is the system's lock that counts,
not the file: a killed process leaves the file behind, and locks nothing.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from minicpt.common.errors import InputError, WorkError
from minicpt.runs.console import say
from minicpt.training.distributed import current

NAME = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
BYTE = 1 << 30  # Windows keeps others from reading a locked byte: one far behind the process id


@contextlib.contextmanager
def locked(folder: Path, made: Sequence[Path] | None = None) -> Iterator[None]:
    """Holds the lock of a run's folder, which is made if need be, and removed if it stays empty.

    ``made``: the folders, innermost first, that the caller has made already. Raises InputError
    with the process id where another one holds it, or where the folder cannot be written.
    """
    made = missing(folder) if made is None else made
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = acquire(folder / NAME)
    except OSError as error:
        remove_empty(made)
        kind = WorkError if error.errno in FULL else InputError
        raise kind(f"{folder} cannot be written ({error.strerror}); give another folder") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(folder / NAME)  # before the lock is let go: nobody else's is removed
        os.close(descriptor)
        remove_empty(made)


def running(folder: Path) -> bool:
    """Whether a process holds the lock of a run's folder. Asking takes it for an instant."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDWR)
    except OSError:
        return False
    try:
        return not lock(descriptor, folder / NAME)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def held(folder: Path, begin: Callable[[], None] = lambda: None) -> Iterator[None]:
    """The lock of a folder for all processes of a run: the first one has it, and then begins."""
    world = current()
    with locked(folder) if world.is_first else contextlib.nullcontext():
        if world.is_first:
            begin()
        world.barrier()
        yield


def missing(folder: Path) -> list[Path]:
    """The folders, innermost first, that would have to be made."""
    return [each for each in (folder, *folder.parents) if not os.path.lexists(each)]


def remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def acquire(path: Path) -> int:
    """The descriptor of the locked file. OSError where it cannot be written."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not lock(descriptor, path):
                holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
                raise InputError(
                    f"process {holder} is writing to {path.parent}; wait for its end, or stop it"
                )
            if same_file(descriptor, path):  # else its last holder removed it meanwhile
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def lock(descriptor: int, path: Path) -> bool:
    """Whether the lock could be had; True with a warning where the file system has none."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(descriptor, BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            os.lseek(descriptor, 0, os.SEEK_SET)
            return False
        say(f"{path.parent} cannot be locked ({error.strerror}): start no second run there")
    return True
