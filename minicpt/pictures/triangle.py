"""The losses of every prefix alone, a line each, above those of the one pass over all: as text.

Takes the ``triangle`` of the data that ``passage.as_data`` gathers.
"""

from collections.abc import Sequence

from minicpt.common.terminal import columns, fit, paint

LABEL, CELL = 10, 6  # columns of the labels, and of the numbers


def lines(
    runs: dict, labels: Sequence[str], width: int, ascii: bool, color: bool
) -> list[str]:
    """A line for each prefix, as many as fit: the losses of its targets, which ``labels`` name.
    Then those of the one pass and the differences."""
    size = min(len(runs["positions"]), (width - LABEL) // CELL)

    def line(label: str, cells: Sequence[str]) -> str:
        return fit(label, LABEL) + "".join(map(right, cells[:size]))

    def right(cell: str) -> str:
        return " " + fit(" " * (CELL - 1 - columns(cell)) + cell, CELL - 1, ascii)

    rows = zip(runs["positions"][:size], runs["alone"], strict=False)
    return [
        paint(line("target", labels), "1", color),
        *(line(f"first {place + 1}", list(map(loss, losses))) for place, losses in rows),
        line("one pass", list(map(loss, runs["together"]))),
        line("differ by", list(map(difference, runs["differences"]))),
    ]


def loss(value: float) -> str:
    """A loss in five signs.

    >>> loss(8.31912), loss(12.3456), loss(0.012345), loss(98765.4)
    ('8.319', '12.35', '0.012', '1e+05')
    """
    return min((f"{value:.3f}", f"{value:#.4g}", f"{value:.0e}"), key=len)


def difference(value: float) -> str:
    """
    >>> difference(1.77e-15), difference(0.0)
    ('2e-15', '0')
    """
    return f"{value:.0e}" if value else "0"


def conclusion(runs: dict) -> list[str]:
    """Why the numbers agree; or that they do not, where a model sees more than is declared."""
    largest = max(runs["differences"])
    count = len(runs["alone"])
    measured = (
        f"Largest difference in {count} {'run' if count == 1 else 'runs'}: {difference(largest)}"
        " nats, computed in float64."
    )
    if not largest <= runs["tolerance"]:  # NaN too
        return [
            measured,
            "The losses are not the same: at some position this model uses what follows it, which"
            " the objective rules out.",
        ]
    return [
        measured,
        "They are equal because the mask lets no position see what follows it: what stands later"
        " cannot change an earlier loss, so that the pass over the whole text holds every run.",
        "And one pass is enough because of teacher forcing: each position reads the text itself,"
        " not the model's own predictions, so that all inputs are known beforehand.",
    ]
