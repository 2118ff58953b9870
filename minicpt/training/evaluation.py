"""Evaluation: the loss on text held out from training, in nats per target and bits per byte.

Sums and counts run over all passages and are divided once, so the result depends neither on the
batch size nor on how the last batch is filled. Dropout is off, the noise is the same at every
evaluation, and torch's own generator is left untouched.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from minicpt.common.randomness import generator, seeded
from minicpt.data.choosing import spread
from minicpt.data.order import Draw, planned
from minicpt.generation import evaluating
from minicpt.loss import Loss, objective_loss

# The share of the bytes that unknown tokens may hide. A model that predicts "unknown" pays next to
# nothing for what stands there; paid for at 8 bits a byte, 1 % would add 0.08 bits per byte.
HIDDEN = 0.01
SEED = 0  # of the order and noise of every evaluation, whatever the seed of the training


@dataclass(frozen=True)
class Evaluation:
    """The loss by head, and what is needed to see it in bits per byte.

    head_weights  what each head's mean counts in ``total``; 1 where not named
    text_nats     the nats of the targets that stand for text: of all but end-of-text
    text_bytes    the bytes (UTF-8, before any normalisation) of that text; 0 where the objective
                  does not predict the whole text
    hidden_bytes  those of them that unknown tokens hide
    """

    losses: dict[str, Loss]
    text_nats: float
    text_bytes: int
    hidden_bytes: int
    head_weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """What training minimises: the sum over heads of head weight times nats per target."""
        counts = {name: loss.count for name, loss in self.losses.items()}
        return float(objective_loss(self.losses, counts, self.head_weights))

    @property
    def hidden(self) -> float | None:
        """The share of the text's bytes that unknown tokens hide."""
        return self.hidden_bytes / self.text_bytes if self.text_bytes else None

    @property
    def bits_per_byte(self) -> float | None:
        """None where it would say nothing: see ``no_bits_per_byte``."""
        if self.no_bits_per_byte:
            return None
        return self.text_nats / math.log(2) / self.text_bytes

    @property
    def no_bits_per_byte(self) -> str | None:
        """Why there are no bits per byte."""
        if self.hidden is None:
            return "the objective does not predict the whole text"
        return too_much_hidden(self.hidden) if self.hidden > HIDDEN else None

    def summary(self) -> dict:
        """Plain numbers, for a file or ``--json``."""
        return {
            "nats_per_target": {name: float(loss.mean) for name, loss in self.losses.items()},
            "targets": {name: loss.count for name, loss in self.losses.items()},
            "total": self.total,
            "bits_per_byte": self.bits_per_byte,
            "no_bits_per_byte": self.no_bits_per_byte,
            "hidden_bytes": self.hidden,
        }


def too_much_hidden(share: float) -> str:
    return f"unknown tokens hide {share:.1%} of the text's bytes, more than {HIDDEN:.0%}"


@torch.no_grad()
def evaluate(
    model: nn.Module,
    objective,
    corpus,
    passages: int | None = None,
    batch_size: int = 16,
    progress=lambda iterable: iterable,
    each=lambda passages, losses: None,
    parts: nn.ModuleDict | None = None,
) -> Evaluation:
    """The loss of ``passages`` passages, evenly spread over the corpus' plan (default: of all).

    each   called for every batch with its passages and their ``TargetLosses`` by head
    parts  what learnt beside the model; None: new ones
    """
    plan = planned(objective, corpus, SEED, 0)
    places = spread(plan, min(len(plan), passages or len(plan)))
    device = next(model.parameters()).device
    losses: dict[str, Loss] = {}
    nats, size, hidden = 0.0, 0, 0
    whole = objective.whole_text  # it says so, and its targets are as many as it says
    if parts is None:
        with seeded("parts", SEED):
            parts = objective.parts(model).to(device)
    with evaluating(model), evaluating(parts):
        begins: Iterable[int] = range(0, len(places), batch_size)
        for begin in progress(begins):
            some = places[begin : begin + batch_size]
            draws = [Draw(place, generator("evaluation", SEED, place)) for place in some]
            together = [plan[place] for place in some]
            batch = objective.batch(together, draws).to(device)
            found = objective.losses(model, parts, batch)
            each(together, found)
            for name, of_head in found.items():
                weighed = of_head.losses * of_head.weights
                nats_each = weighed.cpu().double()  # (N,); some devices have no float64
                loss = Loss(nats_each.sum(), of_head.count)
                losses[name] = losses[name] + loss if name in losses else loss
                if whole and name == objective.heads[0]:
                    text = text_of(objective, corpus, together)
                    whole = len(text.stands) == len(nats_each)
                if whole and name == objective.heads[0]:
                    nats += float(nats_each[text.stands].sum())
                    size += int(text.sizes.sum())
                    hidden += int(text.sizes[text.hides].sum())
    if not whole:
        nats, size, hidden = 0.0, 0, 0
    return Evaluation(losses, nats, size, hidden, objective.head_weights)


@dataclass(frozen=True)
class Text:
    """What the N targets of some passages stand for.

    stands  (N,) bool, which stand for text: all but end-of-text
    sizes   (N,) int64, for how many bytes of it
    hides   (N,) bool, which hide their text from the model
    """

    stands: Tensor
    sizes: Tensor
    hides: Tensor


def text_of(objective, corpus, passages: Sequence) -> Text:
    """The text that the targets of the passages stand for, in the order of ``TargetLosses``."""
    places = torch.cat([objective.places(passage) for passage in passages])
    stands = places >= 0
    return Text(stands, corpus.sizes(places).where(stands, 0), corpus.hides(places))
