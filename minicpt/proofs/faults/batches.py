"""Mistakes in what an objective hands over: shifts, padding, masking, labels, what a pair shows."""

import copy
import dataclasses
import itertools
from collections.abc import Callable

import torch

from minicpt.batch import IGNORE, Batch, shift
from minicpt.proofs.faults.base import fault, objective, targets
from minicpt.proofs.subject import Subject

# --- 1, 3 and 4: the shift, and padding


@fault(1, "causal-lm", "the targets are shifted twice: each is the token after the next")
def shift_twice(subject):
    def again(batch):
        rows = [shift(row) for row in batch.targets["tokens"]]
        return dataclasses.replace(batch, targets={"tokens": torch.stack(rows)})

    return targets(subject, again)


@fault(3, "causal-lm", "padding counts as a target")
def pad_targets(subject):
    pad = subject.tokenizer.need("pad")
    return targets(
        subject,
        lambda batch: Batch(
            batch.inputs,
            {"tokens": torch.where(batch.inputs["mask"], batch.targets["tokens"], pad)},
        ),
    )


@fault(4, "causal-lm", "padding is told by the end-of-text id, so the end is never a target")
def end_is_padding(subject):
    end = subject.tokenizer.need("end")

    def drop(batch):
        found = batch.targets["tokens"]
        return Batch(batch.inputs, {"tokens": torch.where(found == end, IGNORE, found)})

    return targets(subject, drop)


# --- 5 and 6: masked LM, and who owns the tensors


@fault(5, "masked-lm", "special tokens are masked too")
def mask_special(subject):
    def cover(batch):
        tokens, found = batch.inputs["tokens"].clone(), batch.targets["tokens"].clone()
        found[:, 0] = tokens[:, 0]
        tokens[:, 0] = subject.tokenizer.need("mask")
        return Batch(batch.inputs | {"tokens": tokens}, {"tokens": found})

    return targets(subject, cover)


@fault(5, "masked-lm", "padding may be chosen")
def mask_padding(subject):
    def cover(batch):
        tokens, found = batch.inputs["tokens"].clone(), batch.targets["tokens"].clone()
        padding = ~batch.inputs["mask"]
        found[padding] = tokens[padding]
        tokens[padding] = subject.tokenizer.need("mask")
        return Batch(batch.inputs | {"tokens": tokens}, {"tokens": found})

    return targets(subject, cover)


@fault(5, "masked-lm", "the loss runs over all positions, not the chosen ones")
def loss_everywhere(subject):
    def fill(batch):
        found, tokens = batch.targets["tokens"], batch.inputs["tokens"]
        every = torch.where(found == IGNORE, tokens, found)
        return Batch(batch.inputs, {"tokens": torch.where(batch.inputs["mask"], every, IGNORE)})

    return targets(subject, fill)


@fault(6, "masked-lm", "the collator masks the caller's own tensor")
def change_in_place(subject):
    def batch(real, passages, draws):
        for passage in passages:
            passage.tokens[0] = subject.tokenizer.need("mask")
        return real.batch(passages, draws)

    return objective(subject, batch=batch)


# --- 8: next sentence


@fault(8, "next-sentence", "the random second text happens to be the true next one")
def random_is_next(subject):
    def plan(pairs):
        true = next(pair for pair in pairs if pair.label == 0)
        return [pair if pair.label == 0 else dataclasses.replace(true, label=1) for pair in pairs]

    return objective(subject, plan=plan)


@fault(8, "next-sentence", "the labels are the other way round")
def labels_reversed(subject):
    def reverse(batch):
        found = batch.targets["pair"]
        return Batch(
            batch.inputs, batch.targets | {"pair": torch.where(found == IGNORE, found, 1 - found)}
        )

    return targets(subject, reverse)


# --- 9: what the decoder reads


def decoder_rows(subject: Subject, change: Callable) -> Subject:
    """Another ``(decoder_tokens, targets)`` for each row."""

    def rows(batch):
        read, found = change(batch.inputs["decoder_tokens"], batch.targets["tokens"])
        return Batch(batch.inputs | {"decoder_tokens": read}, {"tokens": found})

    return targets(subject, rows)


@fault(9, "reconstruction", "the decoder reads its own targets")
def decoder_reads_targets(subject):
    pad = subject.tokenizer.need("pad")
    return decoder_rows(
        subject, lambda read, found: (torch.where(found == IGNORE, pad, found), found)
    )


@fault(9, "reconstruction", "the decoder reads two start tokens")
def two_start_tokens(subject):
    return decoder_rows(
        subject, lambda read, found: (torch.cat([read[:, :1], read[:, :-1]], dim=1), found)
    )


@fault(9, "reconstruction", "the first target is dropped")
def first_target_dropped(subject):
    def drop(read, found):
        found = found.clone()
        found[:, 0] = IGNORE
        return read, found

    return decoder_rows(subject, drop)


# --- 11 and 12: packing, left padding


@fault(11, "causal-lm", "positions do not restart with each packed text", "packed causal-lm")
def positions_go_on(subject):
    def count(batch):
        positions = batch.inputs["positions"]
        through = torch.arange(positions.shape[1]).expand_as(positions)
        return Batch(batch.inputs | {"positions": through}, batch.targets)

    return targets(subject, count)


@fault(12, "causal-lm", "padding on the left, and positions that count it")
def left_padding(subject):
    def left(batch):
        mask = batch.inputs["mask"]
        order = mask.long().argsort(dim=1, stable=True)  # padding first, then the text in order
        inputs = {name: value.gather(1, order) for name, value in batch.inputs.items()}
        return Batch(inputs, {"tokens": batch.targets["tokens"].gather(1, order)})

    return targets(subject, left)


# --- 24: how a text is cut and tokenised tells its class


def as_in_the_document(subject: Subject) -> Subject:
    """The runs of a pair are read with the tokens that they have in their document."""
    careless = copy.copy(subject.objective)
    careless.read = list
    return dataclasses.replace(subject, objective=careless)


@fault(
    24,
    "next-sentence",
    "the space before a word stays, which the first word does not have",
    subject="sentence order",
)
def white_space_tells(subject):
    return as_in_the_document(subject)


@fault(24, "next-sentence", "a wrong second text opens a document, which a true one never does")
def openings_are_wrong(subject):
    def opening(pairs):
        firsts = itertools.cycle([pair.first for pair in pairs if pair.first.first])
        for pair in pairs:
            own = pair.first.document
            once = itertools.islice(firsts, len(pairs))  # not for ever, where no other one opens
            yield next(first for first in once if first.document != own)

    return other_wrong_text(as_in_the_document(subject), opening)


@fault(24, "next-sentence", "a wrong second text is one sentence, a true one fills the window")
def lengths_tell(subject):
    def shorter(pairs):
        for pair in pairs:
            starts = [*pair.second.sentences.nonzero()[1:, 0].tolist(), len(pair.second.tokens)]
            yield pair.second.part(0, starts[0])

    return other_wrong_text(subject, shorter)


def other_wrong_text(subject: Subject, seconds: Callable) -> Subject:
    """Another B for the pairs of class 1: ``seconds(pairs)`` gives one for each pair."""

    def plan(pairs):
        return [
            dataclasses.replace(pair, second=second) if pair.label else pair
            for pair, second in zip(pairs, seconds(pairs), strict=True)
        ]

    return objective(subject, plan=lambda pairs: plan(pairs[:]))
