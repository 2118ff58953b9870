"""Evaluation: the loss on text held out from training, in nats per target and bits per byte.

Sums and counts run over all passages and are divided once, so the result depends neither on the
batch size nor on how the last batch is filled. Dropout is off, the noise is the same at every
evaluation, and torch's own generator is left untouched.

A number that compares across objectives is the likelihood of the text, in bits per byte. Causal
language modelling has it exactly. Masked diffusion has a bound, masked language modelling a
pseudo-likelihood. Both are means over draws: K draws of a passage give their own standard error.

B passages of a batch, T positions of the targets' stream, K draws.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import torch
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch, pad, target_stream, valid_positions
from minicpt.common.evaluating import evaluating
from minicpt.common.randomness import generator, seeded
from minicpt.common.shown import LOSSES, Shown, Table, loss_rows
from minicpt.data.choosing import spread
from minicpt.data.order import Draw, planned
from minicpt.loss import Loss, TargetLosses, objective_loss
from minicpt.training.distributed import World, current

# The share of the bytes that unknown tokens may hide. A model that predicts "unknown" pays next to
# nothing for what stands there; paid for at 8 bits a byte, 1 % would add 0.08 bits per byte.
HIDDEN = 0.01
ESTIMATED = ("bound", "pseudo")  # kinds of likelihood that are means over draws
SEED = 0  # of the order and noise of every evaluation, whatever the seed of the training


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """The loss by head, and what is needed to see it in bits per byte.

    head_weights  what each head's mean counts in ``total``; 1 where not named
    text_nats     the nats of the targets that stand for text: of all but end-of-text
    text_bytes    the bytes (UTF-8, before any normalisation) of that text; 0 where the objective
                  predicts no text as a whole
    hidden_bytes  those of them that unknown tokens hide
    likelihood    what ``text_nats`` are: see ``Abilities.likelihood``
    draws         how often each passage was drawn to estimate them; 0: nothing is drawn
    nats_error    the standard error of ``text_nats`` by these draws; None: fewer than two
    """

    losses: dict[str, Loss]
    text_nats: float
    text_bytes: int
    hidden_bytes: int
    head_weights: Mapping[str, float] = field(default_factory=dict)
    likelihood: str = ""
    draws: int = 0
    nats_error: float | None = None

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
        return None if self.no_bits_per_byte else self.bits(self.text_nats)

    @property
    def no_bits_per_byte(self) -> str | None:
        """Why there are no bits per byte."""
        if self.hidden is None:
            return "the objective does not predict the whole text"
        if self.hidden > HIDDEN:
            return too_much_hidden(self.hidden)
        return "a pseudo-likelihood is no likelihood" if self.likelihood == "pseudo" else None

    def bits(self, nats: float | None) -> float | None:
        """Nats of the whole text as bits per byte."""
        return None if nats is None else nats / math.log(2) / self.text_bytes

    @property
    def common(self) -> dict | None:
        """The number that compares across objectives; None where there is none.

        kind            "exact", "bound" or "pseudo": see ``Abilities.likelihood``
        standard_error  of ``bits_per_byte`` by the draws; None where nothing is drawn, or once
        """
        if not self.likelihood or self.hidden is None or self.hidden > HIDDEN:
            return None
        return {
            "kind": self.likelihood,
            "bits_per_byte": self.bits(self.text_nats),
            "standard_error": self.bits(self.nats_error),
            "draws": self.draws,
        }

    def shown(self) -> Table:
        bits = self.bits_per_byte
        remark = f"{bits:.4f} bits per byte of the text" if bits is not None else (
            f"no bits per byte: {self.no_bits_per_byte}"
        )
        return Table("held-out loss", LOSSES, loss_rows(self.losses), [remark])

    def summary(self) -> dict:
        """Plain numbers, for a file or ``--json``."""
        return {
            "nats_per_target": {name: float(loss.mean) for name, loss in self.losses.items()},
            "targets": {name: loss.count for name, loss in self.losses.items()},
            "total": self.total,
            "bits_per_byte": self.bits_per_byte,
            "no_bits_per_byte": self.no_bits_per_byte,
            "hidden_bytes": self.hidden,
            "likelihood": self.common,
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
    each=lambda passages, batch, losses: None,
    parts: nn.ModuleDict | None = None,
    draws: int = 0,
    losses: Callable | None = None,
    world: World | None = None,
) -> Evaluation:
    """The loss of ``passages`` passages, evenly spread over the corpus' plan (default: of all).

    Several processes take the batches in turns, each one once, and the results are added in the
    order of the plan: so their number does not matter.

    each   called for every batch with its passages, the batch, and their ``TargetLosses`` by head
    parts  what learnt beside the model; None: new ones
    draws  of each passage, where the likelihood is estimated. 0: a bound takes one, since its
           losses are those of the estimator; a pseudo-likelihood, which is more work, is left out
    losses  (objective, batch) -> their ``TargetLosses``; None: as the objective makes them
    world  the processes that take part; None: all
    """
    world = world or current()
    plan = planned(objective, corpus, SEED, 0)
    places = spread(plan, min(len(plan), passages or len(plan)))
    device = next(model.parameters()).device
    bound, pseudo = (objective.likelihood == kind for kind in ESTIMATED)
    drawn = max(draws, 1) if bound else draws if pseudo else 0
    whole = in_bits(objective) or pseudo and drawn > 0
    if parts is None:
        with seeded("parts", SEED):
            parts = objective.parts(model).to(device)

    def run(batch: Batch) -> tuple[Batch, dict[str, TargetLosses]]:
        batch = batch.to(device)
        return batch, losses(objective, batch) if losses else objective.losses(model, parts, batch)

    def measured(some: Sequence[int], whole: bool, counts: bool) -> dict:
        """The sums of a batch, as plain numbers."""
        together = [plan[place] for place in some]
        batches = [
            objective.likelihood_batch(together, noise(some, number)) for number in range(drawn)
        ]
        estimates = [run(batch) for batch in batches]
        own = estimates if bound else [run(objective.batch(together, noise(some)))]
        for batch, found in own if counts else ():
            each(together, batch, found)
        sums = {
            name: [sum(float(nats_of(found[name]).sum()) for _, found in own) / len(own), x.count]
            for name, x in own[0][1].items()
        }
        of_text = [
            text_losses(objective, corpus, together, batch, found)
            for batch, found in estimates or own
            if whole
        ]
        if not whole or None in of_text:
            return {"losses": sums, "text": None}
        by_draw = torch.stack([text.nats for text in of_text])  # (K, B)
        variance = float(by_draw.var(dim=0).sum()) / drawn if drawn > 1 else 0.0
        sizes, hidden = int(of_text[0].sizes.sum()), int(of_text[0].hidden.sum())
        text = [float(by_draw.mean(dim=0).sum()), sizes, hidden, variance]
        return {"losses": sums, "text": text}

    shares = world.share(range(len(places)), batch_size)
    mine: list[dict] = []
    with evaluating(model), evaluating(parts):
        for share in progress(shares):
            # A process that has fewer batches reads one again, which does not count.
            chosen = share or range(min(batch_size, len(places)))
            found = measured([places[number] for number in chosen], whole, bool(share))
            whole = whole and found["text"] is not None
            mine += [found] * bool(share)
    rounds = zip_longest(*world.gathered(mine))
    return added_up(objective, [x for each in rounds for x in each if x], drawn)


def added_up(objective, batches: Sequence[dict], drawn: int) -> Evaluation:
    """The evaluation from what its batches measured, in their order."""
    losses: dict[str, Loss] = {}
    for batch in batches:
        for name, (total, count) in batch["losses"].items():
            loss = Loss(torch.tensor(total, dtype=torch.float64), count)
            losses[name] = losses[name] + loss if name in losses else loss
    texts = [batch["text"] for batch in batches]
    whole = bool(texts) and None not in texts
    columns = zip(*texts, strict=True) if whole else [[0.0], [0], [0], [0.0]]
    nats, size, hidden, variance = map(sum, columns)
    kind = objective.likelihood if whole else ""
    error = math.sqrt(variance) if whole and drawn > 1 else None
    return Evaluation(losses, nats, size, hidden, objective.head_weights, kind, drawn, error)


def in_bits(objective) -> bool:
    """Whether its losses are those of a text, so that bits per byte mean something."""
    return objective.whole_text or objective.likelihood in ("exact", "bound")


def noise(places: Sequence[int], number: int = 0) -> list[Draw]:
    """Draw ``number`` of each of these places: the same at every evaluation."""
    more = (number,) if number else ()
    return [Draw(place, generator("evaluation", SEED, place, *more)) for place in places]


def nats_of(found: TargetLosses) -> Tensor:
    """The weighted losses (N,) in float64, which some devices do not have."""
    return (found.losses * found.weights).cpu().double()


@dataclass(frozen=True)
class TextLosses:
    """What some passages cost, as far as their targets stand for text: for all but end-of-text.

    nats    (B,) float64
    sizes   (B,) int64, for how many bytes of text these targets stand
    hidden  (B,) int64, how many of those bytes unknown tokens hide from the model
    """

    nats: Tensor
    sizes: Tensor
    hidden: Tensor


def text_losses(
    objective, corpus, passages: Sequence, batch: Batch, losses: Mapping[str, TargetLosses]
) -> TextLosses | None:
    """By passage, from the losses of a batch; None where it has not the targets of a text."""
    head = objective.heads[0]
    if head not in losses:
        return None
    real = valid_positions(batch.inputs[target_stream(batch).replace("tokens", "mask")]).sum(dim=1)
    rows_of = zip(passages, real.tolist(), strict=True)
    places = pad([objective.places(passage)[-count:] for passage, count in rows_of], -1)  # (B, T)
    asked, hides = (batch.targets[head] != IGNORE).cpu(), corpus.hides(places)
    if places.shape != asked.shape:
        return None
    text = places >= 0
    if objective.whole_text or objective.likelihood == "pseudo":
        # Of all tokens, an objective may leave out those that hide their text: they count as such.
        if bool((text & ~asked & ~hides).any()):
            return None
    else:
        text = text & asked
    sizes, found = corpus.sizes(places).where(text, 0), losses[head]
    rows = found.rows.cpu()
    counted = nats_of(found).where(text[rows, found.positions.cpu()], 0.0)  # (N,)
    return TextLosses(
        nats=torch.zeros(len(passages), dtype=torch.float64).index_add(0, rows, counted),
        sizes=sizes.sum(dim=1),
        hidden=sizes.where(hides, 0).sum(dim=1),
    )
