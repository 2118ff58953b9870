"""One HTML file of all sections: style, script, numbers, and plain tables for who has no script.

The page's content policy forbids every request. Its one style and its one script are named in it by
their SHA-256, so nothing else runs. The numbers stand in a data block, which no browser runs.
"""

import base64
import hashlib
import html as escaping
import json
from collections.abc import Callable, Iterable
from importlib import resources

from minicpt import __version__
from minicpt.pictures.lesson import sections
from minicpt.pictures.lesson.sections import Lesson

FIRST, LAST = ("core.js", "grid.js"), ("start.js",)  # before and after those of the sections


def html(lesson: Lesson, through: Callable[[Iterable], Iterable] = iter) -> str:
    """The whole page; ``through`` shows how far its sections are."""
    known = sections.known()
    data, parts, tabs = {}, [], []
    for name, section in through(list(known.items())):
        data[name] = lesson.data(name)
        static = section.tables(lesson, data[name])
        missing = data[name].get("missing", "")
        parts.append(part(name, section, len(parts) + 1, static, missing))
        tabs.append((name, section.TITLE))
    content = {
        "text": lesson.text,
        "words": lesson.words.all,
        "tabs": tabs,
        "sections": data,
    }
    scripts = [*FIRST, *(f"{name.replace('-', '_')}.js" for name in known), *LAST]
    style, script = file("lesson.css"), "\n".join(map(file, scripts))
    holes = {
        "policy": policy(style, script),
        "style": style,
        "script": script,
        "data": block(content),
        "sections": "\n".join(parts),
        "text": escaping.escape(lesson.text),
        "version": __version__,
    }
    return filled(file("lesson.html"), holes)


def part(name: str, section, number: int, static: str, missing: str) -> str:
    """A section as it is without a script."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title"><span class="number">{number}</span> {section.TITLE}</h2>\n'
        f'<p class="lead">{section.LEAD}</p>\n'
        + (f'<p class="missing">{escaping.escape(missing)}</p>\n' if missing else "")
        + f'<div class="live"></div>\n<div class="static">\n{static}\n</div>\n</section>'
    )


def block(content: dict) -> str:
    """JSON that can stand inside a script element: it holds no "<"."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def policy(style: str, script: str) -> str:
    """The content policy: no request, and no style or script but these."""
    hashes = {
        kind: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for kind, text in (("style-src", style), ("script-src", script))
    }
    allowed = "; ".join(f"{kind} 'sha256-{value}'" for kind, value in hashes.items())
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def filled(template: str, holes: dict[str, str]) -> str:
    """The template with each ``{{hole}}`` filled; what fills one is not searched for others."""
    before, *rest = template.split("{{")
    for each in rest:
        name, _, after = each.partition("}}")
        before += holes[name] + after
    return before


def file(name: str) -> str:
    """One of the page's own files."""
    return (resources.files("minicpt") / "pictures" / "page" / name).read_text("utf-8")
