"""Runs that are killed, interrupted and resumed, for ``faults.py``. Each test yields, for every
trial, None or what went wrong."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from children import OBJECTIVES, PATIENCE, Child, contents, fresh, run, same, train, write_text

from minicpt import checkpoint
from minicpt.common.errors import InputError
from minicpt.runs.loop import Run

INTERVAL = 2  # steps between checkpoints
CHAIN = 10  # kills of one run, each of which is resumed by the next
LONG = 10**6  # steps
STEPS = 30
SHORT = 20  # steps of a run that a signal may find at its end
# What a run that continues a base may add: objective and flags.
CONTINUED = (
    ("causal-lm", "--replay base --replay-fraction 0.3"),
    ("causal-lm", "--self-replay 0.3 --self-replay-tokens 512"),
    ("causal-lm", "--train-last 1 --l2 0.1"),
    ("masked-lm", "--lora 2"),
    ("next-sentence", "--lora 2 --replay base --kl 0.5"),
    ("reconstruction", "--kl 0.5 --l2 0.1"),
)


def kills(folder: Path, tries: int) -> Iterator[str | None]:
    """SIGKILL at a random moment: all checkpoints load, and at most one interval is lost."""
    draws = random.Random(1)
    text = write_text(folder / "text.txt")
    out, before = folder / "run", 0
    for number in range(tries):
        if number % CHAIN == 0:
            fresh(folder / "run")
            before = 0
            objective = draws.choice(OBJECTIVES)
        words = train(objective, text, out, LONG, "--save-every", str(INTERVAL))
        child = Child(["resume", str(out)] if before else words, folder)
        child.sleep(draws.uniform(0.0, 0.4))
        child.kill()
        outcome = child.end()
        done = before + outcome.steps
        try:
            for each in checkpoint.steps(out):
                checkpoint.verify(each)
            before = checkpoint.load(out).record["step"] if done > INTERVAL else before
            lost = done - before
        except InputError as error:
            yield f"{objective}: killed after step {done}: {error}"
            before = 0
            continue
        if checkpoint.steps(out):
            before = checkpoint.load(out).record["step"]
        if outcome.status != -signal.SIGKILL:
            yield f"{objective}: ended by itself with {outcome.status}: {outcome.error[-300:]}"
        else:
            yield None if lost <= INTERVAL else f"{objective}: {lost} of {done} steps lost"


def resumes(folder: Path, steps: int) -> Iterator[str | None]:
    """Killed after each step and resumed: the end is that of the run that was left alone.

    So for every objective; what stays near a base is killed after a few of the steps, and a run of
    two steps tries two kinds of it.
    """
    text, other = write_text(folder / "text.txt"), write_text(folder / "other.txt", 1)
    for objective in OBJECTIVES:
        words = train(objective, text, fresh(folder / "run"), steps, "--save-every", "1")
        yield from killed_after(range(1, steps + 1), objective, words, folder)
    few = sorted({1, steps // 3, steps // 2, steps - 1} - {0})
    for objective, flags in CONTINUED[:steps]:
        base = fresh(folder / "base")
        run(train(objective, text, base, 2), folder)
        more = ["--init", str(base), *flags.split(), "--save-every", "1"]
        words = train(objective, other, fresh(folder / "run"), steps, *more)
        yield from killed_after(few, f"{objective} {flags}", words, folder)


def killed_after(
    points: Sequence[int], name: str, words: list[str], folder: Path
) -> Iterator[str | None]:
    """What is wrong after a kill at each of some steps of the same run."""
    out = folder / "run"
    outcome = run(words, folder)
    if outcome.status:
        yield f"{name}: {outcome.error}"
        return
    expected = contents(out)
    for step in points:
        fresh(out)
        outcome = run(words, folder, lambda step=step: dying_after(step))
        if outcome.status != -signal.SIGKILL:
            yield f"{name}: not killed after step {step}: {outcome.error}"
            continue
        if step == STEPS // 2:  # once in a new Python, which has imported everything anew
            again = [sys.executable, "-m", "minicpt", "resume", str(out)]
            status = subprocess.run(again, capture_output=True).returncode
        else:
            status = run(["resume", str(out)], folder).status
        found = contents(out)
        alike = all(same(expected[key], found[key]) for key in ("config", "tensors", "state"))
        yield None if alike and not status else f"{name}: another end after step {step} ({status})"


def dying_after(step: int) -> None:
    """SIGKILL for this process as soon as a step is saved."""
    save = Run.save

    def fatal(self):
        save(self)
        if self.trainer.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Run.save = fatal


def signals(folder: Path, tries: int) -> Iterator[str | None]:
    """SIGINT or SIGTERM at a random moment, sometimes a second one at once."""
    draws = random.Random(2)
    text = write_text(folder / "text.txt")
    # A program in the background of a shell script has SIGINT ignored, and hands that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in range(tries):
        out = folder / "run"
        fresh(out).rmdir()
        kind = draws.choice((signal.SIGINT, signal.SIGTERM))
        words = train(draws.choice(OBJECTIVES), text, out, SHORT, "--save-every", "3")
        if number % 10 == 0:
            yield from_the_start(words, kind, draws.uniform(0.05, 3.0), out)
            continue
        child = Child(words, folder)
        child.wait_until_ready()
        child.sleep(draws.uniform(0.0, 0.5))
        child.kill(kind)
        twice = draws.random() < 0.25
        if twice:
            child.sleep(draws.uniform(0.0, 0.02))
            child.kill(kind)
            child.sleep(0.0)
            sent = child.steps
        outcome = child.end()
        slow = twice and outcome.steps > sent + 1
        where = f"{kind.name}{' twice' if twice else ''} after step {outcome.steps}"
        problem = wrong(outcome.status, outcome.error, kind, out, None if twice else outcome.steps)
        problem = problem or ("a second signal did not stop it at once" if slow else None)
        yield problem and f"{where}: {problem}: {outcome.error[-400:]}"


def from_the_start(words: list[str], kind: int, delay: float, out: Path) -> str | None:
    """The same to a new Python, which may not have imported anything yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", "minicpt", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(delay)
    process.send_signal(kind)
    try:
        error = process.communicate(timeout=PATIENCE)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return "hung"
    ours = "minicpt/__main__.py" in error or "minicpt: " in error or out.exists()
    if not ours and process.returncode in (-kind, 1, 130):
        return None  # before minicpt's first line, while Python itself was starting
    problem = wrong(process.returncode, error, kind, out, None)
    return problem and f"{delay:.2f} s after the start: {problem}: {error[-400:]}"


def wrong(status: int | None, error: str, kind: int, out: Path, steps: int | None) -> str | None:
    """What is not as promised after a signal; ``steps`` were done, if that is known."""
    if "Traceback" in error or "Exception ignored" in error:
        return "a traceback"
    if status not in (0, 128 + kind):
        return f"status {status}"
    saved = checkpoint.steps(out) if out.is_dir() else []
    try:
        last = checkpoint.load(out).record["step"] if saved else 0
    except InputError as problem:
        return str(problem)
    if status == 0:
        return None if last == SHORT else "status 0 before the last step"
    if kind and "minicpt: SIG" not in error:
        return "nothing was said"
    if steps is not None and last != steps:
        return f"step {last} is saved"
    return None
