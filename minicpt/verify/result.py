"""What a proof gives: a verdict, the numbers behind it, why it holds, and what it leaves open.

``Proof.as_text`` is for readers, ``Proof.as_data`` for ``--json``; ``report`` draws several.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from minicpt.report.terminal import wrap

VERDICTS = {True: "proved", False: "FAILED", None: "not run"}
LABEL = 13  # columns of the labels on the left


@dataclass(frozen=True)
class Proof:
    """One statement that was held against the numbers.

    name         what is proved, in a few words
    passed       True, False, or None: it could not be run here, and ``message`` says why
    compared     one sentence: what was held against what
    numbers      name -> number, text, or a list of them; the proofs of causality always hold
                 ``worst``, its ``place`` (None where nothing differs) and ``tolerance``
    why          one sentence: why the two are equal
    not_covered  one sentence: what this does not show
    message      what was found; where the proof failed: the mistake and its place, in one line
    """

    name: str
    passed: bool | None
    compared: str
    numbers: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    not_covered: str = ""
    message: str = ""

    def as_data(self) -> dict[str, Any]:
        """The proof as plain data that JSON can hold: numbers that are not finite become text."""
        return asdict(self) | {"numbers": {key: _plain(it) for key, it in self.numbers.items()}}

    def as_text(self, width: int) -> str:
        """The proof in lines of at most ``width`` columns."""
        numbers = "; ".join(f"{key}: {_words(value)}" for key, value in self.numbers.items())
        parts = {
            "found": self.message,
            "compared": self.compared,
            "numbers": numbers,
            "why": self.why,
            "not covered": self.not_covered,
        }
        lines = wrap(f"{VERDICTS[self.passed]}: {self.name}", width)
        for label, text in parts.items():
            for place, line in enumerate(wrap(text, max(width - LABEL - 2, 20))):
                lines.append(f"  {label if place == 0 else '':<{LABEL}}{line}".rstrip())
        return "\n".join(lines)


def report(proofs: Sequence[Proof], width: int) -> str:
    """All proofs as text, and at the end what was proved and what was not."""
    parts = [proof.as_text(width) for proof in proofs]
    for passed, heading in ((True, "Proved"), (False, "FAILED"), (None, "Not proved")):
        names = [proof.name for proof in proofs if proof.passed is passed]
        if names:
            parts.append("\n".join(wrap(f"{heading} ({len(names)}): {'; '.join(names)}.", width)))
    return "\n\n".join(parts)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _words(value: Any) -> str:
    """A number as a reader wants it.

    >>> _words(0.000123456), _words(0.0), _words([3, 17]), _words(None), _words({"row": 1})
    ('0.000123', '0', '3/17', 'none', 'row 1')
    """
    if isinstance(value, dict):
        return " ".join(f"{key} {_words(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return "/".join(map(_words, value))
    if value is None:
        return "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
