"""A run: the training loop with everything around it. Evaluation, saving, signals, progress.

A run lives in a folder of its own, with one checkpoint folder for each saved step, and every step
in ``metrics.jsonl``. Each evaluation of a run reads the same held-out passages, and a continued run
holds each against that of its base, at step 0.
"""

import platform
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from minicpt import __version__, checkpoint
from minicpt.batch import Batch
from minicpt.common.disk import discard
from minicpt.common.errors import InputError, WorkError
from minicpt.common.randomness import generator
from minicpt.data.choosing import typical
from minicpt.data.corpus import Corpus
from minicpt.data.order import Draw, planned
from minicpt.generation import Sampling
from minicpt.loss import TargetLosses
from minicpt.objectives.base import Objective
from minicpt.runs.config import Watch
from minicpt.runs.console import bar_over, command, progress, say, tell
from minicpt.runs.metrics import Metrics
from minicpt.runs.signals import Interrupted, Signals
from minicpt.runs.table import changes, named, row, shortened
from minicpt.training.device import keep_freed_memory
from minicpt.training.distributed import World
from minicpt.training.evaluation import evaluate
from minicpt.training.resuming import state_of
from minicpt.training.trainer import NotFinite, Trainer

PROBE_LENGTH = 40  # tokens that a probe writes


