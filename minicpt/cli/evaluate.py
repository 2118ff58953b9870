"""``minicpt evaluate``: the loss of a checkpoint on all of its held-out text, or on any text.

The evaluations of a run read some passages of that text alone (``--evaluate-passages``).

Several objectives can measure one model. What compares between them is the likelihood of the text
in bits per byte: exact for causal-lm, a bound ("at most") for masked-diffusion. A
pseudo-likelihood, as of masked-lm, is no likelihood, and is called so. The last two are estimated
from draws of the noise, and come with their standard error.
"""

import argparse
from dataclasses import dataclass
from typing import Literal

from minicpt import checkpoint
from minicpt.cli import flags
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.runs import texts
from minicpt.runs.console import bar_over, print_json, say
from minicpt.runs.measuring import measures_of
from minicpt.runs.table import figures
from minicpt.training.device import Machine
from minicpt.training.distributed import current
from minicpt.training.evaluation import ESTIMATED, evaluate

EXAMPLES = """several objectives compare by the likelihood of the text in bits per byte: exact for
causal-lm, a bound ("at most") for masked-diffusion; masked-lm's pseudo-likelihood is
no likelihood, and must not be compared with the others

examples:
  minicpt evaluate runs/first
  minicpt evaluate runs/first --objective causal-lm masked-diffusion --passages 200
"""
DRAWS = 8
PROCESSES = True  # torchrun may start it


@dataclass(frozen=True)
class What(Checked):
    corpus: tuple[str, ...] = setting(
        (), "text to evaluate on, all of it (default: what was held out from training)"
    )
    blocks: bool = setting(False, "a document is a block between blank lines, not a whole file")
    errors: Literal["strict", "replace"] = setting(
        "strict", "what is not UTF-8: refuse it, or replace it and say how often"
    )
    objective: tuple[str, ...] = setting(
        (),
        "the objectives that measure the model (default: the one of the training); with several,"
        " --json holds a result for each text and objective",
        metavar="OBJECTIVE",
    )
    draws: int | None = setting(
        None,
        f"draws of each passage where a likelihood is estimated (default: {DRAWS})",
        least=1,
        most=2**16,
    )
    passages: int | None = setting(None, "the most passages (default: all)", least=1)
    batch_size: int = setting(16, "passages of a forward pass", least=1, most=2**16)


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("folder", metavar="DIR", help="a checkpoint or the folder of a run")
    flags.add(parser, "what to evaluate", What)
    flags.add(parser, "the machine", Machine, but=("compile", "shard"))
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    what, machine = flags.build(arguments, What), flags.build(arguments, Machine)
    machine = current().machine(machine).prepare(say)
    base = checkpoint.load(arguments.folder)
    for note in base.notes:
        say(note)
    measures = measures_of(base, what.objective)
    if what.draws and not any(each.likelihood in ESTIMATED for each, _ in measures.values()):
        raise InputError(
            f"--draws cannot be used here: no likelihood is estimated by {', '.join(measures)}"
        )
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
    results: dict[str, dict[str, dict]] = {}
    for name, each in documents.items():
        corpus = texts.corpus(each, base.tokenizer)
        results[name] = {}
        for title, (objective, parts) in measures.items():
            with machine.autocast():
                results[name][title] = evaluate(
                    model,
                    objective,
                    corpus,
                    what.passages,
                    what.batch_size,
                    bar_over,
                    parts=parts.to(machine.device),
                    draws=what.draws or DRAWS,
                ).summary()
    if not results:
        raise InputError(f"{arguments.folder} held no text out from training; give --corpus")
    several = len(measures) > 1
    if arguments.json:
        alone = {name: next(iter(found.values())) for name, found in results.items()}
        print_json(results if several else alone)
    else:
        for name, found in results.items():
            for title, summary in found.items():
                count = sum(summary["targets"].values())
                label = f"{name}, {title}" if several else name
                print(f"{label}: {figures(summary)} ({count:,} targets)")
    return 0
