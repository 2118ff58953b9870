"""``minicpt demo``: the whole story on the text that every Python carries, in a few minutes.

A small decoder learns the Python reference, and is then continued on the standard library's source:
what does it gain there, and what does it forget? On the way, that very model shows that the loss of
the whole sequence from one forward pass is the loss computed token by token.

Its length is a number of steps, not the clock, so every digit repeats on one machine with one
number of threads. Elsewhere sums are rounded otherwise. Training makes that grow: after 5 steps the
losses differ in the 8th digit, after 40 in the 5th, and at the end what is gained and forgotten
differs in the 2nd decimal.
"""

import argparse
import copy
import textwrap
from collections.abc import Callable

import torch

from minicpt.common.errors import WorkError
from minicpt.common.randomness import generator
from minicpt.data.builtin import origin
from minicpt.data.corpus import Corpus
from minicpt.data.order import Draw
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import Sampling
from minicpt.proofs.both_ways import BothWays
from minicpt.runs.assembly import make_trainer, model_kind, new_model, objective_kind
from minicpt.runs.config import Text
from minicpt.runs.console import print_json, progress
from minicpt.runs.texts import held_out, texts
from minicpt.training.evaluation import evaluate
from minicpt.training.trainer import Training

SEED = 0
OBJECTIVE = "causal-lm"
VOCABULARY = 2048
WINDOW = 128
BASE = Training(seed=SEED, learning_rate=2e-3), 500
CONTINUED = Training(seed=SEED, learning_rate=1e-3), 250
EVALUATED = 200  # held-out passages of each text
CHECKED = 64  # positions of the passage on which the two losses are compared
PROMPT = "The following example"
LAYOUT = {"subsequent_indent": "    ", "max_lines": 4, "placeholder": " …"}
DOCS, CODE = "builtin:docs", "builtin:code"

EXAMPLES = """examples:
  minicpt demo
  minicpt demo --json
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    tell = (lambda *words: None) if arguments.json else print
    for source in (DOCS, CODE):
        tell(origin(source))
    found = {source: texts(Text(corpus=(source,))) for source in (DOCS, CODE)}
    apart = held_out(found[CODE], [found[DOCS]], tell)
    tokenizer = Tokenizer.train((each.text for each in found[DOCS].training), VOCABULARY)
    corpora = {
        source: tuple(Corpus.build(part, tokenizer, progress=True) for part in parts)
        for source, parts in {
            DOCS: (found[DOCS].training, apart["old text"]),
            CODE: (found[CODE].training, apart["held out"]),
        }.items()
    }
    kind = objective_kind(OBJECTIVE)
    objective = kind(tokenizer, kind.Settings(window=WINDOW))
    model = new_model(model_kind("", kind), objective, {"dropout": 0.0}, SEED)
    config, parameters = model.config, sum(each.numel() for each in model.parameters())
    tell(f"model: GPT-2, {config.layers} layers, width {config.width}, {parameters:,} parameters\n")

    rows, samples = {}, {}

    def look(name: str) -> None:
        rows[name] = {
            source: evaluate(model, objective, held_out, EVALUATED).bits_per_byte
            for source, (_, held_out) in corpora.items()
        }
        draws = generator("demo", SEED)
        samples[name] = objective.generate(model, PROMPT, Sampling(length=60), draws)

    look("untrained")
    train(model, objective, corpora[DOCS][0], *BASE, "the base, on the Python reference")
    look("base")
    equality = compare(model, objective, corpora[DOCS][1])
    tell_equality(tell, equality)
    train(model, objective, corpora[CODE][0], *CONTINUED, "continued, on the library's source")
    look("continued")
    tell_table(tell, rows)
    tell("\nThe same beginning, before and after:\n")
    for name in ("base", "continued"):
        tell(textwrap.fill(samples[name], 78, initial_indent=f"  {name}: ", **LAYOUT))
    tell(f"\nEvery digit repeats on this machine with {torch.get_num_threads()} threads;")
    tell("elsewhere what is gained and forgotten may differ in the second decimal.")
    tell("\nGo on: minicpt train causal-lm --help; minicpt explain causal-lm")
    if arguments.json:
        print_json({"bits_per_byte": rows, "equality": equality, "samples": samples})
    return 0


def train(model, objective, corpus, settings: Training, steps: int, what: str) -> None:
    trainer = make_trainer(model, objective, corpus, settings, steps)
    with progress(steps, 0) as bar:
        bar.set_description(what)
        for step in trainer.run():
            bar.set_postfix_str(f"loss {float(step.losses['tokens'].mean):.3f}", refresh=False)
            bar.update()


def compare(model, objective, corpus) -> dict:
    """The two ways to the loss, on a copy of the model in float64; differences are relative."""
    model = copy.deepcopy(model).double().eval()
    passage = next(
        passage for passage in objective.plan(corpus, SEED, 0) if len(passage.tokens) >= CHECKED
    )
    batch = objective.batch([passage.part(0, CHECKED)], [Draw(0, generator("demo", SEED))])
    parts = objective.parts(model)
    ways = BothWays(
        model,
        lambda some: objective.losses(model, parts, some),
        batch,
        objective.visibility(batch),
    )
    losses_apart, gradients_apart = ways.losses_apart()[0], ways.gradients_apart()[0]
    together, alone = (float(each.detach()) for each in ways.means())
    return {
        "targets": batch.counts()["tokens"],
        "whole_sequence": together,
        "per_token": alone,
        "losses_apart": losses_apart,
        "gradients_apart": gradients_apart,
        "tolerance": ways.tolerance,
        "equal": max(losses_apart, gradients_apart) <= ways.tolerance,
    }


def tell_equality(tell: Callable, equality: dict) -> None:
    tell("Is the loss of the whole sequence, from one forward pass, the loss token by token?\n")
    count = equality["targets"]
    tell(f"  {f'one forward pass, {count} targets':<36}{equality['whole_sequence']:.12f}")
    tell(f"  {f'{count} forward passes, a target each':<36}{equality['per_token']:.12f}")
    tell("  largest differences, relative to the largest loss and gradient:")
    tell(f"  of a loss                           {equality['losses_apart']:.1e}")
    tell(f"  of a gradient                       {equality['gradients_apart']:.1e}")
    tell(f"  what rounding may make of them      {equality['tolerance']:.1e}")
    if not equality["equal"]:
        raise WorkError("the two losses differ: this model sees what it must not; run the tests")
    tell("\nYes: the causal mask shows each position just what it sees when it stands last.\n")


def tell_table(tell: Callable, rows: dict) -> None:
    tell("Loss on held-out text, in bits per byte:\n")
    tell(f"  {'':<18}{'Python reference':>18}{'library source':>18}")
    for name, values in rows.items():
        tell(f"  {name:<18}{values[DOCS]:>18.3f}{values[CODE]:>18.3f}")
    forgotten = rows["continued"][DOCS] - rows["base"][DOCS]
    gained = rows["base"][CODE] - rows["continued"][CODE]
    tell(f"  {'':<18}{f'forgotten {forgotten:+.3f}':>18}{f'gained {gained:+.3f}':>18}")
