"""Which learning rate, warm-up, betas and initial scale learn fastest, by role and size?

A cell of the sweep is one training from scratch and its loss on held-out text. The grid is
learning rate x width x steps: all widths and steps for the causal decoder, two corners for the
encoder and the encoder-decoder. Trainings that are dear have three rates, the others five. Around
one rate the other settings change one at a time. Each schedule ends at its own last step, so no
cell is a part of another. A run whose loss is not finite has diverged; its loss is written as null.

Cells are trained from cheap to dear, and each is a line of the file at once: a sweep that was
stopped goes on with the same command, and several processes may share one file. Losses do not
depend on how busy the machine is. Leaves out seeds but the first, and sizes above width 256.
"""

import argparse
import json
import math
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from timing import machine, run, table
from tqdm import tqdm

from minicpt.cli.main import Parser
from minicpt.common.errors import InputError, NotFinite
from minicpt.data.corpus import Corpus
from minicpt.data.split import sample
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives import reserved
from minicpt.runs.assembly import make_objective, make_trainer, model_kind, new_model
from minicpt.runs.assembly import objective_kind as kind_of
from minicpt.runs.config import Text
from minicpt.runs.console import tell
from minicpt.runs.texts import texts
from minicpt.training.device import keep_freed_memory
from minicpt.training.evaluation import evaluate
from minicpt.training.trainer import Training

RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
WIDTHS, STEPS = (64, 128, 256), (200, 1000, 3000)
OBJECTIVES = ("causal-lm", "masked-lm", "span-corruption")
CORNERS = ((64, 200), (64, 3000), (256, 200))  # width and steps
CHEAP = (64, 1000)  # up to its cost a training has all rates
OTHERS_AT = {"causal-lm": (64, 1000), "masked-lm": (128, 200), "span-corruption": (128, 200)}
OTHERS = (  # one at a time
    {"warmup": 0.02}, {"warmup": 0.1}, {"beta2": 0.95}, {"beta2": 0.999}, {"beta1": 0.95},
    {"scale": 0.5}, {"scale": 2.0}, {"weight_decay": 0.01}, {"min_lr_ratio": 0.0},
)  # fmt: skip
PASSAGES = 512  # held out
CLOSE = 0.02  # of the best loss


@dataclass(frozen=True)
class Cell:
    """One training. ``scale`` multiplies the matrices that the model begins with."""

    objective: str
    width: int
    steps: int
    rate: float
    warmup: float = Training.warmup
    beta1: float = Training.beta1
    beta2: float = Training.beta2
    weight_decay: float = Training.weight_decay
    min_lr_ratio: float = Training.min_lr_ratio
    scale: float = 1.0

    @property
    def cost(self) -> float:
        """About proportional to the time it takes."""
        return self.steps * (self.width + 32) ** 1.5


def grid(objectives: list[str], rate: float, quick: bool = False) -> list[Cell]:
    """All cells, the cheap ones first.

    rate  around which the other settings change
    """
    if quick:
        return [Cell(name, 16, 5, each) for name in objectives for each in RATES[:2]]
    cells = []
    for name in objectives:
        whole = name == OBJECTIVES[0]
        sizes = [(width, steps) for width in WIDTHS for steps in STEPS]
        for width, steps in sizes if whole else CORNERS:
            five = [Cell(name, width, steps, each) for each in RATES]
            cells += five if five[0].cost <= Cell(name, *CHEAP, rate).cost else five[1:4]
        cells += [Cell(name, *OTHERS_AT[name], rate, **each) for each in ({}, *OTHERS)]
    return sorted(dict.fromkeys(cells), key=lambda each: each.cost)


class Material:
    """The text, its tokenizer and the corpora, made once for all cells."""

    def __init__(self, corpus: tuple[str, ...], vocabulary: int):
        text = texts(Text(corpus=corpus))
        self.tokenizer = Tokenizer.train(sample(text.training), vocabulary, reserved())
        parts = text.training, text.held_out
        self.training, self.held_out = (Corpus.build(each, self.tokenizer) for each in parts)

    def loss(self, cell: Cell, label: str) -> float | None:
        """Trains a cell: its held-out loss in nats a target, or None where it diverged."""
        kind = kind_of(cell.objective)
        chosen = model_kind("", kind)
        objective = make_objective(kind, self.tokenizer, kind.Settings(), chosen)
        model = new_model(chosen, objective, {"width": cell.width}, seed=0)
        with torch.no_grad():
            for each in model.parameters():
                if each.dim() > 1:
                    each.mul_(cell.scale)
        named = {key: value for key, value in asdict(cell).items() if hasattr(Training, key)}
        settings = Training(learning_rate=cell.rate, **named)
        trainer = make_trainer(model, objective, self.training, settings, cell.steps)
        hidden = not sys.stderr.isatty()
        try:
            for _ in tqdm(trainer.run(), label, cell.steps, leave=False, disable=hidden):
                pass
        except NotFinite:
            return None
        found = evaluate(model, objective, self.held_out, PASSAGES, parts=trainer.parts)
        loss = float(sum(each.mean for each in found.losses.values()))
        return loss if math.isfinite(loss) else None


