"""Mistakes of decoders that read a part of the text, or all of it, in both directions."""

import dataclasses

import torch

from minicpt.batch import IGNORE, pad, padding, shift, valid_positions
from minicpt.data.patterns import prefix_mask, two_way_mask
from minicpt.proofs.faults.base import fault, targets
from minicpt.proofs.subject import Subject

HYBRID = "half causal masked-next-token"


def seeing(subject: Subject, pattern) -> Subject:
    """Another mask: ``pattern(real positions (B, T), position of each row's first target (B,))``.
    """

    def change(batch):
        real = valid_positions(batch.inputs["mask"])
        begins = (batch.targets["tokens"] != IGNORE).int().argmax(dim=1)
        return dataclasses.replace(
            batch, inputs=batch.inputs | {"mask": pattern(real, begins)}
        )

    return targets(subject, change)


# --- 17: the prefix


@fault(17, "prefix-lm", "the last token of the prefix sees its own target")
def prefix_sees_its_target(subject):
    """Causality and equivalence catch it, as the next one."""
    return seeing(subject, lambda real, begins: prefix_mask(real, begins + 2))


@fault(17, "prefix-lm", "the suffix is read in both directions")
def suffix_read_both_ways(subject):
    return seeing(subject, lambda real, begins: two_way_mask(real))


@fault(17, "prefix-lm", "the prefix is read from left to right alone")
def prefix_read_causally(subject):
    """No target sees too much, so the batch rules alone can tell."""
    return seeing(subject, lambda real, begins: prefix_mask(real, torch.zeros_like(begins)))


@fault(17, "prefix-lm", "the loss runs over the prefix too, whose positions see their targets")
def loss_on_the_prefix(subject):
    """Causality and equivalence."""

    def fill(batch):
        read, found = batch.inputs["tokens"], batch.targets["tokens"]
        following = torch.stack([shift(row) for row in read])
        known = (found == IGNORE) & valid_positions(batch.inputs["mask"])
        return dataclasses.replace(batch, targets={"tokens": torch.where(known, following, found)})

    return targets(subject, fill)


@fault(17, "prefix-lm", "the encoder reads the suffix too", subject="prefix-lm with t5")
def encoder_reads_the_suffix(subject):
    """The batch rules."""

    def show(batch):
        parts = (batch.inputs[name] for name in ("tokens", "mask", "decoder_tokens"))
        rows = [
            torch.cat([prefix[real], read[target != IGNORE][1:]])
            for prefix, real, read, target in zip(*parts, batch.targets["tokens"], strict=True)
        ]
        inputs = {"tokens": pad(rows, 0), "mask": padding(rows)}
        return dataclasses.replace(batch, inputs=batch.inputs | inputs)

    return targets(subject, show)


# --- 1, 2 and 5: masked next token


@fault(1, "masked-next-token", "the shift is lost: each token is predicted at its own position")
def predicted_in_place(subject):
    """The batch rules."""

    def late(batch):
        moved = batch.targets["tokens"].roll(1, dims=1)
        return dataclasses.replace(batch, targets={"tokens": moved})

    return targets(subject, late)


@fault(2, "masked-next-token", "the decoder stays causal, and cannot use what follows a gap")
def gaps_filled_causally(subject):
    """The batch rules: no target sees too much."""
    return seeing(subject, lambda real, begins: prefix_mask(real, torch.zeros_like(begins)))


@fault(2, "masked-next-token", "passages of causal LM are read in both directions", subject=HYBRID)
def causal_share_sees_both_sides(subject):
    """Causality and equivalence."""
    return seeing(subject, lambda real, begins: two_way_mask(real))


@fault(5, "masked-next-token", "the loss runs over all positions, not those before chosen tokens")
def loss_before_every_token(subject):
    """The batch rules, and the entropy floor: what is not hidden can be read."""

    def fill(batch):
        read, found = batch.inputs["tokens"], batch.targets["tokens"]
        following = torch.stack([shift(row) for row in read])
        inside = valid_positions(batch.inputs["mask"]).roll(-1, dims=1)
        inside[:, -1] = False
        every = torch.where((found == IGNORE) & inside, following, found)
        return dataclasses.replace(batch, targets={"tokens": every})

    return targets(subject, fill)
