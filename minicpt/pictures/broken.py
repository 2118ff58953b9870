"""A mistake that people make, in the picture of a text: right beside wrong, and who catches it.

    >>> found = broken("mask-off-by-one", "The cat sat.")  # doctest: +SKIP
    >>> found.leaks[0]  # doctest: +SKIP
    Leak(head='tokens', stream='tokens', position=0, seen=1)
    >>> found.caught[0].proof  # doctest: +SKIP
    'equivalence'

The faults are those of ``minicpt verify --break``, and the pieces that they are made in are those
that ``explain`` shows. Right and wrong come from the same weights, text and draws. What a target
may see is measured here, by derivatives, and not taken from what the objective declares.

Leaves out what one text cannot show: a fault in the training step, the evaluation, the order of
passages, or a checkpoint.
"""

import copy
import dataclasses
import functools
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields

from minicpt.common import html
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator, seeded
from minicpt.common.terminal import needs_ascii
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.order import Draw
from minicpt.data.text import sentences
from minicpt.pictures import beside
from minicpt.pictures import html as drawing
from minicpt.pictures.changes import Change, Leak, beyond, changes
from minicpt.pictures.passage import TRIANGLE, as_data
from minicpt.pictures.picture import TEXT, Scene, check_passage, first_plan, in_order, scene_of
from minicpt.proofs import faults, rules, suite
from minicpt.proofs.causality import asked, derivatives
from minicpt.proofs.faults.base import Fault
from minicpt.proofs.subject import SENTENCES, Subject, Variant

# Of many lengths: the shortest one that is longer stands beside what must be padded.
COMPANY = [
    Document(f"another text of {count} sentences", " ".join(SENTENCES[:count]))
    for count in range(1, len(SENTENCES) + 1)
]
PASSAGES, DRAWS = 6, 4  # that are tried until the fault shows
SHOWN = {"model", "parts", "objective", "losses"}  # the pieces that a picture shows
# A piece that a fault replaces -> why one text may show nothing of it.
UNSEEN = {
    "step": "it changes the training step, where the sums of several micro-batches are added",
    "evaluate": "it changes the evaluation, where the losses of many passages are put together",
    "stream": "it changes which passages and draws follow each other in a training run",
    "save": "it changes what a checkpoint holds",
    "load": "it changes what is read from a checkpoint",
    "select": "it changes which targets of a training batch are selected",
    "losses": "the losses are the same numbers; what is wrong is their gradient",
    "model": "the model computes the same for each passage of this text, padded or not",
    "parts": "the parts beside the model compute the same for each passage of this text",
    "objective": "each passage of this text is read and predicted as it should be; only many"
    " passages together, an evaluation or another text tell",
}


@dataclass(frozen=True)
class Caught:
    """A proof that fails on the fault, with its message."""

    proof: str
    message: str


@dataclass(frozen=True, repr=False)
class Broken:
    """A fault in the picture of one passage.

    right    the picture's data, as ``passage.as_data`` gives it; ``visibility`` is measured
    wrong    the same with the fault; None where it changes nothing here, and ``reason`` says why
    changes  all tokens and numbers that differ
    leaks    what is seen with the fault and must not be
    lost     what is no longer seen, and should be: in the same form, where the same is read
    padded   whether the passage stands in a batch with a longer one, without which nothing differs
    notes    what there is to say of the model
    """

    fault: Fault
    right: dict
    wrong: dict | None = None
    changes: tuple[Change, ...] = ()
    leaks: tuple[Leak, ...] = ()
    lost: tuple[Leak, ...] = ()
    padded: bool = False
    reason: str = ""
    notes: tuple[str, ...] = field(default=())

    def text(self, color: bool = False) -> str:
        """Right and wrong one below the other, as wide as the terminal."""
        ascii = needs_ascii(getattr(sys.stdout, "encoding", None))
        return beside.as_text(self, shutil.get_terminal_size().columns, ascii, color)

    __str__ = __repr__ = text

    def page(self) -> str:
        """The same as a page of HTML."""
        return html.page(beside.title(self), *drawing.of_fault(self))

    def _repr_html_(self) -> str:
        heading = html.element("h2", beside.title(self))
        return html.fragment(heading, *drawing.of_fault(self))

    def plain(self) -> dict:
        """For JSON. The proofs run."""
        found = dataclasses.asdict(self)
        names = ("name", "number", "mistake", "objective", "subject", "what")
        found["fault"] = {name: getattr(self.fault, name) for name in names}
        return found | {"caught_by": {each.proof: each.message for each in self.caught}}

    @functools.cached_property
    def caught(self) -> tuple[Caught, ...]:
        """The proofs that catch it. They run when this is first asked for, in a second or two."""
        return caught(self.fault)


