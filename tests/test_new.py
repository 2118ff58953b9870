"""minicpt new: what it writes, and what it refuses. test_house.py uses what it writes."""

import subprocess
import sys
from pathlib import Path

import pytest

import minicpt
from minicpt import skeletons
from minicpt.cli import new
from minicpt.cli.main import main

ROOT = Path(__file__).parents[1]
WRITTEN = {
    "objective": ["minicpt/objectives/{}.py", "minicpt/proofs/rules/{}.py", "tests/test_{}.py"],
    "model": ["minicpt/models/{}.py", "tests/test_{}.py"],
    "remedy": ["minicpt/remedies/{}.py", "tests/test_{}.py"],
    "proof": ["minicpt/proofs/{}.py", "tests/test_{}.py"],
}


@pytest.fixture
def checkout(tmp_path):
    """The rooms of a checkout, and what tells that it is one."""
    for room in ("objectives", "models", "remedies", "proofs/rules"):
        (tmp_path / "minicpt" / room).mkdir(parents=True)
    (tmp_path / "minicpt" / "objectives" / "base.py").touch()
    return tmp_path


def below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", WRITTEN)
def test_each_kind_is_written_with_its_test(kind, checkout, capsys):
    before = below(checkout)
    assert main(["new", kind, "my-own", "--to", str(checkout)]) == 0
    shown = capsys.readouterr().out
    expected = [place.format("my_own") for place in WRITTEN[kind]]
    assert below(checkout) == sorted(before + expected)
    assert "python -m pytest tests/test_my_own.py" in shown
    for place in expected:
        text = (checkout / place).read_text()
        compile(text, place, "exec")
        assert "oy piece" not in text and "oy_piece" not in text and "ToyPiece" not in text
        assert text.startswith('"""') and "y own" in text.splitlines()[0]


def test_the_longest_and_the_shortest_name_please_the_linter(checkout):
    for kind in WRITTEN:
        for name in (f"{kind[:3]}-" + "x" * (skeletons.LONGEST - 4), f"q{kind[0]}"):
            assert main(["new", kind, name, "--to", str(checkout)]) == 0
    words = ["ruff", "check", "--no-cache", "--config", ROOT / "pyproject.toml", checkout]
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "kind, name, why",
    [
        ("objective", "Next", "cannot be a name"),
        ("objective", "../next", "cannot be a name"),
        ("objective", "a" * 99, "cannot be a name"),
        ("proof", "import", "has a meaning"),
        ("proof", "subject", "has a meaning"),
        ("remedy", "remedy", "has a meaning"),
        ("remedy", "steps", "--steps is a flag already"),
        ("remedy", "kl", "--kl is a flag already"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(kind, name, why, checkout, capsys):
    before = below(checkout)
    assert main(["new", kind, name, "--to", str(checkout)]) == 2
    error = capsys.readouterr().err
    assert why in error and error.count("\n") == 1
    assert below(checkout) == before


@pytest.mark.parametrize("place", WRITTEN["objective"])
def test_nothing_is_overwritten(place, checkout, capsys):
    path = checkout / place.format("mine")
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = below(checkout)
    assert main(["new", "objective", "mine", "--to", str(checkout)]) == 2
    assert f"{path} exists already" in capsys.readouterr().err
    assert below(checkout) == before and path.read_text() == "mine"


def test_it_goes_where_the_source_is_and_nowhere_else(checkout, tmp_path, monkeypatch, capsys):
    assert new.checkout() == ROOT
    (tmp_path / "other").mkdir()
    assert main(["new", "model", "mine", "--to", str(tmp_path / "other")]) == 2
    assert "is no checkout of minicpt" in capsys.readouterr().err
    installed = tmp_path / "site-packages" / "minicpt" / "__init__.py"
    monkeypatch.setattr(minicpt, "__file__", str(installed))
    assert main(["new", "model", "mine"]) == 2
    assert "--to" in capsys.readouterr().err
