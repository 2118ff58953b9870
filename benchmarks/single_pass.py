"""What does computing the loss on the whole sequence at once save over computing it per token?

For every objective, one forward and backward pass over the whole sequence ("whole") is compared
with computing the loss of each target on its own: by one forward pass for each prefix and by one
token at a time with a key-value cache where the targets are causal, else by one forward pass for
each target. ``variants.py`` holds these computations, ``cached.py`` the cached forward pass.

At every length each variant's losses and gradients are first held against the single pass, in
float64: only rounding may part them. Then all take turns in float32 and in one process, the best of
several rounds counts, and the ratio to the single pass, by the clock and by CPU time, stands beside
the one that counting operations predicts. The count
(``minicpt/pictures/counting.py``) is of the matrix products:
2 P T for the projections of P weights and T positions, and 4 I T^2 for attention of inner width I
in each layer, plus 2 M for each target with a head of M weights; twice as much again for the
backward pass. So prefixes take 2 P T(T+1)/2 + 4 I T(T+1)(2T+1)/6: T/2 times the whole in the
projections, T/3 times in attention, and no more than the whole in the head. Peak memory is of a
process of its own: what the passes add to the model and the batch, gradients included.

All variants have the same C library under them, as it comes; with `--freed-memory kept` it keeps
freed memory, as `minicpt train` has it. Ratios change little by it, peak memory does.

Leaves out batches of several passages, dropout, the optimizer, and GPUs.
"""

import argparse
import sys

import torch
from results import WHY_CACHED_COSTS, WHY_NO_PREFIX, plot, report
from timing import (
    RETURNED,
    add_freed_memory,
    check_outputs,
    fill_in,
    freed_memory,
    machine,
    peak_memory,
    print_peak,
    run,
    taking_turns,
    use_freed_memory,
    write_outputs,
)
from tqdm import tqdm
from variants import OBJECTIVES, Pieces, Sizes, pieces, worst_difference

from minicpt.cli.main import Parser
from minicpt.common.errors import InputError

NAMES = ("whole", "separate", "cached")  # of the variants, as ``Pieces.variants`` calls them
LEAST = 16  # the shortest length; below, an objective's window would not hold a passage
FULL = {
    "lengths": [16, 32, 64, 128, 256, 512], "width": 128, "layers": 2, "vocabulary": 1024,
    "rounds": 3, "turn": 0.3, "budget": 15.0,
}  # fmt: skip
QUICK = {
    "lengths": [16, 32, 64], "width": 64, "layers": 2, "vocabulary": 512, "rounds": 2,
    "turn": 0.05, "budget": 1.0,
}  # fmt: skip


def names(causal: bool) -> dict[str, str]:
    """What the variants are called in the table."""
    return {
        "whole": "whole",
        "separate": "prefix" if causal else "target",
        "cached": "cached",
    }


def measure(name: str, options: argparse.Namespace, sizes: Sizes) -> list[dict]:
    """The rows of one objective: a dict for each length and variant.

    Keys: objective, variant (whole, prefix, target, cached), length, targets, operations (of a
    forward pass), worst_difference (None for whole), tolerance (of that one), seconds and
    cpu_seconds, ratio, cpu_ratio,
    counted_ratio, memory_mib, skipped (why it was not measured, or None).
    """
    rows: list[dict] = []
    last: dict[str, tuple[float, int]] = {}  # variant -> its seconds and operations, one length ago
    bar = tqdm(options.lengths, desc=name, leave=False, disable=not sys.stderr.isatty())
    for length in bar:
        these = pieces(name, length, sizes)
        operations = these.operations()
        calls = these.variants()
        skipped = {}
        for variant in [each for each in calls if each in last and each != "whole"]:
            seconds, counted = last[variant]
            expected = seconds * operations[variant] / counted
            if expected > options.budget:
                skipped[variant] = f"would take about {expected:.0f} s"
                del calls[variant]
        differences = {each: worst_difference(these, each) for each in calls if each != "whole"}
        best = taking_turns(calls, options.rounds, options.turn)
        for variant, counted in operations.items():
            spent, whole = best.get(variant), best["whole"]
            if spent:
                last[variant] = spent.wall, counted
            memory = None
            if spent and options.memory and length in options.memory_lengths:
                memory = memory_of(name, variant, length, options, sizes)
            rows.append(
                {
                    "objective": name,
                    "variant": names(these.causal)[variant],
                    "length": length,
                    "targets": sum(these.batch.counts().values()),
                    "operations": counted,
                    "worst_difference": differences.get(variant),
                    "tolerance": these.tolerance(),
                    "seconds": spent and spent.wall,
                    "cpu_seconds": spent and spent.cpu,
                    "ratio": spent and spent.wall / whole.wall,
                    "cpu_ratio": spent and spent.cpu / whole.cpu,
                    "counted_ratio": counted / operations["whole"],
                    "memory_mib": memory,
                    "skipped": skipped.get(variant),
                }
            )
    return rows


