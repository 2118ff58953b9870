"""The exercises: right solutions pass, wrong ones are named, and a learner's code harms nothing."""

import doctest
import inspect
import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from learners import RIGHT, WRONG

from minicpt import exercises
from minicpt.cli.main import main
from minicpt.exercises import report
from minicpt.exercises.base import MARK
from minicpt.exercises.child import called, decode, encode, raised
from minicpt.exercises.comparing import equal
from minicpt.exercises.diagnosis import Diagnosis
from minicpt.exercises.judging import Verdict, judge
from minicpt.exercises.runner import Answer, Child, Failed
from minicpt.proofs import faults

KNOWN = exercises.known()
TO_WRITE = "raise NotImplementedError  # your lines take the place of this"
FILES = {name: each.as_file(number, 15) for number, (name, each) in enumerate(KNOWN.items(), 1)}


def source(name: str, body: str = TO_WRITE) -> str:
    """The file of an exercise, filled in."""
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ").strip()
    assert TO_WRITE in FILES[name]
    return FILES[name].replace(TO_WRITE, lines)


def namespace(name: str, body: str = TO_WRITE) -> dict:
    space = {"__name__": "exercise"}
    exec(compile(source(name, body), "learner.py", "exec"), space)
    return space


def verdict(name: str, body: str = TO_WRITE) -> Verdict:
    """Judged as the command does it, but in this process."""
    function = namespace(name, body)[KNOWN[name].function]

    def answer(*inputs):
        try:
            value, changed = called(function, [decode(encode(each)) for each in inputs])
        except Exception as error:
            raise Failed(raised(error, "learner.py")["error"], repr(error)) from None
        return Answer(decode(encode(value)), tuple(changed))

    return judge(KNOWN[name], answer)


# --- solutions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name, body", [(name, body) for name in RIGHT for body in RIGHT[name]])
def test_a_right_solution_passes(name, body):
    found = verdict(name, body)
    assert found.state == "right", found.problem
    assert all(proof.passed for proof in found.proofs)
    assert bool(found.proofs) == bool(KNOWN[name].proofs)
    assert KNOWN[name].title not in report.as_text("f.py", found, 80)


@pytest.mark.parametrize(
    "name, fault, body", [(name, *each) for name in WRONG for each in WRONG[name]]
)
def test_a_typical_wrong_solution_is_named(name, fault, body):
    found = verdict(name, body)
    assert found.state == "wrong"
    assert found.fault == fault, found.problem
    told = " ".join(report.as_text("f.py", found, 80).split())
    assert (f"is what `{fault}` gives" if fault else "No mistake that minicpt knows") in told
    assert "right" in told and "yours" in told


def test_each_exercise_has_wrong_solutions():
    """At least four mistakes, of those that are known to verify --break wherever it knows them."""
    for name, exercise in KNOWN.items():
        assert name in RIGHT
        if not isinstance(exercise, Diagnosis):
            assert len({fault for fault, _ in WRONG[name]}) >= 4
    named = {fault for each in WRONG.values() for fault, _ in each}
    assert len(named & set(faults.known())) >= 18


@pytest.mark.parametrize("name", KNOWN)
def test_no_typical_mistake_is_right(name):
    """Each differs from the solution somewhere, so that nobody who is right is called wrong; and
    the inputs are not changed by the solution."""
    exercise = KNOWN[name]
    for mistake in exercise.mistakes:
        assert not all(
            equal(exercise.reference(*inputs), mistake.make(*inputs)) for inputs in exercise.cases()
        ), mistake.name
    for inputs in exercise.cases():
        assert called(exercise.reference, list(inputs))[1] == []
    assert called(lambda rows: rows[0].zero_(), [[torch.ones(1)]])[1] == [0]


@pytest.mark.parametrize("name", KNOWN)
def test_the_worked_example_holds(name):
    """In the learner's own file: the example in the docstring, with a right solution."""
    space = namespace(name, RIGHT[name][0])
    function = space[KNOWN[name].function]
    (example,) = doctest.DocTestFinder(recurse=False).find(function, globs=space)
    assert bool(example.examples) != isinstance(KNOWN[name], Diagnosis)
    assert doctest.DocTestRunner().run(example).failed == 0
    assert list(inspect.signature(function).parameters) == list(KNOWN[name].inputs)


# --- what stands in the file, and the first hint -------------------------------------------------


@pytest.mark.parametrize("name", KNOWN)
def test_a_file_is_easy_to_read(name):
    lines = FILES[name].split("\n")
    assert lines[0].startswith(f"# {MARK} {name} (")
    assert max(map(len, lines)) <= 110
    assert [line for line in lines if line.startswith(("import", "from"))] == ["import torch"]
    assert not re.search(r"\bminicpt\.\w", FILES[name])


