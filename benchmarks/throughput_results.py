"""What ``throughput.py`` shows of its rows: two tables, the aims that were missed, and a picture.

A row is a dict; its keys are described in ``throughput.measure``. Leaves out the measuring.
"""

from timing import number, plotting, table

# What minicpt is built to reach at the default sizes, as times the tokens a second of transformers;
# and for the peak memory of a step, and on mixed lengths against random order.
AIMS = {
    ("masked-lm", 30522): 3.5,
    ("masked-lm", 8192): 1.7,
    ("causal-lm", 30522): 1.6,
    ("causal-lm", 8192): 1.3,
    ("reconstruction", 30522): 2.0,
    ("reconstruction", 8192): 1.5,
    ("next-sentence", 30522): 1.1,
    ("next-sentence", 8192): 1.1,
}
MEMORY_AIMS = {("masked-lm", 30522): 0.35, ("causal-lm", 30522): 0.35}
MIXED_AIM = 1.3
MIXED_COLUMNS = ("planned", "random", "theirs")


def report(rows: list[dict], aims: bool) -> str:
    """The rows as tables, and what was missed; ``aims`` False leaves the aims out."""
    missed: list[str] = []

    def held(what: str, value: float | None, aim: float | None, most: bool = False) -> list[str]:
        """The cells of a value and its aim, marked where it is missed."""
        if not aims or aim is None or value is None:
            return [number(value), "-"]
        sign = "<=" if most else ">="
        if value > aim if most else value < aim:
            missed.append(f"- {what} is {number(value)}, not {sign} {aim:g}: "
                          f"missed by {abs(value - aim) / aim:.0%}")  # fmt: skip
            return [number(value) + " !", f"{sign} {aim:g}"]
        return [number(value), f"{sign} {aim:g}"]

    lines, mixed = [], []
    for row in rows:
        key = row["objective"], row["vocabulary"]
        where = f"{key[0]} at {key[1]}"
        share = row["ours_peak_mib"] and row["ours_peak_mib"] / row["theirs_peak_mib"]
        bounded = f"the ratio of {where} (bound {number(row['matmul_bound'])})"
        lines.append(
            [key[0], str(key[1]), f"{row['ours_tokens_per_s']:.0f}",
             f"{row['theirs_tokens_per_s']:.0f}", *held(bounded, row["ratio"], AIMS.get(key)),
             number(row["matmul_bound"]), number(row["ours_peak_mib"]),
             number(row["theirs_peak_mib"]),
             *held(f"the memory of {where}", share, MEMORY_AIMS.get(key), most=True),
             row["theirs_best"]]
        )  # fmt: skip
        if row["mixed"]:
            these = row["mixed"]
            gain = these["planned"] / these["random"]
            mixed.append(
                [key[0], str(key[1]), *(f"{these[each]:.0f}" for each in MIXED_COLUMNS),
                 f"{these['planned_real']:.0%}", f"{these['random_real']:.0%}",
                 *held(f"the gain of {where} on mixed lengths", gain, MIXED_AIM),
                 number(these["random"] / these["theirs"]),
                 number(these["planned"] / these["theirs"])]
            )  # fmt: skip
    headings = ["objective", "vocabulary", "tokens/s", "theirs", "ratio", "aim", "bound", "MiB",
                "theirs", "share", "aim", "theirs at its best"]  # fmt: skip
    text = [table(headings, lines)]
    if mixed:
        headings = ["mixed lengths", "vocabulary", "planned", "random", "theirs", "real",
                    "random", "gain", "aim", "to theirs: random", "planned"]  # fmt: skip
        text += ["", "tokens/s; real: the share of positions that are no padding; gain: the plan's "
                 "order to random order", table(headings, mixed)]  # fmt: skip
    if missed:
        text += ["", "Missed (!):", *missed]
    elif aims:
        text += ["", "No aim was missed."]
    return "\n".join(text)




def plot(path: str, rows: list[dict]) -> None:
    """The ratio with its bound and aim at the left, peak memory at the right."""
    pyplot = plotting()
    names = [f"{row['objective']}\n{row['vocabulary']}" for row in rows]
    places = list(range(len(rows)))
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(4 + 1.6 * len(rows), 4), layout="constrained"
    )
    left.bar(places, [row["matmul_bound"] for row in rows], 0.8, color="lightgray",
             label="bound: matrix products alone")  # fmt: skip
    left.bar(places, [row["ratio"] for row in rows], 0.5, color="tab:blue", label="minicpt")
    left.axhline(1, color="black", linewidth=1, label="transformers")
    left.set_ylabel("tokens/s, transformers = 1")
    for shift, side, color, label in ((-0.2, "ours", "tab:blue", "minicpt"),
                                      (0.2, "theirs", "black", "transformers")):  # fmt: skip
        heights = [row[f"{side}_peak_mib"] or 0 for row in rows]
        right.bar([place + shift for place in places], heights, 0.4, color=color, label=label)
    right.set_ylabel("peak memory added, MiB")
    for axis in (left, right):
        axis.set_xticks(places, names, fontsize=8)
        axis.legend(fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