def memory_of(
    name: str, variant: str, length: int, options: argparse.Namespace, sizes: Sizes
) -> float:
    """MiB at the peak of one forward and backward pass, from a process of its own."""
    words = [__file__, "--one", name, variant, str(length), "--threads", str(options.threads)]
    for key in ("width", "layers", "vocabulary"):
        words += [f"--{key}", str(getattr(sizes, key))]
    words += ["--freed-memory", options.freed_memory]
    return peak_memory(words)


def print_one(name: str, variant: str, length: int, sizes: Sizes) -> None:
    """The process of its own: prints the MiB that one forward and backward pass adds."""
    # Libraries load code and start threads at their first use: that is no memory of the pass.
    small: Pieces = pieces(name, LEAST, Sizes(width=16, layers=1, vocabulary=1))
    if variant not in small.variants():
        raise InputError(f"{name} has no variant {variant}: {', '.join(small.variants())}")
    small.variants()[variant]()
    print_peak(pieces(name, length, sizes).variants()[variant])


# --- the command line ------------------------------------------------------------------------


def parser() -> Parser:
    top = Parser(prog="single_pass.py", description=__doc__.splitlines()[0])
    top.add_argument("--quick", action="store_true", help="small and short: within a minute")
    top.add_argument("--json", metavar="PATH", help="write the rows, a list of objects")
    top.add_argument("--plot", metavar="PATH", help="draw time and memory (matplotlib)")
    top.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES),
                     metavar="NAME", help=f"of {', '.join(OBJECTIVES)} (default: all)")
    for key, text in {
        "lengths": f"sequence lengths, at least {LEAST}", "width": "of the models",
        "layers": "of the models", "vocabulary": "of the models",
        "rounds": "in which the variants take turns; the best counts",
        "turn": "seconds that a turn lasts at least: what is faster is called again",
        "budget": "seconds: what would take longer in one measurement is left out, with a dash",
    }.items():  # fmt: skip
        several = {"nargs": "+"} if key == "lengths" else {}
        kind = float if key in ("turn", "budget") else int
        shown = f"{text} (default: {show(FULL[key])}; quick: {show(QUICK[key])})"
        top.add_argument(f"--{key}", type=kind, metavar="N", help=shown, **several)
    top.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (default: 1)")
    add_freed_memory(top, RETURNED)
    top.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True,
                     help="measure peak memory too (quick: at the longest length alone)")
    top.add_argument("--one", nargs=3, metavar=("NAME", "VARIANT", "LENGTH"),
                     help="print the peak memory of one variant alone, in MiB")
    return top


def show(value) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else f"{value:g}"


def read_options(words: list[str]) -> argparse.Namespace:
    """The options with their defaults filled in. Raises InputError for what makes no sense."""
    options = parser().parse_args(words)
    fill_in(options, QUICK if options.quick else FULL)
    options.lengths = sorted(set(options.lengths))
    options.memory_lengths = options.lengths[-1:] if options.quick else options.lengths
    if options.lengths[0] < LEAST:
        raise InputError(f"--lengths {options.lengths[0]} is too short: at least {LEAST}")
    for key in ("layers", "vocabulary", "rounds", "threads"):
        if getattr(options, key) < 1:
            raise InputError(f"--{key} must be at least 1, but is {getattr(options, key)}")
    if options.width < 4 or options.width % 4:
        raise InputError(f"--width must be a multiple of the 4 heads, but is {options.width}")
    return options


def main(words: list[str]) -> int:
    options = read_options(words)
    sizes = Sizes(options.width, options.layers, options.vocabulary)
    torch.set_num_threads(options.threads)
    use_freed_memory(options.freed_memory)
    if options.one:
        name, variant, length = options.one
        if name not in OBJECTIVES or variant not in NAMES or not length.isdecimal():
            raise InputError(f"--one takes an objective, one of {', '.join(NAMES)}, and a length")
        print_one(name, variant, int(length), sizes)
        return 0
    check_outputs(options)
    print(__doc__.splitlines()[0])
    print(machine())
    print(f"one passage, forward and backward, float32; models of width {sizes.width}, "
          f"{sizes.layers} layers, 4 heads,\nvocabulary {sizes.vocabulary}; best of "
          f"{options.rounds} rounds, in ms; ratio: to the whole sequence in one pass; CPU: by\n"
          "CPU time; counted: of operations; MiB: peak memory added;\n"
          f"{freed_memory(options.freed_memory)}\n")
    rows: list[dict] = []
    for name in options.objectives:
        found = measure(name, options, sizes)
        rows += found
        print(report(found, options.budget) + "\n", flush=True)
    kinds = {row["variant"] for row in rows}
    for variant, why in {"cached": WHY_CACHED_COSTS, "target": WHY_NO_PREFIX}.items():
        if variant in kinds:
            print(why + "\n")
    write_outputs(options, rows, plot)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
