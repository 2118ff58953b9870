"""``minicpt lesson``: one page, for a browser, that shows how the losses work. It needs no network.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from minicpt.cli import flags
from minicpt.common.disk import write_file
from minicpt.common.errors import InputError
from minicpt.common.outputs import check_writable
from minicpt.common.settings import Checked, setting
from minicpt.pictures.lesson import page
from minicpt.runs.console import tell

EXAMPLES = """examples:
  minicpt lesson
  minicpt lesson --text "The sun rises. Birds sing. We eat." --objectives causal-lm masked-lm
"""


@dataclass(frozen=True)
class Shown(Checked):
    text: str | None = setting(
        None, "the text that is shown (default: a few simple sentences)", metavar="TEXT"
    )
    init: tuple[str, ...] = setting(
        (), "checkpoint folders (default: small models are trained, in about half a minute)",
        metavar="DIR",
    )  # fmt: skip
    objectives: tuple[str, ...] = setting(
        (), "show these alone (default: all that fit)", metavar="OBJECTIVE"
    )
    compare: tuple[str, ...] = setting(
        (), "files of `minicpt compare --json` (default: a small result that comes with minicpt)",
        metavar="JSON",
    )  # fmt: skip
    out: str = setting("lesson.html", "the file to write", metavar="PATH")


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    flags.add(parser, "what the page shows", Shown)
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --out")


def run(arguments: argparse.Namespace) -> int:
    shown = flags.build(arguments, Shown)
    if os.path.lexists(shown.out) and not arguments.overwrite:
        raise InputError(
            f"--out {shown.out} exists already; name another file, or add --overwrite"
        )
    check_writable(shown.out)
    content = page(shown.text, shown.init, shown.objectives, shown.compare)
    write_file(Path(shown.out), content)
    tell(f"{shown.out}: {len(content.encode()) / 1e3:.0f} kB; open it in a browser")
    return 0
