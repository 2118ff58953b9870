"""Mistakes of objectives with parts: targets of later heads, a generator beside the model."""

import copy
import dataclasses

import torch
import torch.nn.functional as F

from minicpt.batch import IGNORE, Batch
from minicpt.proofs.faults.base import fault, targets
from minicpt.proofs.subject import Subject

# --- 2 and 20: later heads


def later(subject: Subject, change) -> Subject:
    """Other targets for the later heads: ``change(batch, targets of the first head, k)``."""

    def replaced(batch: Batch) -> Batch:
        first = batch.targets["tokens"]
        found = {
            head: change(batch, first, number) if number else first
            for number, head in enumerate(batch.targets)
        }
        return dataclasses.replace(batch, targets=found)

    return targets(subject, replaced)


def moved(row: torch.Tensor, places: int, fill: int = IGNORE) -> torch.Tensor:
    """(B, T): at each position what stands ``places`` further on in the row."""
    kept = row[:, places:]
    return F.pad(kept, (0, row.shape[1] - kept.shape[1]), value=fill)


@fault(2, "multi-token-prediction", "the layers of the later heads have no causal mask")
def later_layers_see_all(subject):
    parts = copy.deepcopy(subject.parts)
    for layer in parts.values():
        real = type(layer)

        def forward(self, x, mask, real=real):
            return real.forward(self, x, torch.ones_like(mask))

        layer.__class__ = type("Mistaken", (real,), {"forward": forward})
    return dataclasses.replace(subject, parts=parts)


@fault(20, "multi-token-prediction", "the row is rolled: its end predicts its beginning")
def rolled_across_the_end(subject):
    return later(subject, lambda batch, first, number: first.roll(-number, dims=1))


@fault(20, "multi-token-prediction", "the later heads predict the padding behind a text")
def padding_is_ahead(subject):
    pad = subject.tokenizer.need("pad")

    def into_padding(batch, first, number):
        real = batch.inputs["mask"]
        padded = real & ~moved(real, number, fill=True)
        return torch.where(padded, pad, moved(first, number))

    return later(subject, into_padding)


@fault(
    20,
    "multi-token-prediction",
    "the end of a packed text predicts the next one",
    subject="packed multi-token-prediction",
)
def next_text_is_ahead(subject):
    return later(subject, lambda batch, first, number: moved(first, number))


# --- 21: the generator


def judged(subject: Subject, change) -> Subject:
    """Other losses of the head "original": ``change(learner, batch, found)``."""

    def losses(learner, batch):
        found = subject.losses(learner, batch)
        return found | ({"original": change(learner, batch, found)} if "original" in found else {})

    return dataclasses.replace(subject, losses=losses)


@fault(21, "replaced-token-detection", "the loss of the model flows back through the drawn tokens")
def generator_learns_from_the_model(subject):
    def through(learner, batch, found):
        each = found["original"]
        hidden = learner.parts["generator"](learner.model, **batch.inputs)
        chosen = batch.noise["sample"] > 0
        drawn = each.inputs["tokens"][chosen][:, None]
        likely = learner.model.heads["tokens"](hidden[chosen]).log_softmax(dim=-1).gather(1, drawn)
        once = 1 + likely.sum() - likely.sum().detach()  # 1, but for its gradient
        return dataclasses.replace(each, losses=each.losses * once)

    return judged(subject, through)


@fault(21, "replaced-token-detection", "the generator also learns to deceive the model")
def generator_deceives(subject):
    def losses(learner, batch):
        found = subject.losses(learner, batch)
        if found.keys() != {"tokens", "original"}:
            return found
        each = found["tokens"]
        less = found["original"].total().mean
        return found | {"tokens": dataclasses.replace(each, losses=each.losses - less)}

    return dataclasses.replace(subject, losses=losses)


def relabelled(subject: Subject, label) -> Subject:
    """Other labels: ``label(batch, filled)`` gives them (B, T) from the batch before and after."""
    real, mistaken = subject.objective, copy.copy(subject.objective)

    def filled(model, hidden, batch):
        found = real.filled(model, hidden, batch)
        labels = label(batch, found).where(found.targets["original"] != IGNORE, IGNORE)
        return dataclasses.replace(found, targets=found.targets | {"original": labels})

    mistaken.filled = filled
    return dataclasses.replace(subject, objective=mistaken)


@fault(21, "replaced-token-detection", "a drawn token that is the original counts as replaced")
def lucky_is_replaced(subject):
    return relabelled(subject, lambda batch, filled: (batch.noise["sample"] > 0).long())


@fault(21, "replaced-token-detection", "only the chosen tokens are judged, and divided by")
def chosen_alone_are_judged(subject):
    def drop(batch):
        found = batch.targets["original"]
        chosen = found.where(batch.noise["sample"] > 0, IGNORE)
        return dataclasses.replace(batch, targets=batch.targets | {"original": chosen})

    return targets(subject, drop)


@fault(21, "replaced-token-detection", "the model reads the mask tokens, not what was drawn")
def model_reads_masks(subject):
    real, mistaken = subject.objective, copy.copy(subject.objective)

    def filled(model, hidden, batch):
        return dataclasses.replace(real.filled(model, hidden, batch), inputs=batch.inputs)

    mistaken.filled = filled
    return dataclasses.replace(subject, objective=mistaken)
