"""The ``minicpt`` command: finds the verb, runs it, and turns errors into one line.

Exit status: 0 done, 1 a verification failed or the work could not be finished, 2 bad usage or bad
input, 130 and 143 interrupted by SIGINT and SIGTERM.
"""

import argparse
import ast
import contextlib
import difflib
import importlib
import os
import shutil
import signal
import sys
import textwrap
from pathlib import Path
from types import ModuleType

from minicpt import __version__, cli
from minicpt.cli.hints import counterpart
from minicpt.common.errors import InputError, WorkError

# In which order the help lists the verbs; others come after them.
ORDER = "demo train resume evaluate generate explain verify compare export".split()
SIMILAR = 0.7  # of 1; all flags share their dashes, so what is less like one is not meant for it


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def __init__(self, **options):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        width = max(30, shutil.get_terminal_size().columns - 2)
        options["description"] = textwrap.fill(options.get("description", ""), width)
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str):
        raise InputError(f"{message}; see `{self.prog} --help`")

    def parse_known_args(self, words=None, namespace=None):
        """Unknown flags are refused where the known ones of the verb can be named."""
        found, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(f"unknown argument {unknown[0]}{self.meant(unknown[0])}")
        return found, unknown

    def meant(self, word: str) -> str:
        """What an unknown flag may stand for: its name in another tool, or a misspelt one."""
        flags = self._option_string_actions
        if same := counterpart(word, flags):
            return f"; minicpt calls it {same}: {flags[same].help.replace('%%', '%')}"
        near = difflib.get_close_matches(word, flags, 1, SIMILAR)
        return f", perhaps {near[0]}" if near else ""


def verbs() -> dict[str, str]:
    """The verbs by name, with what each does: the files here that begin with "``minicpt VERB``: ".

    None of them is imported: a list of verbs must not wait for torch.
    """
    found = {}
    files = (file for folder in cli.__path__ for file in Path(folder).glob("*.py"))
    for file in sorted(files, key=lambda file: file.stem):
        name = file.stem.replace("_", "-")
        first = ast.get_docstring(ast.parse(file.read_text("utf-8"))).split("\n\n")[0]
        begins, _, rest = first.partition(": ")
        if begins == f"``minicpt {name}``":
            found[name] = " ".join(rest.replace("``", "`").split())
    return {name: found[name] for name in sorted(found, key=[*ORDER, *found].index)}


def module_of(verb: str) -> ModuleType:
    """The file of a verb: it has ``add(parser)`` and ``run(arguments)``."""
    return importlib.import_module(f"minicpt.cli.{verb.replace('-', '_')}")


def parser(*filled: str) -> Parser:
    """The parser of the command; only the verbs ``filled`` have their flags."""
    top = Parser(
        prog="minicpt",
        description="The loss functions of (continued) pre-training, on a laptop CPU.",
        epilog="`minicpt VERB --help` tells more. A first command to try: minicpt demo",
    )
    top.add_argument("--version", action="version", version=f"minicpt {__version__}")
    parts = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for verb, does in verbs().items():
        short = does.split(". ")[0].removesuffix(".")
        part = parts.add_parser(verb, help=short, description=does[0].upper() + does[1:])
        if verb in filled:
            module_of(verb).add(part)
    return top


def main(words: list[str]) -> int:
    prepare_output()
    try:
        with together():
            return done(words)
    except InputError as error:
        return complain(error, 2)
    except WorkError as error:
        return complain(error, 1)
    except BrokenPipeError:
        # The reader of a pipe has gone: nothing more to say, and nothing to say it to.
        sys.stdout = open(os.devnull, "w")
        return 0
    except OSError as error:
        return complain(f"{error.filename or 'the output'}: {error.strerror}", 1)
    except MemoryError:
        return complain("out of memory; make the model, the batch or the window smaller", 1)
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        return complain("out of memory; make the model, the batch or the window smaller", 1)
    except KeyboardInterrupt as stopped:
        number = getattr(stopped, "number", signal.SIGINT)
        print(f"minicpt: {signal.Signals(number).name}: stopped; nothing to save", file=sys.stderr)
        return 128 + number


def together() -> contextlib.AbstractContextManager:
    """The other processes, where torchrun has started this one; else nobody."""
    if "LOCAL_RANK" not in os.environ:
        return contextlib.nullcontext()
    from minicpt.training.joining import joined

    return joined()


def done(words: list[str]) -> int:
    """Does what the words say; the exit status."""
    if not words:  # a question, not a mistake: answered as by pip and docker
        parser().print_help()
        return 0
    verb = next((word for word in words if word[:1] != "-"), "")
    arguments = parser(verb).parse_args(words)
    module = module_of(arguments.verb)
    several = "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE") != "1"
    if several and not hasattr(module, "PROCESSES"):
        raise InputError(f"minicpt {arguments.verb} is for one process; start it without torchrun")
    return module.run(arguments)


def prepare_output() -> None:
    """Output that is closed is thrown away; characters that it cannot carry are escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def complain(error: Exception | str, status: int) -> int:
    # One line; spaces within it stay, since they may belong to a name.
    words = " ".join(line.strip() for line in str(error).splitlines())
    print("minicpt: error:", words, file=sys.stderr)
    return status
