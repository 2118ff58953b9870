"""How long does a user wait for the same held-out loss, with minicpt and with ``transformers``?

Theirs is what a user has (``their_training.py``): nanoGPT's recipe around ``GPT2LMHeadModel``, and
``Trainer`` with its collators for masked LM and T5. It trains for ``--steps`` at each of three
learning rates. The least loss that it reaches is the goal. Ours is the command ``minicpt train``
with the same text, tokenizer, sizes and batch, without dropout on both sides. It trains for shares
of these steps, and the first that reaches the goal counts; its time runs from the start of the
command to that evaluation, without the time of the evaluations. Both are evaluated on the very same
held-out batches. CPU time is that of the whole command, shared out as the time on the clock. Freed
memory is kept on both sides (theirs by variables of glibc).

Rows: our default rate, and the best of the same three rates. Two things favour theirs: neither
tokenising nor the drawing of T5's noise is in its time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from material import THEIR_CLASSES, foreign_batch
from timing import Seconds, check_outputs, fill_in, machine, number, run, table, write_outputs
from tqdm import tqdm

from minicpt.checkpoint.huggingface import export_config
from minicpt.cli.main import Parser
from minicpt.common.errors import InputError, WorkError
from minicpt.common.outputs import plotting
from minicpt.data.order import planned
from minicpt.runs.build import build
from minicpt.runs.config import Length, RunConfig, Text, Vocabulary
from minicpt.runs.console import tell
from minicpt.training.evaluation import evaluate, noise
from minicpt.training.trainer import Training
from minicpt.training.usual_rate import usual

CORPUS = "builtin:docs"
EVALUATIONS = 20  # of a training, on all of the held-out text
SHARES = (0.3, 0.4, 0.5, 0.65, 0.8, 1.0)  # of their steps, that ours tries
FULL = {"steps": 2000, "rates": [1e-3, 2e-3, 4e-3]}
QUICK = {"steps": 20, "rates": [2e-3]}
GOALS = {"causal-lm": 0.5, "masked-lm": 0.5, "reconstruction": 0.6}
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


@dataclass(frozen=True)
class Case:
    """What is trained. Vocabulary 256: bytes."""

    objective: str
    vocabulary: int
    width: int
    window: int
    batch_size: int

    def sizes(self) -> dict:
        return {"width": self.width, "layers": 4, "num_heads": 4, "dropout": 0.0}

    def config(self) -> RunConfig:
        return RunConfig(
            self.objective,
            settings={"window": self.window},
            sizes=self.sizes(),
            text=Text(corpus=(CORPUS,)),
            vocabulary=Vocabulary(vocab_size=self.vocabulary),
            length=Length(steps=1),
            training=Training(batch_size=self.batch_size),
        )


CASES = (
    Case("causal-lm", 256, 128, 64, 12),
    Case("masked-lm", 256, 128, 64, 12),
    Case("causal-lm", 8192, 128, 128, 16),
    Case("masked-lm", 8192, 128, 128, 16),
    Case("reconstruction", 8192, 128, 128, 16),
)


# --- the two sides -----------------------------------------------------------------------------


def prepared(case: Case, steps: int, folder: Path) -> None:
    """Writes what both sides read: the tokenizer, and for theirs text and held-out batches."""
    made = build(case.config(), quiet=True)
    trainer, objective = made.trainer, made.trainer.objective
    batches = []

    def keep(passages, batch, losses) -> None:
        foreign = foreign_batch(case.objective, batch)
        foreign.pop("labels")
        batches.append({"inputs": foreign, "targets": batch.targets["tokens"]})

    evaluate(trainer.model, objective, made.held_out["held out"], each=keep)
    config = export_config(trainer.model)
    material = {
        "class": THEIR_CLASSES[case.objective], "config": config, "held_out": batches,
        "attention": "sdpa", "evaluations": EVALUATIONS, "tokenizer": str(folder),
        "window": case.window, "batch_size": case.batch_size,
    }  # fmt: skip
    if case.objective == "reconstruction":
        material["pairs"] = pairs(trainer, steps * case.batch_size)
    else:
        material["tokens"] = trainer.corpus.tokens.long()
    made.tokenizer.save(folder)
    torch.save(material, folder / "material.pt")


def pairs(trainer, count: int) -> list[tuple[list[int], list[int]]]:
    """(source, target) of the first ``count`` passages of the run, their noise drawn."""
    found = []
    for epoch in range(count):
        plan = planned(trainer.objective, trainer.corpus, 0, epoch)
        for place in range(min(len(plan), count - len(found))):
            [draw] = noise([place], epoch + 1)
            batch = trainer.objective.batch([plan[place]], [draw])
            source, target = batch.inputs["tokens"][0], batch.targets["tokens"][0]
            found.append((source.tolist(), target.tolist()))
        if len(found) == count:
            break
    return found


def theirs(folder: Path, rate: float, steps: int, threads: int) -> list[dict]:
    """The curve of one training of theirs: step, seconds, loss."""
    script = Path(__file__).with_name("their_training.py")
    words = [sys.executable, script, folder / "material.pt", rate, steps, threads]
    printed, took = finished(words, os.environ | KEPT)
    return with_cpu(json.loads(printed), took)


def ours(case: Case, folder: Path, rate: float | None, steps: int, threads: int) -> list[dict]:
    """The curve of one command ``minicpt train``: step, seconds, loss.

    rate  None: the default
    """
    every = max(1, steps // EVALUATIONS)
    with tempfile.TemporaryDirectory(prefix="ours-") as out:
        sizes = case.sizes() | {"window": case.window, "batch_size": case.batch_size}
        sizes |= {"steps": steps, "threads": threads, "evaluate_every": every}
        sizes |= {"learning_rate": rate} if rate else {}
        words = [sys.executable, "-m", "minicpt", "train", case.objective, "--corpus", CORPUS]
        words += ["--tokenizer", folder, "--out", f"{out}/run", "--evaluate-passages", 2**20]
        for key, value in sizes.items():
            words += [f"--{key.replace('_', '-')}", value]
        _, took = finished(words, os.environ)
        lines = Path(out, "run", "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return with_cpu(curve([json.loads(line) for line in lines], took.wall), took)


def finished(words: list, environment: Mapping[str, str]) -> tuple[str, Seconds]:
    """What a command printed, and the time that it took, on the clock and of CPU."""
    begun = time.perf_counter(), children()
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, env=environment, check=False
    )
    took = Seconds(time.perf_counter() - begun[0], children() - begun[1])
    if done.returncode:
        raise WorkError(f"{words[1]} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout, took


def children() -> float:
    """CPU seconds of all processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def with_cpu(points: list[dict], took: Seconds) -> list[dict]:
    """The same points with their CPU seconds."""
    busy = took.cpu / took.wall
    return [point | {"cpu": busy * point["seconds"]} for point in points]


