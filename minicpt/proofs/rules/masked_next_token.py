"""The rule of masked next token: a hidden token is predicted at the position before its own."""

from collections.abc import Iterator

from minicpt.batch import IGNORE, Batch
from minicpt.proofs.subject import Subject, Variant

VARIANTS = {"half causal masked-next-token": Variant({"causal_share": 0.5})}


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """A window of the text that is seen whole, or one of causal LM."""
    end = subject.tokenizer.need("end")
    opening = [] if passage.offset else [subject.tokenizer.begin]
    source = [*subject.source(passage), end][passage.offset :]
    original = [*opening, *source[: len(passage.tokens)]]
    following = [*original[1:], source[len(passage.tokens)]]
    read = batch.inputs["tokens"][0].tolist()
    targets = batch.targets["tokens"][0].tolist()
    mask = batch.inputs["mask"][0].tolist()
    if all(sum(row) == place + 1 for place, row in enumerate(mask)):
        if not subject.objective.settings.causal_share:
            yield "what follows a position is hidden from it"
        if read != original or targets != following:
            yield "a passage of causal LM has other targets than the next tokens"
        return
    if not all(all(row) for row in mask):
        yield "a position does not see both sides"
    chosen = [place + 1 for place, target in enumerate(targets) if target != IGNORE]
    if targets[-1] != IGNORE:
        yield "the last position has a target, and nothing stands behind it"
    if any(targets[place - 1] != following[place - 1] for place in chosen):
        yield "a target is not the token that stood one position later"
    special = set(subject.tokenizer.special)
    if any(original[place] in special for place in chosen if place < len(original)):
        yield "a special token is a target"
    count = sum(token not in special for token in original[1:])
    budget = max(1, round(subject.objective.settings.rate * count))
    if len(chosen) != budget:
        yield f"{len(chosen)} of {count} tokens are targets instead of {budget}"
    if any(read[place] != token for place, token in enumerate(original) if place not in chosen):
        yield "a token that was not chosen was changed"
