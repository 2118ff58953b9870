"""Disks that refuse and numbers that are not finite, for ``faults.py``."""

import errno
import math
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch
from children import OBJECTIVES, contents, fresh, litter, run, same, train, write_text
from killing import dying_after

from minicpt import checkpoint
from minicpt.common.errors import InputError
from minicpt.loss import Loss
from minicpt.runs.loop import Run
from minicpt.training.trainer import Learner

STEPS = 20
PAGE = 4096  # bytes: what a small disk gives at a time


def disks(folder: Path, sizes: int) -> Iterator[str | None]:
    """A run goes on where files, or the disk as a whole, cannot grow beyond some size."""
    text = write_text(folder / "text.txt")
    base = fresh(folder / "base")
    words = train("causal-lm", text, base / "run", STEPS, "--save-every", "1", "--keep", "2")
    outcome = run(words, folder, lambda: dying_after(3))
    first = checkpoint.find(base / "run")[0]
    expected = contents(first)
    total = sum(-(-path.stat().st_size // PAGE) * PAGE for path in first.iterdir())
    largest = max(path.stat().st_size for path in first.iterdir())
    if outcome.status != -signal.SIGKILL:
        yield "the run was not killed"
    for number in range(sizes):
        share = (number + 0.5) / sizes
        room = 2 * total + 4 * PAGE + int(share * 1.5 * total)
        mounted = number % 2 and mount(folder / "disk", room)
        try:
            out = folder / "disk" / "run"
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(base / "run", out)
            limit = None if mounted else int(share * 1.2 * largest)
            outcome = run(["resume", str(out)], folder, lambda limit=limit: limited(limit))
            kind = f"{'a disk' if mounted else 'files'} of size {number} of {sizes}"
            problem = after_refusal(outcome, out, first.name, expected)
        finally:
            if mounted:
                subprocess.run(["umount", str(folder / "disk")], check=True)
        yield problem and f"{kind}: {problem}: {outcome.error[-300:]}"
    out = folder / "disk" / "run"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(base / "run", out)
    outcome = run(["resume", str(out)], folder, lambda: vanishing(out))
    good = outcome.status == 1 and outcome.one_line and outcome.clean and not out.exists()
    yield None if good else f"a folder that vanishes: {outcome}"


def mount(folder: Path, size: int) -> bool:
    """Whether a small disk of its own could be had."""
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "minicpt-faults", str(folder)]
    try:
        return subprocess.run(words, capture_output=True).returncode == 0
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM):
            return False
        raise


def limited(size: int | None) -> None:
    if size is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def vanishing(out: Path) -> None:
    save = Run.save

    def gone(self):
        shutil.rmtree(out)
        save(self)

    Run.save = gone


def after_refusal(outcome, out: Path, name: str, expected: dict) -> str | None:
    if not outcome.clean:
        return "a traceback or a hang"
    if outcome.status not in (0, 1):
        return f"status {outcome.status}"
    if litter(out):
        return f"litter: {litter(out)}"
    try:
        last = checkpoint.load(out)
        for each in checkpoint.steps(out):
            checkpoint.verify(each)
    except InputError as error:
        return str(error)
    if outcome.status == 0:
        return None if last.record["step"] == STEPS else "status 0 before the end"
    if not outcome.one_line:
        return "not one line"
    if last.folder.name == name and not same(expected, contents(last.folder)):
        return "the old checkpoint has changed"
    return None


def not_finite(folder: Path, steps: int) -> Iterator[str | None]:
    """NaN or infinity in the loss or in one gradient of a micro-batch, at each step in turn."""
    draws = random.Random(5)
    text = write_text(folder / "text.txt")
    for step in range(1, steps + 1):
        objective = OBJECTIVES[step % len(OBJECTIVES)]
        value = (math.nan, math.inf, -math.inf)[step % 3]
        where = draws.choice(("loss", "gradient"))
        part = draws.randrange(2)
        whole, out = folder / "whole", folder / "run"
        fresh(whole), fresh(out)
        more = ("--save-every", "1", "--keep", "99")
        run(train(objective, text, whole, steps + 1, *more), folder)
        words = train(objective, text, out, steps + 1, "--save-every", "0")

        def poison(step=step, value=value, where=where, part=part):
            poisoned(2 * (step - 1) + part + 1, value, where)

        outcome = run(words, folder, poison)
        problem = after_poison(outcome, step, whole, out)
        yield problem and f"{objective}: {value} in a {where} of step {step}: {problem}"


def poisoned(call: int, value: float, where: str) -> None:
    """Makes the loss of one micro-batch, or one number of its gradient, not finite."""
    real, calls = Learner.forward, []

    def forward(learner, batch, *more, **options):
        calls.append(1)
        found = real(learner, batch, *more, **options)
        if len(calls) != call:
            return found
        if where == "loss":
            spoilt = {head: Loss(each.sum * value, each.count) for head, each in found[""].items()}
            return found | {"": spoilt}
        parameter = max(learner.model.parameters(), key=torch.Tensor.numel)

        def spoil(gradient):
            gradient = gradient.clone()
            gradient.view(-1)[0] = value
            return gradient

        parameter.register_hook(spoil)
        return found

    Learner.forward = forward


def after_poison(outcome, step: int, whole: Path, out: Path) -> str | None:
    if outcome.status != 1 or not outcome.clean or not outcome.one_line:
        return f"status {outcome.status}: {outcome.error[-300:]}"
    if f"step {step} " not in outcome.error or "text.txt" not in outcome.error:
        return f"step or passages are not named: {outcome.error[-300:]}"
    if step == 1:
        return "something is saved" if out.exists() and checkpoint.steps(out) else None
    found, expected = contents(out), contents(whole / f"step-{step - 1:08d}")
    for each in (found, expected):  # the rate is set anew at each step
        for group in each["state"]["optimizer"]["param_groups"]:
            group.pop("lr")
    other = [key for key in ("tensors", "state") if not same(found[key], expected[key])]
    return f"what is saved is not the step before: {other}" if other else None
