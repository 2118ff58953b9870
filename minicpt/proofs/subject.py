"""What the proofs examine: a model, an objective, and the functions that train and keep them.

A fault is a subject in which one piece is replaced by a mistaken one, so that what a proof catches
is the proof's own work on pieces that are otherwise real.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import nn

from minicpt.batch import Batch
from minicpt.checkpoint import folder
from minicpt.common.randomness import generator, seeded
from minicpt.common.settings import Checked
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.order import Draw
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import TargetLosses
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.proofs.result import NotChecked
from minicpt.remedies.base import Remedy, Situation
from minicpt.runs.assembly import make_objective, new_model
from minicpt.training import evaluation
from minicpt.training.distributed import Processes
from minicpt.training.preparing import Selection
from minicpt.training.stream import Stream
from minicpt.training.trainer import Learner, train_step

SEED = 0
SIZES = {"width": 16, "layers": 2, "num_heads": 2, "dropout": 0.1}
WINDOW = 24
GAIN = 1.4  # of the weights; with 2, T5's scores grow so large that rounding grows a thousandfold
SPARE = 8  # positions beyond the window, so that padding can be added
SENTENCES = (
    "The ferry left the old harbour at dawn.",
    "A gull followed it, and nobody looked back.",
    "Rain fell on the nets.",
    "Who counts the boats when the keeper sleeps?",
    "The miller's daughter keeps bees.",
    "She sells honey on market days.",
    "In winter the bees stay inside, and so does she.",
    "Snow covers the twelve hives.",
    "Clocks were rare in the valley.",
    "People rose with the sun and ate when they were hungry.",
    "One man had a watch.",
    "He never told the time to anyone.",
    "The library burned in spring.",
    "Its books had been read aloud so often that half the town knew them.",
    "They wrote them down again.",
)
DOCUMENTS = [
    Document(f"text {number + 1}", " ".join(SENTENCES[start:stop]))
    for number, (start, stop) in enumerate([(0, 4), (4, 8), (8, 12), (12, 15)])
]
# A sentence a text: for objectives that would read each of the texts above as one passage.
SINGLE = [Document(f"sentence {place + 1}", text) for place, text in enumerate(SENTENCES)]
LEAST = 6  # passages that the proofs want
# Texts of two words: several fit into a row.
SHORT = [
    Document(f"words {sentence + 1}.{place + 1}", " ".join(words[2 * place : 2 * place + 2]))
    for sentence, words in enumerate(map(str.split, SENTENCES))
    for place in range(len(words) // 2)
]


@dataclass(frozen=True)
class Variant:
    """An objective with settings by which it computes something else than with its defaults.

    documents  the texts that show it; None: the usual ones
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    documents: Sequence[Document] | None = None


def losses(learner: Learner, batch: Batch) -> dict[str, TargetLosses]:
    """Each target's loss by head, from one pass over the whole sequence."""
    return learner.objective.losses(learner.model, learner.parts, batch)


class Mean(Remedy):
    """A remedy that ends a run with the mean of the base and the last step's weights."""

    def __init__(self):
        super().__init__(Checked())

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        self.base = situation.base
        self.base.load_state_dict(state or self.base.state_dict())

    def state(self, model: nn.Module) -> dict:
        return self.base.state_dict()

    @torch.no_grad()
    def at_end(self, model: nn.Module) -> None:
        for now, then in zip(model.parameters(), self.base.parameters(), strict=True):
            now.lerp_(then, 0.5)


