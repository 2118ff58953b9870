"""The table that a run prints: a line for each evaluation, with gained and forgotten.

    gained     by how much the loss on the new text has fallen since the base
    forgotten  by how much the loss on the old text has risen since the base
"""

import shutil
from collections.abc import Mapping

from minicpt.common.terminal import fit, printable

BITS = "bits/byte"
# How bits per byte are called, by what they are: see ``objectives.abilities``.
LABELS = {"": "{}", "exact": "{}", "bound": "at most {}", "pseudo": "pseudo-likelihood {}"}
# What the change of each loss since the base is called, and the sign that makes it so.
CHANGES = {"held out": ("gained", -1), "old text": ("forgotten", 1)}


def row(entry: dict) -> str:
    """An evaluation as one line of the table."""
    cells = [f"{entry['step']:>7}"]
    if entry["training"] is not None:
        cells.append(", ".join([f"training {entry['training']:.3f}", *named(entry["terms"])]))
    for name, (change, _) in CHANGES.items():
        if name in entry:
            cells.append(f"{name} {figures(entry[name])}")
        if change in entry:
            each = (f"{round(value, 4) + 0.0:+.4f} {u}" for u, value in entry[change].items())
            cells.append(f"{change} {', '.join(each)}")
    for objective, results in entry.get("also", {}).items():
        each = (f"{name} {figures(summary)}" for name, summary in results.items())
        cells.append(f"{objective}: {', '.join(each)}")
    return " | ".join(cells)


def named(terms: Mapping[str, float]) -> list[str]:
    """The regularizers' terms, each by itself: "kl 0.0123"."""
    return [f"{name} {value:.4f}" for name, value in terms.items()]


def measures(summary: dict) -> dict[str, float]:
    """The figures of an evaluation by their unit: nats per target of each head, bits per byte."""
    names = {"tokens": "nats/token", "pair": "nats/pair"}
    nats = summary["nats_per_target"].items()
    found = {names.get(head, f"nats/{head}"): value for head, value in nats}
    if summary["bits_per_byte"] is not None:
        found[BITS] = summary["bits_per_byte"]
    return found


def figures(summary: dict) -> str:
    """The same on a line, and how much of the text unknown tokens hide."""
    parts = [f"{value:.4f} {unit}" for unit, value in measures(summary).items() if unit != BITS]
    common, hidden = summary.get("likelihood"), summary["hidden_bytes"]
    bits = common["bits_per_byte"] if common else summary["bits_per_byte"]
    if bits is not None:
        words = LABELS[common["kind"] if common else ""].format(f"{bits:.4f} {BITS}")
        if common and common["standard_error"] is not None:
            words += f" (standard error {common['standard_error']:.4f}, {common['draws']} draws)"
        parts.append(words)
        if hidden:
            parts[-1] += f" ({hidden:.2%} of the bytes hidden by unknown tokens)"
    elif hidden is not None:
        parts.append(f"no {BITS}: {summary['no_bits_per_byte']}")
    return ", ".join(parts)


def changes(now: dict[str, dict], before: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Gained and forgotten since the base's evaluation ``before``, of the texts that both have.

    In bits per byte where the evaluation has them, else in nats per target of each head.
    """
    found = {}
    for name, (called, sign) in CHANGES.items():
        if name in now and name in before:
            then, new = measures(before[name]), measures(now[name])
            units = [BITS] if BITS in new else list(new)
            # 0.0 is added so that a change of nothing has no minus sign.
            found[called] = {unit: sign * (new[unit] - then[unit]) + 0.0 for unit in units}
    return found


def shortened(text: str) -> str:
    """A sample on one line of the terminal, without what would break the line."""
    width = max(20, shutil.get_terminal_size().columns - 9)
    return fit(printable(" ".join(text.split())), width).rstrip()
