"""Text becomes tokens, chunk by chunk, with the tokens at which words, sentences, documents start.

No text is held longer than its chunk, so memory is bounded. While the library tokenises one chunk,
the words and sentences of the chunk before it are counted:

- White space belongs to the word that follows it, and to the sentence that follows it. At the end
  of a document it belongs to the last word.
- A token that starts at character a belongs to word number #{e in E: e <= a}, where E are the ends
  of the words. So it does not matter whether a tokenizer keeps the space in the token or drops it.
- Every byte of a document belongs to one of its tokens. The bytes of a token reach to the beginning
  of the next one. What a tokenizer drops before the first token of a document belongs to that.

``places`` finds where the tokens of a text start.

L tokens, C characters, P parts of documents.
"""

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from minicpt.data.documents import Document, Documents
from minicpt.data.places import Located, encodings, located
from minicpt.data.text import Stretch, code_points, is_space, stretches
from minicpt.data.tokenizer import PORTION, Tokenizer

TENSORS = ("tokens", "words", "sentences", "documents", "starts", "bytes", "unknown")
TOGETHER = 1 << 20  # characters tokenised in one call: bounds the Python objects alive at once


@dataclass(frozen=True)
class Chunk:
    """Some tokens, and where among all tokens so far something starts.

    tokens, words, sentences, documents, starts, bytes, unknown  see ``Corpus``
    names                                                        of those documents
    """

    tokens: Tensor
    words: Tensor
    sentences: Tensor
    documents: Tensor
    starts: Tensor
    bytes: Tensor
    unknown: Tensor
    names: list[str]


@dataclass(frozen=True)
class Part:
    """A stretch of a document that has this number; ``goes_on``: it is not the first one."""

    number: int
    document: Document
    stretch: Stretch
    goes_on: bool


def chunks(
    documents: Iterable[Document], tokenizer: Tokenizer, progress: bool = False
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

    def chunk(parts: list[Part], made: Future, texts: list[str], goes_on: list[bool]) -> Chunk:
        bar.update(sum(map(len, texts)))
        return counter.count(parts, located(made.result(), texts, tokenizer, goes_on))

    thread = ThreadPoolExecutor(1)
    try:
        waiting = None
        for parts in _together(documents, tokenizer):
            goes_on = [part.goes_on for part in parts]
            texts = [part.stretch.text for part in parts]
            made = thread.submit(encodings, texts, tokenizer, goes_on)
            following = parts, made, texts, goes_on
            if waiting:
                yield chunk(*waiting)
            waiting = following
        if waiting:
            yield chunk(*waiting)
        yield counter.end()
    finally:  # at once, also while the library is at work: a signal must not wait for it
        thread.shutdown(wait=False, cancel_futures=True)
        bar.close()


def _together(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[list[Part]]:
    """The stretches of the documents, some TOGETHER at a time."""
    parts, size = [], 0
    for number, document in enumerate(documents):
        goes_on = False
        for stretch in stretches(document, tokenizer.breaks, min(PORTION, TOGETHER)):
            parts.append(Part(number, document, stretch, goes_on))
            goes_on = True
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
        self.empty = True  # whether no token of it has come yet,
        self.lost = False  # and whether text without a token has
        self.unknown = -1  # the last token of which it was said that it hides text

    def count(self, parts: list[Part], found: Located) -> Chunk:
        """The chunk of some parts; ``found`` says where the tokens of their texts are."""
        first = found.first
        bases = torch.tensor([0, *(len(part.stretch.text) for part in parts)]).cumsum(0)
        word_ends, sentence_ends = _word_ends(parts, bases), _sentence_ends(parts, bases)
        # White space at the end of a document would count as the next document's first span.
        last = torch.tensor([part.stretch.last for part in parts]).long()
        lengths = first[1:] - first[:-1]

        def number(ends: Tensor) -> Tensor:
            most = torch.repeat_interleave(ends[bases[1:]] - last, lengths)
            return torch.minimum(ends[found.starts], most)

        document = torch.repeat_interleave(torch.tensor([part.number for part in parts]), lengths)
        numbers = self.words + number(word_ends), self.sentences + number(sentence_ends), document
        changes = [
            each != torch.cat([each.new_tensor([latest]), each[:-1]])
            for each, latest in zip(numbers, self.latest, strict=True)
        ]
        words, sentences, documents = (
            (change | changes[2]).nonzero()[:, 0] + self.tokens for change in changes
        )
        part_bytes = torch.cat([first.new_zeros(1), found.sizes.cumsum(0)])
        moved, begins, hiding = self._moved(parts, found, part_bytes.tolist())
        begun = found.bytes + torch.repeat_interleave(moved, lengths)
        begun[documents - self.tokens] = begins
        unknown = torch.cat([found.unknown + self.tokens, hiding]).unique()
        unknown = unknown[unknown > self.unknown]
        of_number = {part.number: part.document for part in parts}
        begun_here = [of_number[each] for each in document[documents - self.tokens].tolist()]
        chunk = Chunk(
            tokens=found.ids,
            words=words,
            sentences=sentences,
            documents=documents,
            starts=torch.tensor([each.start for each in begun_here], dtype=torch.int64),
            bytes=begun.to(torch.int32),
            unknown=unknown,
            names=[each.source for each in begun_here],
        )
        self.tokens += len(found.ids)
        self.words += int(word_ends[-1])
        self.sentences += int(sentence_ends[-1])
        if len(found.ids):
            self.latest = tuple(int(each[-1]) for each in numbers)
        if len(unknown):
            self.unknown = int(unknown[-1])
        return chunk

    def _moved(
        self, parts: list[Part], found: Located, places: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """How far the bytes of each part are moved to come behind all those before; where the
        documents begin whose first token is here; and the tokens that hide text of another part.

        places   the byte at which each part begins, counted from the first one, and their end

        The bytes of a document without a token are left out, as the document is.
        """
        moved, begins, hiding = [], [], []
        firsts, lost = found.first.tolist(), found.lost.tolist()
        for i, part in enumerate(parts):
            if part.number != self.document:
                if self.empty:
                    self.bytes = self.begin
                self.document, self.begin = part.number, self.bytes
                self.empty, self.lost = True, False
            moved.append(self.bytes - places[i])
            self.bytes += places[i + 1] - places[i]
            self.lost |= lost[i]
            if self.lost and not self.empty:
                hiding.append(self.tokens + firsts[i] - 1)
                self.lost = False
            if self.empty and firsts[i] < firsts[i + 1]:
                begins.append(self.begin)
                if self.lost:
                    hiding.append(self.tokens + firsts[i])
                self.empty = self.lost = False
        return tuple(torch.tensor(each, dtype=torch.int64) for each in (moved, begins, hiding))

    def end(self) -> Chunk:
        """What comes behind all tokens: where the last one ends."""
        none = torch.empty(0, dtype=torch.int64)
        end = torch.tensor([self.begin if self.empty else self.bytes]).to(torch.int32)
        return Chunk(none.to(torch.int32), none, none, none, none, end, none, [])


def _word_ends(parts: list[Part], bases: Tensor) -> Tensor:
    """(C + 1,): how many words end at or before each character of the parts, and at their end."""
    spaces = is_space(code_points("".join(part.stretch.text for part in parts)))  # (C,)
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
