"""A whole comparison: what is asked is checked and prepared, done, and shown."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from minicpt import checkpoint, models, objectives
from minicpt.common import html
from minicpt.common.errors import InputError
from minicpt.common.outputs import check_writable, plotting
from minicpt.comparison import advice, curves, matrix, texts
from minicpt.comparison.arms import ALL, CONTROL, at_end, check_strengths, parted
from minicpt.comparison.choosing import NOT_DRAWN, drawable, fitting, planned
from minicpt.comparison.curves import Curve
from minicpt.comparison.job import Job
from minicpt.comparison.matrix import Matrix
from minicpt.comparison.parts import Part, model_of
from minicpt.comparison.plan import Asked
from minicpt.comparison.plot import plot as draw
from minicpt.comparison.store import Store
from minicpt.comparison.summary import Base, Row, bases, front, rows
from minicpt.comparison.table import as_html, sentences, text
from minicpt.comparison.work import Work
from minicpt.data.tokenizer import Tokenizer
from minicpt.runs import assembly, console
from minicpt.runs.describe import vocabulary
from minicpt.runs.fitting import check_kind
from minicpt.runs.lock import held
from minicpt.runs.loop import versions
from minicpt.training.distributed import current


@dataclass(frozen=True, repr=False)
class Result:
    """What a finished comparison has to say.

    matrices  a role each, where the objective changed; ``curves``, a remedy each that was swept
    shapes   how the curves' shapes compare with those of the literature
    command  that is recommended for a base that was given; None: none is
    label    from an arm to its name in tables
    fit      how well the tokenizer fits the texts
    seconds  that all parts took, also those that were done before
    """

    rows: list[Row]
    bases: list[Base]
    sentences: list[str]
    matrices: list[Matrix]
    curves: list[Curve]
    shapes: list[str]
    command: str | None
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
            "matrices": [
                each.plain() | {"sentences": matrix.sayings(each)} for each in self.matrices
            ],
            "curves": [each.named() for each in self.curves],
            "shapes": self.shapes,
            "command": self.command,
            "vocabulary": self.fit,
            "settings": self.settings,
            "versions": self.versions,
            "seconds": self.seconds,
            "out": str(self.folder),
        }

    def text(self, width: int = 100) -> str:
        """Tables and sentences, in lines of at most ``width`` characters."""
        blocks = [matrix.shown(each, width) for each in self.matrices]
        if own := self.unswept:
            blocks.append(text(own, self.bases, self.sentences, self.label, width))
        if self.curves:
            blocks.append(curves.shown(self.curves, self.shapes, self.label, width))
        if self.command:  # on one line, whatever the width: it is to be copied
            blocks.append(f"Recommended:\n{self.command}")
        return "\n\n".join(blocks)

    @property
    def unswept(self) -> list[Row]:
        """The rows whose remedies have the strength that the flags give them."""
        return [row for row in self.rows if parted(row.arm)[1] is None]

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        found = [html.fragment(*matrix.as_html(each)) for each in self.matrices]
        if own := self.unswept:
            found.append(as_html(own, self.bases, self.sentences, self.label))
        return "\n".join(found)

    def plot(self, path: str) -> None:
        """Draws forgotten against gained (matplotlib).

        InputError where the objective alone changed: its numbers stand in matrices.
        """
        if not self.rows:
            raise InputError(NOT_DRAWN)
        draw(path, self.rows, self.label, self.curves)


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
        drawable(asked)
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
        result = said(job, job.through(tell))
    if plot:
        result.plot(plot)
        tell(f"drawn in {plot}")
    return result


def said(job: Job, results: dict[Part, dict]) -> Result:
    """What the results of all parts say."""
    work, asked = job.work, job.work.asked
    own = job.ordinary(results)
    found = rows(own)
    drawn = curves.curves(found, asked.value)
    units = {row.objective: row.unit for row in found}
    given = work.given and work.given.name
    return Result(
        rows=found,
        bases=bases(own),
        sentences=sentences(found, asked.label) if found else [],
        matrices=matrix.matrices(results, work.changes, given),
        curves=drawn,
        command=command_for(job, found),
        shapes=curves.sayings(drawn, asked.value) + curves.peak_sayings(own, units),
        label=asked.label,
        fit=job.fit,
        settings=job.settings
        | {
            "seeds": asked.comparison.seeds,
            "remedies": job.strengths,
            "rates": [[*key, rate] for key, rate in work.rates.items()],
        },
        versions=work.store.versions,
        seconds=sum(sum(each["seconds"].values()) for each in results.values()),
        folder=work.store.folder,
    )


def command_for(job: Job, found: list[Row]) -> str | None:
    """The command that is recommended; None: no base was given, or nothing is."""
    work, asked = job.work, job.work.asked
    if work.given is None:
        return None
    row = advice.chosen(found, job.own)
    if row is None:
        return None
    key = work.roles[row.objective], row.objective
    return advice.recommended(row, asked, work.rates.get(key, asked.comparison.learning_rate))


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
    role = base and base.model.ROLE
    roles, arms, changes = planned(asked, role)
    if base:
        arms = fitting(arms, base.model, tell)
    for each in () if base else {*roles.values(), *changes}:
        assembly.check_sizes(models.known()[model_of(each)], comparison.sizes)
    used = {arm for each in arms.values() for arm in each}
    check_strengths(asked.strengths, used)
    sides = texts.sides(sources, base, CONTROL in used)
    divided = texts.divided(sides, sources.characters)
    if base:
        tokenizer = base.tokenizer
    else:
        old = (document.text for document in divided["old"][0])
        tokenizer = Tokenizer.train(old, comparison.vocab_size, objectives.reserved())
    domains = {
        side: texts.domain(
            *each,
            tokenizer,
            comparison.window - 2,
            comparison.probe_passages,
        )
        for side, each in divided.items()
    }
    domains.setdefault("wrong", domains["old"])
    given = base and base.folder
    follows = "warmup" in sources.sweep or ALL in sources.sweep
    path, ends = follows and not sources.control, any(map(at_end, used))
    work = Work(
        asked, roles, sides, domains, tokenizer, store, given, changes,
        path=path, probes=bool(roles) and not sources.sweep, ends=ends,
    )  # fmt: skip
    fit = vocabulary(tokenizer, sides["new"][0], sides["old"])
    own = base and base.record.get("config", {}).get("objective")
    job = Job(work, arms, fit, base and base.model, own)
    job.check()
    job.describe(tell)
    return job
