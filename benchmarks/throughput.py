"""How fast does minicpt train, against transformers on the same machine, batches and sizes?

For every objective and vocabulary both train a model of the same sizes, dropout included, on the
very same batches of real text (``material.py``), each in a process of its own (``worker.py``) with
the settings that its users get. They take turns of a few steps; of every batch the best step of all
rounds counts, and their sum. Theirs is at its best: fused AdamW, no cache of keys and values, and
the fastest of sdpa and eager attention in a plain loop and in ``Trainer``. Ours is what `minicpt
train` runs for a step.

What `minicpt train` asks of its process, both processes get. The C library keeps freed memory
(``device.keep_freed_memory``); with `--freed-memory returned` it does so on neither side. Waiting
threads sleep (OMP_WAIT_POLICY=PASSIVE); else the idle side's spinning threads would take the cores
from the other.

CPU seconds are user and system time of all threads of a process. Of these too theirs is the least
of its candidates'. The bound is the ratio that would be reached if our step took only its matrix
products, each as fast as it runs alone (``products.py``). Tokens are the real positions read, of
both streams of an encoder-decoder. Peak memory is what a few steps add to the level after the
imports, in MiB.

On mixed lengths, passages of short documents train in the order of the objective's plan, which
brings like lengths together, and in random order, both padded to the longest of each batch.

With `--smollm2` the model is Llama with SmolLM2-135M's sizes (``smollm2.py``).

With `--against CHECKOUT` the other side is minicpt itself, as another checkout has it
(``against.py``).

Leaves out the making of the batches, which is timed apart, and GPUs.
"""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

import against
import material
import smollm2
from material import EQUAL, PLANNED, RANDOM, Sizes
from throughput_results import plot, report
from timing import (
    add_freed_memory,
    check_outputs,
    fill_in,
    freed_memory,
    machine,
    peak_memory,
    run,
    use_freed_memory,
    write_json,
)
from tqdm import tqdm
from turns import Worker, environment, take_turns
from worker import PRODUCTS

from minicpt.cli.main import Parser
from minicpt.common.errors import InputError

WORKER = str(Path(__file__).with_name("worker.py"))
OBJECTIVES = list(material.THEIR_CLASSES)
MIXED = ("causal-lm", "masked-lm", "reconstruction")  # pairs fill their window in any text
FULL = {"vocabularies": [8192, 30522], "rounds": 3, "batches": 2, "mixed_batches": 8,
        "memory": True, "mixed": True}  # fmt: skip
QUICK = {"vocabularies": [8192], "rounds": 2, "batches": 1, "mixed_batches": 4,
         "memory": False, "mixed": False}  # fmt: skip


def words_of(side: str, options: argparse.Namespace) -> list[str]:
    """The arguments of the Python that is a side."""
    return [WORKER, side, str(options.threads), options.freed_memory]


