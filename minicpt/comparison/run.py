"""A whole comparison: prepares it, does what is not done yet, and says what comes of it."""

import copy
import dataclasses
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from minicpt import checkpoint, models, objectives
from minicpt.common.disk import sha256
from minicpt.common.errors import InputError, WorkError
from minicpt.common.outputs import check_writable, plotting
from minicpt.comparison import texts
from minicpt.comparison.measure import loss
from minicpt.comparison.plan import (
    CONTROL,
    Asked,
    Part,
    arms_of,
    check_strengths,
    model_of,
    parts,
    roles_of,
)
from minicpt.comparison.plot import plot as draw
from minicpt.comparison.store import Store
from minicpt.comparison.summary import SIDES, Base, Row, bases, front, rows
from minicpt.comparison.table import as_html, sentences, text
from minicpt.comparison.work import Work
from minicpt.data.tokenizer import Tokenizer
from minicpt.remedies.base import Situation
from minicpt.runs import assembly, console
from minicpt.runs.describe import vocabulary, vocabulary_lines
from minicpt.runs.fitting import check_fit, check_kind
from minicpt.runs.lock import held
from minicpt.runs.loop import versions
from minicpt.runs.signals import Interrupted, Signals
from minicpt.runs.texts import check_plans
from minicpt.training.distributed import current
from minicpt.training.evaluation import HIDDEN, in_bits, too_much_hidden

DECIDES = "which weights learn"  # what such a remedy claims can be too much for a small model


@dataclass(frozen=True, repr=False)
class Result:
    """What a finished comparison has to say.

    label    from an arm to its name in tables
    fit      how well the tokenizer fits the texts
    seconds  that all parts took, also those that were done before
    """

    rows: list[Row]
    bases: list[Base]
    sentences: list[str]
    label: Callable[[str], str]
    fit: dict[str, dict]
    settings: dict
    versions: dict
    seconds: float
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

    def text(self, width: int = 100) -> str:
        """Tables and sentences, in lines of at most ``width`` characters."""
        return text(self.rows, self.bases, self.sentences, self.label, width)

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self.rows, self.bases, self.sentences, self.label)

    def plot(self, path: str) -> None:
        """Draws forgotten against gained (matplotlib)."""
        draw(path, self.rows, self.label)


def compare(
    quick: bool = False,
    plot: str | None = None,
    tell: Callable[[str], None] = console.tell,
    **settings,
) -> Result:
    """Continues a base with each objective and each remedy, and measures gained and forgotten.

    quick     smaller and shorter: see ``plan.QUICK``
    plot      a file for the picture
    tell      gets a line for each part that is done
    settings  the flags of ``minicpt compare`` by their names: ``compare(seeds=5, kl=2.0)``

    All that can be wrong is found before the first step. What is done is kept in a folder, so the
    same call goes on where it was stopped. Raises InputError; Interrupted after SIGINT or SIGTERM.
    """
    asked = Asked.of(quick, **settings)
    check_writable(plot)
    if plot:
        plotting()
    if asked.machine.shard != "none":
        raise InputError("compare's models are whole in each process; leave out --shard")
    machine = current().machine(asked.machine).prepare(console.say)
    asked = dataclasses.replace(asked, machine=machine)
    current().check_sum(asked.machine)
    job = prepare(asked, tell)
    store = job.work.store
    with held(store.folder):
        with current().in_turn():
            store.open(job.settings, job.strengths)
        result = job.through(tell)
    if plot:
        result.plot(plot)
        tell(f"drawn in {plot}")
    return result


# --- before the first step -------------------------------------------------------------------


def prepare(asked: Asked, tell: Callable[[str], None]) -> "Job":
    """Reads the texts, makes the objectives, and finds all that can be wrong."""
    sources, comparison, machine = asked.sources, asked.comparison, asked.machine
    now = versions() | {"device": machine.device, "threads": torch.get_num_threads()}
    folder = sources.out or ("runs/compare-quick" if asked.quick else "runs/compare")
    store = Store(folder, now, console.say)
    store.check()
    base = checkpoint.load(sources.init) if sources.init else None
    for note in base.notes if base else []:
        console.say(note)
    for name in sources.objectives if base else ():
        check_kind(base.model, name, base.folder)
    roles = roles_of(sources.objectives, base and base.model.ROLE)
    for role in () if base else set(roles.values()):
        assembly.check_sizes(models.known()[model_of(role)], comparison.sizes)
    arms = arms_of(roles, sources.remedies, asked.quick)
    used = {arm for each in arms.values() for arm in each}
    check_strengths(asked, used)
    sides = texts.sides(sources, base, CONTROL in used)
    divided = texts.divided(sides, sources.characters)
    if base:
        tokenizer = base.tokenizer
    else:
        old = (document.text for document in divided["old"][0])
        reserved = objectives.reserved(roles)
        tokenizer = Tokenizer.train(old, comparison.vocab_size, reserved)
    domains = {
        side: texts.domain(
            *each,
            tokenizer,
            [source for found in sides[side] for source in found.settings.corpus],
            comparison.window - 2,
            comparison.probe_passages,
        )
        for side, each in divided.items()
    }
    domains.setdefault("wrong", domains["old"])
    given = base and base.folder
    work = Work(asked, roles, sides, domains, tokenizer, store, given)
    job = Job(work, arms, vocabulary(tokenizer, sides["new"][0], sides["old"]))
    for name in roles:
        job.check(name, base and base.model)
    job.describe(tell)
    return job