# --- the file ----------------------------------------------------------------------------------


def known(path: Path) -> dict[Cell, float | None]:
    """The cells that a file holds, with their losses; the last line of a killed run may be half."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
            loss = row.pop("loss")
            found[Cell(**row)] = loss
        except (ValueError, TypeError, KeyError):
            continue
    return found


def keep(path: Path, cell: Cell, loss: float | None) -> None:
    """Adds a line; what a killed run left of one is parted from it."""
    line = json.dumps(asdict(cell) | {"loss": loss}) + "\n"
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n" * torn + line)
        file.flush()
        os.fsync(file.fileno())


# --- the tables ----------------------------------------------------------------------------------


def report(found: dict[Cell, float | None]) -> str:
    """Loss by rate for each objective, width, number of steps and scale; what other settings do."""
    usual = {cell: loss for cell, loss in found.items() if cell == plain(cell)}
    rates = sorted({cell.rate for cell in usual})
    lines = []
    for place in sorted({place_of(cell) for cell in usual}):
        losses = {cell.rate: loss for cell, loss in usual.items() if place_of(cell) == place}
        least = min((x for x in losses.values() if x is not None), default=None)
        marks = [shown(losses[rate], least) if rate in losses else "-" for rate in rates]
        lines.append([*map(str, place), *marks])
    names = ["objective", "width", "steps", "scale", *(f"{rate:g}" for rate in rates)]
    parts = [table(names, lines)]
    lines = []
    for cell, loss in found.items():
        base = usual.get(plain(cell))
        if cell == plain(cell) or base is None:
            continue
        changed = [
            f"{key} {value:g}" for key, value in asdict(cell).items()
            if value != getattr(plain(cell), key)
        ]  # fmt: skip
        where = [cell.objective, str(cell.width), str(cell.steps), f"{cell.rate:g}"]
        ratio = "-" if loss is None else f"{loss / base:.3f}"
        lines.append([*where, ", ".join(changed), shown(loss, None), f"{base:.3f}", ratio])
    names = ["objective", "width", "steps", "rate", "changed", "loss", "unchanged", "ratio"]
    if lines:
        parts.append(table(names, lines))
    return "\n\n".join(parts)


def place_of(cell: Cell) -> tuple[str, int, int, float]:
    """What the cells of a row of the first table have in common."""
    return cell.objective, cell.width, cell.steps, cell.scale


def plain(cell: Cell) -> Cell:
    """The cell that has the same objective, width, steps, rate and scale, and all else as usual."""
    return Cell(cell.objective, cell.width, cell.steps, cell.rate, scale=cell.scale)


def shown(loss: float | None, least: float | None) -> str:
    """A loss; with a star within 2 % of the least one."""
    if loss is None:
        return "diverged"
    return f"{loss:.3f}" + ("*" if least is not None and loss <= least * (1 + CLOSE) else "")


# --- the command line ------------------------------------------------------------------------


def read_options(words: list[str]) -> argparse.Namespace:
    top = Parser(prog="defaults.py", description=__doc__.splitlines()[0])
    top.add_argument("rows", metavar="FILE", help="the file of the sweep, a line a training")
    top.add_argument("--quick", action="store_true", help="a few steps of tiny models")
    top.add_argument("--objectives", nargs="+", metavar="NAME", default=list(OBJECTIVES))
    top.add_argument("--corpus", nargs="+", metavar="SRC", default=["builtin:code"],
                     help="the text (default: builtin:code)")  # fmt: skip
    top.add_argument("--rate", type=float, default=2e-3, metavar="X",
                     help="around which other settings change (default: 0.002)")  # fmt: skip
    top.add_argument("--most", type=int, metavar="STEPS", help="no longer trainings than this")
    top.add_argument("--report", action="store_true", help="show what the file holds, and stop")
    top.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (default: 1)")
    options = top.parse_args(words)
    if options.threads < 1:
        raise InputError(f"--threads must be at least 1, but is {options.threads}")
    return options


def main(words: list[str]) -> int:
    options = read_options(words)
    path = Path(options.rows)
    torch.set_num_threads(options.threads)
    tell(__doc__.splitlines()[0])
    tell(f"{machine()}\nheld-out loss in nats a target, {' '.join(options.corpus)}, 16 passages a"
         f" step;\n*: within {CLOSE:.0%} of the row's best\n")  # fmt: skip
    if not options.report:
        keep_freed_memory()
        material = Material(tuple(options.corpus), 512 if options.quick else 4096)
        cells = grid(options.objectives, options.rate, options.quick)
        cells = [each for each in cells if each.steps <= (options.most or each.steps)]
        for number, cell in enumerate(cells, 1):
            if cell not in known(path):
                label = f"{number}/{len(cells)} {cell.objective} {cell.width} {cell.rate:g}"
                keep(path, cell, material.loss(cell, label))
    tell(report(known(path)))
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
