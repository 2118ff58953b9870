"""A run: the training loop with everything around it. Evaluation, saving, signals, progress.

A run lives in a folder of its own, with one checkpoint folder for each saved step.
"""

import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from minicpt import __version__, checkpoint
from minicpt.cli.signals import Interrupted, Signals
from minicpt.data.corpus import Corpus
from minicpt.data.plan import planned
from minicpt.disk import discard
from minicpt.errors import InputError, WorkError
from minicpt.evaluation import evaluate
from minicpt.generation import Sampling
from minicpt.machine import keep_freed_memory
from minicpt.randomness import generator
from minicpt.report.terminal import fit, printable
from minicpt.settings import Checked, setting
from minicpt.training import NotFinite, Trainer

PROBE_LENGTH = 40  # tokens that a probe writes


@dataclass(frozen=True)
class Watch(Checked):
    """What happens beside the steps."""

    evaluate_every: int = setting(0, "steps between evaluations; 0: ten in all", least=0)
    evaluate_passages: int = setting(
        256, "held-out passages of an evaluation on the way (the last one takes all)", least=1
    )
    save_every: int = setting(500, "steps between checkpoints; 0: at the end alone", least=0)
    keep: int = setting(2, "how many checkpoints stay", least=1)


@dataclass
class Run:
    """Everything a run needs, and its record: what a checkpoint keeps about it.

    held_out  held-out text by the name it has in tables: "held out" first (gained), then for a
              continued model "old text" (forgotten)
    folder    where checkpoints go; None: nowhere
    """

    trainer: Trainer
    tokenizer: object
    held_out: dict[str, Corpus]
    watch: Watch
    record: dict
    folder: Path | None = None
    quiet: bool = False
    history: list[dict] = field(default_factory=list)
    saved: tuple[int, int] = (0, 0)  # step and evaluations of the newest checkpoint

    def go(self) -> int:
        """Trains to the end; returns the exit status."""
        keep_freed_memory()
        with Signals() as signals:
            try:
                self.loop(signals)
            except Interrupted as interrupted:
                return self.interrupted(interrupted.number)
            except (InputError, NotFinite) as error:
                if self.folder is None or self.trainer.step == 0:
                    raise
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
            whole = trainer.step == trainer.steps
            self.look(signals, None if whole else self.watch.evaluate_passages)
            if whole:
                self.save()
        tokens, seconds, begun = 0, 0.0, time.perf_counter()
        with progress(trainer.steps, trainer.step) as bar:
            for step in trainer.run():
                tokens, seconds = tokens + step.tokens, seconds + time.perf_counter() - begun
                loss = sum(float(each.mean) for each in step.losses.values())
                speed = tokens / seconds
                shown = [f"loss {loss:.3f}", *named(step.terms), f"{speed:,.0f} tokens/s"]
                bar.set_postfix_str(", ".join(shown), refresh=False)
                bar.update()
                signals.check()
                last = step.number == trainer.steps
                if last or step.number % every == 0:
                    bar.clear()
                    passages = None if last else self.watch.evaluate_passages
                    self.look(signals, passages, training=loss, terms=step.terms)
                if last or self.watch.save_every and step.number % self.watch.save_every == 0:
                    self.save()
                    signals.check()
                begun = time.perf_counter()  # the speed is that of the steps alone

    def looked(self) -> bool:
        """Whether the newest evaluation is that of the step at which the run stands."""
        return bool(self.history) and self.history[-1]["step"] == self.trainer.step

    def look(self, signals: Signals, passages: int | None, **step) -> None:
        """Evaluates on ``passages`` of each held-out text (None: all), shows and remembers it.

        step  of the newest step: ``training``, its loss, and ``terms``, what was added to it
        """
        entry = {"step": self.trainer.step, "training": None, "terms": {}} | step
        for name, corpus in self.held_out.items():
            model, objective = self.trainer.model, self.trainer.objective
            with self.trainer.machine.autocast():
                result = evaluate(model, objective, corpus, passages, progress=signals.watching)
            entry[name] = result.summary()
            if not any(result.summary()["targets"].values()):
                raise InputError(
                    f"the objective finds nothing to predict in the {name} text; change its"
                    " settings, or the text"
                )
        entry["sample"] = self.sample()
        self.history.append(entry)
        if not self.quiet:
            tell(row(entry))
            tell(f"        {shortened(entry['sample'])}")

    def sample(self) -> str:
        """What the model does with a held-out passage of middling length."""
        objective = self.trainer.objective
        corpus = next(iter(self.held_out.values()), None) or self.trainer.stream.corpus
        passage = planned(objective, corpus, 0, 0).typical()
        sampling = Sampling(length=PROBE_LENGTH)
        draws = generator("probe", self.trainer.settings.seed, self.trainer.step)
        with self.trainer.machine.autocast():
            return objective.probe(self.trainer.model, passage, sampling, draws)

    def save(self) -> None:
        """Writes this step's checkpoint, in place of one that is there, and clears old ones."""
        standing = self.trainer.step, len(self.history)
        if self.folder is None or standing == self.saved:
            return
        if not all(torch.isfinite(each).all() for each in self.trainer.model.parameters()):
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
        }
        state = self.trainer.state()
        checkpoint.save(folder, self.trainer.model, self.tokenizer, record, state)
        self.saved = standing
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
                f" go on with: minicpt resume {self.folder}"
            )
        return 128 + number


