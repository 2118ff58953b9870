"""The rule of multi-token prediction: the target of head k is the token k places further on."""

from collections.abc import Iterator

from minicpt.batch import IGNORE, Batch
from minicpt.proofs.subject import SHORT, Subject, Variant

SETTINGS = {"ahead": 2}
VARIANTS = {"packed multi-token-prediction": Variant({"pack": True, "ahead": 3}, SHORT)}


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """Each text of the row against its document with what stands on both sides of it.

    What may be predicted is what the text reads, and the one token that follows it.
    """
    end, read = subject.tokenizer.need("end"), batch.inputs["tokens"][0].tolist()
    opening = subject.tokenizer.begin
    if batch.targets.keys() != set(subject.objective.heads):
        yield "a head has no targets"
    begin = 0
    for text in getattr(passage, "passages", (passage,)):
        first = text.offset + 1 if text.offset else 0
        known = [opening, *subject.source(text), end][first:][: len(text.tokens) + (not first) + 1]
        size = len(known) - 1
        if read[begin : begin + size] != known[:-1]:
            yield "what is read is not the text"
        for head, row in batch.targets.items():
            ahead = int(head.partition("+")[2] or 1)
            expected = known[ahead:] + [IGNORE] * size
            if row[0, begin : begin + size].tolist() != expected[:size]:
                yield f"a target of head {head!r} is not the token {ahead} further on in its text"
        begin += size
    if begin != len(read):
        yield "more is read than the text"
