"""The ``minicpt`` command: finds the verb, runs it, and turns errors into one line.

Exit status: 0 done, 1 a verification failed or the work could not be finished, 2 bad usage or bad
input, 130 and 143 interrupted by SIGINT and SIGTERM.
"""

import argparse
import os
import sys

from minicpt import __version__
from minicpt.cli import demo, evaluate, explain, export, generate, resume, train
from minicpt.errors import InputError, WorkError

VERBS = {
    "demo": demo,
    "train": train,
    "resume": resume,
    "evaluate": evaluate,
    "generate": generate,
    "explain": explain,
    "export": export,
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def __init__(self, **options):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str):
        raise InputError(f"{message}; see `{self.prog} --help`")


def parser() -> Parser:
    top = Parser(
        prog="minicpt",
        description="The loss functions of (continued) pre-training, on a laptop CPU.",
        epilog="`minicpt VERB --help` tells more. A first command to try: minicpt demo",
    )
    top.add_argument("--version", action="version", version=f"minicpt {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for verb in VERBS.values():
        verb.add(verbs)
    return top


def main(words: list[str]) -> int:
    try:
        arguments = parser().parse_args(words)
        return VERBS[arguments.verb].run(arguments)
    except InputError as error:
        return complain(error, 2)
    except WorkError as error:
        return complain(error, 1)
    except BrokenPipeError:
        # The reader of a pipe has gone: nothing more to say, and nothing to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("minicpt: interrupted", file=sys.stderr)
        return 130


def complain(error: Exception, status: int) -> int:
    print("minicpt: error:", " ".join(str(error).split()), file=sys.stderr)
    return status
