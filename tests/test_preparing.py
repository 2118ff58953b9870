"""The benchmark of preparing text runs, and says what makes no sense. Nothing is timed."""

import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))

import preparing  # noqa: E402
import timing  # noqa: E402

from minicpt.data.sources import read  # noqa: E402


@pytest.mark.parametrize("shape", preparing.SHAPES)
def test_the_text_has_the_size_asked_for(shape, tmp_path):
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        preparing.write_text(shape, tmp_path / name / preparing.SHAPES[shape], 200_000)
    once, again = (read([str(tmp_path / name)]) for name in ("once", "again"))
    assert 150_000 < once.bytes < 600_000 and once.sha256 == again.sha256
    assert (len(once) == 1) == (shape == "file")


def test_a_run_gives_the_documented_rows(tmp_path, capsys):
    path = tmp_path / "rows.json"
    words = ["--quick", "--size", "0.05", "--vocabulary", "300", "--shapes", "jsonl"]
    assert preparing.main([*words, "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(preparing.__doc__.splitlines()[0]) and "jsonl" in shown
    (row,) = json.loads(path.read_text())
    assert all(key in preparing.row_of.__doc__ for key in row)
    assert row["documents"] > 10 and row["tokens"] > 10_000 and row["ratio"] > 0
    assert 0 < row["imports_mib"] < row["resident_mib"]


@pytest.mark.parametrize(
    "words, said",
    [
        ("--size 0", "--size must be more than 0"),
        ("--rounds 0", "--rounds must be at least 1"),
        ("--shapes heap", "heap"),
        ("--one nothing a b", "--one takes one of"),
        ("--json no/such/folder/rows.json", "cannot write"),
    ],
)
def test_errors_are_one_line(words, said, capsys):
    assert timing.run(preparing.main, ["--quick", *words.split()]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("minicpt: error: ") and captured.err.count("\n") == 1
    assert said in captured.err
