"""The rule of toy piece: each target, of both heads, is the next token of the text.

A rule is written from the definition and looks everything up in the text itself. It never calls
the objective's code.
"""

from collections.abc import Iterator

from minicpt.batch import IGNORE, Batch
from minicpt.proofs.subject import Subject


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """In words, what is wrong with the batch of one passage."""
    text, size = subject.source(passage), len(passage.tokens)
    if batch.inputs["tokens"][0].tolist() != text[passage.offset : passage.offset + size]:
        yield "what is read is not the text"
    following = [*text, IGNORE][passage.offset + 1 : passage.offset + 1 + size]
    for head in ("tokens", "again"):
        if batch.targets[head][0].tolist() != following:
            yield f"a target of the head {head} is not the next token of the text"
