"""The rule of the mixture: each row is what its mode says, and the modes have their shares."""

from collections.abc import Iterator
from math import sqrt
from types import SimpleNamespace

from minicpt import objectives
from minicpt.batch import IGNORE, Batch
from minicpt.common.randomness import generator
from minicpt.data.order import Draw
from minicpt.proofs.rules.span_corruption import begun, both, restored
from minicpt.proofs.subject import Subject

DRAWS = 400  # of one passage
ERRORS = 5  # standard deviations by which a count may be off by chance
# As the papers have them. Recipe -> mode -> (share, mean span, rate); S has neither of the latter.
SHARES = {
    "ul2": {
        "[NLU]": [(1, 3, 0.15), (1, 8, 0.15)],
        "[NLG]": [(1, 3, 0.5), (1, 8, 0.5), (1, 64, 0.15), (1, 64, 0.5)],
        "[S2S]": [(1, None, None)],
    },
    "ul2r": {
        "[NLU]": [(2, 3, 0.15)],
        "[NLG]": [(1, 32, 0.15), (1, 3, 0.5)],
        "[S2S]": [(4, None, None)],
    },
}


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """The row behind its mode token."""
    recipe, end = subject.objective.settings.recipe, subject.tokenizer.need("end")
    mode = subject.tokenizer.token(int(batch.inputs["tokens"][0, 0]))
    if mode not in SHARES[recipe]:
        yield f"a row begins with {mode}, which is no mode"
        return
    window = subject.source(passage)[passage.offset :][: len(passage.tokens) + 1]
    window += [end] * (len(window) == len(passage.tokens))
    if not batch.inputs["mask"][0, ..., 0].all():
        yield "the mode token is not seen from everywhere"
    rest = without_mode(batch)
    if mode == "[S2S]":
        yield from continued(rest, window, subject.tokenizer.begin)
        return
    read, written = both(rest)
    yield from begun(subject, rest, written)
    if {read[-1], written[-1]} != {end}:
        yield "what is read or written does not close with end-of-text"
    tries = [
        list(restored(subject, read[:-1], written[:-1], window[:-1], settings))
        for settings in (
            SimpleNamespace(span=span, rate=rate, roll=recipe == "ul2r")
            for _, span, rate in SHARES[recipe][mode]
        )
    ]
    if all(tries):
        yield from (f"{mode}: {what}" for what in min(tries, key=len))


def without_mode(batch: Batch) -> Batch:
    """The row without its first token; a decoder has no target there."""
    tokens, mask = batch.inputs["tokens"][:, 1:], batch.inputs["mask"][:, 1:]
    inputs = batch.inputs | {"tokens": tokens, "mask": mask if mask.dim() == 2 else mask[:, :, 1:]}
    targets = batch.targets["tokens"]
    return Batch(inputs, {"tokens": targets if "decoder_tokens" in inputs else targets[:, 1:]})


def continued(batch: Batch, window: list[int], begin: int) -> Iterator[str]:
    """Mode S: a beginning is read, and the rest, with the token after it, is written.

    A decoder may read before it what begins a document.
    """
    targets = [each for each in batch.targets["tokens"][0].tolist() if each != IGNORE]
    cut = len(window) - len(targets)
    if not 0 < cut < len(window) - 1 or targets != window[cut:]:
        yield "[S2S]: what is written is not the end of the text"
    read = batch.inputs["tokens"][0].tolist()
    whole = window[:cut] if "decoder_tokens" in batch.inputs else window[:-1]
    if read[-len(whole) :] != whole or read[: -len(whole)] not in ([], [begin]):
        yield "[S2S]: what is read is not the text"


def rule_of_epoch(subject: Subject, passages) -> Iterator[str]:
    """One passage many times: the shares of the modes, by counting."""
    counts: dict[str, int] = {}
    for number in range(DRAWS):
        row = subject.objective.batch(passages[:1], [Draw(0, generator("count", number))])
        mode = subject.tokenizer.token(int(row.inputs["tokens"][0, 0]))
        counts[mode] = counts.get(mode, 0) + 1
    there = objectives.known()
    needed = {"[S2S]": "prefix-lm"}
    shares = {
        mode: sum(share for share, *_ in each)
        for mode, each in SHARES[subject.objective.settings.recipe].items()
        if needed.get(mode, "span-corruption") in there
    }
    for mode, share in shares.items():
        expected = DRAWS * share / sum(shares.values())
        error = sqrt(expected * (1 - expected / DRAWS))
        if abs(counts.get(mode, 0) - expected) > ERRORS * error:
            yield f"{counts.get(mode, 0)} of {DRAWS} rows have the mode {mode}, not {expected:.0f}"
