"""Runs of minicpt in children of this process, for ``faults.py``: started, killed, looked at.

Importing torch takes seconds, so a child is forked from a process that has imported it, and runs
the very ``main`` of the command line. It says over a pipe when it is ready and after each step.
"""

import contextlib
import os
import random
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import minicpt.__main__
from minicpt import checkpoint
from minicpt.cli import main as command_line
from minicpt.training.trainer import Trainer

OBJECTIVES = ("causal-lm", "masked-lm", "next-sentence", "reconstruction")
NEW = "--width 8 --layers 1 --num-heads 1 --vocab-size 256".split()
SMALL = "--window 16 --batch-size 4 --held-out 0 --micro-batch-size 2 --threads 1".split()
TINY = NEW + SMALL
HANG = 10.0  # seconds of CPU: what takes longer hangs, however busy the machine is
PATIENCE = 120.0  # seconds on the clock, for what hangs without computing


@dataclass(frozen=True)
class Outcome:
    """How a child ended: exit status (negative: a signal's number; None: it hung), what it said."""

    status: int | None
    error: str
    steps: int

    @property
    def clean(self) -> bool:
        """Whether it neither hung nor showed a traceback."""
        return self.status is not None and not any(
            word in self.error for word in ("Traceback", "Exception ignored")
        )

    @property
    def one_line(self) -> bool:
        """Whether it gave exactly one line of error."""
        lines = self.error.splitlines()
        return sum(line.startswith("minicpt: error: ") for line in lines) == 1


class Child:
    """``minicpt WORDS`` in a forked process; ``prepare`` runs in it first."""

    def __init__(
        self, words: Sequence[str], folder: Path, prepare: Callable[[], None] | None = None
    ):
        self.log = folder / "child.err"
        self.reports, there = os.pipe()
        self.marks = b""
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(list(words), folder, there, prepare)
        os.close(there)

    def _run(self, words: list[str], folder: Path, there: int, prepare) -> None:
        status = 70
        try:
            output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            nothing = os.open(os.devnull, os.O_RDWR)
            for old, new in ((nothing, 0), (nothing, 1), (output, 2)):
                os.dup2(old, new)
            sys.stdin, sys.stdout = open(0), open(1, "w")
            sys.stderr = open(2, "w", buffering=1)
            (folder / "cwd").mkdir(exist_ok=True)
            os.chdir(folder / "cwd")
            advance = Trainer.advance

            def reporting(trainer):
                step = advance(trainer)
                os.write(there, b"s")
                return step

            Trainer.advance = reporting
            if prepare:
                prepare()
            sys.argv = ["minicpt", *words]
            minicpt.__main__.signals.install(minicpt.__main__.signals.leave)
            os.write(there, b"r")
            status = minicpt.__main__.main()
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def wait_until_ready(self) -> None:
        self._read(PATIENCE, enough=1)

    def sleep(self, seconds: float) -> None:
        """Waits, unless the child ends before."""
        self._read(seconds)

    @property
    def steps(self) -> int:
        """How many it has reported so far."""
        return self.marks.count(b"s")

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def end(self) -> Outcome:
        """Waits for the end; a child that hangs is killed."""
        hung = not self._read(PATIENCE)
        if hung:
            self.kill()
        _, status, usage = os.wait4(self.pid, 0)
        self._read(1.0)
        os.close(self.reports)
        hung = hung or usage.ru_utime + usage.ru_stime > HANG
        error = self.log.read_text(errors="replace") if self.log.exists() else ""
        status = None if hung else os.waitstatus_to_exitcode(status)
        return Outcome(status, error, self.steps)

    def _read(self, seconds: float, enough: int | None = None) -> bool:
        """Reads what the child reports; True at its end (or at so many reports)."""
        deadline = time.monotonic() + seconds
        while enough is None or len(self.marks) < enough:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.reports], [], [], left)[0]:
                return False
            if not (found := os.read(self.reports, 4096)):
                return True
            self.marks += found
        return True


def run(words: Sequence[str], folder: Path, prepare: Callable[[], None] | None = None) -> Outcome:
    """A child from its start to its end."""
    return Child(words, folder, prepare).end()


def train(objective: str, text: Path, out: Path, steps: int, *more: str) -> list[str]:
    """The words of a small training, of a new model if ``more`` names no base."""
    words = ["train", objective, "--corpus", str(text), "--out", str(out), "--steps", str(steps)]
    return [*words, *(SMALL if "--init" in more else TINY), *more]


SHARDED = ["--shard", "weights"]  # for a child that ``as_torchrun`` prepares


def as_torchrun() -> None:
    """Makes this process the only one of a run, as torchrun does: it writes what several write."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"


def warm_up(folder: Path) -> None:
    """Trains and loads here, so that children find imported what torch imports late."""
    text = write_text(folder / "text.txt")
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        for objective in OBJECTIVES:
            out = fresh(folder / objective)
            command_line.main(train(objective, text, out, 1))
            contents(out)


def write_text(path: Path, seed: int = 0) -> Path:
    """A small text in which no two sentences are alike."""
    draws = random.Random(seed)
    animals = "cat dog owl fox hen cow ant bee".split()
    lines = [
        f"On day {day} the {draws.choice(animals)} saw {draws.randrange(99)} boats. It counted"
        f" them. Then it rained for {draws.randrange(9)} hours."
        for day in range(25)
    ]
    path.write_text("\n".join(lines))
    return path


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def contents(folder: Path) -> dict:
    """All that loading makes of a folder's files; "name" is that of the checkpoint it took."""
    loaded = checkpoint.load(folder)
    return {
        "name": loaded.folder.name,
        "config": loaded.model.config,
        "tensors": dict(loaded.model.state_dict()),
        "tokenizer": (loaded.tokenizer.sha256, loaded.tokenizer.roles),
        "record": loaded.record,
        "state": loaded.state(),
    }


def same(one, other) -> bool:
    """Equality down to the bits of tensors."""
    one, other = (each.joined() if hasattr(each, "joined") else each for each in (one, other))
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and (
            torch.equal(one, other)
        )  # fmt: skip
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def litter(run: Path) -> list[str]:
    return [path.name for path in run.iterdir() if path.name.startswith(".")]
