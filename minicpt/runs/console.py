"""What a user sees of a run: lines, messages, bars, and commands to type next."""

import json
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm


def tell(text: str) -> None:
    """A line of a run's output. A reader that goes away must not stop the training."""
    try:
        print(text, flush=True)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")
        say(f"the output cannot be written ({error.strerror}); going on without it")


def say(message: str) -> None:
    """A message beside the output proper."""
    try:
        print(f"minicpt: {message}", file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody is left to be told


def print_json(content: dict) -> None:
    print(json.dumps(content, indent=2, default=str), flush=True)


def progress(total: int, done: int) -> tqdm:
    """A bar with the time left; quiet where stderr is not a terminal."""
    return tqdm(total=total, initial=done, unit="step", disable=None, dynamic_ncols=True)


def bar_over(iterable: Iterable, description: str = "evaluate") -> Iterable:
    """The same items, with a bar on a terminal."""
    return tqdm(iterable, desc=description, disable=None, leave=False, dynamic_ncols=True)


def command(*words: object) -> str:
    """A command of minicpt as a shell takes it: quoted where need be; no name looks like a flag.

    >>> command("resume", Path("-my run"))
    "minicpt resume './-my run'"
    """
    names = (f"./{each}" if isinstance(each, Path) and str(each)[0] == "-" else str(each)
             for each in words)  # fmt: skip
    return " ".join(["minicpt", *map(shlex.quote, names)])
