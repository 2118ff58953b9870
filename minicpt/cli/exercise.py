"""``minicpt exercise``: exercises that check themselves, and name your mistake. Each is one
function to write, from the causal mask to a broken run; it runs in a process of its own.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from minicpt import exercises
from minicpt.common.errors import InputError
from minicpt.common.terminal import draw, needs_ascii, words
from minicpt.exercises import report
from minicpt.exercises.base import MARK, Exercise
from minicpt.exercises.judging import Verdict, judge
from minicpt.exercises.runner import SECONDS, Child, Failed
from minicpt.runs.console import print_json

EXAMPLES = """examples:
  minicpt exercise start causal-mask
  minicpt exercise check causal_mask.py --hint 1
"""
WIDTH = 100
ALL = "all"


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    about = "writes the file of an exercise, with its task, for you to fill in"
    start = actions.add_parser("start", help=about, description=about, epilog=EXAMPLES)
    start.add_argument("names", metavar="NAME", nargs="+", help="of an exercise; all: each of them")
    start.add_argument("--out", metavar="DIR", default=".", help="a folder (default: this one)")
    about = "runs your file and says whether it is right; status 0: it is, 1: it is not"
    check = actions.add_parser("check", help=about, description=about, epilog=EXAMPLES)
    check.add_argument("files", metavar="FILE", nargs="+", help="that `start` wrote")
    check.add_argument("--hint", type=int, metavar="N", default=0, help="show a hint, from 1 on")
    check.add_argument(
        "--seconds", type=float, metavar="S", default=SECONDS,
        help=f"that one call of your function may take (default: {SECONDS:g})",
    )  # fmt: skip
    # Not default=False: that would undo a --json before the action.
    check.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print the answer as JSON"
    )


def run(arguments: argparse.Namespace) -> int:
    known = exercises.known()
    if arguments.action == "start":
        return start(known, arguments.names, Path(arguments.out))
    if arguments.action == "check":
        return check(known, arguments)
    return listed(known, arguments.json)


def width() -> int:
    return max(40, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


# --- what there is -----------------------------------------------------------------------------


def listed(known: dict[str, Exercise], as_json: bool) -> int:
    """The exercises in their order."""
    if as_json:
        print_json({
            "exercises": [
                {"name": name, "minutes": each.minutes, "title": each.title}
                for name, each in known.items()
            ]
        })  # fmt: skip
        return 0
    ascii = needs_ascii(sys.stdout.encoding)
    numbers = [str(number + 1) for number in range(len(known))]
    minutes = [str(each.minutes) for each in known.values()]
    table = [
        words("", numbers, 2, 2, ascii, right=True),
        words("exercise", list(known), 24, 16, ascii, style="1"),
        words("minutes", minutes, 7, 7, ascii, right=True),
        words("what it is about", [each.title for each in known.values()], 80, 10, ascii),
    ]
    lines = draw(table, width(), sys.stdout.isatty())
    print("\n".join(lines))
    first = next(iter(known), "")
    print(f"\nThe first one: minicpt exercise start {first}")
    return 0


# --- a file to fill in -------------------------------------------------------------------------


def start(known: dict[str, Exercise], names: Sequence[str], folder: Path) -> int:
    """Writes the files; none where one of them is there already."""
    wanted = list(dict.fromkeys(known if ALL in names else names))
    for name in wanted:
        if name not in known:
            raise InputError(f"no exercise is called {name!r}; use one of {', '.join(known)}")
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no folder; make it first, or leave out --out")
    paths = {name: folder / f"{name.replace('-', '_')}.py" for name in wanted}
    for path in paths.values():
        if path.exists() or path.is_symlink():
            raise InputError(f"{str(path)!r} is there already; move it away, or give --out DIR")
    for name, path in paths.items():
        text = known[name].as_file(list(known).index(name) + 1, len(known))
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
        print(f"wrote {path}; fill it in, then: minicpt exercise check {path}")
    return 0


# --- an answer ---------------------------------------------------------------------------------


def check(known: dict[str, Exercise], arguments: argparse.Namespace) -> int:
    """Judges each file. Status 1 unless all are right."""
    if not arguments.seconds > 0:
        raise InputError(f"--seconds must be more than 0, but is {arguments.seconds:g}")
    asked = [(file, exercise_of(Path(file), known)) for file in arguments.files]
    for _, exercise in asked:
        if not 0 <= arguments.hint <= len(exercise.hints):
            raise InputError(f"--hint is 1 to {len(exercise.hints)} for {exercise.name}")
    style = {"ascii": needs_ascii(sys.stdout.encoding), "color": sys.stdout.isatty()}
    names, found = list(known), []
    for place, (file, exercise) in enumerate(asked):
        verdict = judged(Path(file), exercise, arguments.seconds)
        found.append((file, verdict))
        if not arguments.json:
            following = (names + [""])[names.index(exercise.name) + 1]
            more = {"hint": arguments.hint, "following": following}
            print("\n" * (place > 0) + report.as_text(file, verdict, width(), **more, **style),
                  flush=True)  # fmt: skip
    right = sum(verdict.state == "right" for _, verdict in found)
    if arguments.json:
        files = [report.as_data(file, verdict, arguments.hint) for file, verdict in found]
        print_json({"right": right, "of": len(found), "files": files})
    elif len(found) > 1:
        print(f"\n{right} of {len(found)} are right.")
    return int(right < len(found))


def exercise_of(path: Path, known: dict[str, Exercise]) -> Exercise:
    """The exercise that a file answers: its first lines say it, or else its name.

    Raises InputError where there is no such file, or it says nothing.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{str(path)!r}: {error.strerror}; give a file of yours") from None
    except UnicodeDecodeError:
        raise InputError(f"{str(path)!r} is no UTF-8 text; save it as UTF-8") from None
    found = re.search(rf"^# {MARK} ([\w-]+)", text, re.MULTILINE)
    name = found[1] if found else path.stem.replace("_", "-")
    if name not in known:
        raise InputError(
            f"{str(path)!r} does not say which exercise it is; keep the first line that `minicpt"
            f" exercise start` wrote, or call it as one of {', '.join(known)}"
        )
    return known[name]


def judged(path: Path, exercise: Exercise, seconds: float) -> Verdict:
    """What there is to say of a file: its function runs in a process of its own."""
    with Child(path, exercise.function, seconds) as child:
        try:
            child.load()
            verdict = judge(exercise, child)
        except Failed as failed:
            verdict = Verdict(exercise, "failed", problem=failed.text)
            verdict.lines = failed.lines
    verdict.printed = child.printed
    return verdict
