"""The rule of replaced-token detection: each label says whether the text's own token is read.

Which tokens are read is decided in the pass over the generator. So the rule has the losses made,
and holds what the model read for them, and the labels, against the text.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import torch

from minicpt.batch import Batch
from minicpt.proofs.both_ways import gradient
from minicpt.proofs.rules.masked_lm import rule as rule_of_masked_lm
from minicpt.proofs.subject import Subject

SURE = 1e4  # a logit beside which no other counts
TOGETHER = 4  # passages of a batch whose gradients are looked at


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """That of masked LM for the generator; and what the model reads and is asked."""
    yield from rule_of_masked_lm(subject, passage, masked(batch))
    tokenizer, targets = subject.tokenizer, batch.targets["tokens"][0]
    size = len(targets)
    text = subject.source(passage)[passage.offset :][: size - 2]
    original = torch.tensor([tokenizer.need("cls"), *text, tokenizer.need("sep")])
    learner, chosen = subject.learner(), targets >= 0
    # A generator that always gives one and the same token, which stood at one of the places.
    given = int(targets[chosen][0])
    with torch.no_grad():
        learner.model.heads["tokens"].bias[given] = SURE
        found = subject.losses(learner, batch)["original"]
    read = found.inputs["tokens"][0]
    if not torch.equal(read, torch.where(chosen, given, original)):
        yield "the model does not read the text with the generator's tokens at the chosen places"
        return
    if found.count != size or found.positions.tolist() != [*range(size)]:
        yield f"{found.count} of {size} real tokens are judged"
    elif bool((found.targets == 1)[original == read].any()):
        yield "a token that is the original one counts as replaced"
    elif bool((found.targets == 0)[original != read].any()):
        yield "a replaced token counts as original"


def masked(batch: Batch) -> Batch:
    """What masked LM would make of the passage."""
    return dataclasses.replace(batch, targets={"tokens": batch.targets["tokens"]})


def rule_of_epoch(subject: Subject, passages: Sequence) -> Iterator[str]:
    """The generator learns from its own loss alone, and so does the head beside the model."""
    learner = subject.learner()
    found = subject.losses(learner, subject.batch(passages[:TOGETHER]))
    ways = ("original", "original", "generator"), ("tokens", "generator", "original")
    for head, own, other in ways:
        moves = {
            name.split(".")[0]
            for name, each in gradient(learner.parts, found[head].total().sum).items()
            if bool(each.any())
        }
        if other in moves:
            yield f"{other!r} learns from the loss of the head {head!r}"
        if own not in moves:
            yield f"{own!r} does not learn from the loss of the head {head!r}"