@pytest.mark.parametrize("name", KNOWN)
def test_an_empty_file_gets_the_first_hint(name):
    found = verdict(name)
    assert found.state == "empty"
    told = " ".join(report.as_text("f.py", found, 80).split())
    hint = KNOWN[name].hints[0]
    assert f"nothing is written yet Hint 1 of {len(KNOWN[name].hints)}: {hint}" in told
    assert KNOWN[name].hints[1] in " ".join(report.as_text("f.py", found, 80, hint=2).split())


def test_the_order_builds_the_whole_thing():
    assert list(KNOWN) == (
        "causal-mask shift cross-entropy divisor accumulation masked-lm next-sentence"
        " decoder-inputs packing spans diffusion-weight kl-to-base broken-mask broken-targets"
        " broken-step"
    ).split()


# --- broken runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in KNOWN if isinstance(KNOWN[n], Diagnosis)])
def test_a_broken_run_shows_one_fault_alone(name):
    """No other answer of the list would look the same; and a wrong answer is shown as it would."""
    exercise = KNOWN[name]
    given = exercise.shown(exercise.FAULT)
    assert "\n".join(f"#     {line}".rstrip() for line in given) in FILES[name]
    others = [each for each in exercise.answers() if each != exercise.FAULT]
    assert len(others) >= 5
    assert all(exercise.shown(each) != given for each in others)
    assert exercise.shown("") != given
    told = report.as_text("f.py", verdict(name, f"return {exercise.FAULT!r}"), 200)
    assert f"Yes, it is `{exercise.FAULT}`: {faults.known()[exercise.FAULT].what}." in told
    found = verdict(name, f"return {others[0]!r}")
    assert found.state == "wrong" and f"With `{others[0]}`" in found.more
    assert "not a name of the list" in verdict(name, 'return "all of them"').more


# --- what a learner is told ----------------------------------------------------------------------


def test_the_answer_is_in_the_learners_terms():
    """The smallest text, what is right and what came, and the number with the fault's name."""
    body = dict((fault, body) for fault, body in WRONG["shift"])["shift-twice"]
    told = report.as_text("shift.py", verdict("shift", body), 100)
    assert re.search(r"The smallest input on which it fails, 1 of 4:\n\n  following = 70 b", told)
    assert re.search(r"0 69 a +70 b +\. +<", told)
    assert re.search(
        r"Your \d\.\d{3} nats per target is what `shift-twice` gives: the targets are shifted "
        "twice",
        told,
    )
    assert "a target is not the next" in told
    small = report.as_text("shift.py", verdict("shift", body), 44, ascii=True)
    assert max(map(len, small.split("\n"))) <= 50 and small.isascii()


@pytest.mark.parametrize(
    "body, words",
    [
        ("return torch.ones(length)", "has the shape (1,); wanted is (1, 1)"),
        ("return torch.ones(length, length).tril()", "The values are right, but it is of torch.fl"),
        ("torch.ones(length)", "It is None"),
        ("return object()", "a value of the type object"),
        ("return torch.ones(1, 1, dtype=torch.complex64)", "a tensor of torch.complex64"),
        ("return torch.ones(2000, 2000)", "far too large"),
        ("return [True], 2", "a tuple of 2"),
        ("yield 1", "a value of the type generator"),
    ],
)
def test_wrong_types_and_shapes_are_explained(body, words):
    found = verdict("causal-mask", body)
    assert found.state == "wrong" and not found.fault and not found.proofs
    assert words in " ".join(report.as_text("f.py", found, 200).split())


@pytest.mark.parametrize(
    "name, body",
    [
        ("shift", "return tokens * 1000"),
        ("shift", "return -tokens - 7"),
        ("masked-lm", "return tokens + 10**6, tokens[:1]"),
        ("masked-lm", "return -tokens, tokens"),
        ("next-sentence", "n = len(first) + len(second) + 3; return [torch.full((n,), 7)] * 3"),
        ("packing", "return torch.ones(size, size) > 0, torch.full((size,), 10**6)"),
        ("packing", "return torch.ones(size, size) < 0, torch.full((size,), -1)"),
        ("accumulation", "return counts * float('nan')"),
        ("decoder-inputs", "n = len(text) + 1; return torch.ones(n).long() * -9, text.roll(1)"),
        ("diffusion-weight", "return tokens, tokens, tokens * float('nan')"),
        ("spans", "return tokens[~noise] + 10**6, tokens[noise]"),
        ("cross-entropy", "return logits[:, 0] * float('inf')"),
    ],
)
def test_numbers_that_no_model_takes_are_just_wrong(name, body):
    found = verdict(name, body)
    assert found.state == "wrong" and found.fault in ("", "nothing-marks-the-gap")
    assert report.as_text("f.py", found, 80) and json.dumps(
        report.as_data("f.py", found), allow_nan=False
    )


