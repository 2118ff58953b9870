"""``minicpt evaluate``: the loss of a checkpoint on all of its held-out text, or on any text.

The evaluations of a run read some passages of that text alone (``--evaluate-passages``).
"""

import argparse
from dataclasses import dataclass
from typing import Literal

from minicpt import checkpoint
from minicpt.cli import flags
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.runs import texts
from minicpt.runs.build import objective_of, parts_of
from minicpt.runs.console import bar_over, print_json, say, summary_of
from minicpt.runs.table import figures
from minicpt.training.device import Machine
from minicpt.training.evaluation import evaluate

EXAMPLES = """examples:
  minicpt evaluate runs/first
  minicpt evaluate runs/first --corpus builtin:code --passages 200
"""


@dataclass(frozen=True)
class What(Checked):
    corpus: tuple[str, ...] = setting(
        (), "text to evaluate on, all of it (default: what was held out from training)"
    )
    blocks: bool = setting(False, "a document is a block between blank lines, not a whole file")
    errors: Literal["strict", "replace"] = setting(
        "strict", "what is not UTF-8: refuse it, or replace it and say how often"
    )
    objective: str | None = setting(
        None, "another objective than the one of the training", metavar="OBJECTIVE"
    )
    passages: int | None = setting(None, "the most passages (default: all)", least=1)
    batch_size: int = setting(16, "passages of a forward pass", least=1, most=2**16)


def add(verbs) -> None:
    parser = verbs.add_parser(
        "evaluate",
        help="the loss of a checkpoint on held-out or other text",
        description=summary_of(__doc__),
        epilog=EXAMPLES,
    )
    parser.add_argument("folder", metavar="DIR", help="a checkpoint or the folder of a run")
    flags.add(parser, "what to evaluate", What)
    flags.add(parser, "the machine", Machine, but=("compile",))
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    what, machine = flags.build(arguments, What), flags.build(arguments, Machine)
    machine.prepare(say)
    base = checkpoint.load(arguments.folder)
    for note in base.notes:
        say(note)
    objective = objective_of(base, what.objective)
    if what.corpus:
        documents = {" ".join(what.corpus): texts.documents(what)}
    elif base.record:
        (text,) = map(texts.recorded_texts, base.record["texts"])
        documents = texts.held_out(text, texts.old_texts(base.record["old_texts"]))
        found = {name: each.sha256 for name, each in documents.items()}
        texts.check_held_out(found, base.record.get("held_out"))
    else:
        raise InputError(f"{arguments.folder} does not say what it was trained on; give --corpus")
    model = base.model.to(machine.device)
    parts = objective.parts(model)
    if known := parts_of(base, objective):
        parts.load_state_dict(known)
    results = {}
    for name, each in documents.items():
        corpus = texts.corpus(each, base.tokenizer)
        with machine.autocast():
            results[name] = evaluate(
                model, objective, corpus, what.passages, what.batch_size, bar_over, parts=parts
            ).summary()
    if not results:
        raise InputError(f"{arguments.folder} held no text out from training; give --corpus")
    if arguments.json:
        print_json(results)
    else:
        for name, summary in results.items():
            print(f"{name}: {figures(summary)} ({sum(summary['targets'].values()):,} targets)")
    return 0
