"""What does the fused head and loss save over a projection and a cross-entropy?

Forward and backward of the mean cross-entropy of N hidden states of width D against V classes,
hidden states, weight and bias alike with a gradient, in float32:

plain          ``F.cross_entropy(F.linear(hidden, weight, bias), targets)``: all N x V logits
minicpt        ``loss.head_losses``: the projection, the loss and their gradients a few rows at a
               time, in one buffer
torch          ``F.linear_cross_entropy`` with its own choice of chunks, where this torch has it
torch, chunks  the same with chunks of CHUNK rows

They take turns in one process and the best of several rounds counts, on the clock and of CPU; the
ratio is to plain. All have the same C library under them: it keeps freed memory, as in `minicpt
train`, or with `--freed-memory returned` gives it back to the system. Peak memory is what one pass
adds in a process of its own, gradients included. The largest difference of the loss or of a
gradient from plain's is that in float64. Leaves out the model before the head.
"""

import argparse
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import (
    add_freed_memory,
    check_outputs,
    fill_in,
    freed_memory,
    machine,
    number,
    peak_memory,
    plotting,
    print_peak,
    run,
    table,
    taking_turns,
    use_freed_memory,
    write_outputs,
)
from torch import Tensor, nn
from tqdm import tqdm

from minicpt.cli.main import Parser
from minicpt.common.errors import InputError
from minicpt.loss import head_losses

CHUNK = 256
FULL = {"targets": [512, 2048], "vocabularies": [2048, 8192, 30522], "rounds": 5}
QUICK = {"targets": [512], "vocabularies": [2048, 8192], "rounds": 3}
Loss = Callable[[nn.Linear, Tensor, Tensor], Tensor]


def plain(head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, head.weight, head.bias), targets)


