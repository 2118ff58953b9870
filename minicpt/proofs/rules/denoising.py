"""The rule of denoising: the decoder writes the text, the encoder reads words of it and masks."""

import itertools
import math
from collections.abc import Iterator, Sequence

from minicpt.batch import Batch
from minicpt.proofs.subject import Subject

MANY = 3  # hidden words of a passage that can be more than one span


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """The decoder's two sides, and which words the encoder reads, in which order."""
    tokenizer, settings = subject.tokenizer, subject.objective.settings
    window = subject.source(passage)[passage.offset :][: len(passage.tokens)]
    start, end = tokenizer.need("pad"), tokenizer.need("end")
    if batch.targets["tokens"][0].tolist() != [*window, end]:
        yield "the targets are not the text and its end"
    if batch.inputs["decoder_tokens"][0].tolist() != [start, *window]:
        yield "the decoder does not read the start token and the text"
    read = batch.inputs["tokens"][0].tolist()
    if read[-1] != end:
        yield "the damaged text does not close with end-of-text"
    if len(read) > subject.objective.length:
        yield "the damaged text is longer than the window"
    text = tokenizer.decode(window)
    kept, masks = left(tokenizer, read)
    blank = text[-1:].isspace()  # the window ends within a word, of which it holds a space alone
    words = len(text.split()) + blank
    hidden = min(math.ceil(settings.rate * words), words - 1)
    if len(text.split()) - len(kept) not in (hidden, hidden - blank):
        yield f"{len(text.split()) - len(kept)} of {words} words are hidden, not {hidden}"
    if not 1 <= masks <= hidden:
        yield f"{masks} masks stand for {hidden} words"
    starts = [0, *(place for place in passage.sentences.nonzero()[:, 0].tolist() if place)]
    stops = [*starts[1:], len(window)]
    pairs = zip(starts, stops, strict=True)
    sentences = [tokenizer.decode(window[begin:stop]).split() for begin, stop in pairs]
    orders = itertools.permutations(sentences) if settings.permute else [sentences]
    if not any(within(kept, sum(order, [])) for order in orders):
        yield "the words that are left are not those of whole sentences in their order"


def rule_of_epoch(subject: Subject, passages) -> Iterator[str]:
    """A mask stands for a span, however long it is."""
    single = []
    for passage in passages:
        read = subject.batch([passage]).inputs["tokens"][0].tolist()
        kept, masks = left(subject.tokenizer, read)
        hidden = len(subject.tokenizer.decode(passage.tokens.tolist()).split()) - len(kept)
        if hidden >= MANY:
            single.append(masks == hidden)
    if single and all(single):
        yield "every hidden word has a mask of its own"


def left(tokenizer, read: list[int]) -> tuple[list[str], int]:
    """The words between the masks, and the number of masks."""
    mask, words, run = tokenizer.need("mask"), [], []
    for token in [*read, mask]:
        if token == mask:
            words += tokenizer.decode(run).split()
            run = []
        else:
            run.append(token)
    return words, read.count(mask)


def within(some: Sequence[str], every: Sequence[str]) -> bool:
    """Whether ``some`` are among ``every``, in their order."""
    rest = iter(every)
    return all(word in rest for word in some)
