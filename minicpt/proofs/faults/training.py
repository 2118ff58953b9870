"""Mistakes in what training alone does: terms, and targets that are selected."""

import copy
import dataclasses

import torch

from minicpt.batch import IGNORE
from minicpt.proofs.faults.base import fault
from minicpt.training.preparing import Selection

# --- 7: what a sum is divided by


@fault(7, "causal-lm", "targets that the selection drops still count: they get weight 0")
def dropped_targets_count(subject):
    class Counting(Selection):
        def __call__(self, model, parts, batch):
            thin = super().__call__(model, parts, batch)
            weights = {head: (each != IGNORE).double() for head, each in thin.targets.items()}
            return dataclasses.replace(batch, weights=weights)

    return dataclasses.replace(subject, select=Counting)


@fault(7, "masked-lm", "targets are selected from the whole micro-batch, so its size decides")
def selected_across_passages(subject):
    class Across(Selection):
        def __call__(self, model, parts, batch):
            own, other = (
                self.objective.losses(*each, batch)
                for each in ((model, parts), (self.reference, self.parts))
            )
            targets = {}
            for head, found in own.items():
                excess = found.losses - other[head].losses
                budget = max(1, round(self.share * len(excess)))
                best = excess.argsort(descending=True)[:budget]
                target = batch.targets[head]
                place = found.rows[best], found.positions[best]
                targets[head] = torch.full_like(target, IGNORE).index_put(place, target[place])
            return dataclasses.replace(batch, targets=targets)

    return dataclasses.replace(subject, select=Across)


# --- 14: what belongs to training is left on


@fault(14, "causal-lm", "label smoothing is left on in the evaluation")
def smoothed_evaluation(subject):
    def evaluate(model, objective, *rest, **more):
        smoothed = copy.copy(objective)
        smoothed.batch = lambda passages, draws: dataclasses.replace(
            objective.batch(passages, draws), terms={"label-smoothing": 0.1}
        )
        return subject.evaluate(model, smoothed, *rest, **more)

    return dataclasses.replace(subject, evaluate=evaluate)
