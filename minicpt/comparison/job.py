"""All parts of a comparison: checked before the first step, done one after the other, and kept."""

import copy
import dataclasses
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from tqdm import tqdm

from minicpt.common.disk import sha256
from minicpt.common.errors import InputError, WorkError
from minicpt.comparison.arms import NOTHING
from minicpt.comparison.forecast import said
from minicpt.comparison.measure import loss
from minicpt.comparison.parts import Part, parts
from minicpt.comparison.summary import SIDES
from minicpt.comparison.tuning import RATES, chosen, trials
from minicpt.comparison.work import Work
from minicpt.remedies.base import Situation
from minicpt.runs import assembly, console
from minicpt.runs.describe import vocabulary_lines
from minicpt.runs.fitting import check_fit
from minicpt.runs.signals import Interrupted, Signals
from minicpt.runs.texts import check_plans
from minicpt.training.distributed import current
from minicpt.training.evaluation import HIDDEN, in_bits, too_much_hidden

DECIDES = "which weights learn"  # what such a remedy claims can be too much for a small model


@dataclass(frozen=True)
class Job:
    """All parts, and what does them.

    arms  of each objective
    fit   how well the tokenizer fits the texts
    base  the model that is given; None: bases are trained
    own   the objective that trained it, if that is known
    """

    work: Work
    arms: Mapping[str, list[str]]
    fit: dict[str, dict]
    base: nn.Module | None = None
    own: str | None = None

    @property
    def settings(self) -> dict:
        """All that each part's result depends on, the remedies' strengths apart."""
        work, sources = self.work, self.work.asked.sources
        chosen = dataclasses.asdict(work.asked.comparison)
        for name in ("seeds", "probe_passages"):  # they leave what is done as it is
            del chosen[name]
        sides = {"wrong": work.sides["old"]} | dict(work.sides)
        hashes = {side: [each.record["sha256"] for each in sides[side]] for side in sides}
        names = ("blocks", "errors", "held_out", "characters")
        return chosen | {name: getattr(sources, name) for name in names} | {
            "texts": hashes,
            "base": files(work.given) if work.given else None,
            "tokenizer": work.tokenizer.sha256,
            "dtype": work.asked.machine.dtype,
        }  # fmt: skip

    @property
    def strengths(self) -> dict[str, dict]:
        """The settings of each arm that has some: of a remedy, or of the training."""
        asked, found = self.work.asked, {}
        arms = {arm for each in self.arms.values() for arm in each}
        for arm in sorted(arms | {part.arm for part in self.trials if part.arm}):
            for settings in asked.remedies(arm).values():
                found[arm] = settings
            if training := asked.training(arm):
                found[arm] = training
        return found

    def check(self) -> None:
        """InputError where an objective does not fit the base, the texts, or its remedies."""
        work, base = self.work, self.base
        for role, word in self.words:
            part = Part(role, 0, word, NOTHING)
            model = copy.deepcopy(base) if base else work.new_model(part.from_base)
            objective = work.objective(part, model)
            if base:
                check_fit(base, objective, work.given)
            corpora = {
                f"{side}, {half}": getattr(domain, half)
                for side, domain in work.domains.items()
                if side in work.sides
                for half in ("training", "held_out")
            }
            check_plans(objective, corpora)
            for arm in self.arms.get(word, ()):
                for remedy in assembly.make_remedies(work.asked.remedies(arm), part.role):
                    if DECIDES in remedy.claims:
                        remedy.begin(Situation(copy.deepcopy(model), objective))

    def describe(self, tell: Callable[[str], None]) -> None:
        work = self.work
        for side, found in work.sides.items():
            domain = work.domains[side]
            training, held_out = domain.training, domain.held_out
            tell(
                f"{side + ' text':<9} {' '.join(each.name for each in found)}:"
                f" {len(training.tokens):,} tokens for training, {len(held_out.tokens):,} held out"
                f" in {len(held_out.documents):,} documents"
            )
            if domain.probe:
                tell(f"          {domain.probe.said}")
        hidden = max(work.domains[side].held_out.hidden for side in SIDES)
        kinds = [assembly.objective_kind(name) for name in work.roles]
        if hidden > HIDDEN and any(map(in_bits, kinds)):
            why = too_much_hidden(hidden)
            tell(f"losses    in nats a target alone, not in bits a byte: {why}")
        tell(f"results   in {work.store.folder}")
        for line in vocabulary_lines(self.fit, work.tokenizer):
            tell(line)

    # --- all parts ---------------------------------------------------------------------------

    @property
    def words(self) -> list[tuple[str, str]]:
        """Each role with each objective that continues its bases."""
        work = self.work
        found = [(role, name) for name, role in work.roles.items()]
        found += [(role, word) for role, each in work.changes.items() for word in each]
        return list(dict.fromkeys(found))

    @property
    def trials(self) -> list[Part]:
        """The parts by which learning rates are chosen; they come first."""
        return trials(self.words) if self.work.asked.comparison.tune_rates else []

    @property
    def parts(self) -> list[Part]:
        work = self.work
        given = work.given is not None
        found = parts(work.asked.comparison, work.roles, self.arms, work.changes, given)
        return list(dict.fromkeys([*self.trials, *found]))

    def through(self, tell: Callable[[str], None]) -> dict[Part, dict]:
        """Does what is not done yet, under a bar, and gives the results of all parts.

        Raises Interrupted between two steps.
        """
        store, asked = self.work.store, self.work.asked
        wanted = self.parts
        results = {part: store.load(part, self.work.measures(part)) for part in wanted}
        missing = [part for part, result in results.items() if result is None]
        for each in said(wanted, results, self.work, self.base):
            tell(each)
        total = sum(part.steps(asked.comparison) for part in missing)
        with Signals(current()) as signals, tqdm(
            total=total, unit="step", disable=None, dynamic_ncols=True, smoothing=0
        ) as bar:

            def watch(steps: Iterable) -> None:
                for _ in signals.watching(steps):
                    bar.update()
                signals.check()

            try:
                for part in missing:
                    if part not in self.trials:
                        self.choose_rates(results, tell)
                    bar.set_description(part.name)
                    signals.check()
                    results[part] = self.work.do(part, watch)
                    if current().is_first:
                        store.keep(part, results[part])
                    bar.clear()
                    tell(line(part, results))
            except Interrupted as interrupted:
                bar.close()
                kept = sum(result is not None for result in results.values())
                console.say(
                    f"{signal.Signals(interrupted.number).name}: {kept} of {len(wanted)} parts"
                    f" are done and kept in {store.folder}; the same command goes on"
                )
                raise
            except (InputError, WorkError) as error:
                raise WorkError(f"{part.name}: {error}") from None
        self.choose_rates(results, tell)
        return results

    def choose_rates(self, results: Mapping[Part, dict], tell: Callable[[str], None]) -> None:
        """Once, when all trials are done."""
        rates = self.work.rates
        if self.trials and not rates:
            rates |= chosen(results, self.trials)
            found = ", ".join(f"{word} {rate:g}" for (_, word), rate in rates.items())
            tell(f"learning rates, chosen among {', '.join(f'{x:g}' for x in RATES)}: {found}")
            if edge := sum(rate == RATES[-1] for rate in rates.values()):
                tell(
                    f"the highest of them was best for {edge} of {len(rates)} objectives: a higher"
                    " one may be better still"
                )

    def ordinary(self, results: Mapping[Part, dict]) -> dict[Part, dict]:
        """The results of the usual bases, continued with the objectives that are compared."""
        roles = self.work.roles
        return {
            part: result for part, result in results.items()
            if part.trained is None and part.role in roles.values()
            and (part.arm is None or part.arm in self.arms.get(part.objective, ()))
        }  # fmt: skip


def files(folder: Path) -> dict[str, str]:
    """The SHA-256 of each of a folder's files: what a given base is known by."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: sha256(path) for path in paths}


def line(part: Part, results: Mapping[Part, dict]) -> str:
    """One line about a part that is done."""
    losses = results[part]["losses"]
    seconds = f"{sum(results[part]['seconds'].values()):.0f} s"
    if part.arm is None:
        said = ", ".join(
            f"{name} old {loss(each['old']):.3f} new {loss(each['new']):.3f}"
            for name, each in losses.items()
            if each
        )
        return f"{part.name}: {said} ({seconds})"
    before, after = results[part.from_base]["losses"][part.first], losses[part.first]
    if before is None:  # the base had no head for it
        now = ", ".join(f"{side} {loss(each):.3f}" for side, each in after.items())
        return f"{part.name}: {now} {after['new']['unit']} ({seconds})"
    change = {side: loss(after[side]) - loss(before[side]) for side in after}
    return (
        f"{part.name}: gained {-change['new']:+.3f}, forgotten {change['old']:+.3f}"
        f" {after['new']['unit']} ({seconds})"
    )
