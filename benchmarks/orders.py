"""In which order, and how packed, do passages teach most in equal time?

One model a variant, trained from scratch for the same CPU seconds on the same text, and its loss on
held-out passages. The learning-rate schedule ends with each run: how many steps fit is timed first.

    random    batches of passages as they come
    grouped   batches of passages of like length (``data.order.group_by_length``)
    packed    rows that several passages share (causal-lm --pack), as many tokens a step

One seed, so differences below about 1 % say nothing. Leaves out other sizes and rates.
"""

import argparse
import sys
import time

import torch
from timing import machine, number, run, table

from minicpt.cli.main import Parser
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.order import Plan, group_by_length
from minicpt.data.sources import read
from minicpt.data.split import split
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives import reserved
from minicpt.runs.assembly import make_objective, make_trainer, model_kind, new_model
from minicpt.runs.assembly import objective_kind as kind_of
from minicpt.runs.console import tell
from minicpt.training.device import keep_freed_memory
from minicpt.training.evaluation import evaluate
from minicpt.training.trainer import Training

OBJECTIVES = ("causal-lm", "span-corruption", "reconstruction")
TIMED = 40  # steps that say how many fit, after BEFORE others
BEFORE = 5


def ordered(plan: Plan, variant: str, seed: int, epoch: int) -> Plan:
    """The passages of a plan in the order of a variant."""
    draws = generator("orders", seed, epoch)
    if variant == "grouped":
        order = group_by_length(plan.lengths, draws)
    else:
        order = torch.randperm(len(plan), generator=draws)
    return Plan(plan.rows[order], plan.cut, plan.lengths[order])


def objective_of(name: str, tokenizer: Tokenizer, variant: str):
    kind = kind_of(name)
    settings = kind.Settings(**({"pack": True} if variant == "packed" else {}))
    objective = make_objective(kind, tokenizer, settings, model_kind("", kind))
    plan = objective.plan
    objective.plan = lambda corpus, seed, epoch: ordered(
        plan(corpus, seed, epoch), variant, seed, epoch
    )
    return objective


def trainer_of(name: str, corpora, tokenizer: Tokenizer, variant: str, steps: int):
    """A trainer whose steps read, in all variants, as many tokens on average."""
    objective = objective_of(name, tokenizer, variant)
    usual = objective_of(name, tokenizer, "random").plan(corpora[0], 0, 0).lengths.double().mean()
    own = objective.plan(corpora[0], 0, 0).lengths.double().mean()
    size = max(1, round(Training.batch_size * float(usual / own)))
    chosen = model_kind("", kind_of(name))
    model = new_model(chosen, objective, {"width": 128, "dropout": 0.0}, seed=0)
    return make_trainer(model, objective, corpora[0], Training(batch_size=size), steps)


def row(name: str, corpora, tokenizer: Tokenizer, variant: str, seconds: float) -> list[str]:
    trainer = trainer_of(name, corpora, tokenizer, variant, 10**6)
    for _ in range(BEFORE):
        trainer.advance()
    begun = time.process_time()
    for _ in range(TIMED):
        trainer.advance()
    each = (time.process_time() - begun) / TIMED
    trainer = trainer_of(name, corpora, tokenizer, variant, max(1, int(seconds / each)))
    begun = time.process_time()
    for _ in trainer.run():
        pass
    used = time.process_time() - begun
    found = evaluate(trainer.model, objective_of(name, tokenizer, "random"), corpora[1], 400)
    loss = float(sum(each.mean for each in found.losses.values()))
    return [name, variant, str(trainer.steps), number(used, 3), f"{loss:.3f}"]


def main(words: list[str]) -> int:
    top = Parser(prog="orders.py", description=__doc__.splitlines()[0])
    top.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), metavar="NAME")
    top.add_argument("--corpus", nargs="+", default=["builtin:docs"], metavar="SRC")
    top.add_argument("--seconds", type=float, default=60, metavar="X", help="of CPU for each run")
    options: argparse.Namespace = top.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    texts = split(read(options.corpus))
    tokenizer = Tokenizer.train((each.text for each in texts[0]), 1024, reserved())
    corpora = [Corpus.build(each, tokenizer) for each in texts]
    tell(f"{__doc__.splitlines()[0]}\n{machine()}\n{options.seconds:g} CPU seconds a run, loss in"
         f" nats a target, {' '.join(options.corpus)}\n")  # fmt: skip
    rows = []
    for name in options.objectives:
        packs = ["packed"] if hasattr(kind_of(name).Settings, "pack") else []
        for variant in ["random", "grouped", *packs]:
            rows.append(row(name, corpora, tokenizer, variant, options.seconds))
    tell(table(["objective", "order", "steps", "seconds", "loss"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