def test_what_is_right_on_the_small_inputs_alone_is_not_right():
    """The proofs run on minicpt's own text, whose lengths the learner does not know."""
    body = "return torch.ones(length, length).bool().tril(0 if length < 9 else 1)"
    found = verdict("causal-mask", body)
    assert found.state == "wrong" and "on minicpt's own text a proof fails" in found.problem
    assert "leak from position" in report.as_text("f.py", found, 80)


# --- a process of its own ------------------------------------------------------------------------

HOSTILE = {
    "while True: pass": ("late", "still running after 0.5 s"),
    "import sys; sys.exit(3)": ("exit", "called sys.exit"),
    "return torch.ones(10**6, 10**6)": ("memory", "more memory"),
    "x = []\nwhile True: x.append(bytes(10**8))": ("memory", "more memory"),
    "return torch.ones(2) @ torch.ones(3)": ("raised", "raises RuntimeError"),
    "input()": ("raised", "EOFError"),
    "from minicpt.models import layers": ("raised", "minicpt holds the solution"),
    "import os; os.fork(); raise OSError": ("raised", "raises OSError"),
    "return causal_mask(length)": ("raised", "RecursionError"),
}
DEADLY = {
    "while True:\n    try:\n        while True: pass\n    except BaseException: pass": ("late", ""),
    "import os; os._exit(3)": ("died", "exit status 3"),
}


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(body: str, name: str = "causal-mask") -> Path:
        path = tmp_path / f"{name.replace('-', '_')}.py"
        path.write_text(source(name, body))
        return path

    return write


def test_a_learners_code_harms_nothing(written, monkeypatch):
    """What it raises is told from the learner's own lines, and the next call is answered."""
    branches = [
        f"if length == {number}:\n{textwrap.indent(body, '    ')}"
        for number, body in enumerate(HOSTILE)
    ]
    with Child(
        written("\n".join(branches)), "causal_mask", seconds=0.5, memory=1 << 30
    ) as child:
        child.load()
        for number, (body, (kind, text)) in enumerate(HOSTILE.items()):
            with pytest.raises(Failed) as failed:
                child(number)
            assert failed.value.kind == kind and text in failed.value.text, body
            assert failed.value.lines, body
            assert all(" in causal_mask: " in line for line in failed.value.lines), body
    assert len(failed.value.lines) == 4  # a recursion's are cut


def test_what_ends_the_process_is_told_too(written, monkeypatch):
    monkeypatch.setattr("minicpt.exercises.runner.GRACE", 0.5)
    for body, (kind, text) in DEADLY.items():
        with Child(written(body), "causal_mask", seconds=0.5) as child:
            child.load()
            with pytest.raises(Failed) as failed:
                child(2)
        assert failed.value.kind == kind and text in failed.value.text, body
        assert child.process.poll() is not None


def test_prints_and_changes_go_no_further(written, capfd):
    """What is printed is kept, torch is not changed here, and the next call is answered."""
    body = """
    print("length", length)
    torch.set_default_dtype(torch.float64)
    if length == 3:
        raise ValueError("three\\nlines")
    return torch.ones(length, length).bool().tril()
    """
    with Child(written(body), "causal_mask") as child:
        child.load()
        answer = child(2)
        with pytest.raises(Failed, match="raises ValueError: three$"):
            child(3)
        assert child(1).value.tolist() == [[True]]
    assert torch.equal(answer.value, torch.ones(2, 2).bool().tril()) and answer.changed == ()
    assert child.printed == "length 2\nlength 3\nlength 1\n"
    assert torch.get_default_dtype() == torch.float32
    assert capfd.readouterr() == ("", "")


# --- the command ---------------------------------------------------------------------------------


