"""``minicpt explain``: what the model reads, may see and must predict, and each token's loss."""

import argparse
import shutil
import sys
from dataclasses import dataclass

import torch

from minicpt import checkpoint
from minicpt.cli import flags, pieces
from minicpt.cli.running import print_json, say, summary_of
from minicpt.data.corpus import Corpus
from minicpt.data.sources import Document, read
from minicpt.data.tokenizer import Tokenizer
from minicpt.errors import InputError
from minicpt.randomness import generator
from minicpt.report.explain import as_data, explain
from minicpt.report.terminal import needs_ascii
from minicpt.settings import MOST, Checked, setting

TEXT = (
    "The cat sat on the mat. It was warm there, and it fell asleep. A bird came to the window."
    " The cat dreamt of rain."
)
VOCABULARY = 2048
EXAMPLES = """examples:
  minicpt explain {name}
  minicpt explain {name} --text "The sun rises. Birds sing. Then it is noon. We eat." --seed 3
"""


@dataclass(frozen=True)
class What(Checked):
    text: str = setting(TEXT, "the text", metavar="TEXT")
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
    for name, module in pieces.objective_modules().items():
        summary = module.__doc__.splitlines()[0]
        usage = f"minicpt explain {name} [FLAG …]"
        parser = names.add_parser(name, help=summary, description=summary, usage=usage)
        parser.epilog = EXAMPLES.format(name=name)
        flags.add(parser, "what to explain", What)
        flags.add(parser, f"the objective, {name}", module.Settings)
        parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    what = flags.build(arguments, What)
    module = pieces.objective_module(arguments.objective)
    settings = flags.build(arguments, module.Settings)
    if not what.text.strip():
        raise InputError("--text is empty; give some words")
    if what.init:
        base = checkpoint.load(what.init, what.seed)
        for note in base.notes:
            say(note)
        given = flags.given(arguments, module.Settings)
        model, objective = base.model, pieces.fitted(base, arguments.objective, given)
    else:
        training = (document.text for document in read(["builtin:docs"]))
        objective = module.Objective(Tokenizer.train(training, VOCABULARY), settings)
        torch.manual_seed(what.seed)
        model = pieces.untrained(objective)
        say("an untrained model; --init DIR shows what a trained one makes of it")
    corpus = Corpus.build([Document("the text", what.text)], objective.tokenizer)
    passage = objective.plan(corpus, what.seed, 0)[0]
    draws = generator("explain", what.seed)
    if arguments.json:
        print_json(as_data(model, objective, passage, draws))
    else:
        width, ascii = shutil.get_terminal_size().columns, needs_ascii(sys.stdout.encoding)
        print(
            explain(model, objective, passage, draws, width, ascii=ascii, color=sys.stdout.isatty())
        )
    return 0
