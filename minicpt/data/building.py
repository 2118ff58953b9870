"""Text becomes tokens, chunk by chunk, with the tokens at which words, sentences, documents start.

No text is held longer than its chunk, so that memory is bounded. What is computed of a chunk while
the next one is tokenised: white space before a word belongs to that word, and so for sentences;
white space at the end of a document belongs to its last word. With the ends E (in characters) of
the words, a token that starts at character a is of word number #{e in E: e <= a}: this holds
whether a tokenizer keeps the space in the token, drops it, or makes it a token.

Every byte of a document belongs to one of its tokens. A token's bytes go on to where the next one
begins, so that what a tokenizer drops behind a token belongs to it; what it drops before the first
token of a document belongs to that.
"""

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from minicpt.data import places, text
from minicpt.data.documents import Document, Documents, LongDocument
from minicpt.data.places import Located
from minicpt.data.text import Stretch
from minicpt.data.tokenizer import Tokenizer

TENSORS = ("tokens", "words", "sentences", "documents", "bytes", "unknown")
TOGETHER = 1 << 20  # characters tokenised in one call: bounds the Python objects alive at once


@dataclass(frozen=True)
class Chunk:
    """Some tokens, and where among all tokens so far something starts.

    tokens     (L,) int32
    words      ascending int64, the tokens at which a word starts
    sentences  the same for sentences
    documents  the same for documents; every document holds at least one token
    bytes      (L,) int32, where in the text each token begins, see ``Corpus``
    unknown    ascending int64, the tokens that hide text, see ``Corpus``
    names      of those documents
    """

    tokens: Tensor
    words: Tensor
    sentences: Tensor
    documents: Tensor
    bytes: Tensor
    unknown: Tensor
    names: list[str]


@dataclass(frozen=True)
class Part:
    """A stretch of the document with this number and name."""

    number: int
    name: str
    stretch: Stretch


def chunks(
    documents: Iterable[Document | LongDocument], tokenizer: Tokenizer, progress: bool = False
) -> Iterator[Chunk]:
    """All tokens of the documents; ``progress`` shows a bar if stderr is a terminal.

    The last chunk holds no token, only the byte at which the last token ends.
    """
    bar = tqdm(
        total=documents.characters if isinstance(documents, Documents) else None,
        desc="tokenise",
        unit="B",
        unit_scale=True,
        disable=not (progress and sys.stderr.isatty()),
    )
    counter = Counter()

    def chunk(parts: list[Part], portions: list[list[str]], encodings: Future) -> Chunk:
        texts = [portion for some in portions for portion in some]
        found = places.located(encodings.result(), texts, tokenizer)
        counts = torch.tensor([0, *map(len, portions)])
        bar.update(sum(map(len, texts)))
        return counter.count(parts, found, counts.cumsum(0))

    thread = ThreadPoolExecutor(1)
    try:
        waiting = None
        for parts in _together(documents, tokenizer):
            portions = [tokenizer.portions(part.stretch.text) for part in parts]
            texts = [portion for some in portions for portion in some]
            following = parts, portions, thread.submit(places.encodings, texts, tokenizer)
            if waiting:
                yield chunk(*waiting)
            waiting = following
        if waiting:
            yield chunk(*waiting)
        yield counter.end()
    finally:  # at once, also while the library is at work: a signal must not wait for it
        thread.shutdown(wait=False, cancel_futures=True)
        bar.close()


def _together(
    documents: Iterable[Document | LongDocument], tokenizer: Tokenizer
) -> Iterator[list[Part]]:
    """The stretches of the documents, some TOGETHER at a time."""
    parts, size = [], 0
    for number, document in enumerate(documents):
        for stretch in text.stretches(document, tokenizer.breaks, TOGETHER):
            parts.append(Part(number, document.name, stretch))
            size += len(stretch.text)
            if size >= TOGETHER:
                yield parts
                parts, size = [], 0
    if parts:
        yield parts


