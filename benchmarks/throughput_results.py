"""What ``throughput.py`` shows of its rows: tables, the aims that were missed, and a picture.

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


def aim_cells(value: float | None, aim: float, most: bool = False) -> list[str]:
    """The cells of a value and its aim, marked where it is missed."""
    if value is None:
        return ["-", "-"]
    missed = value > aim if most else value < aim
    return [number(value) + " !" * missed, f"{'<=' if most else '>='} {aim:g}"]


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

    speed, memory, mixed = [], [], []
    for row in rows:
        key = [row["objective"], str(row["vocabulary"])]
        where = " at ".join(key)
        aim, bound = AIMS.get((row["objective"], row["vocabulary"])), row["matmul_bound"]
        beyond = ", so out of reach" if aim and bound < aim else ""
        theirs = row["theirs_seconds"]
        speed.append(
            [*key, number(row["ours_seconds"][0]), number(theirs[row["theirs_best"]][0]),
             *held(f"the ratio of {where} (bound {number(bound)}{beyond})", row["ratio"], aim),
             number(bound), number(row["ours_seconds"][1]),
             number(min(cpu for _, cpu in theirs.values())), number(row["cpu_ratio"]),
             f"{row['ours_tokens_per_s']:.0f}", row["theirs_best"]]
        )  # fmt: skip
        if row["ours_peak_mib"]:
            share = row["ours_peak_mib"] / row["theirs_peak_mib"]
            aim = MEMORY_AIMS.get((row["objective"], row["vocabulary"]))
            memory.append(
                [*key, number(row["ours_peak_mib"]), number(row["theirs_peak_mib"]),
                 *held(f"the memory of {where}", share, aim, most=True)]
            )  # fmt: skip
        if row["mixed"]:
            planned, random, theirs = (row["mixed"][each] for each in ("planned", "random",
                                                                       "theirs"))  # fmt: skip
            mixed.append(
                [*key, f"{row['mixed']['planned_real']:.0%}", f"{row['mixed']['random_real']:.0%}",
                 *(number(each[0]) for each in (planned, random, theirs)),
                 *held(f"the gain of {where} on mixed lengths", random[0] / planned[0], MIXED_AIM),
                 number(theirs[0] / planned[0]), number(theirs[0] / random[0]),
                 *(number(each[1]) for each in (planned, random, theirs)),
                 number(random[1] / planned[1]), number(theirs[1] / planned[1]),
                 number(theirs[1] / random[1])]
            )  # fmt: skip
    headings = ["objective", "vocabulary", "s", "theirs", "ratio", "aim", "bound", "CPU s",
                "theirs", "ratio", "tokens/s", "theirs at its best"]  # fmt: skip
    text = ["s, CPU s: of a step", table(headings, speed)]
    if memory:
        headings = ["peak memory", "vocabulary", "MiB", "theirs", "share", "aim"]
        text += ["", table(headings, memory)]
    if mixed:
        headings = ["mixed lengths", "vocabulary", "real", "random", "s", "random", "theirs",
                    "gain", "aim", "ratio", "random", "CPU s", "random", "theirs", "gain", "ratio",
                    "random"]  # fmt: skip
        text += ["", "real: the share of positions that are no padding; the plan's order, then "
                 "random order, then theirs;\ngain: the plan's order to random order; ratio: to "
                 "theirs, in the plan's order and in random order",
                 table(headings, mixed)]  # fmt: skip
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
