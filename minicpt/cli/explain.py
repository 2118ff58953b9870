"""``minicpt explain``: what the model reads, may see and must predict, and each token's loss."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from minicpt import checkpoint
from minicpt.cli import flags
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.common.settings import MOST, Checked, setting
from minicpt.common.terminal import needs_ascii
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document, decode
from minicpt.data.order import Draw, Plan
from minicpt.data.sources import read
from minicpt.data.tokenizer import Tokenizer
from minicpt.pictures.passage import as_data, explain
from minicpt.runs.assembly import model_kind, new_model, objective_kind, trainable
from minicpt.runs.build import fitted
from minicpt.runs.console import print_json, say, summary_of

TEXT = (
    "The cat sat on the mat. It was warm there, and it fell asleep. A bird came to the window."
    " The cat dreamt of rain."
)
VOCABULARY = 2048
EPOCHS = 20  # that are tried for a passage
STANDARD_INPUT = "-"
EXAMPLES = """examples:
  minicpt explain {name} --text "The sun rises. Birds sing. Then it is noon. We eat." --seed 3
  minicpt explain {name} --file README.md --passage 2
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
    init: str | None = setting(
        None, "a checkpoint folder (default: a small untrained model)", metavar="DIR"
    )
    seed: int = setting(0, "seed of the noise, the order and the weights", least=0, most=MOST)


def add(verbs) -> None:
    explain = verbs.add_parser(
        "explain",
        help="what a model reads, sees and must predict, and each token's loss",
        description=summary_of(__doc__),
        epilog=EXAMPLES.format(name="causal-lm"),
    )
    names = explain.add_subparsers(dest="objective", metavar="OBJECTIVE", required=True)
    for name, kind in trainable().items():
        summary = flags.summary(kind)
        usage = f"minicpt explain {name} [FLAG …]"
        parser = names.add_parser(name, help=summary, description=summary, usage=usage)
        parser.epilog = EXAMPLES.format(name=name)
        flags.add(parser, "what to explain", What)
        flags.add(parser, f"the objective, {name}", kind.Settings)
        parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    what = flags.build(arguments, What)
    kind = objective_kind(arguments.objective)
    settings = flags.build(arguments, kind.Settings)
    documents = given(what)
    if what.init:
        base = checkpoint.load(what.init, what.seed)
        for note in base.notes:
            say(note)
        changed = flags.given(arguments, kind.Settings)
        model, objective = base.model, fitted(base, arguments.objective, changed)
    else:
        training = (document.text for document in read(["builtin:docs"]))
        objective = kind(Tokenizer.train(training, VOCABULARY), settings)
        model = new_model(model_kind("", kind), objective, {}, what.seed)
        say("an untrained model; --init DIR shows what a trained one makes of it")
    passages = in_order(objective, Corpus.build(documents, objective.tokenizer), what.seed)
    unit, count = objective.unit, len(passages)
    if what.passage > count:
        found = f"{count} {unit}s; use 1 to {count}" if count > 1 else f"one {unit}; use 1"
        raise InputError(f"--passage is {what.passage}, but the text gives {found}")
    if count > 1:
        say(f"the text gives {count} {unit}s; --passage K shows another")
    passage = passages[what.passage - 1]
    draw, number = Draw(0, generator("explain", what.seed)), (what.passage, count)
    if arguments.json:
        print_json(as_data(model, objective, passage, draw, number=number))
    else:
        width, ascii = shutil.get_terminal_size().columns, needs_ascii(sys.stdout.encoding)
        color = sys.stdout.isatty()
        report = explain(
            model, objective, passage, draw, width, number=number, ascii=ascii, color=color
        )
        print(report)
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


def in_order(objective, corpus: Corpus, seed: int) -> Sequence:
    """The passages of an epoch as they stand in the text, each cut when it is asked for.

    Where an objective draws what it reads, a short text may give nothing in an epoch: then it is
    the first epoch that has some. Raises the InputError of the objective where none has.
    """
    refused = None
    for epoch in range(EPOCHS):
        try:
            plan = objective.plan(corpus, seed, epoch)
        except InputError as error:
            refused = refused or error
            continue
        if len(plan):
            order = sorted(range(len(plan)), key=plan.rows.tolist().__getitem__)
            return Plan(plan.rows[order], plan.cut)
    raise refused or InputError("the objective finds nothing to read in the text; give more")
