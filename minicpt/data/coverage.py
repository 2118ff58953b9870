"""How well a tokenizer fits a text: tokens per byte, words in pieces, unknown tokens.

A model is continued with the tokenizer of its base: no tokens are added, so that its losses before
and after stay comparable. This says what that costs. Measured on a sample of bounded size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from minicpt.data.corpus import Corpus
from minicpt.data.text import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.randomness import generator

SAMPLE = 1 << 18  # characters
EACH = 1 << 14  # characters of one document


@dataclass(frozen=True)
class Coverage:
    """Counts over a sample of text. A tokenizer of bytes knows every text: ``unknown`` is 0."""

    tokens: int
    size: int
    unknown: int
    words: int
    split: int

    def summary(self) -> dict[str, float]:
        """Tokens per byte, and the shares of words in several pieces and of unknown tokens."""
        return {
            "tokens_per_byte": self.tokens / self.size,
            "words_in_pieces": self.split / self.words,
            "unknown": self.unknown / self.tokens,
        }


def coverage(documents: Sequence[Document], tokenizer: Tokenizer) -> Coverage:
    """How the tokenizer cuts a sample of the documents: of each its beginning, in a random order.

    Its bytes are all those of the text, white space too where the tokenizer drops it.

    >>> tokenizer = Tokenizer.train([], 256)
    >>> coverage([Document("a", "to be a")], tokenizer)
    Coverage(tokens=7, size=7, unknown=0, words=3, split=3)
    """
    order = torch.randperm(len(documents), generator=generator("coverage", len(documents)))
    chosen, left = [], SAMPLE
    for index in order.tolist():
        if left > 0:
            document = documents[index]
            chosen.append(Document(document.name, document.text[: min(EACH, left)]))
            left -= len(chosen[-1].text)
    corpus = Corpus.build(chosen, tokenizer)
    ends = torch.cat([corpus.words[1:], torch.tensor([len(corpus.tokens)])])
    return Coverage(
        tokens=len(corpus.tokens),
        size=sum(len(document.text.encode()) for document in chosen),
        unknown=int((corpus.tokens == tokenizer.roles.get("unk", -1)).sum()),
        words=len(corpus.words),
        split=int((ends - corpus.words > 1).sum()),
    )
