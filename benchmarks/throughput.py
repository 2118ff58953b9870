"""How fast does minicpt train, against transformers on the same machine, batches and sizes?

For every objective and vocabulary both train a model of the same sizes, dropout included, on the
very same batches of real text (``material.py``), each in a process of its own (``worker.py``) with
the settings that its users get. They take turns of a few steps; of every batch the best step of all
rounds counts, and their sum. Theirs is at its best: fused AdamW, and the fastest of sdpa and eager
attention in a plain loop and in ``Trainer``. Ours is what `minicpt train` runs for a step. Both
processes let waiting threads sleep (OMP_WAIT_POLICY=PASSIVE), or the idle one's spinning threads
would take the cores from the other.

The bound is the ratio that would be reached if our step took only its matrix products, each as fast
as it runs alone (``products.py``). Tokens are the real positions read, of both streams of an
encoder-decoder. Peak memory is what a few steps add to the level after the imports, in MiB.

On mixed lengths, passages of short documents train in the order of the objective's plan, which
brings like lengths together, and in random order, both padded to the longest of each batch.

Leaves out the making of the batches, which is timed apart, and GPUs.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

import material
from material import EQUAL, PLANNED, RANDOM, Sizes
from throughput_results import plot, report
from timing import (
    check_outputs,
    fill_in,
    machine,
    peak_memory,
    run,
    write_json,
)
from tqdm import tqdm
from worker import PRODUCTS

from minicpt.cli.main import Parser
from minicpt.errors import InputError, WorkError

WORKER = str(Path(__file__).with_name("worker.py"))
OBJECTIVES = list(material.THEIR_CLASSES)
MIXED = ("causal-lm", "masked-lm", "reconstruction")  # pairs fill their window in any text
FULL = {"vocabularies": [8192, 30522], "rounds": 5, "batches": 4, "mixed_batches": 12,
        "memory": True, "mixed": True}  # fmt: skip
QUICK = {"vocabularies": [8192], "rounds": 2, "batches": 1, "mixed_batches": 4,
         "memory": False, "mixed": False}  # fmt: skip


class Worker:
    """A side in a process of its own that waits for its turns."""

    def __init__(self, side: str, threads: int):
        self.side, self.errors = side, tempfile.TemporaryFile("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, WORKER, side, str(threads)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment(threads),
        )  # fmt: skip

    def ask(self, *words: str) -> list:
        """``case PATH``: the names of its candidates; ``turn CANDIDATE``: the seconds of its parts.

        Raises WorkError when the process has ended.
        """
        try:
            print(*words, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # there will be no answer either
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            said = (self.errors.read().strip().splitlines() or ["no message"])[-1]
            raise WorkError(f"the process of {self.side} ended: {said}")
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def environment(threads: int) -> dict[str, str]:
    """Of a worker: as many threads as asked for, and none that spins while the others work."""
    return os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def take_turns(
    workers: Sequence[Worker], path: str, rounds: int, only: Collection[str] = ()
) -> dict[tuple[str, str], float]:
    """(side, candidate) -> seconds: the best of each of a turn's parts over all rounds, added up.

    only  the candidates that take part; none: all
    """
    candidates = {worker: worker.ask("case", path) for worker in workers}
    best: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for worker, names in candidates.items():
            for name in names:
                if not only or name in only:
                    found, key = worker.ask("turn", name), (worker.side, name)
                    best[key] = list(map(min, found, best.get(key, found)))
    return {key: sum(parts) for key, parts in best.items()}


def measure(
    name: str, vocabulary: int, options: argparse.Namespace, workers: Sequence[Worker], path: str
) -> dict:
    """The row of an objective and a vocabulary.

    Keys: objective, vocabulary, ours_tokens_per_s, theirs_tokens_per_s, ratio, ours_peak_mib,
    theirs_peak_mib (None without memory), matmul_bound; theirs_best (the candidate), ours_seconds,
    theirs_seconds (of a step, by candidate), products_seconds (of a step), making_seconds (of a
    batch, the fastest), mixed (None, or what ``measure_mixed`` found).
    """
    sizes = sizes_of(options, vocabulary, options.batches)
    case, making = material.case(name, sizes, mixed=False)
    case.save(path)
    seconds = take_turns(workers, path, options.rounds)
    ours, products = (seconds.pop(("ours", each)) for each in (EQUAL, PRODUCTS))
    theirs = {candidate: value for (_, candidate), value in seconds.items()}
    best = min(theirs, key=theirs.get)
    read = sum(material.tokens(batch) for batch in case.batches[EQUAL])
    peaks = [None, None]
    if options.memory:
        peaks = [
            peak_memory([WORKER, side, str(options.threads), path, candidate],
                        environment(options.threads))
            for side, candidate in (("ours", EQUAL), ("theirs", best))
        ]  # fmt: skip
    mixed = None
    if options.mixed and name in MIXED and vocabulary == options.vocabularies[0]:
        mixed = measure_mixed(name, vocabulary, options, workers, path, best)
    return {
        "objective": name,
        "vocabulary": vocabulary,
        "ours_tokens_per_s": read / ours,
        "theirs_tokens_per_s": read / theirs[best],
        "ratio": theirs[best] / ours,
        "ours_peak_mib": peaks[0],
        "theirs_peak_mib": peaks[1],
        "matmul_bound": theirs[best] / products,
        "theirs_best": best,
        "ours_seconds": ours / sizes.batches,
        "theirs_seconds": {each: value / sizes.batches for each, value in theirs.items()},
        "products_seconds": products / sizes.batches,
        "making_seconds": making,
        "mixed": mixed,
    }


def measure_mixed(
    name: str, vocabulary: int, options: argparse.Namespace, workers: Sequence[Worker], path: str,
    best: str,
) -> dict[str, float]:
    """Tokens a second on mixed lengths: planned, random, theirs; and the share of real positions,
    planned_real and random_real. Theirs is the candidate that was best on equal lengths."""
    sizes = sizes_of(options, vocabulary, options.mixed_batches)
    case, _ = material.case(name, sizes, mixed=True)
    case.save(path)
    seconds = take_turns(workers, path, options.rounds, only={PLANNED, RANDOM, best})
    read, real = {}, {}
    for order, batches in case.batches.items():
        read[order] = sum(material.tokens(batch) for batch in batches)
        real[order] = read[order] / sum(
            value.numel() for batch in batches
            for stream, value in batch.inputs.items() if stream.endswith("tokens")
        )  # fmt: skip
    return {
        "planned": read[PLANNED] / seconds["ours", PLANNED],
        "random": read[RANDOM] / seconds["ours", RANDOM],
        "theirs": read[RANDOM] / seconds["theirs", best],
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
    return options


def main(words: list[str]) -> int:
    options = read_options(words)
    check_outputs(options)
    for library in ("transformers", "accelerate"):
        if importlib.util.find_spec(library) is None:
            raise InputError(f"throughput.py needs {library}: pip install transformers accelerate")
    print(__doc__.splitlines()[0])
    print(machine(options.threads))
    print(f"transformers {metadata.version('transformers')}; float32, width {options.width}, "
          f"{options.layers} layers, 4 heads, dropout 0.1, batches of {options.batch_size} x "
          f"{options.window};\nbest of {options.rounds} rounds of {options.batches} steps\n")
    for size in options.vocabularies:
        found = material.tokenizer_of(size).size
        if found < size:
            print(f"the text gives {found} tokens; the models have {size} all the same")
    rows: list[dict] = []
    asked = [(name, size) for name in options.objectives for size in options.vocabularies]
    with tempfile.TemporaryDirectory(prefix="minicpt-") as folder, ExitStack() as stack:
        sides = [Worker(side, options.threads) for side in ("ours", "theirs")]
        workers = [stack.enter_context(side) for side in sides]
        for name, size in tqdm(asked, leave=False, disable=not sys.stderr.isatty()):
            rows.append(measure(name, size, options, workers, str(Path(folder, "case"))))
            if options.json:  # a long run that is stopped leaves what it has
                write_json(options.json, rows)
    # The aims hold for these sizes alone.
    print(report(rows, aims=sizes_of(options, 0, Sizes.batches) == Sizes(0)))
    if options.plot:
        plot(options.plot, rows)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
