"""Held-out losses by unit of text, so that before and after, and one remedy and another, pair up.

A measurement is plain data, for a file: ``{"unit", "units", "heads": {name: [sums, sizes]}}``. The
loss is the sum over heads of sum(sums) / sum(sizes): nats over targets, the head's weight counted
in. Where bits per byte say something, it is the first head's bits over bytes of text instead,
without those of end-of-text.

A unit is a document: passages of one document are like each other, and to draw them apart would
claim more text than there is. The parts of a document, between which copies are left out
(``data.copies``), are one unit too. With fewer than FEW documents a unit is a passage.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn

from minicpt.batch import IGNORE
from minicpt.comparison.statistics import Figures
from minicpt.data.split import FEW
from minicpt.training.distributed import current
from minicpt.training.evaluation import HIDDEN, evaluate, nats_of, text_losses
from minicpt.training.evaluation import in_bits as says_bits


def in_bits(objective, corpora: Iterable) -> bool:
    """Whether losses on these texts are compared in bits per byte: all of them, or none."""
    return says_bits(objective) and all(corpus.hidden <= HIDDEN for corpus in corpora)


def measure(
    model: nn.Module,
    objective,
    corpus,
    passages: int,
    bits: bool,
    parts: nn.ModuleDict | None = None,
) -> dict:
    """The loss of the model on held-out text, by unit; ``bits``: in bits per byte.

    parts  what learnt beside the model; None: new ones
    """
    rows: list[tuple[str, str, str, float, float]] = []  # document, place, head, sum, size

    def collect(together, batch, losses) -> None:
        if bits:
            text = text_losses(objective, corpus, together, batch, losses)
            of_row = torch.stack([text.nats / math.log(2), text.sizes.double()])  # (2, B)
            add(together, objective.heads[0], of_row)
            return
        for head, each in losses.items():
            nats = nats_of(each) * objective.head_weights.get(head, 1.0)  # (N,)
            sizes = (batch.targets[head] != IGNORE).sum(dim=1).cpu().double()  # (B,)
            sums = torch.zeros_like(sizes).index_add(0, each.rows.cpu(), nats)
            add(together, head, torch.stack([sums, sizes]))

    def add(together, head, of_row) -> None:
        for passage, value, size in zip(together, *of_row.tolist(), strict=True):
            rows.append((passage.document, passage.place, head, value, size))

    evaluate(model, objective, corpus, passages, each=collect, parts=parts)
    rows = [tuple(row) for some in current().gathered(rows) for row in some]
    many = len({document for document, *_ in rows}) >= FEW
    heads: dict[str, dict[str, list]] = {}
    for document, place, head, value, size in rows:
        name = document if many else place
        entry = heads.setdefault(head, {}).setdefault(name, [0.0, 0])
        entry[0] += value
        entry[1] += size
    units = sorted(next(iter(heads.values())))
    return {
        "unit": "bits/byte" if bits else "nats/target",
        "units": units,
        "heads": {
            head: [[entries[unit][column] for unit in units] for column in (0, 1)]
            for head, entries in heads.items()
        },
    }


def loss(measured: dict) -> float:
    """The loss that was measured."""
    return sum(sum(sums) / max(1, sum(sizes)) for sums, sizes in measured["heads"].values())


def differences(before: list[dict], after: list[dict]) -> list[Figures]:
    """The fall of the loss from ``before`` to ``after``, a measurement of each for every seed."""
    figures = []
    for head in before[0]["heads"]:
        first, second = (
            torch.tensor([each["heads"][head] for each in side], dtype=torch.float64)
            for side in (before, after)
        )  # (S, 2, U) each
        figures.append(Figures(first[:, 0] - second[:, 0], second[:, 1]))
    return figures


def accuracies(probes: list[dict]) -> list[Figures]:
    """The share of the probe's right answers: a probe of each seed."""
    right = torch.tensor([each["right"] for each in probes], dtype=torch.float64)  # (S, U)
    asked = torch.tensor([each["asked"] for each in probes], dtype=torch.float64)
    return [Figures(right, asked)]
