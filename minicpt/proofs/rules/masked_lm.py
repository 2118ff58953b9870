"""The rule of masked language modelling: each target is the token that stood there."""

from collections.abc import Iterator

from minicpt.batch import IGNORE, Batch
from minicpt.proofs.subject import Subject


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """A window of the text between [CLS] and [SEP], of which some tokens are chosen."""
    tokenizer = subject.tokenizer
    read = batch.inputs["tokens"][0].tolist()
    targets = batch.targets["tokens"][0].tolist()
    window = subject.source(passage)[passage.offset :][: len(read) - 2]
    original = [tokenizer.need("cls"), *window, tokenizer.need("sep")]
    chosen = [place for place, target in enumerate(targets) if target != IGNORE]
    special = [place for place, token in enumerate(original) if token in tokenizer.special]
    if set(chosen) & set(special):
        yield "a special token is a target"
    if any(read[place] != original[place] for place in special):
        yield "a special token was replaced"
    count = len(original) - len(special)
    budget = max(1, round(subject.objective.settings.rate * count))
    if len(chosen) != budget:
        yield f"{len(chosen)} of {count} tokens are targets instead of {budget}"
    if any(targets[place] != original[place] for place in chosen):
        yield "a target is not the token that stood there"
    left = [place for place in range(len(original)) if place not in chosen]
    if any(read[place] != original[place] for place in left):
        yield "a token that was not chosen was changed"
