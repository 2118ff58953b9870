"""``minicpt list``: what it names without importing anything is what the registries find."""

import json
import subprocess
import sys

import pytest

from minicpt import models, objectives, remedies
from minicpt.cli.list import KINDS
from minicpt.cli.main import main
from minicpt.common import outline
from minicpt.proofs import faults, suite


def test_it_finds_what_the_registries_find():
    found = {name: each() for name, (each, _) in KINDS.items()}
    for name, room in (("objectives", objectives), ("models", models), ("remedies", remedies)):
        kinds = room.known()
        assert list(found[name]) == list(kinds)
        for each, kind in kinds.items():
            assert found[name][each] == sys.modules[kind.__module__].__doc__.splitlines()[0]
    assert list(found["proofs"]) == list(suite.known())
    known = faults.known()
    assert list(found["faults"]) == list(known)
    for name, fault in known.items():
        assert found["faults"][name] == f"{fault.what} ({fault.objective})"


def test_every_name_has_a_line(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == list(KINDS)
    assert all(line and "\n" not in line for each in found.values() for line in each.values())


@pytest.mark.parametrize("width", [40, 60, 200])
def test_its_lines_fit_the_terminal(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["list", "faults", "models", "faults"]) == 0
    lines = capsys.readouterr().out.splitlines()
    headings = [line.split()[0] for line in lines if line.startswith(("faults (", "models ("))]
    assert headings == ["faults", "models"]
    assert max(map(len, lines)) <= min(width, 100)
    assert any(line.strip().startswith("mask-off-by-one") for line in lines)


def test_it_does_not_wait_for_torch():
    code = (
        "import sys; from minicpt.cli.main import main; status = main(['list']);"
        " print(status, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


def test_an_unknown_kind(capsys):
    assert main(["list", "verbs"]) == 2
    assert "use objectives, models, remedies, faults, proofs" in capsys.readouterr().err


def test_a_class_is_found_through_the_one_that_it_builds_on(tmp_path, monkeypatch):
    (tmp_path / "room").mkdir()
    files = {
        "a_first": '"""First.\n\nMore."""\nclass B(A.C): pass\n',
        "base": '"""Base."""\nclass Root: pass\n',
        "second": '"""Second."""\nclass C(other.Root[int]): pass\nORDER = 3\n',
        "third": '"""Third."""\nclass D(Module): pass\n',
        "_hidden": '"""Hidden."""\nclass E(Root): pass\n',
    }
    for name, text in files.items():
        (tmp_path / "room" / f"{name}.py").write_text(text)
    monkeypatch.setattr(outline.minicpt, "__file__", str(tmp_path / "__init__.py"))
    assert outline.classes("room", "Root") == {"a-first": "First.", "second": "Second."}
    assert outline.constants("room", "ORDER") == {"second": 3}