def broken(
    fault: str,
    text: str | Iterable[Document] = TEXT,
    objective: str = "",
    *,
    model: str = "",
    init: str | None = None,
    passage: int | None = None,
    seed: int = 0,
    **settings,
) -> Broken:
    """A fault in the picture of a text. All but ``fault`` is as for ``explain``.

    fault      its name, as ``minicpt verify --help`` lists them
    objective  its name; "": the fault's own, which is the only one that it can be made in
    passage    which one; None: the first one, in the text's order, that shows the fault

    Raises InputError with one line for what makes no sense.
    """
    found = fault_of(fault, objective)
    variant, needed = made_in(found)
    scene = scene_of(
        found.objective,
        model=model or ("" if init else needed),
        init=init,
        seed=seed,
        **{**variant.settings, **settings},
    )
    return broken_in(scene, found, text, passage, seed)


def broken_in(
    scene: Scene,
    found: Fault,
    text: str | Iterable[Document] = TEXT,
    passage: int | None = None,
    seed: int = 0,
    triangle: int = TRIANGLE,
) -> Broken:
    """The same with a model and an objective that are there: see ``made_in`` for its settings.

    triangle  as in ``passage.as_data``
    """
    variant = made_in(found)[0]
    first, parts = None, set()
    for sound, mistaken in cases(scene, found, variant, text, passage, seed):
        first = first or sound
        parts = replaced(sound.subject, mistaken.subject)
        if not parts & SHOWN:
            break
        try:
            different = tuple(changes(sound.data(), mistaken.data()))
        except (StopIteration, RuntimeError) as error:
            # A fault in a plan looks for passages of a kind that a short text may not give.
            if not isinstance(error.__cause__ or error, StopIteration):
                raise
            continue
        if not different:
            continue
        (sees, _), (seen, leaks) = sound.measured(), mistaken.measured()
        right = sound.data(triangle) | {"visibility": sees}
        wrong = mistaken.data(triangle) | {"visibility": seen}
        lost = tuple(beyond(sees, seen, right, wrong))
        padded = len(sound.places) > 1
        return Broken(found, right, wrong, different, leaks, lost, padded, notes=scene.notes)
    reason = next((why for name, why in UNSEEN.items() if name in parts), "")
    return Broken(found, first.data(triangle), reason=reason, notes=scene.notes)


def fault_of(name: str, objective: str = "") -> Fault:
    """The fault of that name. InputError where there is none, or it is another objective's."""
    known = faults.known()
    if name not in known:
        own = [each.name for each in known.values() if objective in ("", each.objective)]
        raise InputError(f"no fault is called {name!r}; use one of {', '.join(own)}")
    if objective not in ("", known[name].objective):
        raise InputError(f"the fault {name} belongs to {known[name].objective}, not to {objective}")
    return known[name]


@functools.cache
def caught(fault: Fault) -> tuple[Caught, ...]:
    """The proofs that catch a fault, on the small subject that it is made in, as ``verify`` does.
    """
    sound = next(each for each in suite.subjects([fault.objective]) if each.name == fault.subject)
    return tuple(Caught(proof.name, proof.message) for proof in suite.catch(fault, sound))


def made_in(fault: Fault) -> tuple[Variant, str]:
    """The settings in which a fault shows, and the name of the model where it is not the usual one.
    """
    variants = getattr(rules.known().get(fault.objective), "VARIANTS", {})
    if fault.subject in variants:
        return variants[fault.subject], ""
    return Variant(), fault.subject.partition(" with ")[2]


def replaced(sound: Subject, mistaken: Subject) -> set[str]:
    """The names of the pieces that a fault has replaced."""
    names = (each.name for each in fields(Subject) if each.init)
    return {name for name in names if getattr(sound, name) is not getattr(mistaken, name)}


