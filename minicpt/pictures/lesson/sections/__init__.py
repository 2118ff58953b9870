"""The sections of the lesson, one a file, found by themselves.

A section has ``ORDER``, ``TITLE`` and ``LEAD`` (the one sentence under its title), and

    data(lesson) -> dict       its numbers, for the page's script; {}: nothing to show, and why
    tables(lesson, data) -> str  the same as plain HTML tables, for whoever has no script

Its script is the file of the same name in ``pictures/page/``. Below stands what they share.
"""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

from minicpt.common import registry
from minicpt.pictures.lesson import sections
from minicpt.pictures.lesson.grid import Words
from minicpt.pictures.lesson.pupils import Pupil


@dataclass(frozen=True)
class Lesson:
    """What the sections show.

    text      that is shown
    pupils    the models, each with its objective
    compared  results of ``minicpt compare --json``
    words     of the whole page
    """

    text: str
    pupils: Sequence[Pupil]
    compared: Sequence[dict]
    words: Words = field(default_factory=Words)
    _found: dict[str, dict] = field(default_factory=dict, init=False, repr=False)

    def data(self, name: str, missing: dict | None = None) -> dict:
        """The numbers of a section, computed once; ``missing`` where there is no such section."""
        if name not in self._found:
            section = known().get(name)
            self._found[name] = section.data(self) if section else missing or {}
        return self._found[name]


def known() -> dict[str, ModuleType]:
    """The sections by name, in their order."""
    found = registry.modules(sections)
    return dict(sorted(found.items(), key=lambda item: item[1].ORDER))


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table; the first cell of each row is its heading.

    >>> print(table("t", ["a", "b"], [[1, 2.5]]))
    <table><caption>t</caption>
    <thead><tr><th scope="col">a</th><th scope="col">b</th></tr></thead>
    <tbody>
    <tr><th scope="row">1</th><td>2.500</td></tr>
    </tbody></table>
    """
    top = "".join(f'<th scope="col">{cell(each)}</th>' for each in head)
    body = "\n".join(
        f'<tr><th scope="row">{cell(row[0])}</th>'
        + "".join(f"<td>{cell(each)}</td>" for each in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{html.escape(caption)}</caption>\n<thead><tr>{top}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table>"
    )


def cell(value: object) -> str:
    """A number with three places, anything else as text."""
    return html.escape(f"{value:.3f}" if isinstance(value, float) else str(value))
