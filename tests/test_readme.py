"""What the README shows must run."""

import re
from pathlib import Path

import minicpt

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21 and 2.0 < float(lines[-1]) < 4.0


def test_every_file_is_listed():
    package = Path(minicpt.__file__).parent
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        folder = name.split("/")[0] + "/"
        if not path.name.startswith("__"):
            rooms = ("cli/", "comparison/", "report/", "verify/")
            whole = folder in rooms and f"`{folder}`" in README
            assert f"`{name}`" in README or whole, name


def test_the_commands_shown_are_understood():
    from minicpt.cli.main import parser

    commands = re.findall(r"^    minicpt (.+)$", README, re.MULTILINE)
    commands += [line for line in re.findall(r"`minicpt ([^`]+)`", README)]
    assert len(commands) > 5
    import shlex

    for command in commands:
        if "OBJECTIVE" not in command:
            parser().parse_args(shlex.split(command))
