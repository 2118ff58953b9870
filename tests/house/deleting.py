"""Deletes each discovered file of a house, one at a time, and tries what is left.

    python deleting.py FOLDER ROOM ...

FOLDER holds a copy of the package. Each file is tried in a forked process of its own, so that torch
is imported once. Prints a JSON object: file -> what went wrong, or "".
"""

import argparse
import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

MOST = 3000  # characters of an error


def discovered(folder: Path, rooms: list[str]) -> list[str]:
    """The files in which something was found, relative to the folder."""
    from minicpt import models, objectives, remedies
    from minicpt.cli.main import module_of, verbs
    from minicpt.proofs import suite

    kinds = [kind for room in (models, objectives, remedies) for kind in room.known().values()]
    names = {each.__module__ for each in (*kinds, *suite.known().values())}
    names |= {module_of(verb).__name__ for verb in verbs()}
    return sorted(name.replace(".", "/") + ".py" for name in names if name.split(".")[1] in rooms)


def works(deleted: str, first: bool) -> str:
    """Helps, and the quick proofs of what the deleted file may matter to.

    first  of its room: of verbs and remedies, which no proof uses by name, that one stands for all
    """
    from minicpt.cli.main import main, parser, verbs
    from minicpt.proofs import suite

    room = Path(deleted).parent.name
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main(["--help"])
        except SystemExit as left:
            assert not left.code
    assert all(helps(parser(*verbs())))
    for name in touched(Path(deleted)) if first or room not in ("cli", "remedies") else []:
        subject = suite.subjects([name])[0]
        for proof in suite.prove(subject, trains=False):
            assert proof.passed is not False, f"{subject.name}: {proof.name}: {proof.message}"
    return ""


def helps(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The help of a command, and of all commands below it."""
    yield parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from helps(each)


def touched(deleted: Path) -> list[str]:
    """The objectives that a deleted file may matter to: without an objective those whose file
    speaks of it, without a model one of each role, and else the first."""
    from minicpt import objectives
    from minicpt.proofs import suite

    left, known = suite.trainable(), objectives.known()
    if deleted.parent.name == "models":
        return list({known[name].roles: name for name in reversed(left)}.values())
    words = deleted.stem, deleted.stem.replace("_", "-")
    texts = {name: Path(sys.modules[known[name].__module__].__file__).read_text() for name in left}
    speaks = [name for name in left if any(word in texts[name] for word in words)]
    return speaks if deleted.parent.name == "objectives" and speaks else left[:1]


def in_a_child(task: Callable[[], object]) -> object:
    """What the task gives in a process of its own; what it raises comes back as text."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = task()
        except BaseException:
            found = traceback.format_exc()[-MOST:]
        os.write(into, json.dumps(found).encode())
        os._exit(0)
    os.close(into)
    with open(out, "rb") as stream:
        found = stream.read()
    os.waitpid(child, 0)
    return json.loads(found or b'"the process died"')


def main(folder: Path, rooms: list[str]) -> None:
    import tokenizers  # noqa: F401, what is imported here, each child has
    import torch._dynamo  # noqa: F401
    import tqdm  # noqa: F401

    sys.path.insert(0, str(folder))
    # An editable install finds a deleted file's module in the checkout that it was made from.
    sys.meta_path = [each for each in sys.meta_path if "ditable" not in repr(each)]
    found = {}
    for name in in_a_child(lambda: discovered(folder, rooms)):
        file, aside = folder / name, folder / "deleted"
        file.rename(aside)
        first = name.split("/")[1] not in {each.split("/")[1] for each in found}
        found[name] = in_a_child(lambda name=name, first=first: works(name, first))
        aside.rename(file)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