def measure(
    name: str, vocabulary: int, options: argparse.Namespace, sides: Mapping[str, Worker], path: str
) -> dict:
    """The row of an objective and a vocabulary.

    Keys: objective, vocabulary, freed_memory, ours_tokens_per_s, theirs_tokens_per_s, ratio (by
    the clock), cpu_ratio, ours_peak_mib, theirs_peak_mib (None without memory), matmul_bound (by
    the clock); theirs_best (the fastest candidate), ours_seconds, theirs_seconds (by candidate) and
    products_seconds (each of a step: on the clock, of CPU), making_seconds (of a batch, the
    fastest), mixed (None, or what ``measure_mixed`` found).
    """
    sizes = sizes_of(options, vocabulary, options.batches)
    case, making = material.case(name, sizes, mixed=False)
    case.save(path)
    candidates = {side: side.ask("case", path) for side in sides.values()}
    seconds = take_turns(candidates, options.rounds, rivals={sides["theirs"]})
    each = {key: found.times(1 / sizes.batches) for key, found in seconds.items()}
    ours, products = each.pop(("ours", EQUAL)), each.pop(("ours", PRODUCTS))
    theirs = {candidate: found for (_, candidate), found in each.items()}
    best = min(theirs, key=lambda candidate: theirs[candidate].wall)
    read = sum(material.tokens(batch) for batch in case.batches[EQUAL]) / sizes.batches
    peaks = [None, None]
    if options.memory:
        peaks = [
            peak_memory([*words_of(side, options), path, candidate], environment(options.threads))
            for side, candidate in (("ours", EQUAL), ("theirs", best))
        ]
    mixed = None
    if options.mixed and name in MIXED and vocabulary == options.vocabularies[0]:
        mixed = measure_mixed(name, vocabulary, options, sides, path, best)
    return {
        "objective": name,
        "vocabulary": vocabulary,
        "freed_memory": options.freed_memory,
        "ours_tokens_per_s": read / ours.wall,
        "theirs_tokens_per_s": read / theirs[best].wall,
        "ratio": theirs[best].wall / ours.wall,
        "cpu_ratio": min(found.cpu for found in theirs.values()) / ours.cpu,
        "ours_peak_mib": peaks[0],
        "theirs_peak_mib": peaks[1],
        "matmul_bound": theirs[best].wall / products.wall,
        "theirs_best": best,
        "ours_seconds": ours,
        "theirs_seconds": theirs,
        "products_seconds": products,
        "making_seconds": making,
        "mixed": mixed,
    }


def measure_mixed(
    name: str, vocabulary: int, options: argparse.Namespace, sides: Mapping[str, Worker],
    path: str, best: str,
) -> dict:
    """Seconds of all steps on mixed lengths, on the clock and of CPU: planned, random, theirs.

    Theirs is the candidate that was best on equal lengths, in random order. Beside them tokens, of
    all steps, and the share of positions that are real: planned_real and random_real.
    """
    sizes = sizes_of(options, vocabulary, options.mixed_batches)
    case, _ = material.case(name, sizes, mixed=True)
    case.save(path)
    for side in sides.values():
        side.ask("case", path)
    chosen = {sides["ours"]: [PLANNED, RANDOM], sides["theirs"]: [best]}
    seconds = take_turns(chosen, options.rounds)
    real = {}
    for order, batches in case.batches.items():
        read = sum(material.tokens(batch) for batch in batches)  # the same in both orders
        real[order] = read / sum(
            value.numel() for batch in batches
            for stream, value in batch.inputs.items() if stream.endswith("tokens")
        )  # fmt: skip
    return {
        "tokens": read,
        "planned": seconds["ours", PLANNED],
        "random": seconds["ours", RANDOM],
        "theirs": seconds["theirs", best],
        "planned_real": real[PLANNED],
        "random_real": real[RANDOM],
    }


def sizes_of(options: argparse.Namespace, vocabulary: int, batches: int) -> Sizes:
    return Sizes(vocabulary, options.width, options.layers, options.batch_size, options.window,
                 batches)  # fmt: skip


# --- the command line ------------------------------------------------------------------------


