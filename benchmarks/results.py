"""What ``single_pass.py`` shows of its rows: tables with exponents, reasons, and a picture.

A row is a dict; its keys are described in ``single_pass.measure``. Leaves out the measuring.
"""

from timing import number, plotting, slope, table

COLORS = {"whole": "tab:blue", "prefix": "tab:red", "target": "tab:red", "cached": "tab:orange"}

WHY_CACHED_COSTS = """\
The cache takes as few operations as the single pass (counted: about 1 or less), and still costs
many times as much. It does one token's work T times, in products of one row, each of which reads
all weights. And a cache saves forward work only: the loss of a late token depends on every key and
value before it, so the backward pass must walk through all T steps in turn, add up the gradient of
each weight T times, one row at a time, and keep T copies of the growing cache: memory grows as T^2.
Generation needs the cache, since its tokens come one by one. Training knows them all beforehand."""
WHY_NO_PREFIX = """\
No prefix and no cache here: a target may see what stands on both sides of it. Cut off at the
target, the text would give other hidden states, so another loss; and a cache holds keys and values
that stay as they are when tokens are added, while here each new token would change all of them.
But all targets see one and the same text, so a pass for each repeats one pass as often as there
are targets; with one target (next-sentence) there is nothing to save."""


def report(rows: list[dict], budget: float) -> str:
    """One objective's rows as a table, its exponents, what was skipped, and why."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    others = variants[1:]
    headings = ["length", "targets", "whole", "MiB"]
    for other in others:
        headings += [other, "ratio", "CPU", "counted", "MiB"]
    lines = []
    for length in dict.fromkeys(row["length"] for row in rows):
        here = {row["variant"]: row for row in rows if row["length"] == length}
        line = [str(length), str(here["whole"]["targets"])]
        for variant in variants:
            row = here[variant]
            line.append(number(row["seconds"] and row["seconds"] * 1000))
            if variant != "whole":
                line += [number(row[key]) for key in ("ratio", "cpu_ratio", "counted_ratio")]
            line.append(number(row["memory_mib"], 2))
        lines.append(line)
    text = [f"{rows[0]['objective']}", table(headings, lines)]
    text += ["", exponents(variants, rows)]
    text += [
        f"- {row['variant']} at {row['length']} was not run: it {row['skipped']}, over the "
        f"budget of {budget:g} s (--budget)"
        for row in rows
        if row["skipped"]
    ]
    worst = max(row["worst_difference"] or 0.0 for row in rows)
    allowed = min(row["tolerance"] for row in rows)
    text.append(
        f"losses and gradients are those of the single pass: worst relative difference "
        f"{f'{worst:.0e}' if worst else 0} (allowed {allowed:.0e})"
    )
    return "\n".join(text)


def exponents(variants: list[str], rows: list[dict]) -> str:
    """The exponents of time and of counted operations in the length, as a table."""
    lines = []
    for variant in variants:
        mine = [row for row in rows if row["variant"] == variant and row["seconds"]]
        lengths = [row["length"] for row in mine]
        line = [variant]
        for key in ("seconds", "operations"):
            values = [row[key] for row in mine]
            longer = len(mine) // 2 if len(mine) >= 4 else 0
            line.append(number(slope(lengths, values), 2))
            line.append(number(slope(lengths[longer:], values[longer:]), 2))
        lines.append(line)
    headings = ["exponent of length:", "time", "longer half", "counted", "longer half"]
    return table(headings, lines)


def plot(path: str, rows: list[dict]) -> None:
    """Time above, memory below, a column for each objective."""
    pyplot = plotting()
    objectives = list(dict.fromkeys(row["objective"] for row in rows))
    figure, axes = pyplot.subplots(
        2, len(objectives), figsize=(3.6 * len(objectives), 6.4), squeeze=False, sharex=True,
        sharey="row", layout="constrained",
    )  # fmt: skip
    for column, objective in enumerate(objectives):
        for line, (key, factor) in enumerate((("seconds", 1000), ("memory_mib", 1))):
            axis = axes[line][column]
            for variant, color in COLORS.items():
                mine = [
                    row for row in rows
                    if (row["objective"], row["variant"]) == (objective, variant) and row[key]
                ]  # fmt: skip
                if mine:
                    across = [row["length"] for row in mine]
                    up = [row[key] * factor for row in mine]
                    axis.plot(across, up, "o-", label=variant, color=color)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.grid(alpha=0.3)
        axes[0][column].set_title(objective)
        axes[1][column].set_xlabel("length (tokens)")
        lengths = sorted({row["length"] for row in rows})
        axes[1][column].set_xticks(lengths, [str(length) for length in lengths])
    lines = {}  # one legend for all, outside, where it hides nothing
    for axis in axes[0]:
        handles, labels = axis.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=len(lines))
    axes[0][0].set_ylabel("forward and backward, ms")
    axes[1][0].set_ylabel("peak memory added, MiB")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