def curve(lines: list[dict], seconds: float) -> list[dict]:
    """Loss against time from the lines of ``metrics.jsonl`` of a command that took ``seconds``.

    All that was neither a step nor an evaluation, start and saving, counts before the first step.

    >>> step = {"kind": "step", "seconds": 2.0}
    >>> losses = {"held out": {"nats_per_target": {"tokens": 3.0}}}
    >>> found = {"kind": "evaluation", "step": 1, "seconds": 5.0} | losses
    >>> curve([step, found, step], 10.0)
    [{'step': 1, 'seconds': 3.0, 'loss': 3.0}]
    """
    spent = seconds - sum(line["seconds"] for line in lines)
    points = []
    for line in lines:
        if line["kind"] == "step":
            spent += line["seconds"]
        elif line["step"]:
            loss = sum(line["held out"]["nats_per_target"].values())
            points.append({"step": line["step"], "seconds": spent, "loss": loss})
    return points


def reached(points: list[dict], goal: float) -> dict | None:
    """The first point of a curve whose loss is at most ``goal``."""
    return next((point for point in points if point["loss"] <= goal), None)


def fewest(case: Case, folder: Path, rate: float | None, goal: float, options) -> list[dict]:
    """The curve of our shortest training that reaches the goal, or of the longest one."""
    for share in SHARES:
        points = ours(case, folder, rate, round(share * options.steps), options.threads)
        if reached(points, goal):
            break
    return points


# --- the table -----------------------------------------------------------------------------------