class Counter:
    """Goes through the parts in their order and finds the tokens at which something starts."""

    def __init__(self):
        self.tokens = self.words = self.sentences = 0  # so far
        self.latest = (-1, -1, -1)  # of the last token: the number of its word, sentence, document
        self.document = -1  # the number of the last part's document,
        self.begin = self.bytes = 0  # where it begins, and where its bytes so far end,
        self.empty = True  # and whether no token of it has come yet

    def count(self, parts: list[Part], found: Located, texts: Tensor) -> Chunk:
        """The chunk of some parts.

        found  where the tokens of their texts are
        texts  (parts + 1,) int64, the first text of each part, and their number
        """
        ids, starts, first = found.ids, found.starts, found.first[texts]
        bases = torch.tensor([0, *(len(part.stretch.text) for part in parts)]).cumsum(0)
        word_ends, sentence_ends = _word_ends(parts, bases), _sentence_ends(parts, bases)
        # White space at the end of a document would count as the next document's first span.
        last = torch.tensor([part.stretch.last for part in parts]).long()
        lengths = first[1:] - first[:-1]

        def number(ends: Tensor) -> Tensor:
            most = torch.repeat_interleave(ends[bases[1:]] - last, lengths)
            return torch.minimum(ends[starts], most)

        document = torch.repeat_interleave(torch.tensor([part.number for part in parts]), lengths)
        numbers = self.words + number(word_ends), self.sentences + number(sentence_ends), document
        changes = [
            each != torch.cat([each.new_tensor([latest]), each[:-1]])
            for each, latest in zip(numbers, self.latest, strict=True)
        ]
        words, sentences, documents = (
            (change | changes[2]).nonzero()[:, 0] + self.tokens for change in changes
        )
        text_bytes = torch.cat([texts.new_zeros(1), found.sizes.cumsum(0)])[texts]
        moved, begins = self._moved(parts, lengths.tolist(), text_bytes.tolist())
        begun = found.bytes + torch.repeat_interleave(moved, lengths)
        begun[documents - self.tokens] = begins
        names = {part.number: part.name for part in parts}
        chunk = Chunk(
            tokens=ids,
            words=words,
            sentences=sentences,
            documents=documents,
            bytes=begun.to(torch.int32),
            unknown=found.unknown + self.tokens,
            names=[names[number] for number in document[documents - self.tokens].tolist()],
        )
        self.tokens += len(ids)
        self.words += int(word_ends[-1])
        self.sentences += int(sentence_ends[-1])
        if len(ids):
            self.latest = tuple(int(each[-1]) for each in numbers)
        return chunk

    def _moved(
        self, parts: list[Part], lengths: list[int], places: list[int]
    ) -> tuple[Tensor, Tensor]:
        """How far the bytes of each part are moved to come behind all those before; and where the
        documents begin whose first token is here.

        lengths  the tokens of each part
        places   the byte at which each part begins, counted from the first one, and their end

        The bytes of a document without a token are left out, as the document is.
        """
        moved, begins = [], []
        for part, length, place, stop in zip(parts, lengths, places, places[1:], strict=False):
            if part.number != self.document:
                if self.empty:
                    self.bytes = self.begin
                self.document, self.begin, self.empty = part.number, self.bytes, True
            moved.append(self.bytes - place)
            self.bytes += stop - place
            if self.empty and length:
                begins.append(self.begin)
                self.empty = False
        return torch.tensor(moved, dtype=torch.int64), torch.tensor(begins, dtype=torch.int64)

    def end(self) -> Chunk:
        """What comes behind all tokens: where the last one ends."""
        none = torch.empty(0, dtype=torch.int64)
        end = torch.tensor([self.begin if self.empty else self.bytes]).to(torch.int32)
        return Chunk(none.to(torch.int32), none, none, none, end, none, [])


def _word_ends(parts: list[Part], bases: Tensor) -> Tensor:
    """(C + 1,): how many words end at or before each character of the parts, and at their end."""
    spaces = places.is_space("".join(part.stretch.text for part in parts))  # (C,)
    after = torch.ones(len(spaces) + 1, dtype=torch.bool)  # behind each character no word goes on
    after[:-1] = spaces
    after[bases] = True
    ends = torch.zeros(len(spaces) + 1, dtype=torch.int64)
    ends[1:] = ~spaces & after[1:]
    return ends.cumsum(0)


def _sentence_ends(parts: list[Part], bases: Tensor) -> Tensor:
    """The same for sentences; what ends where a stretch is cut is no end of a sentence."""
    stops = []
    for part, base in zip(parts, bases.tolist(), strict=False):
        spans = part.stretch.sentences()
        stops += [base + stop for _, stop in spans[: len(spans) - part.stretch.broken]]
    ends = torch.zeros(int(bases[-1]) + 1, dtype=torch.int64)
    ends[torch.tensor(stops, dtype=torch.int64)] = 1
    return ends.cumsum(0)
