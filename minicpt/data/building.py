"""Text becomes tokens, chunk by chunk, with the tokens at which words, sentences, documents start.

No text is held longer than its chunk, so that memory is bounded. What is computed of a chunk while
the next one is tokenised: white space before a word belongs to that word, and so for sentences;
white space at the end of a document belongs to its last word. With the ends E (in characters) of
the words, a token that starts at character a is of word number #{e in E: e <= a}: this holds
whether a tokenizer keeps the space in the token, drops it, or makes it a token.
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
from minicpt.data.text import Stretch
from minicpt.data.tokenizer import Tokenizer

TENSORS = ("tokens", "words", "sentences", "documents")
TOGETHER = 1 << 20  # characters tokenised in one call: bounds the Python objects alive at once


@dataclass(frozen=True)
class Chunk:
    """Some tokens, and where among all tokens so far something starts.

    tokens     (L,) int32
    words      ascending int64, the tokens at which a word starts
    sentences  the same for sentences
    documents  the same for documents; every document holds at least one token
    names      of those documents
    """

    tokens: Tensor
    words: Tensor
    sentences: Tensor
    documents: Tensor
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
    """All tokens of the documents; ``progress`` shows a bar if stderr is a terminal."""
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
        ids, starts, first = places.located(encodings.result(), texts, tokenizer)
        counts = torch.tensor([0, *map(len, portions)])
        bar.update(sum(map(len, texts)))
        return counter.count(parts, ids, starts, first[counts.cumsum(0)])

    with bar, ThreadPoolExecutor(1) as thread:
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

    def count(self, parts: list[Part], ids: Tensor, starts: Tensor, first: Tensor) -> Chunk:
        """The chunk of some parts.

        ids     (L,) int32, their tokens
        starts  (L,) int64, the character at which each starts, counted through all parts
        first   (parts + 1,) int64, the first token of each part, and L
        """
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
        names = {part.number: part.name for part in parts}
        chunk = Chunk(
            tokens=ids,
            words=words,
            sentences=sentences,
            documents=documents,
            names=[names[number] for number in document[documents - self.tokens].tolist()],
        )
        self.tokens += len(ids)
        self.words += int(word_ends[-1])
        self.sentences += int(sentence_ends[-1])
        if len(ids):
            self.latest = tuple(int(each[-1]) for each in numbers)
        return chunk


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
