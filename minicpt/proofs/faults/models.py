"""Mistakes in what a model sees and computes: masks, padding, dropout."""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from minicpt import models
from minicpt.proofs.faults.base import fault, model, ones, other_class
from minicpt.proofs.subject import Subject, small_model


def pattern(subject: Subject, allowed: Callable[[int], torch.Tensor]) -> Subject:
    """The decoder with another pattern of who may look at whom, (T, T) bool."""

    def forward(real, inputs):
        length = inputs["tokens"].shape[1]
        mask = inputs["mask"][:, None, :] & allowed(length)
        return real(**inputs | {"mask": mask})

    return model(subject, forward)


@fault(2, "causal-lm", "there is no causal mask")
def no_mask(subject):
    return pattern(subject, ones)


@fault(2, "causal-lm", "the causal mask is off by one: each position sees the next")
def mask_off_by_one(subject):
    return pattern(subject, lambda length: ones(length).tril(diagonal=1))


@fault(2, "causal-lm", "the mask has the wrong polarity: True hides")
def mask_polarity(subject):
    return pattern(subject, lambda length: ~ones(length).tril())


@fault(2, "reconstruction", "the decoder side has no causal mask")
def no_decoder_mask(subject):
    def forward(real, inputs):
        length = inputs["decoder_tokens"].shape[1]
        return real(**inputs | {"decoder_mask": inputs["decoder_mask"][:, None, :] & ones(length)})

    return model(subject, forward)


@fault(3, "masked-lm", "positions look at padding")
def look_at_padding(subject):
    return model(subject, lambda real, inputs: real(**inputs | {"mask": None}))


@fault(
    11,
    "causal-lm",
    "packed texts look at each other; only their positions restart",
    subject="packed causal-lm",
)
def packed_together(subject):
    def forward(real, inputs):
        return real(**inputs | {"mask": ones(inputs["tokens"].shape[1]).tril()[None]})

    return model(subject, forward)


@fault(13, "masked-lm", "a row that may look at nothing gives NaN")
def empty_row_is_nan(subject):
    def forward(real, inputs):
        count = inputs["mask"].sum(dim=1)  # the softmax of a row of -inf is 0/0 as well
        return real(**inputs) * (count / count)[:, None, None]

    return model(subject, forward)


@fault(14, "masked-lm", "dropout is on while losses are compared")
def dropout_left_on(subject):
    return other_class(subject, train=lambda self, mode=True: nn.Module.train(self, True))


@fault(14, "causal-lm", "a bidirectional model is passed off as causal", needs="encoder")
def bidirectional(subject):
    encoder = next(kind for kind in models.known().values() if kind.ROLE == "encoder")
    return dataclasses.replace(subject, model=small_model(encoder, subject.objective))