@dataclass
class Run:
    """Everything a run needs, and its record: what a checkpoint keeps about it.

    held_out  held-out text by the name it has in tables: "held out" first (gained), then for a
              continued model "old text" (forgotten)
    record    among others ``before``: the losses of the base on these texts, by name
    folder    where checkpoints go; None: nowhere
    also      other objectives by which the model is measured at each evaluation, by name
    """

    trainer: Trainer
    tokenizer: object
    held_out: dict[str, Corpus]
    watch: Watch
    record: dict
    folder: Path | None = None
    quiet: bool = False
    also: dict[str, Objective] = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    saved: tuple[int, int] = (0, 0)  # step and evaluations of the newest checkpoint
    metrics: Metrics = field(init=False)

    @property
    def world(self) -> World:
        return self.trainer.world

    @property
    def speaks(self) -> bool:
        """Whether this process shows a sample: the first one, where it holds the whole model."""
        return self.world.is_first and self.trainer.machine.shard == "none"

    def go(self) -> int:
        """Trains to the end; returns the exit status."""
        keep_freed_memory()
        evaluated = self.history[-1]["step"] if self.history else -1
        own = self.folder if self.world.is_first else None
        metrics = Metrics(own, self.trainer.step, evaluated, say)
        with Signals(self.world) as signals, metrics as self.metrics:
            try:
                self.loop(signals)
            except Interrupted as interrupted:
                return self.interrupted(interrupted.number)
            except (InputError, NotFinite) as error:
                if self.folder is None or self.trainer.step == 0:
                    raise
                if self.world.size > 1 and not isinstance(error, NotFinite):
                    raise  # the others may not have met it, and would not save
                try:
                    self.save()
                    saved = f"step {self.trainer.step} is saved in {self.folder}"
                except WorkError as refused:
                    saved = str(refused)
                raise WorkError(f"{error}; {saved}") from None
        return 0

    def loop(self, signals: Signals) -> None:
        trainer = self.trainer
        every = self.watch.evaluate_every or max(1, trainer.steps // 10)
        due = trainer.step == trainer.steps or trainer.step % every == 0
        if due and not self.looked():  # at the start, or where an evaluation was interrupted
            self.look(signals)
            if trainer.step == trainer.steps:
                self.save()
        tokens, seconds, begun = 0, 0.0, time.perf_counter()
        with progress(trainer.steps, trainer.step) as bar:
            for step in trainer.run():
                losses = {n: float(each.mean) for n, each in step.losses.items() if each.count}
                weights = trainer.objective.head_weights
                loss = sum(weights.get(name, 1.0) * each for name, each in losses.items())
                took = time.perf_counter() - begun
                tokens, seconds = tokens + step.tokens, seconds + took
                speed = tokens / seconds
                self.metrics.add(
                    "step",
                    step.number,
                    loss=loss,
                    losses=losses,
                    terms=step.terms,
                    learning_rate=step.learning_rate,
                    tokens=step.tokens,
                    tokens_per_second=step.tokens / took,
                    seconds=took,
                )
                shown = [f"loss {loss:.3f}", *named(step.terms), f"{speed:,.0f} tokens/s"]
                bar.set_postfix_str(", ".join(shown), refresh=False)
                bar.update()
                signals.check()
                last = step.number == trainer.steps
                if last or step.number % every == 0:
                    bar.clear()
                    self.look(signals, training=loss, terms=step.terms)
                if last or self.watch.save_every and step.number % self.watch.save_every == 0:
                    self.save()
                    signals.check()
                begun = time.perf_counter()  # the speed is that of the steps alone

    def looked(self) -> bool:
        """Whether the newest evaluation is that of the step at which the run stands."""
        return bool(self.history) and self.history[-1]["step"] == self.trainer.step

    def look(self, signals: Signals, **step) -> None:
        """Evaluates on the same passages of each held-out text, shows and remembers it.

        step  of the newest step: ``training``, its loss, and ``terms``, what was added to it
        """
        begun = time.perf_counter()
        results = self.measured(self.trainer.objective, signals, self.trainer.parts)
        also = {name: self.measured(each, signals) for name, each in self.also.items()}
        if self.trainer.step == 0 and self.record["base"]:
            self.record["before"] = results
        found = results | changes(results, self.record["before"])
        found |= {"also": also} if also else {}
        seconds = time.perf_counter() - begun
        self.metrics.add("evaluation", self.trainer.step, **found, seconds=seconds)
        entry = {"step": self.trainer.step, "training": None, "terms": {}} | step | found
        entry["sample"] = self.sample() if self.speaks else ""
        self.history.append(entry)
        if not self.quiet:
            tell(row(entry))
            if self.speaks:
                tell(f"        {shortened(entry['sample'])}")

    def measured(self, objective, signals: Signals, parts=None) -> dict[str, dict]:
        """The model by one objective, on the same passages of each held-out text."""
        results = {}
        for name, corpus in self.held_out.items():

            def watched(batches, name=name):
                return signals.watching(bar_over(batches, f"evaluate, {name}"))

            with self.trainer.machine.autocast():
                results[name] = evaluate(
                    self.trainer.model,
                    objective,
                    corpus,
                    self.watch.evaluate_passages,
                    progress=watched,
                    parts=parts,
                    draws=min(1, len(self.also)),  # where objectives are compared, by likelihood
                    losses=self.losses_of,
                    world=self.world,
                ).summary()
            if not any(results[name]["targets"].values()):
                raise InputError(
                    f"the objective finds nothing to predict in the {name} text; change its"
                    " settings, or the text"
                )
        return results

    def losses_of(self, objective: Objective, batch: Batch) -> dict[str, TargetLosses]:
        """Each target's loss, from weights that several processes may hold."""
        return self.trainer.alone.within(objective.losses, batch)

    def sample(self) -> str:
        """What the model does with a held-out passage of middling length."""
        objective = self.trainer.objective
        corpus = next(iter(self.held_out.values()), None) or self.trainer.corpus
        passage = typical(planned(objective, corpus, 0, 0))
        sampling = Sampling(length=PROBE_LENGTH)
        draw = Draw(0, generator("probe", self.trainer.settings.seed, self.trainer.step))
        with self.trainer.machine.autocast():
            learnt = objective.with_parts(self.trainer.parts)
            return learnt.probe(self.trainer.model, passage, sampling, draw)

    def save(self) -> None:
        """Writes this step's checkpoint, in place of one that is there, and clears old ones."""
        standing = self.trainer.step, len(self.history)
        if self.folder is None or standing == self.saved:
            return
        own = (getattr(each, "_local_tensor", each) for each in self.trainer.model.parameters())
        broken = sum(not torch.isfinite(each).all() for each in own)
        if self.world.added({"weights": broken})["weights"]:
            raise WorkError(
                f"step {self.trainer.step} is not saved: its weights are not finite any more;"
                " go on from an older checkpoint with a lower --learning-rate"
            )
        folder = self.folder / f"step-{self.trainer.step:08d}"
        record = self.record | {
            "step": self.trainer.step,
            "evaluations": self.history,
            "versions": versions(),
            "threads": torch.get_num_threads(),
            "processes": self.world.size,
        }
        state = state_of(self.trainer)
        checkpoint.save(folder, self.trainer.model, self.tokenizer, record, state)
        self.saved = standing
        if not self.world.is_first:
            return
        # A later step that is there is damaged, or the run would have gone on from it.
        found = checkpoint.steps(self.folder)
        found = found[: found.index(folder) + 1]
        for old in found[: -self.watch.keep]:
            discard(old)

    def interrupted(self, number: int) -> int:
        """Saves after SIGINT or SIGTERM, says how to go on, and returns the exit status."""
        name = signal.Signals(number).name
        if self.folder is None or self.trainer.step == 0:
            say(f"{name}: stopped at step {self.trainer.step}; there was nothing to save")
        else:
            self.save()
            say(
                f"{name}: stopped after step {self.trainer.step} of {self.trainer.steps}, saved;"
                f" go on with: {command('resume', self.folder)}"
            )
        return 128 + number


def versions() -> dict[str, str]:
    return {
        "minicpt": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
