"""The computations that ``single_pass.py`` compares: each a forward and a backward pass.

Each takes the same model and the same batch of one passage, leaves the gradient of the batch's
loss in the parameters, and returns every target's loss by head:

whole     the objective's ``losses``: one forward and one backward pass over the whole sequence.
separate  as ``loss.per_token_losses``: one forward pass for each target, over just what the
          objective declares that it sees. For a causal target that is a prefix, for a target of an
          encoder all of the text. Each is followed at once by its own backward pass, which adds its
          share of the gradient: one backward pass at the end would need to hold the graphs of all.
cached    ``cached.states``: one token at a time, with a key-value cache. One backward pass at the
          end, since every token's loss reaches back through the cache into all tokens before it.

Dropout is 0, so that all three compute the same.
"""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import cached
import torch
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch, seen_by, target_stream
from minicpt.common.errors import WorkError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.order import Draw
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import Loss, TargetLosses, head_losses, objective_loss
from minicpt.models.layers import Model
from minicpt.objectives import known
from minicpt.objectives.base import Objective
from minicpt.pictures import counting
from minicpt.pictures.passage import is_causal
from minicpt.proofs.bounds import additions, gap, largest, nats, tolerance
from minicpt.runs.assembly import model_kind, new_model

# Those whose losses are plain cross-entropies of the model's own heads: so are all the variants'.
OBJECTIVES = {
    name: kind
    for name, kind in known().items()
    if kind.losses is Objective.losses and kind.likelihood != "bound"
}


@dataclass(frozen=True)
class Sizes:
    """Of the models; the vocabulary is at least that of the tokenizer, 256 bytes and 5 more."""

    width: int
    layers: int
    vocabulary: int


@dataclass(frozen=True)
class Pieces:
    """A model, an objective, its batch of one passage, and what each target of it may see."""

    model: Model
    parts: nn.ModuleDict
    objective: Objective
    batch: Batch
    visibility: dict[str, dict[str, Tensor]]

    @property
    def causal(self) -> bool:
        """Whether every target sees exactly what stands up to it: whether prefixes exist."""
        return all(is_causal(self.batch, sees) for sees in self.visibility.values())

    def double(self) -> "Pieces":
        """The same in float64."""
        model, parts = copy.deepcopy((self.model, self.parts))
        return dataclasses.replace(self, model=model.double(), parts=parts.double())

    def variants(self) -> dict[str, Callable[[], dict[str, Tensor]]]:
        """The computations that exist for this batch, by name; the whole sequence first."""
        found = {"whole": self.whole, "separate": self.separate}
        plain = type(self.objective).losses is Objective.losses
        if self.causal and plain and cached.can_step(self.model, self.batch.inputs):
            found["cached"] = self.cached
        return found

    def losses(self, batch: Batch) -> dict[str, TargetLosses]:
        """Each target's loss by head, from one forward pass."""
        return self.objective.losses(self.model, self.parts, batch)

    def backward(self, totals: dict[str, Loss]) -> None:
        """Adds the gradient of a part of the batch's loss."""
        counts, weights = self.batch.counts(), self.objective.head_weights
        objective_loss(totals, counts, weights).backward()

    def clear(self) -> None:
        for module in (self.model, self.parts):
            module.zero_grad()

    def tolerance(self) -> float:
        """What rounding in float64 may make of losses and gradients, relative to the largest."""
        return tolerance(additions(self.model, self.batch))

    def operations(self) -> dict[str, int]:
        """Of a forward pass, by variant: see ``counting``."""
        model, batch = self.model, self.batch
        counts = {"whole": counting.whole(model, batch)}
        counts["separate"] = counting.separate(model, batch, self.visibility)
        if "cached" in self.variants():
            counts["cached"] = counting.cached(model, batch)
        return counts

    def whole(self) -> dict[str, Tensor]:
        self.clear()
        found = self.losses(self.batch)
        self.backward({name: each.total() for name, each in found.items()})
        return {name: each.losses.detach() for name, each in found.items()}

    def separate(self) -> dict[str, Tensor]:
        self.clear()
        result = {}
        for name, target in self.batch.targets.items():
            losses = []
            for place in (target[0] != IGNORE).nonzero()[:, 0].tolist():
                one = seen_by(self.batch, name, 0, place, self.visibility[name])
                found = self.losses(one)[name]
                self.backward({name: found.total()})
                losses.append(found.losses.detach())
            result[name] = torch.cat(losses)
        return result

    def cached(self) -> dict[str, Tensor]:
        self.clear()
        losses = {name: [] for name in self.batch.targets}
        for place, hidden in enumerate(cached.states(self.model, self.batch.inputs)):
            for name, target in self.batch.targets.items():
                if target[0, place] != IGNORE:
                    head = self.model.heads[name]
                    losses[name].append(head_losses(head, hidden, target[:, place], fused=False))
        each = {name: torch.cat(found) for name, found in losses.items()}
        self.backward({name: Loss(found.sum(), len(found)) for name, found in each.items()})
        return {name: found.detach() for name, found in each.items()}


