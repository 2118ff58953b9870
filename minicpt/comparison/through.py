"""Through the parts of a comparison under a progress bar, and what comes of them."""

import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from minicpt.common.errors import InputError, WorkError
from minicpt.comparison import advice, measure
from minicpt.comparison.plan import Part, label
from minicpt.comparison.summary import Base, Row, bases, front, rows
from minicpt.comparison.work import Work
from minicpt.runs.lock import locked
from minicpt.runs.loop import say
from minicpt.runs.signals import Interrupted, Signals


@dataclass(frozen=True)
class Result:
    """What a finished comparison has to say."""

    rows: list[Row]
    bases: list[Base]
    sentences: list[str]
    label: Callable[[str], str]
    fit: dict[str, dict]
    settings: dict
    versions: dict
    seconds: float  # that all parts took, also those that were done before
    folder: Path

    def plain(self) -> dict:
        """For JSON."""
        names = dict.fromkeys(row.objective for row in self.rows)
        fronts = {
            name: [row.arm for row in front([row for row in self.rows if row.objective == name])]
            for name in names
        }
        return {
            "rows": [row.plain() for row in self.rows],
            "bases": [base.plain() for base in self.bases],
            "front": fronts,
            "sentences": self.sentences,
            "vocabulary": self.fit,
            "settings": self.settings,
            "versions": self.versions,
            "seconds": self.seconds,
            "out": str(self.folder),
        }


@dataclass(frozen=True)
class Job:
    """The parts and what does them.

    settings  all that a part's result depends on
    fit       how well the tokenizer fits the texts
    """

    work: Work
    parts: list[Part]
    settings: dict
    fit: dict[str, dict]

    def go(self, tell) -> tuple[Result | None, int]:
        """Does what is not done yet. Returns the result and the exit status."""
        with locked(self.work.store.folder):
            self.work.store.open(self.settings)
            return self.through(tell)

    def through(self, tell) -> tuple[Result | None, int]:
        store = self.work.store
        results = {part: store.load(part) for part in self.parts}
        missing = [part for part, result in results.items() if result is None]
        done = len(self.parts) - len(missing)
        if done:
            tell(f"{done} of {len(self.parts)} parts are done already")
        total = sum(part.steps(self.work.comparison) for part in missing)
        with Signals() as signals, tqdm(
            total=total, unit="step", disable=None, dynamic_ncols=True, smoothing=0
        ) as bar:

            def watch(steps: Iterable) -> Iterable:
                for step in signals.watching(steps):
                    yield step
                    bar.update()
                signals.check()

            try:
                for part in missing:
                    bar.set_description(part.name)
                    signals.check()
                    results[part] = self.work.do(part, watch)
                    store.keep(part, results[part])
                    bar.clear()
                    tell(self.line(part, results))
            except Interrupted as interrupted:
                bar.close()
                kept = sum(result is not None for result in results.values())
                say(
                    f"{signal.Signals(interrupted.number).name}: {kept} of {len(self.parts)} parts"
                    f" are done and kept in {store.folder}; the same command goes on"
                )
                return None, 128 + interrupted.number
            except (InputError, WorkError) as error:
                raise WorkError(f"{part.name}: {error}") from None
        return self.result(results), 0

    def line(self, part: Part, results: dict[Part, dict]) -> str:
        """One line about a part that is done."""
        losses = results[part]["losses"]
        seconds = f"{sum(results[part]['seconds'].values()):.0f} s"
        if part.arm is None:
            said = ", ".join(
                f"{name} old {measure.loss(each['old']):.3f} new {measure.loss(each['new']):.3f}"
                for name, each in losses.items()
            )
            return f"{part.name}: {said} ({seconds})"
        before = results[part.from_base]["losses"][part.objective]
        after = losses[part.objective]
        change = {side: measure.loss(after[side]) - measure.loss(before[side]) for side in after}
        return (
            f"{part.name}: gained {-change['new']:+.3f}, forgotten {change['old']:+.3f}"
            f" {after['new']['unit']} ({seconds})"
        )

    def result(self, results: dict[Part, dict]) -> Result:
        work = self.work
        called = partial(label, comparison=work.comparison)
        found = rows(results)
        return Result(
            rows=found,
            bases=bases(results),
            sentences=advice.sentences(found, called),
            label=called,
            fit=self.fit,
            settings=work.store.settings | {"seeds": work.comparison.seeds},
            versions=work.store.versions,
            seconds=sum(sum(each["seconds"].values()) for each in results.values()),
            folder=work.store.folder,
        )
