"""The house: what imports what, how long the reading path is, and one file for a new piece."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From text to a training step, in the order in which the README walks it.
PATH = (
    "batch loss models.layers models.gpt2 objectives.base objectives.causal_lm data.corpus"
    " data.order training.stream training.trainer training.optimizer"
).split()
# The floors, the top one first: a room imports from its own floor and from those below.
FLOORS = (
    ("cli",),
    ("proofs", "comparison", "pictures"),
    ("runs",),
    ("training", "checkpoint"),
    ("objectives", "remedies", "models"),
    ("generation", "data", "batch", "loss"),
    ("fast", "common"),
)
AXES = {"objectives", "remedies", "models"}


def python(code: str, folder: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True
    )
    return done.stdout


def test_the_reading_path_is_short():
    files = [ROOT / "minicpt" / (name.replace(".", "/") + ".py") for name in PATH]
    assert sum(len(file.read_text().splitlines()) for file in files) <= 1500


def test_the_reading_path_loads_nothing_above_it():
    imports = "".join(f"import minicpt.{name}\n" for name in PATH)
    loaded = python(f"{imports}import sys\nprint(*sys.modules)").split()
    above = ("cli", "runs", "proofs", "comparison", "pictures", "checkpoint")
    assert not [name for name in loaded if name.startswith(tuple(f"minicpt.{x}" for x in above))]


def test_importing_the_package_does_not_import_torch():
    assert python("import minicpt, sys; print('torch' in sys.modules)").strip() == "False"


def rooms() -> list[tuple[str, str, Path]]:
    """(room, room that it imports from, file) for every import inside the package."""
    found = []
    for file in sorted((ROOT / "minicpt").rglob("*.py")):
        room = file.relative_to(ROOT / "minicpt").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minicpt"):
                place = node.module.split(".")[1:]
                for name in [place[0]] if place else [alias.name for alias in node.names]:
                    found.append((room, name, file))
    return found


def test_imports_point_down():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    wrong = [
        f"{file}: {room} imports {other}"
        for room, other, file in rooms()
        if room in floor and other in floor and floor[other] < floor[room]
    ]
    assert not wrong


def test_the_three_axes_do_not_import_each_other():
    wrong = [
        f"{file}: {room} imports {other}"
        for room, other, file in rooms()
        if room in AXES and other in AXES and room != other
    ]
    assert not wrong