def measured(case: Case, options: argparse.Namespace) -> list[dict]:
    """A row for each side: name, rate, steps, seconds, loss, ratio to theirs, and the curve."""
    with tempfile.TemporaryDirectory(prefix="minicpt-") as name:
        folder = Path(name)
        prepared(case, options.steps, folder)
        runs = {rate: theirs(folder, rate, options.steps, options.threads)
                for rate in tqdm(options.rates, "theirs", leave=False, disable=None)}  # fmt: skip
        rate, best = min(runs.items(), key=lambda each: min(p["loss"] for p in each[1]))
        goal = min(point["loss"] for point in best)
        found = [("theirs", rate, best)]
        own = {each: fewest(case, folder, each, goal, options) for each in (None, *options.rates)}
    default = usual(case.width)
    found.append(("ours, default rate", default, own.pop(None)))
    usable = {each: points for each, points in own.items() if reached(points, goal)}
    if usable:
        each = min(usable, key=lambda key: reached(usable[key], goal)["seconds"])
        found.append(("ours, best rate", each, usable[each]))
    first = reached(best, goal)
    rows = []
    for side, rate, points in found:
        point = reached(points, goal)
        rows.append({
            "objective": case.objective, "vocabulary": case.vocabulary, "side": side, "rate": rate,
            "steps": point and point["step"], "seconds": point and point["seconds"], "goal": goal,
            "loss": min(each["loss"] for each in points),
            "ratio": point and point["seconds"] / first["seconds"],
            "cpu_seconds": point and point["cpu"],
            "cpu_ratio": point and point["cpu"] / first["cpu"], "curve": points,
        })  # fmt: skip
    return rows


def report(rows: list[dict]) -> str:
    names = "objective vocabulary side rate steps seconds cpu goal least ratio cpu aim".split()
    lines = [
        [
            row["objective"], str(row["vocabulary"]), row["side"], f"{row['rate']:g}",
            str(row["steps"] or "-"), number(row["seconds"]), number(row["cpu_seconds"]),
            f"{row['goal']:.4f}", f"{row['loss']:.4f}", number(row["ratio"]),
            number(row["cpu_ratio"]), f"<= {GOALS[row['objective']]}",
        ]
        for row in rows
    ]  # fmt: skip
    return table(names, lines)


def plot(path: str, rows: list[dict]) -> None:
    pyplot = plotting()
    cases = list(dict.fromkeys((row["objective"], row["vocabulary"]) for row in rows))
    figure, axes = pyplot.subplots(
        1, len(cases), figsize=(4 * len(cases), 3.5), layout="constrained", squeeze=False
    )
    for axis, case in zip(axes[0], cases, strict=True):
        for row in rows:
            if (row["objective"], row["vocabulary"]) == case:
                points = row["curve"]
                axis.plot([p["seconds"] for p in points], [p["loss"] for p in points],
                          "o-", markersize=3, label=f"{row['side']} ({row['rate']:g})")  # fmt: skip
                axis.axhline(row["goal"], color="grey", linewidth=0.5)
        axis.set(title=f"{case[0]}, {case[1]}", xlabel="seconds", ylabel="held-out nats a target")
        axis.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


# --- the command line ------------------------------------------------------------------------


def read_options(words: list[str]) -> argparse.Namespace:
    top = Parser(prog="time_to_loss.py", description=__doc__.splitlines()[0])
    top.add_argument("--quick", action="store_true", help="few steps; the numbers mean nothing")
    top.add_argument("--objectives", nargs="+", metavar="NAME", default=list(GOALS))
    top.add_argument("--vocabularies", nargs="+", type=int, metavar="N", default=[256, 8192])
    top.add_argument("--steps", type=int, metavar="N", help="of theirs (default: 2000; quick: 20)")
    top.add_argument("--rates", type=float, nargs="+", metavar="X",
                     help="learning rates of both (default: 1e-3 2e-3 4e-3)")  # fmt: skip
    top.add_argument("--threads", type=int, default=2, metavar="N", help="of torch (default: 2)")
    top.add_argument("--json", metavar="PATH", help="write the rows with their curves")
    top.add_argument("--plot", metavar="PATH", help="draw loss against seconds (matplotlib)")
    options = top.parse_args(words)
    fill_in(options, QUICK if options.quick else FULL)
    if options.steps < EVALUATIONS or options.threads < 1:
        raise InputError(f"--steps must be at least {EVALUATIONS}, and --threads 1")
    return options


def main(words: list[str]) -> int:
    options = read_options(words)
    check_outputs(options)
    tell(__doc__.splitlines()[0])
    tell(machine(options.threads))
    tell(f"{CORPUS}; width 128, 4 layers, no dropout; bytes (256): 12 x 64, else 16 x 128;"
         f" theirs: {options.steps} steps\n")  # fmt: skip
    rows = []
    for case in CASES:
        if case.objective in options.objectives and case.vocabulary in options.vocabularies:
            rows += measured(case, options)
            write_outputs(options, rows, plot)
    tell(report(rows))
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
