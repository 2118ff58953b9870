"""Sentence reconstruction: a sentence is written again from its damaged words (encoder-decoder).

Words, delimited by white space, are deleted and the rest is shuffled; at least one stays. The
encoder reads the remaining words joined by one space, tokenised anew: with a byte-level tokenizer
the first word of a text has no leading-space mark, so that moving tokens alone would glue words
together. The decoder must write the sentence as it stands in the text, and end it.

    sentence        The cat sat on the mat.
    encoder reads   mat. the sat The cat
    decoder reads   <start> The cat  sat on  the mat .
    and predicts    The     cat sat  on  the mat  .  <end>

``<start>`` is the pad id, as in T5 (Raffel et al. 2019, arXiv 1910.10683). Deletion is the noise of
the article "What loss functions are appropriate for continuing pre-training"; the shuffle within a
distance is that of Lample et al. 2017, arXiv 1711.00043.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from minicpt.batch import IGNORE, Batch, pad, padding, shift
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.order import Draw, Plan
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(
        128, "the most positions of the decoder", least=2, most=2**20
    )
    deletion: float = setting(0.2, "the probability with which a word is deleted", least=0, most=1)
    shuffle: bool = setting(True, "shuffle the words that are left")
    distance: int = setting(0, "the most places that a word moves; 0: any number", least=0)


def damage(words: Sequence[str], settings: Settings, generator: Generator) -> list[str]:
    """The words that are left, in their new order.

    With deletion=0.5 and the draws in favour of "the" and "mat":

        ["on", "the", "mat"]  ->  ["mat", "the"]
    """
    if not words:
        return []
    kept = (torch.rand(len(words), generator=generator) >= settings.deletion).nonzero()[:, 0]
    if not len(kept):
        kept = torch.randint(len(words), (1,), generator=generator)
    if settings.shuffle:
        keys = torch.rand(len(kept), generator=generator, dtype=torch.float64)
        if settings.distance:
            # Sorting i + uniform[0, k + 1) lets nothing pass what is more than k places away.
            keys = torch.arange(len(kept)) + (settings.distance + 1) * keys
        kept = kept[keys.argsort()]
    return [words[place] for place in kept.tolist()]


class Reconstruction(Objective):
    roles = ("encoder-decoder",)
    whole_text = True
    unit = "sentence"
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        self.start, self.end = tokenizer.need("pad"), tokenizer.need("end")

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """The sentences; one too long for the window is cut between words."""
        pieces = sentence_pieces(corpus, self.length - 1)
        return Plan(pieces, corpus.passage).grouped(seed, epoch)

    def batch(self, passages: Sequence[Passage], draws: Sequence[Draw]) -> Batch:
        """The encoder gets the damaged sentences, the decoder the sentences behind ``start``."""
        inputs = [torch.tensor(ids) for ids in self.damaged(passages, draws)]
        decoder, targets = [], []
        for passage in passages:
            tokens = torch.cat([passage.tokens.new_tensor([self.start]), passage.tokens])
            decoder.append(tokens)
            targets.append(shift(tokens, self.end))
        return Batch(
            {
                "tokens": pad(inputs, self.start),
                "mask": padding(inputs),
                "decoder_tokens": pad(decoder, self.start),
                "decoder_mask": padding(decoder),
            },
            {"tokens": pad(targets, IGNORE)},
        )

    def places(self, passage: Passage) -> Tensor:
        """All tokens of the sentence, then end-of-text."""
        return torch.cat([passage.start + torch.arange(len(passage.tokens)), torch.tensor([-1])])

    def damaged(self, passages: Sequence[Passage], draws: Sequence[Draw]) -> list[list[int]]:
        """The damaged text of each passage, as tokens for the encoder.

        A piece without words (a run of spaces longer than the window) is read as it stands: the
        encoder must not be left with nothing to read.
        """
        texts = [
            " ".join(damage(self.words(passage), self.settings, draw.generator))
            for passage, draw in zip(passages, draws, strict=True)
        ]
        return [
            ids or passage.tokens.tolist()
            for ids, passage in zip(self.tokenizer.encode_batch(texts), passages, strict=True)
        ]

    def words(self, passage: Passage) -> list[str]:
        """The words of a passage as text, each from its own tokens."""
        starts = passage.words.nonzero()[:, 0].tolist()
        if not starts or starts[0] != 0:
            starts.insert(0, 0)
        stops = [*starts[1:], len(passage.tokens)]
        ids = passage.tokens.tolist()
        words = (
            self.tokenizer.decode(ids[start:stop])
            for start, stop in zip(starts, stops, strict=True)
        )
        return [word.strip() for word in words if word.strip()]


def sentence_pieces(corpus: Corpus, size: int) -> Tensor:
    """(P, 2) of the (start, stop) of every sentence, those of more than ``size`` tokens in pieces.

    A piece ends before the last word that would not fit, or inside a word longer than ``size``.
    """
    ends = torch.cat([corpus.sentences[1:], corpus.sentences.new_tensor([len(corpus.tokens)])])
    rows = torch.stack([corpus.sentences, ends], dim=1)
    fits = ends - corpus.sentences <= size
    pieces = []
    for start, end in rows[~fits].tolist():
        while end - start > size:
            # The last word start in (start, start + size].
            place = int(torch.searchsorted(corpus.words, start + size, right=True)) - 1
            word = int(corpus.words[place])
            stop = word if word > start else start + size
            pieces.append((start, stop))
            start = stop
        pieces.append((start, end))
    return torch.cat([rows[fits], rows.new_tensor(pieces).view(-1, 2)])
