"""The ``minicpt`` command: finds the verb, runs it, and turns errors into one line.

Exit status: 0 done, 1 a verification failed or the work could not be finished, 2 bad usage or bad
input, 130 and 143 interrupted by SIGINT and SIGTERM.
"""

import argparse
import difflib
import os
import shutil
import signal
import sys
import textwrap
from types import ModuleType

from minicpt import __version__, cli
from minicpt.cli.hints import counterpart
from minicpt.common import registry
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


def verbs() -> dict[str, ModuleType]:
    """The verbs by name: the modules in this folder that have ``add`` and ``run``."""
    found = registry.modules(cli)
    names = [name for name, each in found.items() if hasattr(each, "add") and hasattr(each, "run")]
    order = [*filter(names.__contains__, ORDER), *(name for name in names if name not in ORDER)]
    return {name: found[name] for name in order}


def parser() -> Parser:
    top = Parser(
        prog="minicpt",
        description="The loss functions of (continued) pre-training, on a laptop CPU.",
        epilog="`minicpt VERB --help` tells more. A first command to try: minicpt demo",
    )
    top.add_argument("--version", action="version", version=f"minicpt {__version__}")
    parts = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for verb in verbs().values():
        verb.add(parts)
    return top


def main(words: list[str]) -> int:
    prepare_output()
    try:
        if not words:  # a question, not a mistake: answered as by pip and docker
            parser().print_help()
            return 0
        arguments = parser().parse_args(words)
        return verbs()[arguments.verb].run(arguments)
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
