"""How well a tokenizer fits a text: tokens per byte, words in pieces, unknown tokens.

A model is continued with the tokenizer of its base: no tokens are added, so that its losses before
and after stay comparable. This says what that costs. Measured on a sample of bounded size.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document, Documents
from minicpt.data.split import sample
from minicpt.data.tokenizer import Tokenizer

SAMPLE = 1 << 18  # characters


@dataclass(frozen=True)
class Coverage:
    """Counts over a sample of text. A tokenizer of bytes knows every text: ``unknown`` is 0.

    hidden  the share of the bytes that unknown tokens hide
    """

    tokens: int
    size: int
    unknown: int
    hidden: float
    words: int
    split: int

    def summary(self) -> dict[str, float]:
        """Tokens per byte; the shares of words in several pieces, unknown tokens, hidden bytes."""
        return {
            "tokens_per_byte": self.tokens / self.size,
            "words_in_pieces": self.split / self.words,
            "unknown": self.unknown / self.tokens,
            "hidden_bytes": self.hidden,
        }


def coverage(documents: Documents | Iterable[Document], tokenizer: Tokenizer) -> Coverage:
    """How the tokenizer cuts a sample of the documents, taken evenly from all of them.

    Its bytes are all those of the text, white space too where the tokenizer drops it.

    >>> tokenizer = Tokenizer.train([], 256)
    >>> coverage([Document("a", "to be a")], tokenizer)
    Coverage(tokens=7, size=7, unknown=0, hidden=0.0, words=3, split=3)
    """
    if not isinstance(documents, Documents):
        documents = Documents.of(documents)
    # A text without a place to cut is taken from its beginning.
    texts = list(sample(documents, SAMPLE)) or [next(iter(documents)).text[:SAMPLE]]
    corpus = Corpus.build([Document("sample", text) for text in texts], tokenizer)
    ends = torch.cat([corpus.words[1:], torch.tensor([len(corpus.tokens)])])
    return Coverage(
        tokens=len(corpus.tokens),
        size=sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
        unknown=len(corpus.unknown),
        hidden=corpus.hidden,
        words=len(corpus.words),
        split=int((ends - corpus.words > 1).sum()),
    )
