"""What a proof gives: a verdict, the numbers behind it, why it holds, and what it leaves open.

``Proof.as_line`` and ``Proof.as_text`` are for readers, ``Proof.as_data`` for ``--json``;
``report`` draws several.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from minicpt.common import html
from minicpt.common.terminal import fit, paint, wrap

VERDICTS = {True: "proved", False: "FAILED", None: "not checked"}
STYLES = {True: "32", False: "1;31", None: "33"}  # green, bold red, yellow
LABEL = 13  # columns of the labels on the left
VERDICT = 25  # columns of a line for the verdict, the worst number and its tolerance
WIDE = 1 << 20  # columns, where a browser breaks the lines
BELOW = 7  # columns by which what stands below a line is indented


class Proofs(list):
    """A list of proofs; it shows itself as text in a terminal, and as a table in a notebook."""

    def __str__(self) -> str:
        width = shutil.get_terminal_size((100, 24)).columns
        lines = [proof.as_line(min(width, 100)) for proof in self]
        return "\n".join([*lines, *filter(None, [self.held(), unchecked(self, width)])])

    __repr__ = __str__

    def held(self) -> str:
        """ "5 of 6 proofs hold." """
        checked = [proof for proof in self if proof.passed is not None]
        return f"{sum(bool(each.passed) for each in checked)} of {len(checked)} proofs hold."

    def _repr_html_(self) -> str:
        rows = [
            [each.name, VERDICTS[each.passed], each.against(), html.element("div",
             each.compared if each.passed else each.message, class_="text")]
            for each in self
        ]  # fmt: skip
        failed = [place for place, each in enumerate(self) if each.passed is False]
        headings = ["proof", "verdict", "worst, tolerance", "what was compared, or what is wrong"]
        drawn = html.table(headings, rows, caption=self.held(), marked=failed)
        open_ends = unchecked(self, WIDE).splitlines()
        return html.fragment(html.wide(drawn, "proofs"), html.paragraphs(open_ends))


class NotChecked(Exception):
    """A proof needs what this objective does not have; the text says what."""


@dataclass(frozen=True)
class Proof:
    """One statement that was held against the numbers.

    name         what is proved, in a few words
    passed       True, False, or None: it was not checked, and ``message`` says why
    compared     one sentence: what was held against what
    numbers      name -> number, text, or a list of them; the proofs of causality always hold
                 ``worst``, its ``place`` (None where nothing differs) and ``tolerance``
    why          one sentence: why the two are equal
    not_covered  one sentence: what this does not show
    message      what was found; where the proof failed: the mistake and its place, in one line
    worst        the number that comes nearest to failing; None where nothing was measured
    tolerance    what ``worst`` may not exceed
    untried      what this proof could have tried and did not, and why; "" where that is nothing
    """

    name: str
    passed: bool | None
    compared: str
    numbers: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    not_covered: str = ""
    message: str = ""
    worst: float | None = None
    tolerance: float | None = None
    untried: str = ""

    def as_data(self) -> dict[str, Any]:
        """The proof as plain data that JSON can hold: numbers that are not finite become text."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    def as_line(self, width: int, color: bool = False, ascii: bool = False) -> str:
        """Verdict, worst number against its tolerance, name and what was compared, in one line.

        What is wrong, and why something was not checked, stands below it, whole.
        """
        word = VERDICTS[self.passed]
        verdict = paint(word, STYLES[self.passed], color)
        numbers = f"{self.against():<{VERDICT - len(word) - 1}}"
        text = f"{self.name}: {self.compared}" if self.compared else self.name
        lines = [f"{verdict} {numbers} {fit(text, max(width - VERDICT - 1, 20), ascii).rstrip()}"]
        if not self.passed:
            below = wrap(self.message, max(width - BELOW, 20), ascii)
            lines += [" " * BELOW + line for line in below]
        return "\n".join(lines)

    def against(self) -> str:
        """The worst number beside its tolerance.

        >>> Proof("p", True, "", worst=8.9e-16, tolerance=1e-12).against()
        '8.9e-16 <= 1e-12'
        """
        if self.worst is None or self.tolerance is None:
            return ""
        sign = "<=" if self.worst <= self.tolerance else ">"  # also what is not a number
        return f"{self.worst:.2g} {sign} {self.tolerance:.2g}"

    def as_text(self, width: int, color: bool = False, ascii: bool = False) -> str:
        """The proof in lines of at most ``width`` columns."""
        numbers = "; ".join(f"{key}: {_words(value)}" for key, value in self.numbers.items())
        parts = {
            "found": self.message,
            "compared": self.compared,
            "numbers": numbers,
            "why": self.why,
            "not covered": self.not_covered,
            "not tried": self.untried,
        }
        first, *lines = wrap(f"{VERDICTS[self.passed]}: {self.name}", width)
        lines.insert(0, paint(first, STYLES[self.passed], color))
        for label, text in parts.items():
            for place, line in enumerate(wrap(text, max(width - LABEL - 2, 20), ascii)):
                lines.append(f"  {label if place == 0 else '':<{LABEL}}{line}".rstrip())
        return "\n".join(lines)


def report(proofs: Sequence[Proof], width: int) -> str:
    """All proofs as text, and at the end what was proved and what was not."""
    parts = [proof.as_text(width) for proof in proofs]
    for passed, heading in ((True, "Proved"), (False, "FAILED")):
        names = [proof.name for proof in proofs if proof.passed is passed]
        if names:
            parts.append("\n".join(wrap(f"{heading} ({len(names)}): {'; '.join(names)}.", width)))
    if text := unchecked(proofs, width):
        parts.append(text)
    return "\n\n".join(parts)


def unchecked(proofs: Sequence[Proof], width: int) -> str:
    """What was not checked at all, and what the other proofs did not try; "" where nothing."""
    lines = []
    if names := [proof.name for proof in proofs if proof.passed is None]:
        lines += wrap(f"Not checked ({len(names)}): {'; '.join(names)}.", width)
    for untried in dict.fromkeys(proof.untried for proof in proofs if proof.untried):
        lines += wrap(f"Not tried: {untried}.", width)
    return "\n".join(lines)


def worse(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of several numbers, each with its tolerance, the pair that comes nearest to failing.

    >>> worse([(2.0, 10.0), (1.0, 2.0)]), worse([(0.0, 0.0), (1e-16, 1e-12)])
    ((1.0, 2.0), (1e-16, 1e-12))
    """

    def share(pair: tuple[float, float]) -> float:
        worst, tolerance = pair
        if worst == 0:
            return 0.0
        found = worst / tolerance if tolerance else math.inf
        return math.inf if math.isnan(found) else found

    return max(pairs, key=share)


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
