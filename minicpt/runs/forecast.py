"""What a run will take, before it starts: time, memory, room on the disk.

A few steps and a few passages of an evaluation are done on the real sizes, and counted up. On a
machine with other work to do, such an estimate may be off by a factor of two.
"""

import copy
import time
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace

from minicpt.common.memory import free_memory, resident
from minicpt.common.terminal import amount, duration
from minicpt.data.order import planned
from minicpt.runs.loop import Run
from minicpt.runs.needs import Needs, needs
from minicpt.training.device import keep_freed_memory
from minicpt.training.distributed import on_this_machine
from minicpt.training.trainer import Trainer

TIMED_STEPS = 5  # steps that --minutes times, after two that it does not
TRIED = 2  # steps that a forecast times, after one that it does not
PASSAGES = 16  # of an evaluation that a forecast times
# In place of ``Signals``: Ctrl-C ends a forecast as any other work, with nothing to save.
UNWATCHED = SimpleNamespace(watching=lambda iterable: iterable)


@dataclass(frozen=True)
class Forecast:
    """Seconds are estimates of the time on the clock, from ``TRIED`` steps.

    evaluations, checkpoints  how often the run evaluates and saves
    kept                      how many of its checkpoints stay
    checkpoint_bytes          about the size of one: weights and the optimizer's moments
    """

    steps: int
    step_seconds: float
    evaluations: int
    evaluation_seconds: float
    checkpoints: int
    kept: int
    checkpoint_bytes: int
    memory: Needs

    @property
    def seconds(self) -> float:
        """Of all steps and evaluations. Setting up comes before them, and saving beside them."""
        return self.steps * self.step_seconds + self.evaluations * self.evaluation_seconds

    def plain(self) -> dict:
        return asdict(self) | {
            "seconds": self.seconds,
            "memory": asdict(self.memory) | {"total": self.memory.total},
        }

    def lines(self) -> list[str]:
        """The same for people."""
        free = free_memory()
        there = "" if free is None else f"; {amount(free + resident())} are free for it"
        processes = on_this_machine()
        each = f" in each of {processes} processes" if processes > 1 else ""
        return [
            f"time      about {duration(self.seconds)}: {self.steps:,} steps of"
            f" {duration(self.step_seconds)}, {self.evaluations:,} evaluations of"
            f" {duration(self.evaluation_seconds)} (an estimate from {TRIED} steps here and now)",
            f"memory    about {amount(self.memory.total)}{each}{there}",
            f"disk      {self.kept:,} of {self.checkpoints:,} checkpoints stay, each about"
            f" {amount(self.checkpoint_bytes)}",
        ]


def forecast(run: Run) -> Forecast:
    """What the run will take. Its model has trained a little after this: it must not go on.

    Raises NotFinite where the first steps of the run would.
    """
    trainer, watch = run.trainer, run.watch
    memory, steps = needs(trainer), trainer.steps
    saved = sum(  # of what is spread over processes, the whole: all write into one folder
        each.numel() * each.element_size() * (3 if each.requires_grad else 1)
        for each in trainer.learner.parameters()
    )
    per_evaluation = evaluation_seconds(run)
    keep_freed_memory()  # as the run's steps will have it
    trainer.remedies = ()  # what they do after a step, and at the end, is not done
    every = watch.evaluate_every or max(1, steps // 10)
    checkpoints = -(-steps // watch.save_every) if watch.save_every else 1
    return Forecast(
        steps=steps,
        step_seconds=timed(trainer, 1, min(TRIED, steps)),
        evaluations=1 + -(-steps // every),
        evaluation_seconds=per_evaluation,
        checkpoints=checkpoints,
        kept=min(watch.keep, checkpoints),
        checkpoint_bytes=saved,
        memory=memory,
    )


def timed(trainer: Trainer, before: int, count: int) -> float:
    """Seconds a step: the mean of ``count``, after ``before`` that are not counted."""
    for _ in range(before):
        trainer.advance()
    begun = time.perf_counter()
    for _ in range(count):
        trainer.advance()
    return (time.perf_counter() - begun) / count


def seconds_per_step(trainer: Trainer) -> float:
    """Times a few steps, and takes them back. Dropout is seeded by the step, so nothing stays."""
    keep_freed_memory()  # as the run's steps will have it
    before = copy.deepcopy((trainer.learner.state_dict(), trainer.optimizer.state_dict()))
    remedies, trainer.remedies = trainer.remedies, ()  # what they do after a step is not done
    seconds = timed(trainer, 2, TIMED_STEPS)
    trainer.learner.load_state_dict(before[0])
    trainer.optimizer.load_state_dict(before[1])
    trainer.remedies, trainer.step, trainer.steps_without_targets = remedies, 0, 0
    return seconds


def evaluation_seconds(run: Run) -> float:
    """Of a whole evaluation: counted up from a few passages of each text by each objective."""
    trainer, watch, whole = run.trainer, run.watch, 0.0
    run.watch = replace(watch, evaluate_passages=min(PASSAGES, watch.evaluate_passages))
    measured = [(trainer.objective, trainer.parts), *((each, None) for each in run.also.values())]
    for objective, parts in measured:
        plans = [len(planned(objective, each, 0, 0)) for each in run.held_out.values()]
        begun = time.perf_counter()
        run.measured(objective, UNWATCHED, parts)
        seconds = time.perf_counter() - begun
        all, some = (
            sum(min(plan, each.evaluate_passages) for plan in plans) for each in (watch, run.watch)
        )
        whole += seconds * all / max(1, some)
    run.watch, begun = watch, time.perf_counter()
    if run.speaks:
        run.sample()
    return whole + time.perf_counter() - begun
