"""Files that a result is written to: found out before the work whether they can be.

Leaves out what is drawn: that knows the room whose picture it is.
"""

import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from minicpt.common.errors import InputError

# Colours that colour-blind readers can tell apart: Okabe and Ito 2008, without their yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # as many: a print without colours has these
PICTURES = (".png", ".svg", ".pdf")


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
        raise InputError("drawing needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    return pyplot


def write_picture(path: str, figure, legend: Mapping, columns: int = 4) -> None:
    """Writes a figure whose one legend stands below all panels, where it hides nothing.

    legend  label -> what was drawn under that label
    """
    from matplotlib import pyplot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks is drawn as a box
        options = {"ncols": columns, "fontsize": "small"}
        figure.legend(legend.values(), legend, loc="outside lower center", **options)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=Path(path).suffix[1:].lower() or "png", dpi=110)
    pyplot.close(figure)
    Path(path).write_bytes(drawn.getvalue())
