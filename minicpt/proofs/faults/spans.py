"""Mistakes where spans of a text are replaced: sentinels, mode tokens, masks, and what is written.

Those on what a decoder may see are caught by equivalence and causality, all others by batch rules.
"""

import copy
import dataclasses
from collections.abc import Callable

import torch

from minicpt.batch import Batch, valid_positions
from minicpt.data.patterns import two_way_mask
from minicpt.proofs.faults.base import fault, targets
from minicpt.proofs.subject import Subject


def other(subject: Subject, **parts) -> Subject:
    """The same objective with some attributes or methods replaced."""
    mistaken = copy.copy(subject.objective)
    vars(mistaken).update(parts)
    return dataclasses.replace(subject, objective=mistaken)


def other_cut(subject: Subject, change: Callable) -> Subject:
    """Other spans or other sentinels: ``change(noise, sound cut, tokens, sentinels)``.

    noise  (L,) bool, told from what is read
    """
    real, sentinels = subject.objective.cut, subject.objective.sentinels

    def cut(tokens, generator):
        read, written = real(tokens, generator)
        spans = torch.isin(written, sentinels).cumsum(0).bincount()[1:] - 1  # their lengths
        lengths = torch.ones_like(read)
        lengths[torch.isin(read, sentinels)] = spans
        noise = torch.isin(read, sentinels).repeat_interleave(lengths)
        return change(noise, (read, written), tokens, sentinels)

    return other(subject, cut=cut)


def marked(tokens, noise, sentinels):
    """The tokens with a sentinel in the place of each run of noise, the first one first."""
    begins = noise & ~torch.cat([noise.new_zeros(1), noise[:-1]])
    marks = sentinels[begins.cumsum(0) - 1]
    return torch.where(begins, marks, tokens)[begins | ~noise]


# --- 10: sentinels and mode tokens in the wrong order


@fault(10, "span-corruption", "the sentinels count up from the lowest id", "rolled span-corruption")
def ascending_sentinels(subject):
    return other(subject, sentinels=subject.objective.sentinels.flip(0))


@fault(
    10,
    "span-corruption",
    "a turned pattern begins with a span, and what is written is off by one sentinel",
    "rolled span-corruption",
)
def misaligned_sentinels(subject):
    def complement(noise, both, tokens, sentinels):
        return both[0], marked(tokens, ~noise, sentinels)  # as if the first run always stayed

    return other_cut(subject, complement)


@fault(
    10,
    "span-corruption",
    "the pattern is not turned: the last tokens are always cut out, the first ones never",
    "rolled span-corruption",
)
def never_rolled(subject):
    def back(noise, both, tokens, sentinels):
        while noise[0] or not noise[-1]:
            noise = noise.roll(1)
        read = marked(tokens, noise, sentinels)
        begins = noise & ~torch.cat([noise.new_zeros(1), noise[:-1]])
        pairs = torch.stack([sentinels[begins.cumsum(0) - 1], tokens], dim=1)
        return read, pairs[torch.stack([begins, noise], dim=1)]

    return other_cut(subject, back)


@fault(10, "mixture", "the mode tokens of R and S are swapped")
def swapped_modes(subject):
    modes = subject.objective.modes
    swapped = {"[NLU]": modes["[S2S]"], "[S2S]": modes["[NLU]"]}
    return other(subject, modes=modes | swapped)


# --- 17 and 18: both directions, and the window


def seeing(subject: Subject, change: Callable) -> Subject:
    """Another mask (B, T, T) of a decoder's rows."""
    return targets(
        subject,
        lambda batch: Batch(
            batch.inputs | {"mask": change(batch.inputs["mask"])}, batch.targets
        ),
    )


@fault(
    17,
    "span-corruption",
    "what a decoder writes is read in both directions too",
    "span-corruption with gpt2",
)
def written_both_ways(subject):
    return seeing(subject, lambda mask: two_way_mask(valid_positions(mask)))


@fault(
    17,
    "span-corruption",
    "a decoder reads the input causally, where a gap's sentinel should see what follows",
    "span-corruption with gpt2",
)
def input_one_way(subject):
    return seeing(subject, torch.tril)  # no target sees too much: the batch rules alone can tell


@fault(18, "span-corruption", "windows are cut before spans get sentinels, and lose their ends")
def lost_to_the_window(subject):
    def short(batch):
        inputs = batch.inputs | {
            name: batch.inputs[name][:, :-2] for name in ("decoder_tokens", "decoder_mask")
        }
        return Batch(inputs, {"tokens": batch.targets["tokens"][:, :-2]})

    return targets(subject, short)


# --- denoising: what is written, masks, words


@fault(9, "denoising", "the decoder writes the damaged text")
def writes_the_damage(subject):
    def damaged(batch):
        read = batch.inputs["tokens"]
        start = batch.inputs["decoder_tokens"][:, :1]
        inputs = {
            "decoder_tokens": torch.cat([start, read[:, :-1]], dim=1),
            "decoder_mask": batch.inputs["mask"],
        }
        padding = ~batch.inputs["mask"]
        return Batch(batch.inputs | inputs, {"tokens": read.masked_fill(padding, -100)})

    return targets(subject, damaged)


@fault(5, "denoising", "every hidden word has a mask of its own, so that their number is told")
def mask_for_each_word(subject):
    real = subject.objective.spans
    return other(subject, spans=lambda *given: [1] * sum(real(*given)))


@fault(24, "denoising", "a sentence without a space before it is glued to the one before")
def glued_sentences(subject):
    return other(subject, spaced=lambda word: word)
