"""Tokenises passages as texts of their own, not as parts of a document."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from minicpt.data.corpus import Passage
from minicpt.data.tokenizer import Tokenizer


def alone(passages: Sequence[Passage], tokenizer: Tokenizer) -> list[Passage]:
    """The passages with the tokens that each has as a text of its own, without space at its ends.

    Most tokenizers keep the white space before a word in its token. The first word of a document
    has none. So the tokens would tell whether a passage began its document. Here the first word is
    tokenised again without it. White space parts it from the other words, so their tokens do not
    change. The last word is tokenised again if the white space behind it is part of a token. A word
    with an unknown token stays as it is.

    >>> from minicpt.data.corpus import Corpus
    >>> from minicpt.data.documents import Document
    >>> tokenizer = Tokenizer.train([], 256)
    >>> corpus = Corpus.build([Document("a", "To be. Or not.  ")], tokenizer)
    >>> [tokenizer.decode(each.tokens) for each in alone([corpus.passage(6, 16)], tokenizer)]
    ['Or not.']
    """
    result = [_without_space_behind(passage, tokenizer) for passage in passages]
    changed, texts = [], []
    for number, passage in enumerate(result):
        for start, stop in _outer_words(passage):
            ids = passage.tokens[start:stop].tolist()
            text = tokenizer.decode(ids)
            bare = text.lstrip() if start == 0 else text
            bare = bare.rstrip() if stop == len(passage.tokens) else bare
            # A sentence may start within what white space delimits, as in Chinese.
            changes = bare != text or not passage.words[start]
            if bare and changes and not set(ids).intersection(tokenizer.special):
                changed.append((number, start, stop))
                texts.append(bare)
    # From the last to the first, so that the places before a changed word stay what they are.
    for (number, start, stop), ids in zip(
        reversed(changed), reversed(tokenizer.encode_batch(texts)), strict=True
    ):
        result[number] = _with_word(result[number], start, stop, ids)
    return result


def _outer_words(passage: Passage) -> list[tuple[int, int]]:
    """The (start, stop) tokens of its first and its last word, or of its only one."""
    size = len(passage.tokens)
    inner = [place for place in passage.words.nonzero()[:, 0].tolist() if place]
    return [(0, inner[0]), (inner[-1], size)] if inner else [(0, size)]


def _without_space_behind(passage: Passage, tokenizer: Tokenizer) -> Passage:
    """The passage without the last tokens that are nothing but white space."""
    start, _ = _outer_words(passage)[-1]
    ids = passage.tokens[start:].tolist()
    text = tokenizer.decode(ids)
    bare = text.rstrip()
    if bare in ("", text):
        return passage
    stops = (stop for stop in range(1, len(ids)) if tokenizer.decode(ids[:stop]) == bare)
    return passage.part(0, start + next(stops, len(ids)))


def _with_word(passage: Passage, start: int, stop: int, ids: list[int]) -> Passage:
    """The passage with other tokens for a word."""

    def marks(old: Tensor) -> Tensor:
        new = torch.zeros(len(ids), dtype=torch.bool)
        new[0] = old[start]
        return torch.cat([old[:start], new, old[stop:]])

    tokens = passage.tokens
    return replace(
        passage,
        tokens=torch.cat([tokens[:start], tokens.new_tensor(ids), tokens[stop:]]),
        words=marks(passage.words),
        sentences=marks(passage.sentences),
    )
