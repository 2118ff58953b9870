"""Two objectives train one model: ``minicpt train causal-lm --mix prefix-lm 0.5``.

Of the first n passages floor(n X + 1/2) are read by the second objective, where X is its share.
Each objective goes through the text in an order of its own (``data.interleaving``).

Each target counts once. A head that both ask has one sum and one count, over the targets of both,
and is divided once; a head that one of them asks has its own, as in a step of that one alone:

    causal LM, 30 targets, and prefix LM, 10, of the head "tokens":  (sum + sum) / 40
    masked LM, 6 of "tokens", and next sentence, 2 of "pair":        sum / 6 + sum / 2

So a share of the passages is no share of the gradient: it weighs by its targets.

The rows of both stand in one batch, which the model reads in one forward pass. Where an objective
computes its losses in a way of its own, each reads its rows in a pass of its own.

B rows of a batch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minicpt.batch import Batch
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.common.settings import Checked, setting
from minicpt.data.interleaving import Interleaved
from minicpt.data.order import Draw
from minicpt.data.stacking import stacked
from minicpt.loss import TargetLosses, target_losses
from minicpt.objectives.base import Objective
from minicpt.training.stream import Stream


@dataclass(frozen=True)
class Mixing(Checked):
    mix: tuple[str, ...] = setting(
        (),
        "another objective and its share of the passages, which it reads in place of this one:"
        " --mix prefix-lm 0.5",
        metavar=("OBJECTIVE", "SHARE"),
    )

    def __post_init__(self):
        super().__post_init__()
        if self.mix and not (len(self.mix) == 2 and 0 < number(self.mix[1]) < 1):
            raise InputError(
                f"--mix takes one objective and its share of the passages, above 0 and below 1, as"
                f" in --mix prefix-lm 0.5, but got {' '.join(self.mix)!r:.60}"
            )

    @property
    def name(self) -> str | None:
        """The other objective's."""
        return self.mix[0] if self.mix else None

    @property
    def share(self) -> float:
        return float(self.mix[1])


