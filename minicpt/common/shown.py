"""Objects that show themselves as a table: as text in a terminal, as HTML in a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minicpt.common import html


@dataclass(frozen=True)
class Table:
    """What is shown: a title, a table whose columns but the first are numbers, and remarks."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    remarks: Sequence[str] = ()


class Shown:
    """The base of such an object, which says what ``shown`` in it is."""

    def shown(self) -> Table:
        raise NotImplementedError(f"{type(self).__name__} must write shown")

    def __str__(self) -> str:
        found = self.shown()
        rows = [found.headings, *found.rows]
        sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  " + "  ".join([row[0].ljust(sizes[0]), *map(str.rjust, row[1:], sizes[1:])]).rstrip()
            for row in rows
        ]
        return "\n".join([found.title, *lines, *found.remarks])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        found = self.shown()
        numbers = range(1, len(found.headings))
        drawn = html.table(found.headings, found.rows, caption=found.title, numbers=numbers)
        return html.fragment(drawn, html.paragraphs(found.remarks))


LOSSES = ("head", "nats/target", "targets")  # the headings of ``loss_rows``


def loss_rows(losses: Mapping) -> list[list[str]]:
    """A row for each head's ``Loss``."""
    return [[name, f"{float(each.mean):.4f}", f"{each.count:,}"] for name, each in losses.items()]
