"""``minicpt new``: writes a new objective, model, remedy or proof that runs, to be changed. Its
rule and its test come with it; the files go into the checkout where minicpt's own source is.
"""

import argparse
import re
from pathlib import Path

import minicpt
from minicpt import skeletons
from minicpt.common.errors import InputError
from minicpt.runs.console import print_json, tell

EXAMPLES = """nothing is overwritten, and no other file is changed: a new file in its room is found

examples:
  minicpt new objective next-word
  minicpt new remedy stay-near --to ../minicpt
"""
# kind -> commands that use what was written
NEXT = {
    "objective": ("minicpt verify {0}", "minicpt train {0} --steps 50"),
    "model": ("minicpt verify causal-lm --model {0}",
              "minicpt train causal-lm --model {0} --steps 50"),
    "remedy": ("python -m pytest tests/test_remedies.py -k {0}",
               "minicpt train causal-lm --init runs/base --{0} 0.1"),
    "proof": ("minicpt verify causal-lm",),
}  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("kind", metavar="KIND", choices=tuple(NEXT), help=", ".join(NEXT))
    parser.add_argument("name", metavar="NAME", help="small letters and hyphens: next-word")
    parser.add_argument(
        "--to", metavar="DIR", help="the root of another checkout (default: minicpt's own source)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    kind, name = arguments.kind, arguments.name
    root = Path(arguments.to) if arguments.to is not None else checkout()
    check_flags(skeletons.settings(kind, name))
    paths = skeletons.written(kind, name, root)
    if arguments.json:
        print_json({"files": [str(path) for path in paths]})
        return 0
    for path in paths:
        tell(f"written  {path}")
    there = "" if arguments.to is None else f", in {root}"
    tell(f"\nIt runs as it is{there}:")
    test = next(path for path in paths if path.parent.name == "tests")
    for line in (f"python -m pytest tests/{test.name}", *NEXT[kind]):
        # The installed `minicpt` is another checkout's.
        line = line if arguments.to is None else re.sub("^minicpt", "python -m minicpt", line)
        tell(f"  {line.format(name)}")
    return 0


def checkout() -> Path:
    """Where minicpt's own source is. InputError where that is no checkout."""
    root = Path(minicpt.__file__).resolve().parents[1]
    if not (root / "setup.cfg").is_file():
        raise InputError(f"{root}, where minicpt is, is no checkout; give one with --to")
    return root


def check_flags(names: list[str]) -> None:
    """InputError where one of these settings would be a flag that ``train`` has already."""
    from minicpt.cli.main import parser

    todo, known = [parser("train", "compare")], set()
    while todo:
        for action in todo.pop()._actions:
            known.add(action.dest)
            if isinstance(action, argparse._SubParsersAction):
                todo += action.choices.values()
    for name in names:
        if name in known:
            raise InputError(f"--{name.replace('_', '-')} is a flag already; use another name")
