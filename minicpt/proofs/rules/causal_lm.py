"""The rule of causal language modelling: each target is the next token of the text."""

from collections.abc import Iterator

from minicpt.batch import Batch
from minicpt.proofs.subject import SHORT, Subject, Variant

VARIANTS = {"packed causal-lm": Variant({"pack": True}, SHORT)}


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """A row holds a passage or, packed, several, one behind the other."""
    read = batch.inputs["tokens"][0].tolist()
    targets = batch.targets["tokens"][0].tolist()
    positions = batch.inputs.get("positions")
    begin = 0
    for text in getattr(passage, "passages", (passage,)):
        end = begin + len(text.tokens) + (text.offset == 0)
        yield from next_tokens(subject, text, read[begin:end], targets[begin:end])
        if positions is not None and positions[0, begin:end].tolist() != [*range(end - begin)]:
            yield "positions do not restart with each text"
        begin = end
    if begin != len(read):
        yield "more is read than the text"


def next_tokens(
    subject: Subject, passage, read: list[int], targets: list[int]
) -> Iterator[str]:
    """One text of a row, against its document with what stands on both sides of it."""
    end = subject.tokenizer.need("end")
    whole = [subject.tokenizer.begin, *subject.source(passage), end]
    first = passage.offset + 1 if passage.offset else 0
    if read != whole[first : first + len(read)]:
        yield "what is read is not the text"
    expected = whole[first + 1 : first + 1 + len(read)]
    if first + len(read) == len(whole) - 1 and targets[-1] != end:
        yield "the end of the text is not a target"
    elif targets != expected:
        yield "a target is not the next token of the text"
