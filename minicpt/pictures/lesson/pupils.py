"""The models of the lesson, each with an objective: trained on the spot, or loaded.

A pupil that is trained here is small, and learns for a second or two: enough that its losses differ
between positions. The number of its steps is fixed, not the clock, so that a page repeats.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import nn

from minicpt import objectives
from minicpt.checkpoint.folder import load
from minicpt.common.errors import InputError
from minicpt.common.parts import said
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.sources import read
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective
from minicpt.pictures.lesson import primer
from minicpt.runs import assembly, fitting, parts
from minicpt.runs.console import progress
from minicpt.training.trainer import Training

WINDOW = 32  # positions: more do not fit on a screen
VOCABULARY = 512
STEPS = 140
SEED = 0
SIZES = {"width": 48, "layers": 2, "dropout": 0.0}
TRAINING = Training(seed=SEED, learning_rate=6e-3, batch_size=16)
CHARACTERS = 300_000  # of the text that is learnt before a text of yours is shown


@dataclass(frozen=True)
class Pupil:
    """An objective's name, and what its losses are computed with.

    parts  those that learn beside the model
    notes  what there is to say of them
    """

    name: str
    model: nn.Module
    parts: nn.ModuleDict
    objective: Objective
    notes: tuple[str, ...] = field(default=())

    def with_settings(self, **changed) -> Objective:
        """The same objective with some settings changed; InputError where they make no sense."""
        kind = type(self.objective)
        settings = {**vars(self.objective.settings), **changed}
        made = assembly.make_objective(
            kind, self.objective.tokenizer, kind.Settings(**settings), self.model
        )
        return made.with_parts(self.parts)


def chosen(names: Sequence[str]) -> list[str]:
    """The objectives that are asked for, or all that a model is there for. InputError."""
    known = assembly.trainable()
    for name in names:
        assembly.objective_kind(name)
    return [name for name in known if not names or name in names]


def trained(text: str | None, names: Sequence[str], steps: int = STEPS) -> list[Pupil]:
    """A small model for each objective; a bar shows how far they are.

    text  the reader's own text, before which the models learn Python's reference; None: the
          lesson's, before which they learn its stories
    """
    documents = list(primer.stories()) if text is None else reference()
    reserved = objectives.reserved(names)
    tokenizer = Tokenizer.train((each.text for each in documents), VOCABULARY, reserved)
    corpus = Corpus.build(documents, tokenizer)
    found = []
    with progress(steps * len(names), 0) as bar:
        for name in names:
            bar.set_description(name)
            kind = assembly.objective_kind(name)
            architecture = assembly.model_kind("", kind)
            settings = kind.Settings(**window(kind, WINDOW))
            objective = assembly.make_objective(kind, tokenizer, settings, architecture)
            model = assembly.new_model(architecture, objective, SIZES, SEED)
            trainer = assembly.make_trainer(model, objective, corpus, TRAINING, steps)
            for _ in trainer.run():
                bar.update()
            learnt = trainer.learner.parts
            found.append(Pupil(name, model.eval(), learnt, objective.with_parts(learnt)))
    return found


def reference() -> list[Document]:
    """The beginning of Python's reference: a text of general English, as far as there is one."""
    found, size = [], 0
    for document in read(["builtin:docs"]):
        found.append(document)
        size += len(document.text)
        if size > CHARACTERS:
            break
    return found


def loaded(folders: Iterable[str], names: Sequence[str]) -> list[Pupil]:
    """The models of some checkpoints with each objective that fits: the first folder that does.

    Raises InputError where a folder holds no checkpoint, or an objective that is asked for fits
    none of them.
    """
    bases = [load(folder) for folder in folders]
    found, refused = [], {}
    for name in chosen(names):
        for base in bases:
            kind = assembly.objective_kind(name)
            if base.model.ROLE not in kind.roles:
                continue
            longest = min(WINDOW, getattr(base.model.config, "positions", WINDOW))
            try:
                objective = fitting.fitted(base, name, window(kind, longest))
                learnt, new = parts.of_checkpoint(base, objective)
            except InputError as error:  # it needs tokens, or a head, that this one lacks
                refused[name] = str(error)
                continue
            notes = (*base.notes, *([said(new)] if new else []))
            model = base.model.eval()
            found.append(Pupil(name, model, learnt, objective.with_parts(learnt), notes))
            break
        else:
            if names:
                why = refused.get(name, "no folder of --init holds a model that it trains")
                raise InputError(f"--objectives {name} cannot be shown: {why}")
    if not found:
        raise InputError("no objective fits the models of --init; give another folder")
    return found


def window(kind: type[Objective], longest: int) -> dict[str, int]:
    """The setting that keeps a picture small, where an objective has it."""
    return {"window": longest} if "window" in kind.Settings.__dataclass_fields__ else {}
