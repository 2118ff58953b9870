"""The rule of fill in the middle: the parts make up the text, and each is tokenised by itself."""

import math
from collections.abc import Iterator, Sequence
from itertools import product

from minicpt.batch import Batch
from minicpt.common.randomness import generator
from minicpt.data.order import Draw
from minicpt.proofs.subject import Subject

ERRORS = 4  # standard errors by which a count may lie apart from its expectation
DRAWS = 12  # of each passage: few events show little
NAMES = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """A window that was cut, or one that is read as causal LM reads it.

    The windows must begin and end between characters, as they do where each character is a byte.
    """
    tokenizer, end = subject.tokenizer, subject.tokenizer.need("end")
    read = batch.inputs["tokens"][0].tolist()
    targets = batch.targets["tokens"][0].tolist()
    whole = [*subject.source(passage), end]
    stop = passage.offset + len(passage.tokens)
    window = whole[passage.offset : stop]
    if len(read) > subject.objective.length:
        yield "more is read than the window holds"
    if marks(subject).isdisjoint(read):
        following = whole[stop]
        if read != [tokenizer.begin] * (passage.offset == 0) + window:
            yield "what is read is neither a text with a gap nor the text as it stands"
    else:
        following = end
        parts = parts_of(subject, read)
        if parts is None:
            yield "the special tokens do not stand at the front, behind it and behind that"
            return
        before, after, last = parts
        text = "".join(tokenizer.decode(part) for part in (before, last, after))
        if text != tokenizer.decode(window):
            yield "prefix, middle and suffix do not make up the text of the window"
        if tokenizer.encode(tokenizer.decode(after)) != after:
            yield "the suffix is not tokenised by itself"
        if before and [tokenizer.encode(tokenizer.decode(x)) for x in (before, last)] != [
            before,
            last,
        ]:
            yield "a part is not tokenised by itself"
        if not before and last not in in_two(tokenizer, tokenizer.decode(last)):
            yield "prefix and middle, read behind the suffix, are not tokenised by themselves"
    if targets[:-1] != read[1:]:
        yield "a target is not the token that is read next"
    if targets[-1] != following:
        yield "the last target is not what follows; behind a middle that is end-of-text"


def marks(subject: Subject) -> set[int]:
    return {subject.tokenizer.special_id(name) for name in NAMES}


def parts_of(subject: Subject, read: list[int]) -> tuple[list[int], ...] | None:
    """The tokens behind each of the three special tokens; None where these are not in order.

    Read suffix first, nothing stands behind the first one, and prefix and middle behind the last.
    """
    wanted = [subject.tokenizer.special_id(name) for name in NAMES]
    if [token for token in read if token in wanted] != wanted or read[0] != wanted[0]:
        return None
    one, two = read.index(wanted[1]), read.index(wanted[2])
    return read[1:one], read[one + 1 : two], read[two + 1 :]


def in_two(tokenizer, text: str) -> list[list[int]]:
    """The tokens of a text that is cut in two and tokenised, for each place where it may be cut."""
    halves = [half for place in range(len(text) + 1) for half in (text[:place], text[place:])]
    found = tokenizer.encode_batch(halves)
    return [one + two for one, two in zip(found[::2], found[1::2], strict=True)]


def rule_of_epoch(subject: Subject, passages: Sequence) -> Iterator[str]:
    """How many windows are cut, how many of these are read suffix first, and where the suffix
    begins: the further of two points, each at any of the n + 1 places among n characters."""
    settings, tokenizer = subject.objective.settings, subject.tokenizer
    cut, first, early, aligned = [], [], [], []  # (whether it is so, the probability that it is)
    for passage, draw in product(passages, range(DRAWS)):
        draws = [Draw(0, generator("middles", passage.place, draw))]
        read = subject.objective.batch([passage], draws).inputs["tokens"][0].tolist()
        parts = parts_of(subject, read)
        cut.append((parts is not None, settings.rate))
        if parts is None:
            continue
        pieces = [len(tokenizer.decode([token])) for token in passage.tokens.tolist()]
        length = sum(pieces)
        begin = length - len(tokenizer.decode(parts[1]))
        no_prefix = 1 - (length / (length + 1)) ** 2
        first.append((not parts[0], settings.spm + (1 - settings.spm) * no_prefix))
        # P(the further one is at k) = (2k + 1) / (n + 1)^2
        chances = [(2 * place + 1) / (length + 1) ** 2 for place in range(length + 1)]
        early.append((begin <= length // 2, sum(chances[: length // 2 + 1])))
        starts = {sum(pieces[:number]) for number in range(len(pieces) + 1)}
        aligned.append((begin in starts, sum(chances[place] for place in starts)))
    yield from unlikely(cut, "windows are cut")
    yield from unlikely(first, "cut windows are read suffix first")
    yield from unlikely(early, "suffixes begin in the first half of their window")
    yield from unlikely(aligned, "suffixes begin where a token of the uncut text does")


def unlikely(found: list[tuple[bool, float]], what: str) -> Iterator[str]:
    """Whether a count of independent events lies far from the sum of their probabilities."""
    count, expected = sum(event for event, _ in found), sum(chance for _, chance in found)
    error = math.sqrt(sum(chance * (1 - chance) for _, chance in found))
    if abs(count - expected) > ERRORS * error:
        yield f"{count} of {len(found)} {what} instead of about {expected:.1f}"
