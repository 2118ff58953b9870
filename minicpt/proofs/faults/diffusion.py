"""Mistakes in masked diffusion: what its sum is divided by, what is predicted, its levels."""

import copy
import dataclasses

import torch

from minicpt.batch import IGNORE
from minicpt.data.order import Draw
from minicpt.proofs.faults.base import fault, objective, targets


# Meant for the batch rules. The zeroed head sees it too: the mean weight of a target is not 1.
@fault(19, "masked-diffusion", "the sum is divided by the hidden tokens, not by all of them")
def divided_by_the_hidden(subject):
    def drop(batch):
        hidden = batch.weights["tokens"] > 0
        found = torch.where(hidden, batch.targets["tokens"], IGNORE)
        return dataclasses.replace(batch, targets={"tokens": found})

    return targets(subject, drop)


# Meant for the zeroed head: it costs ln V instead of ln(V - 1).
@fault(19, "masked-diffusion", "the mask token may be predicted")
def mask_token_predicted(subject):
    mistaken = copy.copy(subject.objective)
    mistaken.never = {}
    return dataclasses.replace(subject, objective=mistaken)


# Meant for padding and order: what is hidden of a passage depends on its neighbours.
@fault(19, "masked-diffusion", "one level t is drawn for a whole batch")
def one_level_for_a_batch(subject):
    def batch(real, passages, draws):
        return real.batch(passages, [Draw(draws[0].place, each.generator) for each in draws])

    return objective(subject, batch=batch)


# Meant for the proof of any order.
@fault(19, "masked-diffusion", "an evaluation weighs each hidden token 1, not L/l")
def estimator_without_weights(subject):
    mistaken = copy.copy(subject.objective)

    def likelihood_batch(passages, draws):
        batch = subject.objective.likelihood_batch(passages, draws)
        ones = (batch.weights["tokens"] > 0).float()
        return dataclasses.replace(batch, weights={"tokens": ones})

    mistaken.likelihood_batch = likelihood_batch
    return dataclasses.replace(subject, objective=mistaken)