def test_start_writes_and_overwrites_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["exercise"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in KNOWN)
    assert main(["exercise", "start", "shift"]) == 0
    Path("shift.py").write_text("mine")
    assert main(["exercise", "start", "spans", "shift"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert Path("shift.py").read_text() == "mine" and not Path("spans.py").exists()
    Path("new").mkdir()
    assert main(["exercise", "start", "all", "--out", "new"]) == 0
    assert len(list(Path("new").iterdir())) == len(KNOWN)
    assert main(["exercise", "start", "shif"]) == 2
    assert main(["exercise", "start", "shift", "--out", "none"]) == 2


def test_check_for_a_learner_and_for_a_grader(written, capsys, monkeypatch):
    right = written(RIGHT["causal-mask"][0])
    monkeypatch.chdir(right.parent)  # a long path is broken into lines
    other = right.with_name("other.py")
    other.write_text(source("kl-to-base", "x = 1 / 0"))
    assert main(["exercise", "check", right.name]) == 0
    told = capsys.readouterr().out
    assert "causal_mask.py: right" in told and "proved" in told
    assert "Next: minicpt exercise start shift" in told
    assert main(["exercise", "check", str(right), str(other), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["right"], found["of"]) == (1, 2)
    assert found["files"][0]["proofs"][0]["passed"] is True
    assert found["files"][1]["exercise"] == "kl-to-base"
    assert found["files"][1]["problem"] == "raises ZeroDivisionError: division by zero"
    (line,) = found["files"][1]["lines"]
    assert re.fullmatch(r"line \d+, in kl_to_base: x = 1 / 0", line)


def test_a_file_that_cannot_be_read_as_python(written, capsys):
    path = written("return (")
    assert main(["exercise", "check", str(path)]) == 1
    told = capsys.readouterr().out
    assert "The file is no valid Python" in told and "return (" in told and "Traceback" not in told
    path.write_text(f"# {MARK} causal-mask\nraise SystemExit\n")
    assert main(["exercise", "check", str(path)]) == 1
    assert "line 2: raise SystemExit" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, problem",
    [
        (["missing.py"], "No such file"),
        (["."], "Is a directory"),
        (["latin.py"], "no UTF-8"),
        (["mine.py"], "does not say which exercise it is"),
        (["shift.py", "--hint", "9"], "--hint is 1 to 3"),
        (["shift.py", "--seconds", "0"], "--seconds must be more than 0"),
    ],
)
def test_bad_usage_is_one_line(words, problem, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("x = 1")
    Path("shift.py").write_text("x = 1")
    Path("latin.py").write_bytes(b"x = '\xe9'")
    assert main(["exercise", "check", *words]) == 2
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1


# --- one file an exercise ------------------------------------------------------------------------

DELETING = """
import json, os, pathlib, sys
import torch, tokenizers, tqdm
import minicpt.batch
# An editable install finds what was deleted in the folder that it was installed from.
sys.meta_path = [each for each in sys.meta_path if "ditable" not in repr(each)]
room = pathlib.Path("minicpt")
def left(file):
    into, out = os.pipe()
    if os.fork() == 0:
        try:
            (room / file).rename("aside")
            from minicpt import exercises
            from minicpt.cli.main import main
            from minicpt.exercises.judging import judge
            from minicpt.exercises.runner import Answer
            known = exercises.known()
            sys.stdout = open(os.devnull, "w")
            assert main(["exercise"]) == 0
            toy = known["toy"]
            assert "def pad_rows(rows, value):" in toy.as_file(1, 1)
            for function, wanted in ((toy.reference, ""), (toy.mistakes[0].make, "on-the-left")):
                found = judge(toy, lambda *inputs: Answer(function(*inputs)))
                assert (found.state == "right", found.fault) == (not wanted, wanted)
            told = sorted(known)
        except BaseException as error:
            told = repr(error)
        os.write(out, json.dumps(told).encode())
        os._exit(0)
    os.close(out)
    told = json.loads(open(into).read())
    os.wait()
    os.rename("aside", room / file)
    return told
print(json.dumps({file: left(file) for file in sys.argv[1:]}))
"""


def test_any_exercise_and_what_it_teaches_can_be_deleted(tmp_path):
    """What is left is listed. A new exercise is found by its file alone."""
    root = Path(exercises.__file__).parents[1]
    shutil.copytree(root, tmp_path / "minicpt", ignore=shutil.ignore_patterns("__pycache__"))
    toy = Path(__file__).parent / "house" / "toy_exercise.py"
    shutil.copy(toy, tmp_path / "minicpt" / "exercises" / "toy.py")
    files = {f"exercises/{name.replace('-', '_')}.py": {name} for name in list(KNOWN)[::7]}
    files |= {
        "objectives/masked_lm.py": {"masked-lm", "next-sentence", "accumulation", "broken-step"},
        "remedies/kl.py": {"kl-to-base"},
        "proofs/faults/batches.py": {"decoder-inputs", "broken-targets"},
    }
    done = subprocess.run(
        [sys.executable, "-c", DELETING, *files],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    for file, left in json.loads(done.stdout).items():
        assert set(left) == {*KNOWN, "toy"} - files[file], file
