"""The tokenised corpus: tokens, and where words, sentences and documents start.

A corpus carries no special tokens: objectives add them. Left out: how it is cut into passages and
in which order these are read, see ``plan``.
"""

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from tqdm import tqdm

from minicpt.data import text
from minicpt.data.tokenizer import Tokenizer
from minicpt.errors import InputError

TOGETHER = 1 << 20  # characters tokenised in one call: bounds the Python objects alive at once


@dataclass(frozen=True)
class Passage:
    """A run of L tokens of one document.

    tokens     (L,) int64
    words      (L,) bool, True where a word starts
    sentences  (L,) bool, True where a sentence starts
    first      it starts its document
    last       it ends its document
    following  the next token of the document, None at its end
    place      for messages, such as "docs/intro.txt, token 128"
    """

    tokens: Tensor
    words: Tensor
    sentences: Tensor
    first: bool
    last: bool
    following: int | None
    place: str

    def part(self, start: int, stop: int) -> "Passage":
        """Its tokens from ``start`` to before ``stop``."""
        whole = stop == len(self.tokens)
        return Passage(
            tokens=self.tokens[start:stop],
            words=self.words[start:stop],
            sentences=self.sentences[start:stop],
            first=self.first and start == 0,
            last=self.last and whole,
            following=self.following if whole else int(self.tokens[stop]),
            place=self.place,
        )


@dataclass(frozen=True)
class Corpus:
    """All documents as one run of L tokens.

    tokens     (L,) int32
    words      ascending int64, the tokens at which a word starts
    sentences  the same for sentences
    documents  the same for documents; every document holds at least one token
    names      the documents' names

    White space before a word belongs to that word, and so for sentences; white space at the end of
    a document belongs to its last word. With the ends E (in characters) of the words, a token
    that starts at character a is of word number #{e in E: e <= a}: this holds whether a tokenizer
    keeps the space in the token, drops it, or makes it a token.
    """

    tokens: Tensor
    words: Tensor
    sentences: Tensor
    documents: Tensor
    names: tuple[str, ...]

    @staticmethod
    def build(
        documents: Sequence[text.Document], tokenizer: Tokenizer, progress: bool = False
    ) -> "Corpus":
        """Tokenises the documents; a document without a token is left out.

        ``progress`` shows a bar if stderr is a terminal. Raises InputError if no token is left.

        >>> corpus = Corpus.build([text.Document("a", "to be. Or not")], Tokenizer.train([], 256))
        >>> corpus.words.tolist(), corpus.sentences.tolist(), len(corpus.tokens)
        ([0, 2, 6, 9], [0, 6], 13)
        """
        # Characters are counted through the whole corpus, so that one search finds the words.
        bases = list(accumulate((len(item.text) for item in documents), initial=0))
        bar = tqdm(
            total=bases[-1],
            desc="tokenise",
            unit="B",
            unit_scale=True,
            disable=not (progress and sys.stderr.isatty()),
        )
        tokens, starts = array("i"), array("q")
        with bar:
            for chunk in _chunks(documents, bases, tokenizer):
                encoded = tokenizer.encode_with_offsets([portion for _, portion in chunk])
                for (base, portion), (ids, offsets) in zip(chunk, encoded, strict=True):
                    tokens.extend(ids)
                    starts.extend([base + start for start, _ in offsets])
                    bar.update(len(portion))
        if not tokens:
            raise InputError("the corpus holds no token: give text that the tokenizer knows")
        starts = _tensor(starts)
        first = torch.searchsorted(starts, torch.tensor(bases))  # of each document, and the end
        kept = (first[1:] > first[:-1]).nonzero()[:, 0]
        return Corpus(
            tokens=_tensor(tokens),
            words=_starts(starts, first, documents, bases, text.words),
            sentences=_starts(starts, first, documents, bases, text.sentences),
            documents=first[kept],
            names=tuple(documents[index].name for index in kept.tolist()),
        )

    def document(self, index: int) -> tuple[int, int]:
        """The (start, stop) tokens of a document."""
        if not 0 <= index < len(self.documents):
            raise IndexError(f"no document {index} in a corpus of {len(self.documents)}")
        last = index + 1 == len(self.documents)
        stop = len(self.tokens) if last else int(self.documents[index + 1])
        return int(self.documents[index]), stop

    def passage(self, start: int, stop: int) -> Passage:
        """The tokens from ``start`` to before ``stop``. Raises InputError across documents."""
        index = int(torch.searchsorted(self.documents, start, right=True)) - 1
        if index < 0 or not start < stop <= self.document(index)[1]:
            raise InputError(f"tokens {start} to {stop} are no passage within one document")
        begin, end = self.document(index)
        return Passage(
            tokens=self.tokens[start:stop].long(),
            words=_marks(self.words, start, stop),
            sentences=_marks(self.sentences, start, stop),
            first=start == begin,
            last=stop == end,
            following=None if stop == end else int(self.tokens[stop]),
            place=f"{self.names[index]}, token {start - begin}",
        )


def _chunks(
    documents: Iterable[text.Document], bases: list[int], tokenizer: Tokenizer
) -> Iterator[list[tuple[int, str]]]:
    """Portions of the documents with the character each begins at, some TOGETHER at a time."""
    chunk, size = [], 0
    for item, base in zip(documents, bases, strict=False):
        for portion in tokenizer.portions(item.text):
            chunk.append((base, portion))
            base += len(portion)
            size += len(portion)
            if size >= TOGETHER:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def _starts(
    starts: Tensor,
    first: Tensor,
    documents: Sequence[text.Document],
    bases: list[int],
    spans: Callable[[str], list[tuple[int, int]]],
) -> Tensor:
    """The tokens at which a span (a word, a sentence) starts.

    starts  (L,) the character at which each token starts
    first   (documents + 1,) the first token of each document, and L
    """
    ends, counts = array("q"), [0]
    for item, base in zip(documents, bases, strict=False):
        ends.extend([base + stop for _, stop in spans(item.text)])
        counts.append(len(ends))
    number = torch.searchsorted(_tensor(ends), starts, right=True)
    # White space at the end of a document would count as the next document's first span.
    lengths = first[1:] - first[:-1]
    number = torch.minimum(number, torch.repeat_interleave(torch.tensor(counts[1:]) - 1, lengths))
    begins = torch.ones(len(starts), dtype=torch.bool)
    begins[1:] = number[1:] != number[:-1]
    begins[first[:-1][lengths > 0]] = True
    return begins.nonzero()[:, 0]


def _marks(positions: Tensor, start: int, stop: int) -> Tensor:
    """Ascending positions within [start, stop) as a (stop - start,) bool."""
    low, high = torch.searchsorted(positions, torch.tensor([start, stop])).tolist()
    marks = torch.zeros(stop - start, dtype=torch.bool)
    marks[positions[low:high] - start] = True
    return marks


def _tensor(values: array) -> Tensor:
    """A tensor of its own with the values of an array."""
    kind = {"i": torch.int32, "q": torch.int64}[values.typecode]
    return torch.frombuffer(values, dtype=kind).clone() if values else torch.empty(0, dtype=kind)
