"""What does making a batch cost, and how much of it is padding?

For every objective, on text of mixed lengths (the paragraphs of builtin:docs), batches of passages
in random order are compared with those of the plan, which puts passages of like length together;
for causal-lm also with rows that several texts share (--pack). Both are padded to their own longest
member only. A measured step is a real one: forward, backward, clipping, AdamW, dropout on. The
batches of the random order and of the plan are evenly spread over an epoch, and the orders take
turns in one process, which keeps freed memory as `minicpt train` does (``--freed-memory``).

    padding   share of the positions that stand for nothing, over the whole epoch
    ms/batch  to cut the passages and to make the batch of them
    ms/step   to train on it; both are means over the steps of the best round
    CPU       of ms/step, in CPU time of all threads
    share     of the batch in both
    tokens/s  real positions read and trained on in a second of steps, the batch's making included
    ratio     of tokens/s to those of the random order; CPU: by CPU time

Leaves out reading and tokenising (done once), and the planning of an epoch, whose seconds are
printed above the table.
"""

import argparse
import sys
import time
from functools import partial

import torch
from timing import (
    add_freed_memory,
    check_outputs,
    fill_in,
    freed_memory,
    machine,
    number,
    plotting,
    run,
    table,
    taking_turns,
    total,
    use_freed_memory,
    write_outputs,
)

from minicpt.batch import Batch, valid_positions
from minicpt.cli.main import Parser
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.order import Draw, Plan
from minicpt.data.sources import read
from minicpt.data.tokenizer import Tokenizer
from minicpt.runs.assembly import model_kind, new_model, objective_kind
from minicpt.training.optimizer import Optimization, make_optimizer
from minicpt.training.trainer import Learner, train_step

# What is measured: name in the table -> objective and settings, and the order that is the plan's.
CASES = {
    "causal-lm": ("causal-lm", {}, "like lengths"),
    "causal-lm --pack": ("causal-lm", {"pack": True}, "packed"),
    "masked-lm": ("masked-lm", {}, "like lengths"),
    "next-sentence": ("next-sentence", {}, "like lengths"),
    "next-sentence --masked": ("next-sentence", {"masked": True}, "like lengths"),
    "reconstruction": ("reconstruction", {}, "like lengths"),
}
FULL = {"width": 256, "layers": 4, "vocabulary": 8192, "steps": 16, "rounds": 3}
QUICK = {"width": 64, "layers": 2, "vocabulary": 1024, "steps": 8, "rounds": 2}
HEADINGS = "objective order padding ms/batch ms/step CPU share tokens/s ratio CPU".split()


def positions(batch: Batch) -> tuple[int, int]:
    """The real positions of all streams, and all positions."""
    masks = [valid_positions(each) for name, each in batch.inputs.items() if name.endswith("mask")]
    return sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)


def shuffled(plan: Plan) -> Plan:
    order = torch.randperm(len(plan), generator=generator("random order"))
    return Plan(plan.rows[order], plan.cut, plan.lengths[order])


def made(objective, plan: Plan, place: int, size: int) -> Batch:
    draws = [Draw(each, generator("noise", 0, 0, each)) for each in range(place, place + size)]
    return objective.batch(plan[place : place + size], draws)


