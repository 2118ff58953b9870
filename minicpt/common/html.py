"""HTML by hand: escaped text, elements, the one table, a fragment for a notebook, a whole page.

The counterpart of ``terminal``. A page is one file that asks nothing of anybody: its content policy
forbids every request and every script, and the style sheet, ``html.css``, stands in it.

    >>> print(table(["who", "age"], [["Ann & Bob", 7]], numbers=[1]))
    <table>
    <thead><tr><th scope="col">who</th><th scope="col" class="number">age</th></tr></thead>
    <tbody>
    <tr><th scope="row">Ann &amp; Bob</th><td class="number">7</td></tr>
    </tbody>
    </table>
"""

import base64
import hashlib
import html
from collections.abc import Collection, Sequence
from pathlib import Path

from minicpt.common.outputs import check_new

STYLE = Path(__file__).with_name("html.css")
ENDINGS = (".htm", ".html")


class Markup(str):
    """A text that is HTML already; all others are escaped."""


def markup(value: object) -> Markup:
    """A value as HTML: what is ``Markup`` as it is, everything else as text."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=False))


def element(name: str, *content: object, **attributes: object) -> Markup:
    """An element; an attribute that is None is left out.

    >>> element("p", "1 < 2", class_="note", title=None)
    '<p class="note">1 &lt; 2</p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{''.join(map(markup, content))}</{name}>")


def table(
    headings: Sequence[object],
    rows: Sequence[Sequence[object]],
    *,
    caption: object = "",
    numbers: Collection[int] = (),
    marked: Collection[int] = (),
) -> Markup:
    """A table with headings for its columns and, in the first column, for its rows.

    numbers  the columns that are set to the right
    marked   the rows that stand out
    """
    kinds = ["number" if place in numbers else None for place in range(len(headings))]

    def cells(name: str, row: Sequence[object], first: str, **options) -> Markup:
        both = zip([first, *[name] * (len(row) - 1)], row, kinds, strict=True)
        drawn = []
        for place, (each, cell, kind) in enumerate(both):
            scope = "col" if name == "th" else "row" if place == 0 else None
            drawn.append(element(each, cell, scope=scope, class_=kind))
        return element("tr", *drawn, **options)

    body = [
        cells("td", row, "th", class_="marked" if place in marked else None)
        for place, row in enumerate(rows)
    ]
    lines = [
        "<table>",
        *([element("caption", caption)] if caption else []),
        element("thead", cells("th", headings, "th")),
        "<tbody>",
        *body,
        "</tbody>",
        "</table>",
    ]
    return Markup("\n".join(lines))


def wide(content: Markup, label: str) -> Markup:
    """A table that may be wider than the screen: it scrolls by itself, also by the keyboard."""
    return element("div", content, class_="wide", role="region", aria_label=label, tabindex=0)


def paragraphs(texts: Sequence[object]) -> Markup:
    return Markup("\n".join(element("p", each) for each in texts))


def fragment(*content: object) -> str:
    """What a notebook shows: the content with its style, which reaches nothing else."""
    return "\n".join([
        '<div class="minicpt">', element("style", Markup(style())), *map(markup, content), "</div>"
    ])  # fmt: skip


def page(title: str, *content: object) -> str:
    """A whole page, in light or dark as the reader's system has it."""
    css = style()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return "\n".join([
        "<!doctype html>",
        '<html lang="en" class="minicpt-page">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        element("title", title),
        element("style", Markup(css)),
        "</head>",
        '<body class="minicpt">',
        "<main>",
        element("h1", title),
        *map(markup, content),
        "</main>",
        "</body>",
        "</html>",
        "",
    ])  # fmt: skip


def style() -> str:
    return STYLE.read_text(encoding="utf-8")


def check_page(path: str | None, overwrite: bool) -> None:
    """InputError where no page can be written at ``path``: before the work, not after it."""
    if path is not None:
        check_new(path, overwrite, ENDINGS)


def write_page(path: str, text: str) -> None:
    """Writes a page. A token that is no UTF-8 text is written as a question mark."""
    Path(path).write_text(text, encoding="utf-8", errors="replace", newline="\n")
