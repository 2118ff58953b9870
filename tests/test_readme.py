"""What the README shows must run, and it walks the code in the order of the reading path."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_house import PATH, ROOT

import minicpt

README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = Path(minicpt.__file__).parent
MOST_LINES = 350


def test_it_is_read_in_one_sitting():
    assert len(README.splitlines()) <= MOST_LINES


def test_the_python_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 10 and code.count("import") == 1
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21 and 2.0 < float(lines[-1]) < 4.0


def test_it_walks_the_reading_path_in_order():
    walked = re.findall(r"^\d+\. `(.+)\.py`: ", README, re.MULTILINE)
    assert [name.replace("/", ".") for name in walked] == PATH
    numbers = re.findall(r"^(\d+)\. `.+\.py`: ", README, re.MULTILINE)
    assert numbers == [str(number + 1) for number in range(len(PATH))]


def test_every_room_has_a_line():
    rooms = [each.name + "/" for each in PACKAGE.iterdir() if (each / "__init__.py").exists()]
    files = [each.name for each in PACKAGE.glob("*.py") if not each.name.startswith("__")]
    for name in rooms + [each for each in files if each.removesuffix(".py") not in PATH]:
        assert f"\n- `{name}`: " in README, name
    for name in re.findall(r"^- `(\w+/)`: ", README, re.MULTILINE):
        assert name in rooms


def test_the_files_that_it_names_are_there():
    for name in set(re.findall(r"`((?:\w+/)+|(?:\w+/)+\w+\.py)`", README)) - {"notes/"}:
        if not Path(name).stem == "NAME":
            found = [ROOT / name, PACKAGE / name, *(each / name for each in PACKAGE.iterdir())]
            assert any(each.exists() for each in found), name


def test_the_commands_shown_are_understood():
    from minicpt.cli.main import parser

    commands = re.findall(r"^    minicpt (.+)$", README, re.MULTILINE)
    commands += re.findall(r"`minicpt ([^`]+)`", README)
    assert len(commands) > 15
    for command in commands:
        if "OBJECTIVE" not in command and "--help" not in command:
            parser(command.split()[0]).parse_args(shlex.split(command))


def test_the_flags_shown_are_known():
    shown = set(re.findall(r"`(--[a-z][a-z0-9-]*)", README))
    assert len(shown) > 15
    from minicpt.cli.main import parser, verbs

    known = set()
    todo = [parser(*verbs())]
    while todo:
        for action in todo.pop()._actions:
            known.update(action.option_strings)
            if isinstance(action.choices, dict):
                todo += action.choices.values()
    assert shown <= known, shown - known


# --- the names of the package ------------------------------------------------------------------


@pytest.mark.parametrize("name", minicpt.__all__)
def test_each_name_is_found_and_is_what_it_is_called(name):
    found = getattr(minicpt, name)
    assert found.__name__ == name and found.__module__.startswith("minicpt.")


def test_names_are_listed_without_being_imported():
    code = (
        "import sys, minicpt; names = dir(minicpt); assert set(minicpt.__all__) <= set(names);"
        " assert len(names) == len(set(names)); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\n", done.stderr


def test_no_room_hides_a_name():
    """A folder or file of the package that has been imported does not stand in a name's place."""
    modules = {each.stem for each in PACKAGE.iterdir()}
    assert not modules & set(minicpt.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="minicpt has no 'Decoder'; it has read, split"):
        minicpt.Decoder  # noqa: B018
