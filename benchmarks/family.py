"""Does every objective learn more than how often its targets occur?

Every objective that is found is trained from scratch, with each role of models that it can train:
1,000 steps at the default sizes on builtin:docs, as ``minicpt train NAME`` does it. Then the loss
of each head on held-out text stands beside a floor: the loss of a guess that reads nothing, and
knows how often each target occurs. The guess has counted the targets of the same training, each by
its weight, and one more of every class, so that none is impossible. It is asked about the same
held-out targets as the model.

"clearly" below the floor is by 5 % of it or more, and by more than 4 standard errors. The error is
that of the difference, over passages.

The JSON file is written anew after each training. Leaves out settings other than the defaults,
models beside each role's default, and what a longer training would reach.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass, field, fields

import torch
from timing import check_writable, fill_in, machine, number, run, table, write_json
from torch import Tensor
from tqdm import tqdm

from minicpt.cli.main import Parser
from minicpt.common.errors import InputError
from minicpt.loss import TargetLosses
from minicpt.runs.assembly import fitting, objective_kind, trainable
from minicpt.runs.build import build
from minicpt.runs.config import Length, RunConfig, Text, Vocabulary
from minicpt.runs.console import tell
from minicpt.training.device import keep_freed_memory
from minicpt.training.evaluation import evaluate
from minicpt.training.trainer import Training

SHARE, ERRORS = 0.05, 4  # of the floor, and standard errors: what "clearly" means
FULL = {"steps": 1000, "passages": 1024}
QUICK = {"steps": 20, "passages": 32}
QUICK_SIZES = {"width": 32, "layers": 1, "num_heads": 2}  # of the models that have such sizes
HEADINGS = "objective role head targets loss floor below ± clearly".split()


# --- the floor -------------------------------------------------------------------------------


@dataclass
class HeldOut:
    """Held-out targets of one head and what the model paid for them, by passage.

    N targets of a weight above 0; ``rows`` counts the passages of all batches before as well.
    """

    targets: list[Tensor] = field(default_factory=list)  # (N,) of each batch, and so on
    rows: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    passages: int = 0
    count: int = 0

    def add(self, found: TargetLosses, passages: int) -> None:
        self.targets.append(found.targets)
        self.rows.append(found.rows + self.passages)
        self.losses.append(found.losses.double())
        self.weights.append(found.weights.double())
        self.passages += passages
        self.count += found.count

    def against(self, often: Tensor) -> dict:
        """The model's loss and that of a guess by frequency, in nats a target, and how they differ.

        often  (V,) how often each class was a target in training
        """
        parts = (self.targets, self.rows, self.losses, self.weights)
        targets, rows, losses, weights = (torch.cat(part) for part in parts)
        classes = max(len(often), 1 + int(targets.max()))
        counts = torch.ones(classes, dtype=torch.float64)
        counts[: len(often)] += often
        guesses = -(counts / counts.sum()).log()[targets]  # (N,)
        below = torch.zeros(self.passages, dtype=torch.float64)
        below.index_add_(0, rows, (guesses - losses) * weights)  # (passages,)
        return {
            "targets": self.count,
            "loss": float((losses * weights).sum() / self.count),
            "floor": float((guesses * weights).sum() / self.count),
            "below": float(below.sum() / self.count),
            # The passages' sums vary; how many targets they have varies little.
            "error": float(below.std() * math.sqrt(self.passages) / self.count),
        }


class Listener:
    """Stands in the place of an objective's ``losses``: counts and keeps the targets of each head.

    often     head -> (V,) how often each class was a target of the training, by weight
    held_out  head -> what was evaluated
    """

    def __init__(self, objective):
        self.losses = objective.losses
        self.often: dict[str, Tensor] = {}
        self.held_out: dict[str, HeldOut] = {}
        objective.losses = self

    def __call__(self, model, parts, batch, *rest) -> dict[str, TargetLosses]:
        result = self.losses(model, parts, batch, *rest)
        for head, found in result.items():
            if torch.is_grad_enabled():
                new = torch.bincount(found.targets, found.weights.detach().double())
                old = self.often.get(head, new[:0])
                longer, shorter = (new, old) if len(new) > len(old) else (old, new)
                longer[: len(shorter)] += shorter
                self.often[head] = longer
            else:
                self.held_out.setdefault(head, HeldOut()).add(found, len(batch.targets[head]))
        return result


def clearly(row: dict) -> bool:
    """Whether a loss lies clearly below its floor."""
    return row["below"] > max(SHARE * row["floor"], ERRORS * row["error"])


# --- the trainings ---------------------------------------------------------------------------


def measure(name: str, model: str, options: argparse.Namespace) -> list[dict]:
    """Trains one objective with one model: a row for each head.

    Keys: objective, role, model, head, steps, seconds (of the training), targets (held-out ones),
    loss, floor, below and error (nats a target), clearly.
    """
    kind = fitting(objective_kind(name))[model]
    sizes = QUICK_SIZES if options.quick else {}
    known = {each.name for each in fields(kind.Config)}
    config = RunConfig(
        objective=name,
        model=model,
        sizes={size: value for size, value in sizes.items() if size in known},
        text=Text(corpus=tuple(options.corpus)),
        vocabulary=Vocabulary(vocab_size=512) if options.quick else Vocabulary(),
        length=Length(steps=options.steps),
        training=Training(seed=options.seed),
    )
    made = build(config, quiet=True)
    trainer, listener = made.trainer, Listener(made.trainer.objective)
    begun = time.perf_counter()
    label = f"{name}, {kind.ROLE}"
    for _ in tqdm(trainer.run(), label, trainer.steps, leave=False, disable=hidden()):
        pass
    seconds = time.perf_counter() - begun
    text = made.held_out["held out"]
    evaluate(trainer.model, trainer.objective, text, options.passages, parts=trainer.parts)
    about = {"objective": name, "role": kind.ROLE, "model": model}
    rows = []
    for head, found in listener.held_out.items():
        if not found.count or head not in listener.often:
            continue
        row = about | {"head": head, "steps": trainer.steps, "seconds": seconds}
        row |= found.against(listener.often[head])
        rows.append(row | {"clearly": clearly(row)})
    return rows


def hidden() -> bool:
    return not sys.stderr.isatty()


def trainings(names: list[str]) -> list[tuple[str, str]]:
    """Each objective with the default model of each role that it can train."""
    found = []
    for name in names:
        models: dict[str, str] = {}
        for model, kind in fitting(objective_kind(name)).items():
            models.setdefault(kind.ROLE, model)
        found += [(name, model) for model in models.values()]
    return found


def report(rows: list[dict]) -> str:
    """The rows as a table; the names of an objective and a role stand once."""
    lines, last = [], None
    for row in rows:
        own = (row["objective"], row["role"])
        first = ["", ""] if own == last else list(own)
        numbers = [f"{row[key]:.3f}" for key in ("loss", "floor", "below")]
        lines.append([
            *first, row["head"], f"{row['targets']:,}", *numbers, number(row["error"], 2),
            "yes" if row["clearly"] else "no",
        ])  # fmt: skip
        last = own
    return table(HEADINGS, lines)


# --- the command line ------------------------------------------------------------------------


def read_options(words: list[str]) -> argparse.Namespace:
    top = Parser(prog="family.py", description=__doc__.splitlines()[0])
    top.add_argument("--quick", action="store_true", help="few steps of small models")
    top.add_argument("--json", metavar="PATH", help="write the rows, a list of objects")
    top.add_argument("--objectives", nargs="+", metavar="NAME", default=list(trainable()),
                     help="these alone (default: all)")  # fmt: skip
    top.add_argument("--corpus", nargs="+", metavar="SRC", default=["builtin:docs"],
                     help="the text (default: builtin:docs)")  # fmt: skip
    for key, text in {"steps": "of each training", "passages": "held-out ones, at most"}.items():
        top.add_argument(f"--{key}", type=int, metavar="N",
                         help=f"{text} (default: {FULL[key]}; quick: {QUICK[key]})")  # fmt: skip
    top.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    top.add_argument("--threads", type=int, default=2, metavar="N", help="of torch (default: 2)")
    options = top.parse_args(words)
    fill_in(options, QUICK if options.quick else FULL)
    for key in ("steps", "passages", "threads"):
        if getattr(options, key) < 1:
            raise InputError(f"--{key} must be at least 1, but is {getattr(options, key)}")
    return options


def main(words: list[str]) -> int:
    options = read_options(words)
    check_writable(options.json)
    wanted = trainings(options.objectives)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    tell(__doc__.splitlines()[0])
    tell(machine())
    tell(f"{options.steps:,} steps on {' '.join(options.corpus)}, seed {options.seed}; held-out"
         " loss and floor in nats a target\n")  # fmt: skip
    rows: list[dict] = []
    for name, model in tqdm(wanted, leave=False, disable=hidden()):
        rows += measure(name, model, options)
        if options.json:
            write_json(options.json, rows)
    tell(report(rows))
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
