"""What the proofs examine: a model, an objective, and the functions that train and keep them.

A fault is a subject in which one piece is replaced by a mistaken one, so that what a proof catches
is the proof's own work on pieces that are otherwise real.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import nn

from minicpt import checkpoint, loss
from minicpt.batch import Batch
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.sources import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.proofs.result import NotChecked
from minicpt.training import evaluation, trainer

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
class Subject:
    """The pieces, each as the program uses it.

    name      what it is called in reports
    kind      the objective's name on the command line
    model     in float64, with dropout that the proofs must switch off themselves
    losses    (model, batch) -> each target's loss by head
    step      the training step
    evaluate  the evaluation
    stream    the sequence of passages of a training run
    save, load   a checkpoint
    """

    name: str
    kind: str
    model: nn.Module
    objective: object
    documents: tuple[Document, ...]
    corpus: Corpus
    losses: Callable = loss.target_losses
    step: Callable = trainer.train_step
    evaluate: Callable = evaluation.evaluate
    stream: Callable = trainer.Stream
    save: Callable = checkpoint.save
    load: Callable = checkpoint.load

    @property
    def tokenizer(self) -> Tokenizer:
        return self.objective.tokenizer

    def passages(self, count: int, epoch: int = 0) -> list:
        return self.objective.plan(self.corpus, SEED, epoch)[:count]

    def enough(self, count: int) -> list:
        """The first ``count`` passages. Raises NotChecked where there are fewer."""
        found = self.passages(count)
        if len(found) < count:
            raise NotChecked(f"needs {count} passages; the objective makes {len(found)} here")
        return found

    def batch(self, passages: list, epoch: int = 0) -> Batch:
        """A batch in which each passage has noise of its own, whatever its neighbours."""
        noise = [generator("verify", epoch, passage.place) for passage in passages]
        return self.objective.batch(passages, noise)

    def copy_of_model(self) -> nn.Module:
        return copy.deepcopy(self.model).eval()


def subject(
    kind: str,
    objective_module: ModuleType,
    model_module: ModuleType,
    name: str = "",
    documents: Sequence[Document] | None = None,
    **settings,
) -> Subject:
    """A small subject for an objective: a few texts, a tokenizer with merges, a small model.

    The window is short where the objective has a setting of that name. Its default may be long:
    where that leaves too few passages, the texts are shorter. The model's weights are larger than
    at the start of training, so that every path through the model matters to the result.
    """
    tokenizer = Tokenizer.train((document.text for document in DOCUMENTS), 300)
    if "window" in objective_module.Settings.__dataclass_fields__:
        settings = {"window": WINDOW} | settings
    objective = objective_module.Objective(tokenizer, objective_module.Settings(**settings))
    model = small_model(model_module, tokenizer, objective.length)
    for texts in [documents] if documents else [DOCUMENTS, SINGLE]:
        corpus = Corpus.build(texts, tokenizer)
        if len(objective.plan(corpus, SEED, 0)) >= LEAST:
            break
    return Subject(name or kind, kind, model, objective, tuple(texts), corpus)


def small_model(module: ModuleType, tokenizer: Tokenizer, length: int) -> nn.Module:
    known = {"vocabulary": tokenizer.size, "pad": tokenizer.roles.get("pad")}
    known |= {"positions": length + SPARE} | SIZES
    fields = module.Config.__dataclass_fields__
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        sizes = {key: value for key, value in known.items() if key in fields}
        model = module.Model(module.Config(**sizes)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(GAIN).add_(0.02 * torch.randn_like(parameter))
    return model
