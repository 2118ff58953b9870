"""Deletes each discovered file of a house, one at a time, and tries what is left.

    python deleting.py FOLDER ROOM ...

FOLDER holds a copy of the package. Each file is tried in a forked process of its own, so that torch
is imported once. Prints a JSON object: file -> what went wrong, or "".
"""

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

MOST = 3000  # characters of an error


def discovered(folder: Path, rooms: list[str]) -> list[str]:
    """The files in which something was found, relative to the folder."""
    from minicpt import models, objectives, remedies
    from minicpt.cli.main import verbs
    from minicpt.proofs import suite

    kinds = [kind for room in (models, objectives, remedies) for kind in room.known().values()]
    names = {each.__module__ for each in (*kinds, *suite.known().values())}
    names |= {each.__name__ for each in verbs().values()}
    return sorted(name.replace(".", "/") + ".py" for name in names if name.split(".")[1] in rooms)


def works(deleted: str) -> str:
    """Helps, and the quick proofs of what the deleted file may matter to."""
    from minicpt.cli.main import main, verbs
    from minicpt.proofs import suite

    asked = [["--help"], *([verb, "--help"] for verb in verbs())]
    if "train" in verbs():
        asked += [["train", name, "--help"] for name in suite.trainable()]
    for words in asked:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                main(words)
            except SystemExit as left:
                assert not left.code, words
    for subject in subjects(Path(deleted)):
        for proof in suite.prove(subject, trains=False):
            assert proof.passed is not False, f"{subject.name}: {proof.name}: {proof.message}"
    return ""


def subjects(deleted: Path) -> list:
    """One of each objective that may be touched: without a model all of them, without an objective
    those whose file speaks of it, and else the first."""
    from minicpt import objectives
    from minicpt.proofs import suite

    touched = suite.trainable()
    if deleted.parent.name != "models":
        words = deleted.stem, deleted.stem.replace("_", "-")
        files = {name: Path(sys.modules[kind.__module__].__file__).read_text()
                 for name, kind in objectives.known().items()}  # fmt: skip
        speaks = [name for name in touched if any(word in files[name] for word in words)]
        touched = speaks if deleted.parent.name == "objectives" and speaks else touched[:1]
    return [suite.subjects([name])[0] for name in touched]


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
    import torch  # noqa: F401
    import tqdm  # noqa: F401

    sys.path.insert(0, str(folder))
    found = {}
    for name in in_a_child(lambda: discovered(folder, rooms)):
        file, aside = folder / name, folder / "deleted"
        file.rename(aside)
        found[name] = in_a_child(lambda name=name: works(name))
        aside.rename(file)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
