"""The computations that ``single_pass.py`` compares: each a forward and a backward pass.

Each takes the same model and the same batch of one passage, leaves the gradient of the batch's
loss in the parameters, and returns every target's loss by head:

whole     ``loss.target_losses``: one forward and one backward pass over the whole sequence.
separate  ``loss.per_token_losses``: one forward pass for each target, over just what the objective
          declares that it sees. For a causal target that is a prefix, for a target of an encoder
          all of the text. Each is followed at once by its own backward pass, which adds its share
          of the gradient: one backward pass at the end would need to hold the graphs of all.
cached    ``cached.states``: one token at a time, with a key-value cache. One backward pass at the
          end, since every token's loss reaches back through the cache into all tokens before it.

Leaves out dropout, which is 0, so that all three compute the same.
"""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import cached
import counting
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import minicpt.models
import minicpt.objectives
from minicpt.batch import IGNORE, Batch
from minicpt.common import registry
from minicpt.common.errors import WorkError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.text import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import Loss, objective_loss, per_token_losses, target_losses, target_stream
from minicpt.pictures.passage import is_causal
from minicpt.proofs.bounds import additions, gap, largest, nats, tolerance

OBJECTIVES = {
    name: module
    for name, module in registry.modules(minicpt.objectives).items()
    if hasattr(module, "Objective")
}


@dataclass(frozen=True)
class Sizes:
    """Of the models; the vocabulary is at least that of the tokenizer, 256 bytes and 5 more."""

    width: int
    layers: int
    vocabulary: int


@dataclass(frozen=True)
class Pieces:
    """A model, a batch of one passage, and what each target of it may see."""

    model: nn.Module
    batch: Batch
    visibility: dict[str, dict[str, Tensor]]
    architecture: str

    @property
    def causal(self) -> bool:
        """Whether every target sees exactly what stands up to it: whether prefixes exist."""
        return all(is_causal(self.batch, sees) for sees in self.visibility.values())

    def double(self) -> "Pieces":
        """The same in float64."""
        return dataclasses.replace(self, model=copy.deepcopy(self.model).double())

    def variants(self) -> dict[str, Callable[[], dict[str, Tensor]]]:
        """The computations that exist for this batch, by name; the whole sequence first."""
        known = cached.READABLE.get(self.role, set())
        found = {"whole": self.whole, "separate": self.separate}
        if self.causal and set(self.batch.inputs) <= known:
            found["cached"] = self.cached
        return found

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
        self.model.zero_grad()
        found = target_losses(self.model, self.batch)
        losses = {name: each.total() for name, each in found.items()}
        objective_loss(losses, self.batch.counts()).backward()
        return {name: each.losses.detach() for name, each in found.items()}

    def separate(self) -> dict[str, Tensor]:
        self.model.zero_grad()
        result = {}
        for name, target in self.batch.targets.items():
            places = (target[0] != IGNORE).nonzero()[:, 0]
            losses = []
            for place in places:
                alone = torch.full_like(target, IGNORE)
                alone[0, place] = target[0, place]
                one = Batch(self.batch.inputs, {name: alone})
                loss = per_token_losses(self.model, one, self.visibility)[name].losses  # (1,)
                (loss.sum() / len(places)).backward()
                losses.append(loss.detach())
            result[name] = torch.cat(losses)
        return result

    def cached(self) -> dict[str, Tensor]:
        self.model.zero_grad()
        losses = {name: [] for name in self.batch.targets}
        for place, hidden in enumerate(cached.states(self.model, self.batch.inputs)):
            for name, target in self.batch.targets.items():
                if target[0, place] != IGNORE:
                    logits = self.model.heads[name](hidden)  # (1, V)
                    losses[name].append(
                        F.cross_entropy(logits, target[:, place], reduction="none")
                    )
        each = {name: torch.cat(found) for name, found in losses.items()}
        totals = {name: Loss(found.sum(), len(found)) for name, found in each.items()}
        objective_loss(totals, self.batch.counts()).backward()
        return {name: found.detach() for name, found in each.items()}


def pieces(name: str, length: int, sizes: Sizes) -> Pieces:
    """The objective's batch of one passage of ``length`` positions, and a model for it.

    The text is letters, one token each, in sentences as long as the window, so that passages fill
    it. Text, noise and weights are the same on every call; the time does not depend on them.
    """
    module = OBJECTIVES[name]
    names = {field.name for field in dataclasses.fields(module.Settings)}
    settings = module.Settings(**({"window": length} if "window" in names else {}))
    tokenizer = Tokenizer.train([], 256)  # bytes
    objective = module.Objective(tokenizer, settings)
    corpus = Corpus.build([Document(f"text {place}", text(place, length)) for place in range(3)],
                          tokenizer)
    plan = objective.plan(corpus, 0, 0)
    batches = [
        objective.batch([plan[place]], [generator("benchmark", place)])
        for place in range(min(len(plan), 64))
    ]
    # Of the passages whose targets' stream is longest, the one with the most to read.
    batch = max(batches, key=lambda each: [
        each.inputs[stream].shape[1] for stream in (target_stream(each), "tokens")
    ])  # fmt: skip
    return Pieces(
        model_for(objective, length, sizes, tokenizer), batch, objective.visibility(batch),
        objective.role,
    )


def text(place: int, length: int) -> str:
    """Sentences of at least ``length`` characters, each of words of one letter."""
    drawn = torch.randint(26, (4, length // 2 + 1), generator=generator("text", place)).tolist()
    sentences = (" ".join(chr(ord("a") + letter) for letter in row) for row in drawn)
    return " ".join(sentence.capitalize() + "." for sentence in sentences)


def model_for(objective, length: int, sizes: Sizes, tokenizer: Tokenizer) -> nn.Module:
    module = registry.modules(minicpt.models)[objective.role]
    names = {field.name for field in dataclasses.fields(module.Config)}
    torch.manual_seed(0)
    return module.Model(
        module.Config(
            vocabulary=max(sizes.vocabulary, tokenizer.size),
            width=sizes.width,
            layers=sizes.layers,
            dropout=0.0,
            **({"positions": length} if "positions" in names else {}),
        )
    )


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
            for key, value in double.model.named_parameters()
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
