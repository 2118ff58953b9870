"""`minicpt train` of the checkout in PYTHONPATH, whose steps wait for their turn (``against.py``).

    python checkout_worker.py STEPS WORDS...    the words are those after ``minicpt``

It answers as a worker of ``turns.py`` does, with one candidate. A turn is a step that is not timed
and STEPS that are. Nothing of minicpt is imported here and nothing of it is known but its command
line: torch itself tells when an optimizer has made its step.
"""

import json
import os
import runpy
import sys
import time

from torch.optim.optimizer import register_optimizer_step_post_hook


class Turns:
    """Called after each step of the run; returns at once within a turn, else when one begins."""

    def __init__(self, steps: int):
        self.steps = steps
        self.times: list[tuple[float, float]] = []  # on the clock, of CPU; after each step
        self.began = False
        self.answers, sys.stdout = sys.stdout, sys.stderr  # what the run prints is no answer

    def __call__(self, optimizer, arguments, options) -> None:
        if not self.began:
            self.began = True
            self.wait()
            self.answer(["steps"])
            return
        self.times.append((time.perf_counter(), time.process_time()))
        if len(self.times) == 1 + self.steps:
            pairs = zip(self.times, self.times[1:], strict=False)
            self.answer([[end[0] - begin[0], end[1] - begin[1]] for begin, end in pairs])

    def answer(self, value: list) -> None:
        print(json.dumps(value), file=self.answers, flush=True)
        self.wait()
        self.times.clear()

    def wait(self) -> None:
        """For the next line, whatever it says."""
        if not sys.stdin.readline():
            os._exit(0)  # nobody asks any more


if __name__ == "__main__":
    register_optimizer_step_post_hook(Turns(int(sys.argv[1])))
    sys.argv[1:] = sys.argv[2:]
    del sys.path[0]  # the benchmarks' folder
    runpy.run_module("minicpt", run_name="__main__", alter_sys=True)