def parser() -> Parser:
    top = Parser(prog="throughput.py", description=__doc__.splitlines()[0])
    top.add_argument("--quick", action="store_true", help="one vocabulary, fewer steps")
    top.add_argument("--json", metavar="PATH", help="write the rows, a list of objects")
    top.add_argument("--plot", metavar="PATH", help="draw ratios and memory (matplotlib)")
    top.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=OBJECTIVES,
                     metavar="NAME", help=f"of {', '.join(OBJECTIVES)} (default: all)")
    top.add_argument("--vocabularies", nargs="+", type=int, metavar="N",
                     help="tokens, special ones included (default: 8192 30522; quick: 8192)")
    for key, text in {
        "rounds": "in which the sides take turns; the best of every step counts",
        "batches": "steps of a turn", "mixed_batches": "steps of a turn on mixed lengths",
    }.items():  # fmt: skip
        top.add_argument(f"--{key.replace('_', '-')}", type=int, metavar="N",
                         help=f"{text} (default: {FULL[key]}; quick: {QUICK[key]})")
    for key, text in {
        "width": "of the models", "layers": "of the models, of each stack of T5's",
        "batch_size": "passages of a batch", "window": "positions of a passage",
    }.items():  # fmt: skip
        top.add_argument(f"--{key.replace('_', '-')}", type=int, metavar="N",
                         default=getattr(Sizes, key),
                         help=f"{text} (default: {getattr(Sizes, key)})")
    add_freed_memory(top)
    top.add_argument("--against", metavar="CHECKOUT",
                     help="another folder of this repository: time `minicpt train` there and here")
    top.add_argument("--smollm2", action="store_true",
                     help="SmolLM2-135M's sizes instead, all weights and LoRA (needs peft)")
    top.add_argument("--smollm2-layers", type=int, metavar="N", help="fewer of its 30 layers")
    top.add_argument("--threads", type=int, default=2, metavar="N", help="of torch (default: 2)")
    top.add_argument("--memory", action=argparse.BooleanOptionalAction,
                     help="measure peak memory too (default: yes; quick: no)")
    top.add_argument("--mixed", action=argparse.BooleanOptionalAction,
                     help="measure mixed lengths too, at the first vocabulary (likewise)")
    return top


def read_options(words: list[str]) -> argparse.Namespace:
    """The options with their defaults filled in. Raises InputError for what makes no sense."""
    options = parser().parse_args(words)
    fill_in(options, QUICK if options.quick else FULL)
    for key in ("rounds", "batches", "mixed_batches", "layers", "batch_size", "threads"):
        if getattr(options, key) < 1:
            flag = key.replace("_", "-")
            raise InputError(f"--{flag} must be at least 1, but is {getattr(options, key)}")
    least = min(options.vocabularies)
    if least < material.LEAST:
        raise InputError(f"--vocabularies {least} is too small: at least {material.LEAST}")
    if options.width < 4 or options.width % 4:
        raise InputError(f"--width must be a multiple of the 4 heads, but is {options.width}")
    if options.window < 16:
        raise InputError(f"--window must be at least 16, but is {options.window}")
    if options.against and options.plot:
        raise InputError("--against draws nothing; leave --plot out")
    return options


def main(words: list[str]) -> int:
    options = read_options(words)
    check_outputs(options)
    if options.against:
        return against.main(options)
    for library in ("transformers", "accelerate"):
        if importlib.util.find_spec(library) is None:
            raise InputError(f"throughput.py needs {library}: pip install transformers accelerate")
    use_freed_memory(options.freed_memory)  # in this process only to hear of errors at once
    if options.smollm2:
        return smollm2.main(options, words_of)
    print(__doc__.splitlines()[0])
    print(machine(options.threads))
    print(f"transformers {metadata.version('transformers')}; float32, width {options.width}, "
          f"{options.layers} layers, 4 heads, dropout 0.1, batches of {options.batch_size} x "
          f"{options.window};\nbest of {options.rounds} rounds of {options.batches} steps; "
          f"{freed_memory(options.freed_memory)}\n")
    for size in options.vocabularies:
        found = material.tokenizer_of(size).size
        if found < size:
            print(f"the text gives {found} tokens; the models have {size} all the same")
    rows: list[dict] = []
    asked = [(name, size) for name in options.objectives for size in options.vocabularies]
    with tempfile.TemporaryDirectory(prefix="minicpt-") as folder, ExitStack() as stack:
        sides = {
            side: stack.enter_context(
                Worker(side, words_of(side, options), environment(options.threads))
            )
            for side in ("ours", "theirs")
        }
        for name, size in tqdm(asked, leave=False, disable=not sys.stderr.isatty()):
            rows.append(measure(name, size, options, sides, str(Path(folder, "case"))))
            if options.json:  # a long run that is stopped leaves what it has
                write_json(options.json, rows)
    # The aims hold for these sizes alone.
    print(report(rows, aims=sizes_of(options, 0, Sizes.batches) == Sizes(0)))
    if options.plot:
        plot(options.plot, rows)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
