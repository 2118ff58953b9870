"""The rule of prefix language modelling: the suffix is predicted, the prefix read both ways."""

from collections.abc import Iterator

from minicpt.batch import IGNORE, Batch
from minicpt.proofs.subject import Subject


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """A window of the text in two parts, each of at least one token."""
    end = subject.tokenizer.need("end")
    source = subject.source(passage)
    length = len(passage.tokens)
    *text, after = [*source, end][passage.offset :][: length + 1]
    inputs, targets = batch.inputs, batch.targets["tokens"][0].tolist()
    suffix = [target for target in targets if target != IGNORE]
    cut = length + 1 - len(suffix)  # the suffix, and what follows it
    if not 1 <= cut < length:
        yield f"the prefix has {cut} of {length} tokens"
    if suffix != [*text[cut:], after]:
        yield "the targets are not the suffix and what follows it"
    if "decoder_tokens" in inputs:
        start = subject.tokenizer.need("pad")
        if inputs["tokens"][0].tolist() != text[:cut]:
            yield "the encoder does not read the prefix"
        if inputs["decoder_tokens"][0].tolist() != [start, *text[cut:]]:
            yield "the decoder does not read the start token and the suffix"
        return
    opening = [] if passage.offset else [subject.tokenizer.begin]
    if inputs["tokens"][0].tolist() != [*opening, *text]:
        yield "what is read is not the text"
    part = len(opening) + cut  # read in both directions
    if any(target != IGNORE for target in targets[: part - 1]):
        yield "a token of the prefix is a target"
    for place, row in enumerate(inputs["mask"][0].tolist()):
        if row != [seen <= place or seen < part > place for seen in range(len(row))]:
            yield f"position {place} does not look at what it may see"
            return


def rule_of_epoch(subject: Subject, passages) -> Iterator[str]:
    """No window is there that cannot be cut."""
    if any(len(passage.tokens) < 2 for passage in passages):
        yield "a window of one token is there, which has no cut"