def fused(head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    return head_losses(head, hidden, targets, fused=True).mean()


def torch_chunked(rows: int | None) -> Loss:
    def loss(head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
        options = nn.LinearCrossEntropyOptions(batch_chunk_size=rows)
        return F.linear_cross_entropy(
            hidden, head.weight, targets, linear_bias=head.bias, options=options
        )

    return loss


VARIANTS: dict[str, Loss] = {"plain": plain, "minicpt": fused}
if hasattr(F, "linear_cross_entropy"):
    VARIANTS |= {"torch": torch_chunked(None), "torch, chunks": torch_chunked(CHUNK)}


def pass_of(
    variant: str, targets: int, width: int, vocabulary: int, bias: bool, dtype: torch.dtype
) -> Callable[[], list[Tensor]]:
    """Forward and backward; gives the loss and the gradients of hidden states, weight and bias.

    The numbers are those of a head in training: hidden states of a norm's size, and logits of
    deviation 1 or so.
    """
    torch.manual_seed(0)
    head = nn.Linear(width, vocabulary, bias=bias, dtype=dtype)
    nn.init.normal_(head.weight, std=width**-0.5)
    hidden = torch.randn(targets, width, dtype=dtype, requires_grad=True)
    chosen = torch.randint(vocabulary, (targets,))
    leaves = [hidden, *head.parameters()]

    def call() -> list[Tensor]:
        for leaf in leaves:
            leaf.grad = None
        loss = VARIANTS[variant](head, hidden, chosen)
        loss.backward()
        return [loss.detach(), *(leaf.grad for leaf in leaves)]

    return call


def measure(targets: int, vocabulary: int, bias: bool, options: argparse.Namespace) -> list[dict]:
    """A row for each variant.

    Keys: variant, targets, vocabulary, bias, freed_memory, seconds (on the clock) and cpu_seconds,
    ratio and cpu_ratio (to plain's), memory_mib (None without memory), worst_difference (from
    plain, in float64; None for plain).
    """
    sizes = targets, options.width, vocabulary, bias
    calls = {name: pass_of(name, *sizes, torch.float32) for name in VARIANTS}
    for call in calls.values():
        call()  # the first one starts threads and touches memory
    best = taking_turns(calls, options.rounds)
    calls.clear()
    expected = pass_of("plain", *sizes, torch.float64)()
    rows = []
    for name, seconds in best.items():
        found = expected if name == "plain" else pass_of(name, *sizes, torch.float64)()
        worst = max(
            float((ours - theirs).abs().max()) for ours, theirs in zip(found, expected, strict=True)
        )
        memory = None
        if options.memory:
            words = ["--one", name, str(targets), str(vocabulary), str(int(bias)), "--width",
                     str(options.width), "--threads", str(options.threads),
                     "--freed-memory", options.freed_memory]  # fmt: skip
            memory = peak_memory([__file__, *words])
        rows.append({
            "variant": name, "targets": targets, "vocabulary": vocabulary, "bias": bias,
            "freed_memory": options.freed_memory, "seconds": seconds.wall,
            "cpu_seconds": seconds.cpu, "ratio": seconds.wall / best["plain"].wall,
            "cpu_ratio": seconds.cpu / best["plain"].cpu, "memory_mib": memory,
            "worst_difference": None if name == "plain" else worst,
        })  # fmt: skip
    return rows


def report(rows: list[dict]) -> str:
    headings = ["targets", "vocabulary", "bias", "variant", "ms", "ratio", "CPU ms", "ratio",
                "MiB", "difference"]  # fmt: skip
    return table(headings, [
        [str(row["targets"]), str(row["vocabulary"]), "yes" if row["bias"] else "no",
         row["variant"], number(row["seconds"] * 1000), number(row["ratio"]),
         number(row["cpu_seconds"] * 1000), number(row["cpu_ratio"]), number(row["memory_mib"], 2),
         "-" if row["worst_difference"] is None else f"{row['worst_difference']:.0e}"]
        for row in rows
    ])  # fmt: skip


def plot(path: str, rows: list[dict]) -> None:
    """Time as a share of plain's, and memory, a group of bars for each size."""
    pyplot = plotting()
    groups = list(dict.fromkeys((row["targets"], row["vocabulary"], row["bias"]) for row in rows))
    figure, axes = pyplot.subplots(2, 1, figsize=(2 + len(groups), 6), layout="constrained")
    for axis, key, label in zip(axes, ("ratio", "memory_mib"), ("time, plain = 1", "MiB"),
                                strict=True):  # fmt: skip
        for place, name in enumerate(VARIANTS):
            heights = [row[key] or 0 for row in rows if row["variant"] == name]
            across = [group + 0.2 * place for group in range(len(groups))]
            axis.bar(across, heights, 0.2, label=name)
        axis.set_ylabel(label)
        axis.set_xticks(range(len(groups)), [f"{n}\n{v}\n{'bias' if b else ''}"
                                             for n, v, b in groups], fontsize=8)  # fmt: skip
    axes[0].legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


# --- the command line ------------------------------------------------------------------------


def read_options(words: list[str]) -> argparse.Namespace:
    """The options with their defaults filled in. Raises InputError for what makes no sense."""
    top = Parser(prog="head.py", description=__doc__.splitlines()[0])
    top.add_argument("--quick", action="store_true", help="fewer sizes: within a minute")
    top.add_argument("--json", metavar="PATH", help="write the rows, a list of objects")
    top.add_argument("--plot", metavar="PATH", help="draw time and memory (matplotlib)")
    for key, text in {"targets": "N", "vocabularies": "V", "rounds": "of turns"}.items():
        several = {} if key == "rounds" else {"nargs": "+"}
        top.add_argument(f"--{key}", type=int, metavar="N", **several,
                         help=f"{text} (default: {FULL[key]}; quick: {QUICK[key]})")
    top.add_argument("--width", type=int, default=256, metavar="D", help="D (default: 256)")
    top.add_argument("--threads", type=int, default=2, metavar="N", help="of torch (default: 2)")
    add_freed_memory(top)
    top.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True,
                     help="measure peak memory too")
    top.add_argument("--one", nargs=4, metavar=("VARIANT", "N", "V", "BIAS"),
                     help="print the peak memory of one pass alone, in MiB; BIAS: 0 or 1")
    options = top.parse_args(words)
    fill_in(options, QUICK if options.quick else FULL)
    for key in ("targets", "vocabularies", "rounds", "width", "threads"):
        value = getattr(options, key)
        least = min(value) if isinstance(value, list) else value
        if least < 1:
            raise InputError(f"--{key} must be at least 1, but is {least}")
    if options.one and (
        options.one[0] not in VARIANTS or not all(word.isdecimal() for word in options.one[1:])
    ):
        raise InputError(f"--one takes one of {', '.join(map(repr, VARIANTS))}, N, V, and 0 or 1")
    return options


def main(words: list[str]) -> int:
    options = read_options(words)
    torch.set_num_threads(options.threads)
    use_freed_memory(options.freed_memory)
    if options.one:
        name, *sizes = options.one
        targets, vocabulary, bias = map(int, sizes)
        # Libraries load code and start threads at their first use: that is no memory of the pass.
        pass_of(name, 16, 16, 16, bool(bias), torch.float32)()
        call = pass_of(name, targets, options.width, vocabulary, bool(bias), torch.float32)
        print_peak(call)
        return 0
    check_outputs(options)
    print(__doc__.splitlines()[0])
    print(machine())
    print(f"forward and backward, float32, width {options.width}; best of {options.rounds} rounds; "
          "ratio: to plain;\nMiB: peak memory added; difference: the largest from plain, float64;\n"
          f"{freed_memory(options.freed_memory)}\n")
    cases = [(targets, vocabulary, bias) for targets in options.targets
             for vocabulary in options.vocabularies for bias in (False, True)]  # fmt: skip
    bar = tqdm(cases, leave=False, disable=not sys.stderr.isatty())
    rows = [row for case in bar for row in measure(*case, options)]
    print(report(rows))
    write_outputs(options, rows, plot)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
