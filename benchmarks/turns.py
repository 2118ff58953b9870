"""Processes that are compared: each waits for its turn, so that only one works at a time.

A worker reads lines from its standard input and answers each with a line of JSON: ``case PATH``
with the names of what it can do, its candidates; ``turn CANDIDATE`` with the seconds of each part
of that turn, on the clock and of CPU. Leaves out what the workers do: that is theirs to say.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from timing import Seconds, best_of, total

from minicpt.common.errors import WorkError

# Rivals that take so many times the fastest one's time in the first rounds have no further turn. In
# its first round a process has yet to grow to its size, so one round would not do.
SLOW, FIRST = 1.25, 2


class Worker:
    """A side in a process of its own that waits for its turns.

    side         what it is called
    words        the arguments of the Python that runs it
    environment  of that process
    folder       its working directory; None: this process's
    """

    def __init__(
        self, side: str, words: Sequence[str], environment: Mapping[str, str],
        folder: Path | None = None,
    ):  # fmt: skip
        self.side, self.errors = side, tempfile.TemporaryFile("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, text=True, env=environment, cwd=folder,
        )  # fmt: skip

    def ask(self, *words: str) -> list:
        """What it answers to a line of ``words``. Raises WorkError when the process has ended."""
        try:
            print(*words, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # there will be no answer either
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            said = (self.errors.read().strip().splitlines() or ["no message"])[-1]
            raise WorkError(f"the process of {self.side} ended: {said}")
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def environment(threads: int) -> dict[str, str]:
    """Of a worker: as many threads as asked for, and none that spins while the others work."""
    return os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def take_turns(
    candidates: Mapping[Worker, Sequence[str]], rounds: int, rivals: Collection[Worker] = ()
) -> dict[tuple[str, str], Seconds]:
    """(side, candidate) -> seconds: the best of each of a turn's parts over all rounds, added up.

    rivals  workers of whose candidates only the fastest one counts: after ``FIRST`` rounds those
            that took more than ``SLOW`` times its time have no further turn
    """
    found: dict[tuple[str, str], list[list]] = {}  # the parts of each turn
    still = dict(candidates)
    for number in range(1, rounds + 1):
        for worker, names in still.items():
            for name in names:
                found.setdefault((worker.side, name), []).append(worker.ask("turn", name))
            if worker in rivals and number >= FIRST:
                spent = {name: best(found[worker.side, name]).wall for name in names}
                still[worker] = [n for n in names if spent[n] <= SLOW * min(spent.values())]
    return {key: best(turns) for key, turns in found.items()}


def best(turns: Sequence[Sequence[Sequence[float]]]) -> Seconds:
    """The least seconds of each part over all turns, added up.

    >>> best([[(1.0, 2.0), (5.0, 5.0)], [(2.0, 1.0), (4.0, 6.0)]])
    Seconds(wall=5.0, cpu=6.0)
    """
    return total(best_of(part) for part in zip(*turns, strict=True))
