"""``minicpt list``: names the objectives, models, remedies, faults and proofs, with a line each."""

import argparse
import shutil
import textwrap
from collections.abc import Callable, Mapping

from minicpt.common import outline
from minicpt.common.errors import InputError
from minicpt.runs.console import print_json, tell

EXAMPLES = """examples:
  minicpt list
  minicpt list objectives models
"""


def objectives() -> dict[str, str]:
    return outline.classes("objectives", "Objective")


def models() -> dict[str, str]:
    return outline.classes("models", "Model")


def remedies() -> dict[str, str]:
    return outline.classes("remedies", "Remedy")


def faults() -> dict[str, str]:
    """In the order of the known mistakes that they are examples of."""
    every = [(name, *given[:3]) for name, given in outline.decorated("proofs/faults", "fault")]
    own = objectives()
    return {
        name: f"{what} ({objective})"
        for name, _, objective, what in sorted(every, key=lambda each: each[1])
        if objective in own
    }


def proofs() -> dict[str, str]:
    """In the order in which they run."""
    order = outline.constants("proofs", "ORDER")
    lines = {name: outline.line(tree) for name, tree in outline.files("proofs")}
    return {name.replace("-", " "): lines[name] for name in sorted(order, key=order.get)}


KINDS: Mapping[str, tuple[Callable[[], dict[str, str]], str]] = {
    "objectives": (objectives, "minicpt train OBJECTIVE, minicpt explain OBJECTIVE"),
    "models": (models, "--model of train, explain and verify"),
    "remedies": (remedies, "against forgetting: minicpt train OBJECTIVE --help, minicpt compare"),
    "faults": (faults, "minicpt verify --break FAULT, minicpt explain OBJECTIVE --break FAULT"),
    "proofs": (proofs, "minicpt verify OBJECTIVE"),
}


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument(
        "kinds", metavar="KIND", nargs="*", help=f"{', '.join(KINDS)}; all by default"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    for name in arguments.kinds:
        if name not in KINDS:
            raise InputError(f"there are no {name!r} to list; use {', '.join(KINDS)}")
    found = {name: KINDS[name][0]() for name in dict.fromkeys(arguments.kinds or KINDS)}
    if arguments.json:
        print_json(found)
        return 0
    width = max(40, min(100, shutil.get_terminal_size().columns))
    for place, (name, each) in enumerate(found.items()):
        heading = textwrap.wrap(f"{name} ({KINDS[name][1]})", width, break_on_hyphens=False)
        tell("\n".join([*[""] * (place > 0), *heading, *listed(each, width)]))
    return 0


def listed(lines: Mapping[str, str], width: int) -> list[str]:
    """A line for each name; where the names are long for the terminal, it stands below."""
    size = max(map(len, lines), default=0)
    below = size > width // 2
    indent = " " * (4 if below else size + 4)
    found = []
    for name, text in lines.items():
        wrapped = textwrap.wrap(text, width - len(indent), break_on_hyphens=False) or [""]
        if below:
            found += [f"  {name}", *(indent + each for each in wrapped)]
        else:
            found.append(f"  {name:<{size}}  {wrapped[0]}".rstrip())
            found += [indent + each for each in wrapped[1:]]
    return found
