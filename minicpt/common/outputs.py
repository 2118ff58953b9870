"""Files that a result is written to: found out before the work whether they can be."""

import os
from pathlib import Path

from minicpt.common.errors import InputError


def check_writable(path: str | None) -> None:
    """Raises InputError where no file can be written: before the work, not after it."""
    if path is None:
        return
    existed = os.path.lexists(path)
    try:
        with open(path, "a", encoding="utf-8"):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path!r}: {error.strerror}; give another path") from None
    if not existed:
        os.unlink(path)


def check_new(path: str, overwrite: bool, endings: tuple[str, ...]) -> None:
    """Raises InputError where ``path`` has another ending, is there already, or cannot be written.

    overwrite  a file that is there may go
    """
    if Path(path).suffix.lower() not in endings:
        raise InputError(f"{path!r} must end in {', '.join(endings[:-1])} or {endings[-1]}")
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{path} exists already; give another file, or --overwrite")
    check_writable(path)


def plotting():
    """matplotlib's pyplot, for files alone. Raises InputError where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise InputError("--plot needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    return pyplot
