"""Text becomes tokens, chunk by chunk, with the tokens at which words, sentences, documents start.

No text is held longer than its chunk, so memory is bounded. While the library tokenises one chunk,
the words and sentences of the chunk before it are counted:

- White space belongs to the word that follows it, and to the sentence that follows it. At the end
  of a document it belongs to the last word.
- A token that starts at character a belongs to word number #{e in E: e <= a}, where E are the ends
  of the words. So it does not matter whether a tokenizer keeps the space in the token or drops it.
- Every byte of a document belongs to one of its tokens. The bytes of a token reach to the beginning
  of the next one. What a tokenizer drops before the first token of a document belongs to that.

The tokens of a byte-level tokenizer stand for bytes, so their places follow from their lengths. For
other tokenizers the library says the places.

L tokens, C characters, P parts of documents.
"""

import itertools
import sys
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from tokenizers import Encoding
from torch import Tensor
from tqdm import tqdm

from minicpt.data.documents import Document, Documents
from minicpt.data.text import Stretch, code_points, is_space, stretches
from minicpt.data.tokenizer import PORTION, Tokenizer

TENSORS = ("tokens", "words", "sentences", "documents", "starts", "bytes", "unknown")
TOGETHER = 1 << 20  # characters tokenised in one call: bounds the Python objects alive at once
CONTENT = "LNPS"  # letters, numbers, punctuation, symbols: what Unicode's categories begin with


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
    """A stretch of a document that has this number."""

    number: int
    document: Document
    stretch: Stretch


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

    def chunk(parts: list[Part], texts: list[str], made: Future) -> Chunk:
        bar.update(sum(map(len, texts)))
        return counter.count(parts, located(made.result(), texts, tokenizer))

    thread = ThreadPoolExecutor(1)
    try:
        waiting = None
        for parts in _together(documents, tokenizer):
            texts = [part.stretch.text for part in parts]
            following = parts, texts, thread.submit(encodings, texts, tokenizer)
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
        for stretch in stretches(document, tokenizer.breaks, min(PORTION, TOGETHER)):
            parts.append(Part(number, document, stretch))
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

    def count(self, parts: list[Part], found: "Located") -> Chunk:
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
        self, parts: list[Part], found: "Located", places: list[int]
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


# --- where tokens start ----------------------------------------------------------------------


@dataclass(frozen=True)
class Located:
    """The tokens of some texts, one after the other.

    ids      (L,) int32
    starts   (L,) int64, the character at which each token starts, counted through all texts
    first    (texts + 1,) int64, the first token of each text, and L
    bytes    (L,) int64, the byte (in UTF-8) at which each token starts, counted through all texts
    sizes    (texts,) int64, the bytes of each text
    unknown  ascending int64, the tokens that hide text: unknown tokens, and those behind which
             text stands that has no token
    lost     (texts,) bool, whether such text stands before the first token of a text
    """

    ids: Tensor
    starts: Tensor
    first: Tensor
    bytes: Tensor
    sizes: Tensor
    unknown: Tensor
    lost: Tensor


def located(encodings: Sequence[Encoding], texts: Sequence[str], tokenizer: Tokenizer) -> Located:
    """Where the tokens of the texts are; the encodings are ``encodings`` of them.

    >>> texts, tokenizer = ["été", "a"], Tokenizer.train([], 256)
    >>> found = located(encodings(texts, tokenizer), texts, tokenizer)
    >>> found.starts.tolist(), found.first.tolist(), found.bytes.tolist(), found.sizes.tolist()
    ([0, 0, 1, 2, 2, 3], [0, 5, 6], [0, 1, 2, 3, 4, 5], [5, 1])
    """
    ids, first = _joined(encodings)
    codes = code_points("".join(texts))  # (C,)
    widths = 1 + (codes >= 0x80).long() + (codes >= 0x800) + (codes >= 0x10000)
    places = torch.cat([widths.new_zeros(1), widths.cumsum(0)])  # the byte of each, and the end
    bases = torch.tensor([0, *map(len, texts)]).cumsum(0)
    sizes = places[bases].diff()
    if tokenizer.bytewise:
        lengths = tokenizer.token_bytes[ids.long()]
        ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        if torch.equal(ends[first], places[bases]):  # these are the tokens of these texts
            starts = begins = ends[:-1]  # a byte for each character; else
            if len(codes) < int(places[-1]):
                starts = torch.searchsorted(places[1:], begins, right=True)
            unknown, lost = first.new_empty(0), torch.zeros(len(texts), dtype=torch.bool)
            return Located(ids, starts, first, begins, sizes, unknown, lost)
        encodings = tokenizer.encodings(texts, offsets=True)
    spans = _spans(encodings) + torch.repeat_interleave(bases[:-1], first.diff())[:, None]  # (L, 2)
    starts = spans[:, 0].contiguous()
    unknown = torch.zeros(len(ids), dtype=torch.bool)
    if tokenizer.unknown is not None:
        unknown = ids == tokenizer.unknown
    dropped = _dropped(codes, spans)
    before = torch.searchsorted(starts, dropped, right=True) - 1  # the last token before each
    text = torch.searchsorted(bases, dropped, right=True) - 1
    behind = before >= first[text]
    unknown[before[behind]] = True
    lost = torch.zeros(len(texts), dtype=torch.bool)
    lost[text[~behind]] = True
    return Located(ids, starts, first, places[starts], sizes, unknown.nonzero()[:, 0], lost)


def encodings(texts: Sequence[str], tokenizer: Tokenizer) -> list[Encoding]:
    """What ``located`` needs: with the library's offsets only where the bytes do not say them."""
    return tokenizer.encodings(texts, offsets=not tokenizer.bytewise)


def _dropped(codes: Tensor, spans: Tensor) -> Tensor:
    """The characters in no token that are more than white space, marks or control characters.

    A normaliser drops marks (the accents of letters) and control characters; a tokenizer without
    an unknown token drops any character that it does not know.
    """
    change = torch.zeros(len(codes) + 1, dtype=torch.int64)
    change.index_add_(0, spans[:, 0], torch.ones(len(spans), dtype=torch.int64))
    change.index_add_(0, spans[:, 1], -torch.ones(len(spans), dtype=torch.int64))
    bare = (change.cumsum(0)[:-1] == 0).nonzero()[:, 0]
    bare = bare[~is_space(codes[bare])]
    content = [unicodedata.category(chr(code))[0] in CONTENT for code in codes[bare].tolist()]
    return bare[torch.tensor(content, dtype=torch.bool)]


def _spans(encodings: Sequence[Encoding]) -> Tensor:
    """(L, 2) int64, where each token starts and stops in its text; no start before an earlier one.
    """
    places = array("q")
    for encoding in encodings:
        places.extend(itertools.chain.from_iterable(encoding.offsets))
    return _tensor(places).view(-1, 2)


def _joined(encodings: Sequence[Encoding]) -> tuple[Tensor, Tensor]:
    """The ids of all texts, and the first of each, and their number."""
    ids = array("i")
    for encoding in encodings:
        ids.extend(encoding.ids)
    return _tensor(ids), torch.tensor([0, *map(len, encodings)]).cumsum(0)


def _tensor(values: array) -> Tensor:
    """A tensor of its own with the values of an array."""
    kind = {"i": torch.int32, "q": torch.int64}[values.typecode]
    return torch.frombuffer(values, dtype=kind).clone() if values else torch.empty(0, dtype=kind)