def measure(
    name: str, corpus: Corpus, tokenizer: Tokenizer, options: argparse.Namespace
) -> list[dict]:
    """The rows of one case, with the keys objective, order, padding, batch_seconds, step_seconds,
    step_cpu_seconds, share, tokens_per_s, tokens_per_cpu_s and plan_seconds."""
    asked, settings, order = CASES[name]
    kind = objective_kind(asked)
    architecture = model_kind("", kind)
    settings = kind.Settings(window=options.window, **settings)
    objective = kind(tokenizer, settings, architecture.ROLE)
    begun = time.perf_counter()
    plan = objective.plan(corpus, 0, 0)
    plan_seconds = time.perf_counter() - begun
    sizes = {"width": options.width, "layers": options.layers, "num_heads": 4}
    learner = Learner(new_model(architecture, objective, sizes, seed=0), objective).train()
    optimizer = make_optimizer(learner, Optimization(learning_rate=1e-3))
    # Rows that are full need no order.
    plans = {order: plan} if order == "packed" else {"random": shuffled(plan), order: plan}
    size = options.batch_size
    starts = range(0, len(plan) - size + 1, size)
    if not starts:
        raise InputError(f"--batch-size {size} is more than the {len(plan)} passages of {name}")
    chosen = [starts[index * len(starts) // options.steps] for index in range(options.steps)]

    def make(passages: Plan) -> list[Batch]:
        return [made(objective, passages, start, size) for start in chosen]

    def train(batches: list[Batch]) -> None:
        for batch in batches:
            train_step(learner, optimizer, [batch], 1.0)

    batches = {each: make(passages) for each, passages in plans.items()}
    best = taking_turns(
        {("batch", each): partial(make, passages) for each, passages in plans.items()}
        | {("step", each): partial(train, these) for each, these in batches.items()},
        options.rounds,
    )
    rows = []
    for each, passages in plans.items():
        counts = [positions(made(objective, passages, start, size)) for start in starts]
        part, whole = map(sum, zip(*counts, strict=True))
        making, training = best["batch", each], best["step", each]
        both, read = total([making, training]), sum(positions(one)[0] for one in batches[each])
        rows.append({
            "objective": name,
            "order": each,
            "padding": 1 - part / whole,
            "batch_seconds": making.wall / options.steps,
            "step_seconds": training.wall / options.steps,
            "step_cpu_seconds": training.cpu / options.steps,
            "share": making.wall / both.wall,
            "tokens_per_s": read / both.wall,
            "tokens_per_cpu_s": read / both.cpu,
            "plan_seconds": plan_seconds,
        })  # fmt: skip
    return rows


def cells(row: dict) -> list[str]:
    return [
        row["objective"], row["order"], f"{row['padding']:.1%}",
        number(1000 * row["batch_seconds"]), number(1000 * row["step_seconds"]),
        number(1000 * row["step_cpu_seconds"]), f"{row['share']:.1%}",
        f"{row['tokens_per_s']:,.0f}", number(row["ratio"]), number(row["cpu_ratio"]),
    ]  # fmt: skip


def plot(path: str, rows: list[dict]) -> None:
    pyplot = plotting()
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    labels = [f"{row['objective']}, {row['order']}" for row in rows]
    axes.barh(labels, [row["tokens_per_s"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("tokens trained on in a second")
    figure.savefig(path, dpi=150)


def parser() -> Parser:
    top = Parser(prog="batches.py", description=__doc__.splitlines()[0])
    top.add_argument("--quick", action="store_true", help="small and short: within a minute")
    top.add_argument("--json", metavar="PATH", help="write the rows, a list of objects")
    top.add_argument("--plot", metavar="PATH", help="draw tokens a second (matplotlib)")
    top.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE",
                     help=f"of {', '.join(CASES)} (default: all)")
    for key, text in {
        "width": "of the models", "layers": "of the models", "vocabulary": "of the tokenizer",
        "steps": "measured of each order", "rounds": "in which the orders take turns",
    }.items():  # fmt: skip
        shown = f"{text} (default: {FULL[key]}; quick: {QUICK[key]})"
        top.add_argument(f"--{key}", type=int, metavar="N", help=shown)
    for key, default, text in (
        ("window", 128, "the most tokens read at once"), ("batch-size", 16, "passages of a step"),
        ("threads", 1, "of torch"),
    ):  # fmt: skip
        help = f"{text} (default: {default})"
        top.add_argument(f"--{key}", type=int, default=default, metavar="N", help=help)
    add_freed_memory(top)
    return top


def main(words: list[str]) -> int:
    options = parser().parse_args(words)
    fill_in(options, QUICK if options.quick else FULL)
    for key in (*FULL, "batch_size", "threads"):
        if getattr(options, key) < 1:
            raise InputError(f"--{key.replace('_', '-')} must be at least 1")
    check_outputs(options)
    torch.set_num_threads(options.threads)
    use_freed_memory(options.freed_memory)
    documents = read(["builtin:docs"], blocks=True)
    tokenizer = Tokenizer.train((document.text for document in documents), options.vocabulary)
    corpus = Corpus.build(documents, tokenizer)
    print(__doc__.splitlines()[0])
    print(machine())
    print(
        f"{len(corpus.documents)} paragraphs of builtin:docs, {len(corpus.tokens)} tokens; window"
        f" {options.window}, batch size {options.batch_size},\nwidth {options.width},"
        f" {options.layers} layers, vocabulary {options.vocabulary}; {options.steps} steps, best of"
        f" {options.rounds} rounds;\n{freed_memory(options.freed_memory)}\n"
    )
    rows: list[dict] = []
    base = None
    for name in (each for each in CASES if each in options.cases):
        for row in measure(name, corpus, tokenizer, options):
            if row["order"] == "random":
                base = row  # also for the packed rows, which come next
            rows.append(row | {
                "ratio": row["tokens_per_s"] / base["tokens_per_s"] if base else None,
                "cpu_ratio": row["tokens_per_cpu_s"] / base["tokens_per_cpu_s"] if base else None,
            })  # fmt: skip
    planned = {row["objective"]: number(row["plan_seconds"], 2) for row in rows}
    print("seconds to plan the epoch: " + ", ".join(f"{n} {s}" for n, s in planned.items()) + "\n")
    print(table(HEADINGS, [cells(row) for row in rows]), flush=True)
    write_outputs(options, rows, plot)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