def progress(total: int, done: int) -> tqdm:
    """A bar with the time left; quiet where stderr is not a terminal."""
    return tqdm(total=total, initial=done, unit="step", disable=None, dynamic_ncols=True)


def bar_over(iterable: Iterable) -> Iterable:
    """The same items, with a bar on a terminal."""
    return tqdm(iterable, desc="evaluate", disable=None, leave=False, dynamic_ncols=True)


def row(entry: dict) -> str:
    """An evaluation as one line of the table."""
    cells = [f"{entry['step']:>7}"]
    if entry["training"] is not None:
        cells.append(", ".join([f"training {entry['training']:.3f}", *named(entry["terms"])]))
    for name in entry:
        if isinstance(entry[name], dict) and name != "terms":
            cells.append(f"{name} {figures(entry[name])}")
    return " | ".join(cells)


def named(terms: Mapping[str, float]) -> list[str]:
    """The regularizers' terms, each by itself: "kl 0.0123"."""
    return [f"{name} {value:.4f}" for name, value in terms.items()]


def figures(summary: dict) -> str:
    """The figures of an evaluation: nats per target by head, and bits per byte or why not."""
    nats = summary["nats_per_target"]
    names = {"tokens": "nats/token", "pair": "nats/pair"}
    parts = [f"{value:.4f} {names.get(head, 'nats/' + head)}" for head, value in nats.items()]
    if summary["bits_per_byte"] is not None:
        parts.append(f"{summary['bits_per_byte']:.4f} bits/byte")
        if summary["hidden_bytes"]:
            share = f"{summary['hidden_bytes']:.2%}"
            parts[-1] += f" ({share} of the bytes hidden by unknown tokens)"
    elif summary["hidden_bytes"] is not None:
        parts.append(f"no bits/byte: {summary['no_bits_per_byte']}")
    return ", ".join(parts)


def shortened(text: str) -> str:
    """A sample on one line of the terminal, without what would break the line."""
    width = max(20, shutil.get_terminal_size().columns - 9)
    return fit(printable(" ".join(text.split())), width).rstrip()


def versions() -> dict[str, str]:
    return {
        "minicpt": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


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


def summary_of(documentation: str) -> str:
    """What a verb's module says of itself in its first paragraph, as a sentence."""
    text = " ".join(documentation.split("\n\n")[0].split(": ", 1)[1].split())
    return text[0].upper() + text[1:]


def print_json(content: dict) -> None:
    print(json.dumps(content, indent=2, default=str), flush=True)
