"""The house: what imports what, how long the reading path is, and one file for a new piece."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minicpt import objectives, skeletons

ROOT = Path(__file__).parents[1]
TOYS = Path(__file__).parent / "house"
# From text to a training step, in the order in which the README walks it.
PATH = (
    "batch loss models.layers models.gpt2 objectives.base objectives.causal_lm data.corpus"
    " data.order training.stream training.trainer training.optimizer"
).split()
# The floors, the top one first: a room imports from its own floor and from those below.
FLOORS = (
    ("cli",),
    ("exercises",),
    ("proofs", "comparison", "pictures"),
    ("runs",),
    ("training", "checkpoint"),
    ("objectives", "remedies", "models"),
    ("generation", "data", "batch", "loss", "terms"),
    ("fast", "common", "possible"),
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


# --- one file for a new piece ------------------------------------------------------------------

# What ``minicpt new`` writes, with a verb beside it: nothing else in the copy is changed.
NEW = {"model": "toy", "objective": "toy-task", "remedy": "toy-pull", "proof": "toy-proof"}


@pytest.fixture
def copied(tmp_path) -> Path:
    """A folder that holds a copy of the package."""
    shutil.copytree(ROOT / "minicpt", tmp_path / "minicpt")
    return tmp_path


def in_copy(folder: Path, *words) -> str:
    """The output of Python with the copy in place of the package."""
    settings = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    settings |= {"TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True, text=True, cwd=folder, env=os.environ | settings, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def toy_house(copied) -> Path:
    """The copy with a toy in each room."""
    for kind, name in NEW.items():
        skeletons.written(kind, name, copied)
    shutil.copy(TOYS / "toy_verb.py", copied / "minicpt" / "cli")
    return copied


def test_a_new_piece_is_one_new_file(toy_house):
    """A model, an objective with a part, a weight and a rule, a remedy, a verb and a proof: each is
    found, has its flags, trains, resumes bitwise, is verified and is compared."""
    found = json.loads(in_copy(toy_house, TOYS / "trying.py", toy_house))
    shown = {name: each["out"] for name, each in found["help"].items()}
    assert {each["status"] for each in found["help"].values()} <= {0, None}
    assert "toy-verb" in shown["top"] and "how many objectives there are" in shown["top"]
    assert "toy-task" in shown["train"] and "Toy task" in shown["train"]
    for flag in ("--toy-task-share", "--toy-pull", "--toy-gain", "toy"):
        assert flag in shown["train toy-task"]
    assert "--toy-gain" in shown["train causal-lm"]
    assert "--toy-task-share" not in shown["train causal-lm"]
    assert "--toy-pull" in shown["compare"] and "0.125" in shown["compare"]
    count = len(objectives.known()) + 1
    assert found["verb"] == {"status": 0, "out": f"{count} objectives\n", "error": ""}

    runs = found["runs"]
    for name in ("train", "resume", "evaluate", "continue"):
        assert runs[name]["status"] == 0, runs[name]["error"]
    assert runs["parts"] == ["more.bias", "more.weight"]
    assert runs["resumed bitwise"]
    (result,) = json.loads(runs["evaluate"]["out"]).values()
    nats, targets = result["nats_per_target"], result["targets"]
    assert nats.keys() == {"tokens", "again"} and targets["tokens"] == targets["again"]
    assert result["total"] == pytest.approx(nats["tokens"] + nats["again"] / 4)

    assert found["verify"]["status"] == 0, found["verify"]["out"] + found["verify"]["error"]
    shown = found["verify"]["out"]
    assert "toy-task with toy" in shown and "batch rules" in shown
    assert "toy proof" in found["verify"]["out"] and "not checked" in found["verify"]["out"]
    assert found["compare"]["status"] == 0, found["compare"]["error"]
    assert "toy-pull 0.125" in found["compare"]["out"] and "toy-task" in found["compare"]["out"]


def test_a_new_piece_keeps_the_contracts(toy_house):
    """The tests of every objective, model and remedy run over what is found: over toys as well.
    So do those that came with the toys."""
    own = sorted((toy_house / "tests").glob("test_*.py"))  # those that came with the toys
    assert len(own) == len(NEW)
    shutil.copytree(Path(__file__).parent, toy_house / "tests", dirs_exist_ok=True)
    files = [toy_house / "tests" / f"test_{name}.py" for name in ("contract", "models", "remedies")]
    files += own
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "toy"]
    told = in_copy(toy_house, *words, *files)
    assert "passed" in told and "failed" not in told


@pytest.mark.parametrize(
    "rooms, least", [(("models", "objectives"), 7), (("remedies", "cli", "proofs"), 7 + 9 + 7)]
)
def test_any_discovered_file_can_be_deleted(copied, rooms, least):
    """What is left imports, its help is shown, and its quick proofs hold."""
    found = json.loads(in_copy(copied, TOYS / "deleting.py", copied, *rooms))
    assert len(found) >= least
    assert not "\n".join(f"{name}: {wrong}" for name, wrong in found.items() if wrong)