def number(text: str) -> float:
    """What a text says; NaN where it says no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


@dataclass(frozen=True)
class SecondDraw(Draw):
    """A draw of a passage that the second objective reads."""


class SecondStream(Stream):
    """The passages of the second objective: their draws say so."""

    def passages(self, position: int, count: int) -> tuple[list, list[Draw]]:
        passages, draws = super().passages(position, count)
        return passages, [SecondDraw(**vars(draw)) for draw in draws]


class MixedStream(Interleaved):
    """The passages of both objectives."""

    def __init__(self, objective: "Mixed", corpus, seed: int):
        other = int(generator("mix", seed).initial_seed())
        super().__init__(
            Stream(objective.first, corpus, seed),
            SecondStream(objective.second, corpus, other),
            objective.share,
        )
        self.objective, self.corpus, self.seed = objective, corpus, seed

    def epoch_length(self, epoch: int) -> int:
        """How many passages it takes until the two have read as much as the text once more: a part
        of it by the one, the rest by the other, as far as the number of passages can say that."""
        sizes = [each.epoch_length(epoch) for each in (self.first, self.second)]
        return math.ceil(1 / ((1 - self.share) / sizes[0] + self.share / sizes[1]))


@dataclass(frozen=True)
class MixedBatch(Batch):
    """A batch of both objectives.

    second  (B,) bool: the rows that the second one made
    heads   those that each of the two asks
    """

    second: Tensor | None = None
    heads: Sequence[Sequence[str]] = ()

    def to(self, device: torch.device | str) -> "MixedBatch":
        moved = super().to(device)
        return MixedBatch(**vars(moved), second=self.second.to(device), heads=self.heads)

    def rows(self, which: int) -> tuple[Tensor, Batch]:
        """The numbers of the rows of one objective, and these as a batch of its own."""
        places = (self.second == bool(which)).nonzero()[:, 0]

        def of(part: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
            return {name: part[name][places] for name in names if name in part}

        heads = self.heads[which]
        return places, Batch(
            of(self.inputs, list(self.inputs)),
            of(self.targets, heads),
            of(self.weights, heads),
            of(self.noise, list(self.noise)),
            self.terms,
        )


class Mixed:
    """The first objective in all that it does, but that a second one reads a share of the passages.

    Raises InputError where the two weigh a head differently.
    """

    stream = MixedStream

    def __init__(self, first: Objective, second: Objective, share: float):
        self.first, self.second, self.share = first, second, share
        own, other = first.head_weights, second.head_weights
        for head in set(first.heads) & set(second.heads):
            if own.get(head, 1.0) != other.get(head, 1.0):
                raise InputError(
                    f"--mix: the two objectives weigh the head {head!r} differently,"
                    f" {own.get(head, 1.0):g} and {other.get(head, 1.0):g}, so they cannot share"
                    " it; mix with another objective"
                )
        self.head_weights = {**own, **other}
        self.asks = first.asks and second.asks

    def __getattr__(self, name: str):
        if name.startswith("__"):  # what copies look for, before there is a first one
            raise AttributeError(name)
        return getattr(self.first, name)

    @property
    def in_one_pass(self) -> bool:
        """Whether the losses of both come from one forward pass."""
        usual = all(type(x).losses is Objective.losses for x in (self.first, self.second))
        return usual and self.first.never == self.second.never

    def batch(self, passages: Sequence, draws: Sequence[Draw]) -> Batch:
        """Rows of the first objective, then those of the second. A draw says whose a passage is."""
        pairs: list[list] = [[], []]
        for passage, draw in zip(passages, draws, strict=True):
            pairs[isinstance(draw, SecondDraw)].append((passage, draw))
        if not pairs[1]:  # of an evaluation, for example
            return self.first.batch(passages, draws)
        made = [
            objective.batch(*zip(*some, strict=True))
            for objective, some in zip((self.first, self.second), pairs, strict=True)
            if some
        ]
        second = torch.arange(len(passages)) >= len(pairs[0])
        heads = [list(made[0].targets) if pairs[0] else [], list(made[-1].targets)]
        return MixedBatch(**vars(stacked(made, self.first.role)), second=second, heads=heads)

    def parts(self, model: nn.Module) -> nn.ModuleDict:
        return nn.ModuleDict({**self.first.parts(model), **self.second.parts(model)})

    def with_parts(self, parts: nn.ModuleDict) -> Objective:
        return self.first.with_parts(parts)

    def losses(
        self, model: nn.Module, parts: nn.ModuleDict, batch: Batch, fused: bool = True
    ) -> dict[str, TargetLosses]:
        if not isinstance(batch, MixedBatch):
            return self.first.losses(model, parts, batch, fused)
        if self.in_one_pass:
            return target_losses(model, batch, fused, self.first.never)
        found: dict[str, list[TargetLosses]] = {}
        for which, objective in enumerate((self.first, self.second)):
            places, own = batch.rows(which)
            if len(places):
                for head, each in objective.losses(model, parts, own, fused).items():
                    inputs = batch.inputs if each.inputs is own.inputs else {}
                    whole = replace(each, rows=places[each.rows], inputs=inputs)
                    found.setdefault(head, []).append(whole)
        return {head: added(some) for head, some in found.items()}


def added(some: Sequence[TargetLosses]) -> TargetLosses:
    """The targets of one head from several passes, all together."""

    def all_of(name: str) -> Tensor:
        return torch.cat([getattr(each, name) for each in some])

    tensors = ("losses", "targets", "rows", "positions", "weights", "hidden")
    terms = {
        name: torch.cat([each.terms[name] for each in some]) for name in some[0].terms
    }
    return TargetLosses(
        **{name: all_of(name) for name in tensors},
        count=sum(each.count for each in some),
        inputs=some[0].inputs if all(each.inputs for each in some) else {},
        terms=terms,
    )