@dataclass(frozen=True)
class Subject:
    """The pieces, each as the program uses it.

    name      what it is called in reports
    kind      the objective's name on the command line
    model     in float64, with dropout that the proofs must switch off themselves
    parts     the objective's modules that learn beside the model
    losses    (learner, batch) -> each target's loss by head
    step      the training step of a learner
    evaluate  the evaluation
    stream    the sequence of passages of a training run
    save, load   a checkpoint
    select    (share, objective, reference, its parts) -> what thins the targets of a batch
    world     what several processes do together
    mean      makes a remedy that ends a run with a mean of its weights
    """

    name: str
    kind: str
    model: nn.Module
    parts: nn.ModuleDict
    objective: Objective
    documents: tuple[Document, ...]
    corpus: Corpus
    losses: Callable = losses
    step: Callable = train_step
    evaluate: Callable = evaluation.evaluate
    stream: Callable = Stream
    save: Callable = folder.save
    load: Callable = folder.load
    select: Callable = Selection
    world: Callable = Processes
    mean: Callable = Mean
    _places: dict = field(default_factory=dict, init=False, repr=False)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.objective.tokenizer

    @property
    def is_plain(self) -> bool:
        """Whether its losses are those of one pass of the model alone, as for most objectives."""
        return getattr(type(self.objective), "losses", None) is Objective.losses

    def learner(self) -> Learner:
        """A copy of all that learns, as one module, with dropout off."""
        model, parts = copy.deepcopy((self.model, self.parts))
        with torch.random.fork_rng(devices=[]):
            learner = Learner(model, self.objective)
        learner.parts = parts
        return learner.eval()

    def passages(self, count: int, epoch: int = 0) -> list:
        return self.objective.plan(self.corpus, SEED, epoch)[:count]

    def enough(self, count: int) -> list:
        """The first ``count`` passages. Raises NotChecked where there are fewer."""
        found = self.passages(count)
        if len(found) < count:
            raise NotChecked(f"needs {count} passages; the objective makes {len(found)} here")
        return found

    def batch(self, passages: Sequence, epoch: int = 0) -> Batch:
        """A batch in which each passage has noise of its own, whatever its neighbours."""
        return self.objective.batch(passages, [self.draw(each, epoch) for each in passages])

    def draw(self, passage, epoch: int = 0) -> Draw:
        """The draw of a passage of the plan; one that was made by hand counts as the first."""
        if epoch not in self._places:
            plan = self.passages(10**6, epoch)
            self._places[epoch] = {each.place: place for place, each in enumerate(plan)}
        place = self._places[epoch].get(passage.place, 0)
        return Draw(place, generator("verify", epoch, passage.place))

    def source(self, passage) -> list[int]:
        """All tokens of the passage's document, tokenised anew from its text."""
        text = next(each.text for each in self.documents if each.name == passage.document)
        return self.tokenizer.encode(text)


def subject(
    name: str,
    kind: str,
    objective: type[Objective],
    model: type[Model],
    variant: Variant = Variant(),
) -> Subject:
    """A small subject for an objective: a few texts, a tokenizer with merges, a small model.

    The window is short where the objective has a setting of that name. Its default may be long:
    where that leaves too few passages, the texts are shorter.
    """
    tokenizer = Tokenizer.train((each.text for each in DOCUMENTS), 300, objective.reserved)
    settings = dict(variant.settings)
    if "window" in objective.Settings.__dataclass_fields__:
        settings = {"window": WINDOW} | settings
    made = make_objective(objective, tokenizer, objective.Settings(**settings), model)
    for texts in [variant.documents] if variant.documents else [DOCUMENTS, SINGLE]:
        corpus = Corpus.build(texts, tokenizer)
        if len(made.plan(corpus, SEED, 0)) >= LEAST:
            break
    small = small_model(model, made)
    with seeded("parts", SEED):
        parts = enlarged(made.parts(small).double())
    return Subject(name, kind, small, parts, made, tuple(texts), corpus)


def small_model(kind: type[Model], objective: Objective) -> nn.Module:
    """A small model in float64, its weights ``enlarged``."""
    known = {"positions": objective.length + SPARE} | SIZES
    names = {each.name for each in fields(kind.Config)}
    sizes = {name: value for name, value in known.items() if name in names}
    with torch.random.fork_rng(devices=[]):
        return enlarged(new_model(kind, objective, sizes, SEED).double())


@torch.no_grad()
def enlarged(module: nn.Module) -> nn.Module:
    """Its weights larger than at the start of training, so that every path through it matters."""
    for parameter in module.parameters():
        parameter.mul_(GAIN).add_(0.02 * torch.randn_like(parameter))
    return module
