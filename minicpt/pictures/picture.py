"""The picture of a text: what a model reads of it, may see, and must predict.

    >>> picture = explain("The cat sat.", objective="causal-lm")  # doctest: +SKIP
    >>> print(picture)  # doctest: +SKIP
    >>> picture.data["heads"]["tokens"]["mean"]  # doctest: +SKIP

Chooses the model and the passage; what is shown of them stands in ``passage`` and ``text``.
"""

import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn

from minicpt.checkpoint.folder import load
from minicpt.common import html
from minicpt.common.errors import InputError
from minicpt.common.parts import said
from minicpt.common.randomness import generator
from minicpt.common.terminal import needs_ascii
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.order import Draw, Plan
from minicpt.data.sources import read
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective
from minicpt.pictures import html as drawing
from minicpt.pictures.passage import as_data
from minicpt.pictures.text import as_text
from minicpt.runs import assembly, fitting, parts

TEXT = (
    "The cat sat on the mat. It was warm there, and it fell asleep. A bird came to the window."
    " The cat dreamt of rain."
)
VOCABULARY = 2048
BEST = 3  # of the likeliest classes that are named, where the model has learnt something
EPOCHS = 20  # that are tried for a passage


@dataclass(frozen=True, repr=False)
class Picture:
    """What an objective does with one passage of a text; printed, it is a report.

    data   see ``passage.as_data``
    notes  what there is to say beside it: of the model, and of other passages
    """

    data: dict
    notes: list[str] = field(default_factory=list)

    def text(self, color: bool = False) -> str:
        """The report, as wide as the terminal."""
        ascii = needs_ascii(getattr(sys.stdout, "encoding", None))
        return as_text(self.data, shutil.get_terminal_size().columns, ascii=ascii, color=color)

    __str__ = __repr__ = text

    def plain(self) -> dict:
        """For JSON."""
        return self.data

    def page(self) -> str:
        """The same as a page of HTML, to be shared."""
        return html.page(self.data["summary"], *drawing.of_passage(self.data, self.notes))

    def _repr_html_(self) -> str:
        heading = html.element("h2", self.data["summary"])
        return html.fragment(heading, *drawing.of_passage(self.data, self.notes))


def explain(
    text: str | Iterable[Document] = TEXT,
    objective: str = "causal-lm",
    *,
    model: str = "",
    init: str | None = None,
    passage: int = 1,
    seed: int = 0,
    **settings,
) -> Picture:
    """What a model reads of a passage, what each position may see, and the loss of each target.

    text       a text, or documents
    objective  its name, as ``minicpt explain --help`` lists them, and ``settings`` its settings
    model      the name of the architecture of a small untrained model; "": the objective's default
    init       a checkpoint folder, whose model is taken instead
    passage    which window (pair, sentence) of the text, in its order, from 1
    seed       of the noise, the order and the weights

    Raises InputError with one line for what makes no sense.
    """
    scene = scene_of(objective, model=model, init=init, seed=seed, **settings)
    chosen = scene.objective
    documents = [Document("the text", text)] if isinstance(text, str) else text
    plan = first_plan(chosen, Corpus.build(documents, chosen.tokenizer), seed)[0]
    unit, count = chosen.unit, len(plan)
    check_passage(passage, count, unit)
    notes = list(scene.notes)
    if count > 1:
        notes.append(f"the text gives {count} {unit}s; --passage K shows another")
    draw = Draw(passage - 1, generator("explain", seed))
    shown = plan[in_order(plan)[passage - 1]]
    number = (passage, count)
    given = {"parts": scene.parts, "number": number, "best": scene.best}
    data = as_data(scene.model, chosen, shown, draw, **given)
    return Picture(data, notes)


def check_passage(passage: int, count: int, unit: str) -> None:
    """InputError unless the text gives that many passages."""
    if not 1 <= passage <= count:
        found = f"{count} {unit}s; use 1 to {count}" if count > 1 else f"one {unit}; use 1"
        raise InputError(f"--passage is {passage}, but the text gives {found}")


@dataclass(frozen=True)
class Scene:
    """What a text is shown with.

    parts  those that learn beside the model
    notes  what there is to say of them
    best   how many of the likeliest classes are named: none where the model has learnt nothing
    """

    model: nn.Module
    parts: nn.ModuleDict
    objective: Objective
    notes: tuple[str, ...]
    best: int = 0


def scene_of(
    objective: str, *, model: str = "", init: str | None = None, seed: int = 0, **settings
) -> Scene:
    """The model and the objective of a picture; the parameters are those of ``explain``."""
    if init:
        if model:
            raise InputError("--model is for untrained models; --init DIR says which one it holds")
        base = load(init, seed)
        chosen = fitting.fitted(base, objective, settings)
        beside, new = parts.of_checkpoint(base, chosen)
        notes = (*base.notes, *([said(new)] if new else []))
        return Scene(base.model, beside, chosen, notes, BEST)
    kind = assembly.objective_kind(objective)
    architecture = assembly.model_kind(model, kind)
    training = (document.text for document in read(["builtin:docs"]))
    tokenizer = Tokenizer.train(training, VOCABULARY, kind.reserved)
    chosen = assembly.make_objective(kind, tokenizer, kind.Settings(**settings), architecture)
    network = assembly.new_model(architecture, chosen, {}, seed)
    note = "an untrained model; --init DIR shows what a trained one makes of it"
    return Scene(network, chosen.parts(network), chosen, (note,))


def first_plan(objective: Objective, corpus: Corpus, seed: int) -> tuple[Plan, int]:
    """The plan of an epoch, and the epoch's number.

    Where an objective draws what it reads, a short text may give nothing in an epoch: then it is
    the first epoch that has some. Raises the InputError of the objective where none has.
    """
    refused = None
    for epoch in range(EPOCHS):
        try:
            plan = objective.plan(corpus, seed, epoch)
        except InputError as error:
            refused = refused or error
            continue
        if len(plan):
            return plan, epoch
    raise refused or InputError("the objective finds nothing to read in the text; give more")


def in_order(plan: Plan) -> list[int]:
    """The places in the plan of its passages, as they stand in the text."""
    return sorted(range(len(plan)), key=plan.rows.tolist().__getitem__)