# --- the cases that are tried ----------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A passage with its draw, alone or below a longer one, in a subject.

    best    see ``as_data``
    places  of the passages in the plan of the epoch; the last one is shown
    number  which passage of the text it is, and of how many
    key     of the draws
    """

    subject: Subject
    best: int
    places: tuple[int, ...]
    epoch: int
    number: tuple[int, int]
    key: int

    def batch(self) -> list[tuple[object, Draw]]:
        """The passages, each a copy of its own, with fresh draws."""
        plan = self.subject.objective.plan(self.subject.corpus, self.key, self.epoch)
        passages = [plan[min(place, len(plan) - 1)] for place in self.places]
        draw = self.number[0] - 1, generator("explain", self.key)
        return [
            *((copy.deepcopy(each), Draw(place, generator("company", self.key)))
              for place, each in zip(self.places, passages[:-1], strict=False)),
            (copy.deepcopy(passages[-1]), Draw(*draw)),
        ]  # fmt: skip

    def data(self, triangle: int = 0) -> dict:
        *company, shown = self.batch()
        learner = self.subject.learner()
        with seeded("broken", self.key):  # of a dropout that is left on
            return as_data(
                learner.model,
                self.subject.objective,
                *shown,
                parts=learner.parts,
                triangle=triangle,
                number=self.number,
                company=company,
                best=self.best,
                losses=lambda model, parts, batch: self.subject.losses(learner, batch),
            )

    def measured(self) -> tuple[dict, tuple[Leak, ...]]:
        """What each target truly depends on, in the form of the data's ``visibility``; and where
        that is more than the objective declares."""
        learner = self.subject.learner().double()
        objective, both = self.subject.objective, self.batch()
        batch = objective.batch([each for each, _ in both], [each for _, each in both])
        losses = None if self.subject.is_plain else lambda some: self.subject.losses(learner, some)
        seen, leaks = {}, []
        for head, declared in objective.visibility(batch).items():
            cells = asked(batch, head)
            cells[:-1] = False
            found = derivatives(learner.model, batch, head, declared, losses, cells)
            seen[head] = {}
            for stream, size in found.sizes.items():
                depends = size[-1, :, -1] != 0  # NaN too
                may = declared[stream][-1]
                shown = depends.where(cells[-1][:, None], may)
                seen[head][stream] = ["".join("01"[each] for each in row) for row in shown.tolist()]
                leaks += [Leak(head, stream, *at) for at in (shown & ~may).nonzero().tolist()]
        return seen, tuple(leaks)


def cases(
    scene: Scene,
    fault: Fault,
    variant: Variant,
    text: str | Iterable[Document],
    passage: int | None,
    seed: int,
) -> Iterator[tuple[Case, Case]]:
    """The same passage right and wrong: alone first, then below a longer one; then other draws."""
    own = documents(text, apart=variant.documents is not None)
    others = {each.name for each in COMPANY}
    for company in (False, True):
        corpus = Corpus.build([*own, *COMPANY] if company else own, scene.objective.tokenizer)
        sound = Subject(
            fault.subject, fault.objective, scene.model, scene.parts, scene.objective,
            tuple(own), corpus,
        )  # fmt: skip
        mistaken = fault.make(sound)
        for key in range(seed, seed + DRAWS):
            plan, epoch = first_plan(scene.objective, corpus, key)
            order = in_order(plan)
            shown = [at for at in order if plan[at].document not in others]
            if passage is not None:
                check_passage(passage, len(shown), scene.objective.unit)
            numbers = range(1, len(shown) + 1)[:PASSAGES] if passage is None else [passage]
            for number in numbers:
                place = shown[number - 1]
                longer = [at for at in order if plan.lengths[at] > plan.lengths[place]]
                if company and not longer:
                    continue
                places = (min(longer, key=plan.lengths.__getitem__), place) if company else (place,)
                given = scene.best, places, epoch, (number, len(shown)), key
                yield Case(sound, *given), Case(mistaken, *given)


def documents(text: str | Iterable[Document], apart: bool) -> list[Document]:
    """The text as documents; ``apart``: each sentence is one, for objectives that pack them."""
    found = [Document("the text", text)] if isinstance(text, str) else list(text)
    if not apart:
        return found
    return [
        Document(f"{each.name}, sentence {number}", each.text[start:stop])
        for each in found
        for number, (start, stop) in enumerate(sentences(each.text), 1)
    ]
