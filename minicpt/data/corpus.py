"""The tokenised corpus: tokens, and where words, sentences and documents start.

A corpus carries no special tokens: objectives add them. ``order`` cuts it into passages and says in
which order these are read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from minicpt.common.errors import InputError
from minicpt.data import building
from minicpt.data.documents import Document, Documents, part_name
from minicpt.data.text_bytes import TextBytes
from minicpt.data.tokenizer import Tokenizer

NO_TOKEN = "the corpus holds no token: give text that the tokenizer knows"


@dataclass(frozen=True)
class Passage:
    """A run of L tokens of one document.

    tokens     (L,) int64
    words      (L,) bool, True where a word starts
    sentences  (L,) bool, True where a sentence starts
    first      it starts its document
    last       it ends its document
    following  the next token of the document, None at its end
    start      the number of its first token in the corpus
    document   the name of its document
    offset     the number of its first token in its document
    character  the character at which the document begins; above 0 where it is a part of a whole one
    """

    tokens: Tensor
    words: Tensor
    sentences: Tensor
    first: bool
    last: bool
    following: int | None
    start: int
    document: str
    offset: int
    character: int = 0

    @property
    def place(self) -> str:
        """For messages: "docs/intro.txt, token 128"."""
        return f"{part_name(self.document, self.character)}, token {self.offset}"

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
            start=self.start + start,
            document=self.document,
            offset=self.offset + start,
            character=self.character,
        )


@dataclass(frozen=True)
class Corpus(TextBytes):
    """All documents as one run of L tokens.

    tokens     (L,) int32
    words      ascending int64, the tokens at which a word starts
    sentences  the same for sentences
    documents  the same for documents; every document holds at least one token
    bytes      (L + 1,) int32, and ``unknown``: see ``TextBytes``
    names      the documents' names; parts of one document have the same one
    starts     int64, the character of its document at which each part begins; None: all are whole

    What white space belongs to, and how words and sentences are found, stands in ``building``. The
    tensors may be files that are mapped into memory (``cache``): nobody writes into them.
    """

    tokens: Tensor
    words: Tensor
    sentences: Tensor
    documents: Tensor
    bytes: Tensor
    unknown: Tensor
    names: Sequence[str]
    starts: Tensor | None = None

    @staticmethod
    def build(
        documents: Iterable[Document], tokenizer: Tokenizer, progress: bool = False
    ) -> "Corpus":
        """Tokenises the documents, in memory; a document without a token is left out.

        ``progress`` shows a bar if stderr is a terminal. Raises InputError if no token is left.

        >>> corpus = Corpus.build([Document("a", "to be. Or not")], Tokenizer.train([], 256))
        >>> corpus.words.tolist(), corpus.sentences.tolist(), len(corpus.tokens)
        ([0, 2, 6, 9], [0, 6], 13)
        """
        if not isinstance(documents, Documents):
            documents = list(documents)
        chunks = list(building.chunks(documents, tokenizer, progress))
        if not any(len(chunk.tokens) for chunk in chunks):
            raise InputError(NO_TOKEN)
        names = tuple(name for chunk in chunks for name in chunk.names)
        tensors = (torch.cat([getattr(each, name) for each in chunks]) for name in building.TENSORS)
        return Corpus(**dict(zip(building.TENSORS, tensors, strict=True)), names=names)

    @cached_property
    def plans(self) -> dict:
        """Its newest plans: see ``order.planned``. They are kept here, so they go when it goes."""
        return {}

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
            start=start,
            document=self.names[index],
            offset=start - begin,
            character=0 if self.starts is None else int(self.starts[index]),
        )


def _marks(positions: Tensor, start: int, stop: int) -> Tensor:
    """Ascending positions within [start, stop) as a (stop - start,) bool."""
    low, high = torch.searchsorted(positions, torch.tensor([start, stop])).tolist()
    marks = torch.zeros(stop - start, dtype=torch.bool)
    marks[positions[low:high] - start] = True
    return marks
