"""``minicpt explain``: what the model reads, may see and must predict, and each token's loss."""

import argparse
import importlib
import sys
from dataclasses import dataclass
from typing import Literal

from minicpt.cli import flags
from minicpt.common.errors import InputError
from minicpt.common.html import check_page, write_page
from minicpt.common.settings import MOST, Checked, setting
from minicpt.data.documents import Document, decode
from minicpt.data.sources import read
from minicpt.pictures.picture import TEXT, explain
from minicpt.runs.assembly import objective_kind, trainable
from minicpt.runs.console import print_json, say

STANDARD_INPUT = "-"
EXAMPLES = """examples:
  minicpt explain {name} --text "The sun rises. Birds sing. Then it is noon. We eat." --seed 3
  minicpt explain {name} --file README.md --html picture.html --overwrite
"""


@dataclass(frozen=True)
class What(Checked):
    text: tuple[str, ...] = setting(
        (), "texts, a document each (default: a few sentences)", metavar="TEXT"
    )
    file: tuple[str, ...] = setting(
        (), "files in place of texts; -: the standard input", metavar="PATH"
    )
    errors: Literal["strict", "replace"] = setting(
        "strict", "what is not UTF-8 in a file: refuse it, or replace it"
    )
    passage: int = setting(
        1, "which window (pair, sentence) of the text, in its order", least=1, metavar="K"
    )
    model: str = setting(
        "", "the architecture of the untrained model (default: the first one that fits)",
        metavar="NAME",
    )  # fmt: skip
    init: str | None = setting(
        None, "a checkpoint folder (default: a small untrained model)", metavar="DIR"
    )
    seed: int = setting(0, "seed of the noise, the order and the weights", least=0, most=MOST)


@dataclass(frozen=True)
class Shape(Checked):
    html: str | None = setting(
        None, "write the picture as a page that needs no network", metavar="FILE"
    )
    overwrite: bool = setting(False, "replace a page that is there")


def add(verb: argparse.ArgumentParser) -> None:
    verb.epilog = EXAMPLES.format(name="causal-lm")
    names = verb.add_subparsers(dest="objective", metavar="OBJECTIVE", required=True)
    for name, kind in trainable().items():
        summary = flags.summary(kind)
        usage = f"minicpt explain {name} [FLAG …]"
        parser = names.add_parser(name, help=summary, description=summary, usage=usage)
        parser.epilog = EXAMPLES.format(name=name)
        flags.add(parser, "what to explain", What)
        flags.add(parser, f"the objective, {name}", kind.Settings)
        flags.add(parser, "how it is shown", Shape)
        parser.add_argument(
            "--break", dest="fault", metavar="FAULT", help="make a mistake of `minicpt verify"
            " --break`, and show the picture right and wrong",
        )  # fmt: skip
        parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    what, shape = (flags.build(arguments, each) for each in (What, Shape))
    check_page(shape.html, shape.overwrite)
    settings = flags.given(arguments, objective_kind(arguments.objective).Settings)
    settings |= {"model": what.model, "init": what.init, "seed": what.seed}
    passage = {"passage": what.passage} if "passage" in vars(arguments) else {}
    if arguments.fault is None:
        picture = explain(given(what), arguments.objective, **passage, **settings)
    else:
        broken = importlib.import_module("minicpt.pictures.broken").broken  # the proofs take long
        picture = broken(
            arguments.fault, given(what), arguments.objective, **passage, **settings
        )
    for note in picture.notes:
        say(note)
    if shape.html:
        write_page(shape.html, picture.page())
        say(f"{shape.html} is written; open it in a browser")
    if arguments.json:
        print_json(picture.plain())
    elif not shape.html:
        print(picture.text(color=sys.stdout.isatty()))
    return 0


def given(what: What) -> list[Document]:
    """The documents to explain. InputError for what is no text."""
    if what.text and what.file:
        raise InputError("--text and --file are both given; use one of them")
    if not what.file:
        texts = what.text or (TEXT,)
        if not all(text.strip() for text in texts):
            raise InputError("--text is empty; give some words")
        names = [f"text {number + 1}" for number in range(len(texts))]
        return [
            Document(name if len(texts) > 1 else "the text", text)
            for name, text in zip(names, texts, strict=True)
        ]
    if what.file.count(STANDARD_INPUT) > 1:
        raise InputError("--file - is given twice; the standard input can be read once")
    return [
        document
        for source in what.file
        for document in (
            [standard_input(what.errors)]
            if source == STANDARD_INPUT
            else read([source], errors=what.errors)
        )
    ]


def standard_input(errors: str) -> Document:
    """What is piped in. InputError where it is empty or no UTF-8 text."""
    name = "standard input"
    data = sys.stdin.buffer.read() if sys.stdin else b""
    if b"\0" in data:
        place = data.index(b"\0")
        raise InputError(f"{name} is not text (NUL byte at byte {place}); give UTF-8 text")
    text = decode(data, errors, name, 0)[0].removeprefix("\ufeff")
    if not text.strip():
        raise InputError(f"{name} is empty; pipe a text into it")
    return Document(name, text.replace("\r\n", "\n").replace("\r", "\n"))