@dataclass(frozen=True)
class Job:
    """All parts, and what does them.

    arms  of each objective
    fit   how well the tokenizer fits the texts
    """

    work: Work
    arms: Mapping[str, list[str]]
    fit: dict[str, dict]

    @property
    def settings(self) -> dict:
        """All that each part's result depends on, the remedies' strengths apart."""
        work, sources = self.work, self.work.asked.sources
        chosen = dataclasses.asdict(work.asked.comparison)
        del chosen["seeds"]  # more seeds leave what is done as it is
        sides = {"wrong": work.sides["old"]} | dict(work.sides)
        hashes = {side: [each.record["sha256"] for each in sides[side]] for side in sides}
        names = ("blocks", "errors", "held_out", "characters")
        return chosen | {name: getattr(sources, name) for name in names} | {
            "objectives": list(work.roles),
            "texts": hashes,
            "base": files(work.given) if work.given else None,
            "tokenizer": work.tokenizer.sha256,
            "dtype": work.asked.machine.dtype,
        }  # fmt: skip

    @property
    def strengths(self) -> dict[str, dict]:
        """The settings of each remedy that is compared."""
        used = sorted({arm for each in self.arms.values() for arm in each})
        found = (self.work.asked.remedies(arm).items() for arm in used)
        return {name: settings for each in found for name, settings in each}

    def check(self, name: str, base: nn.Module | None) -> None:
        """InputError where an objective does not fit the base, the texts, or its remedies."""
        work = self.work
        part = Part(work.roles[name], 0, name)
        model = copy.deepcopy(base) if base else work.new_model(part.from_base)
        objective = work.objective(part, model)
        if base:
            check_fit(base, objective, work.given)
        corpora = {
            f"{side}, {half}": getattr(domain, half)
            for side, domain in work.domains.items()
            for half in ("training", "held_out")
        }
        check_plans(objective, corpora)
        for arm in self.arms[name]:
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
                tell(f"          the probe tells apart: {', '.join(domain.probe[0].parts)}")
        hidden = max(work.domains[side].held_out.hidden for side in SIDES)
        kinds = [assembly.objective_kind(name) for name in work.roles]
        if hidden > HIDDEN and any(map(in_bits, kinds)):
            why = too_much_hidden(hidden)
            tell(f"losses    in nats a target alone, not in bits a byte: {why}")
        tell(f"results   in {work.store.folder}")
        for line in vocabulary_lines(self.fit, work.tokenizer):
            tell(line)

    # --- all parts ---------------------------------------------------------------------------

    def through(self, tell: Callable[[str], None]) -> Result:
        """Does what is not done yet, under a bar. Raises Interrupted between two steps."""
        store, asked = self.work.store, self.work.asked
        wanted = parts(asked.comparison, self.work.roles, self.arms)
        results = {part: store.load(part) for part in wanted}
        missing = [part for part, result in results.items() if result is None]
        if len(missing) < len(wanted):
            tell(f"{len(wanted) - len(missing)} of {len(wanted)} parts are done already")
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
        found = rows(results)
        return Result(
            rows=found,
            bases=bases(results),
            sentences=sentences(found, asked.label),
            label=asked.label,
            fit=self.fit,
            settings=self.settings | {"seeds": asked.comparison.seeds, "remedies": self.strengths},
            versions=store.versions,
            seconds=sum(sum(each["seconds"].values()) for each in results.values()),
            folder=store.folder,
        )


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
        )
        return f"{part.name}: {said} ({seconds})"
    before, after = results[part.from_base]["losses"][part.objective], losses[part.objective]
    change = {side: loss(after[side]) - loss(before[side]) for side in after}
    return (
        f"{part.name}: gained {-change['new']:+.3f}, forgotten {change['old']:+.3f}"
        f" {after['new']['unit']} ({seconds})"
    )
