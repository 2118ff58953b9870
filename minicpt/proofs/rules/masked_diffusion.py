"""The rule of masked diffusion: all of the text are targets, the hidden ones weigh 1/t."""

import math
from collections.abc import Iterator, Sequence

import torch

from minicpt.batch import IGNORE, Batch
from minicpt.proofs.bounds import tolerance
from minicpt.proofs.subject import Subject

GOLDEN = 0.618034
SIGMAS = 5  # by which the number of hidden tokens may differ from its mean
NEVER = {"tokens": ("mask",)}
WEIGHT = {"tokens": 1.0}


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """A window of the text between [CLS] and [SEP]; for a decoder, behind what begins a document.
    """
    tokenizer, decoder = subject.tokenizer, subject.objective.role == "decoder"
    window = subject.source(passage)[passage.offset :][: len(passage.tokens)]
    if decoder:
        original, shift = [tokenizer.begin, *window], 1
    else:
        original, shift = [tokenizer.need("cls"), *window, tokenizer.need("sep")], 0
    read = batch.inputs["tokens"][0].tolist()
    if len(read) != len(original):
        yield "what is read is not as long as the text"
        return
    targets = dict(enumerate(batch.targets["tokens"][0].tolist()))
    expected = dict.fromkeys(targets, IGNORE)
    for place, token in enumerate(original):
        if token not in tokenizer.special:
            expected[place - shift] = token
    if targets != expected:
        yield "the targets are not all ordinary tokens of the text, each where it is predicted"
    changed = [place for place, token in enumerate(original) if read[place] != token]
    if any(read[place] != tokenizer.need("mask") for place in changed):
        yield "a token was replaced by another one than the mask token"
    if any(original[place] in tokenizer.special for place in changed):
        yield "a special token was hidden"
    weights = {place: w for place, w in enumerate(batch.weights["tokens"][0].tolist()) if w}
    if list(weights) != [place - shift for place in changed]:
        yield "the targets that count are not the hidden tokens"
    if len(set(weights.values())) > 1:
        yield "the hidden tokens of a passage have different weights"
    mask = batch.inputs["mask"]
    if mask.dim() != 2 + shift or not bool(mask.all()):
        yield "a position may not look at all others"


def rule_of_epoch(subject: Subject, passages: Sequence) -> Iterator[str]:
    """Each weight is 1/t, t as the place decides; and about that share of the tokens is hidden."""
    if len({passage.uniform for passage in passages}) > 1:
        yield "the passages of an epoch do not share one number"
    batch = subject.batch(passages)
    hidden, mean, variance = 0, 0.0, 0.0
    rows = zip(passages, batch.targets["tokens"], batch.weights["tokens"], strict=True)
    for passage, targets, weights in rows:
        place = subject.draw(passage).place
        level = 0.001 + 0.999 * math.modf(passage.uniform + GOLDEN * place)[0]
        weight = float(weights.max())
        if weight and abs(weight * level - 1) > tolerance(10, torch.float32):
            yield f"hidden tokens weigh {weight:.4f} instead of 1/{level:.4f} ({passage.place})"
        count = int((targets != IGNORE).sum())
        hidden += int((weights > 0).sum())
        mean += count * level
        variance += count * level * (1 - level)
    if abs(hidden - mean) > SIGMAS * math.sqrt(variance):
        yield f"{hidden} tokens are hidden, where {mean:.0f} are expected"