def pieces(name: str, length: int, sizes: Sizes) -> Pieces:
    """The objective's batch of one passage of ``length`` positions, and a model for it.

    The text is letters, one token each, in sentences as long as the window, so that passages fill
    it. Text, noise and weights are the same on every call; the time does not depend on them.
    """
    kind = OBJECTIVES[name]
    names = {field.name for field in dataclasses.fields(kind.Settings)}
    settings = kind.Settings(**({"window": length} if "window" in names else {}))
    tokenizer = Tokenizer.train([], 256, kind.reserved)  # bytes
    architecture = model_kind("", kind)
    objective = kind(tokenizer, settings, architecture.ROLE)
    corpus = Corpus.build([Document(f"text {place}", text(place, length)) for place in range(3)],
                          tokenizer)
    plan = objective.plan(corpus, 0, 0)
    batches = [
        objective.batch([plan[place]], [Draw(place, generator("benchmark", place))])
        for place in range(min(len(plan), 64))
    ]
    # Of the passages whose targets' stream is longest, the one with the most to read.
    batch = max(batches, key=lambda each: [
        each.inputs[stream].shape[1] for stream in (target_stream(each), "tokens")
    ])  # fmt: skip
    chosen = dataclasses.asdict(sizes) | {"dropout": 0.0}
    chosen["vocabulary"] = max(sizes.vocabulary, tokenizer.size)
    model = new_model(architecture, objective, chosen, seed=0)
    parts = objective.parts(model)
    return Pieces(model, parts, objective, batch, objective.visibility(batch))


def text(place: int, length: int) -> str:
    """Sentences of at least ``length`` characters, each of words of one letter."""
    drawn = torch.randint(26, (4, length // 2 + 1), generator=generator("text", place)).tolist()
    sentences = (" ".join(chr(ord("a") + letter) for letter in row) for row in drawn)
    return " ".join(sentence.capitalize() + "." for sentence in sentences)


def worst_difference(these: Pieces, name: str) -> float:
    """The largest difference of a loss or of a gradient between a variant and the single pass.

    In float64, relative to the largest loss (at least 1 nat) and the largest gradient. Raises
    WorkError where rounding cannot explain it: what differs must not be timed.
    """
    double = these.double()
    outcomes = []  # losses by head, gradients by parameter
    for call in (double.variants()["whole"], double.variants()[name]):
        losses = {f"the losses of head {key}": each for key, each in call().items()}
        grads = {
            f"the gradient of {key}": torch.zeros_like(value) if value.grad is None else value.grad
            for module in (double.model, double.parts)
            for key, value in module.named_parameters()
        }
        outcomes.append((losses, grads))
    (losses, grads), others = outcomes
    sizes = nats(*losses.values()), largest(*grads.values())
    worst, where = max(
        (gap(each, other[key], size), key)
        for found, other, size in zip((losses, grads), others, sizes, strict=True)
        for key, each in found.items()
    )
    if not worst <= double.tolerance():
        raise WorkError(f"{name} differs from the single pass by {worst:.1e} in {where}")
    return worst
