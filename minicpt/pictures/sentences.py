"""What there is to say of a passage in sentences: for the terminal and for a page.

Takes the plain data that ``passage.as_data`` gathers.
"""

from collections.abc import Iterator
from itertools import groupby

FATES = {  # of a token that is predicted where it stands
    "hidden": "hidden behind the mask token",
    "replaced": "replaced by the token that is read there",
    "kept": "kept as it is",
}


def which(data: dict) -> str:
    """Which passage it is: "Window 2 of 5"."""
    unit = data["unit"][0].upper() + data["unit"][1:]
    return f"{unit} {data['number']} of {data['of']}" if data["of"] else unit


def counted(data: dict) -> str:
    """How many positions are read, and how many targets there are."""
    read = " and ".join(
        f"the {each['reader']} reads {plural(len(each['positions']), 'position')}"
        for each in data["streams"].values()
    )
    several = len(data["heads"]) > 1
    predicted = " and ".join(
        plural(found["count"], "target") + (f" of the head '{head}'" if several else "")
        for head, found in data["heads"].items()
    )
    return f"{read[0].upper()}{read[1:]}; {predicted}."


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def remarks(data: dict) -> list[str]:
    """What became of the chosen tokens, and what a position without a target means."""
    lines = []
    for found in data["heads"].values():
        fates = [each["fate"] for each in found["targets"] if "fate" in each]
        if fates:
            counts = ", ".join(f"{fates.count(fate)} {what}" for fate, what in FATES.items())
            early = ", each one position before its own" if data["ahead"] else ""
            whole = plural(len(fates), "token")
            lines.append(f"Chosen to be predicted{early}: {whole}, {counts}.")
    for head, found in data["heads"].items():
        if any("reads" in each for each in found["targets"]):
            lines.append(
                f"For the head '{head}' the model reads again what came of a first pass: where that"
                " is another token, it stands below the first one."
            )
    size = len(data["streams"][data["target_stream"]]["positions"])
    predicted = {each["position"] for head in data["heads"].values() for each in head["targets"]}
    if any("weight" in each for head in data["heads"].values() for each in head["targets"]):
        weights = {
            each["weight"] for head in data["heads"].values() for each in head["targets"]
        }
        its = f"its weight, {number(weights.pop())}" if len(weights) == 1 else "its weight"
        lines.append(
            f"Each loss is shown without {its}; in the sum it is multiplied by it. A target of"
            " weight 0 is not shown; it counts in what the sum is divided by."
        )
    elif len(predicted) < size:
        lines.append("Where the target is blank, nothing is predicted and nothing counts.")
    return lines


def means(data: dict) -> list[str]:
    """Sum over count for each head, beside a guess, and what training minimises."""
    lines = []
    for head, found in data["heads"].items():
        name = "Loss" if len(data["heads"]) == 1 else f"Loss of the head '{head}'"
        if not found["count"]:
            lines.append(f"{name}: no position has a target, so there is nothing to predict.")
            continue
        classes, uniform, mean = found["classes"], found["uniform"], found["mean"]
        gain = uniform - mean
        verdict = f"this model is {number(abs(gain))} nats {'better' if gain > 0 else 'worse'}"
        if any("weight" in each for each in found["targets"]):
            verdict = "with weights that is the mean over many draws, and a single draw varies"
        lines.append(
            f"{name}: {number(found['sum'])} nats / {plural(found['count'], 'target')} ="
            f" {number(mean)} nats per target."
            f" A uniform guess among {classes} classes costs ln {classes} ="
            f" {number(uniform)}: {verdict}."
        )
    if len(data["heads"]) > 1:
        pairs = [(each["head_weight"], each["mean"]) for each in data["heads"].values()]
        plain = all(weight == 1 for weight, _ in pairs)
        factors = ["" if plain else f"{weight:.4g} * " for weight, _ in pairs]
        terms = [factor + number(mean) for factor, (_, mean) in zip(factors, pairs, strict=True)]
        total = number(sum(weight * mean for weight, mean in pairs))
        lines.append(
            f"Training minimises the sum of the {'' if plain else 'weighted '}means:"
            f" {' + '.join(terms)} = {total}."
        )
    return lines


def number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


def runs(row: str) -> Iterator[tuple[str, int, int]]:
    """(sign, start, stop) of the equal signs that stand next to each other in a row."""
    start = 0
    for sign, each in groupby(row):
        stop = start + len(list(each))
        yield sign, start, stop
        start = stop


def blocks(row: str, wanted: str) -> str:
    """Where a sign stands in a row.

    >>> blocks("11101", "1"), blocks("11101", "0"), blocks("111", "0")
    ('0 to 2, 4', '3', '')
    """
    return ", ".join(
        f"{start}" if stop == start + 1 else f"{start} to {stop - 1}"
        for sign, start, stop in runs(row)
        if sign == wanted
    )
