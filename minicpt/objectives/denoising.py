"""Denoising: a damaged text is written again as it was (BART; encoder-decoder).

The damage, in this order:

    sentences are shuffled          A b c d. E f g h i.  ->  E f g h i. A b c d.
    spans of words become a mask    E [MASK] i. [MASK] A b c d.
    tokens are deleted              (off by default)
    the text is rotated             (off by default) b c d. E [MASK] i. [MASK] A

The spans have lengths drawn from a Poisson distribution with the mean ``span``, until they cover
``rate`` of the words, rounded up; the last one is made to fit. Each becomes one mask token, so that
how much is missing must be found out too. A span of length 0 inserts a mask token. The encoder
reads the damaged text and end-of-text, the decoder writes the text and end-of-text, both by tokens.

Lewis et al. 2019, arXiv 1910.13461, and its reference, fairseq's ``DenoisingDataset``. Differs from
that in three things. Spans do not overlap, so that ``rate`` is met exactly; at least one word
stays. There are no more mask tokens than hidden words, so that the damaged text is not longer than
the whole. And a sentence that has no space before it (the first one of a document) gets one where
it moves behind another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator

from minicpt import generation
from minicpt.batch import Batch
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.input_output import input_output
from minicpt.data.order import Draw, Plan, windows
from minicpt.data.skipping import without_short
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective

LEAST = 2  # words of a passage: one that is hidden, one that stays
Word = list[int]  # the tokens of a word


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(
        128, "the most positions of the encoder, and of the decoder", least=4, most=2**20
    )
    rate: float = setting(0.3, "share of the words that mask tokens hide", above=0, below=1)
    span: float = setting(3.0, "mean number of words behind a mask token", least=1, most=1000)
    permute: bool = setting(True, "shuffle the sentences")
    deletion: float = setting(
        0.0, "the probability with which a token is deleted", least=0, below=1
    )
    rotate: bool = setting(False, "begin the text at a random token, and put its beginning last")

    def __post_init__(self):
        super().__post_init__()
        if self.span > self.window:
            raise InputError(
                f"--span {self.span:g} is longer than --window {self.window}; lower the one, or"
                " raise the other"
            )


def sentences_of(passage: Passage) -> list[list[Word]]:
    """The words of each sentence; a passage may begin within a word and within a sentence."""
    result: list[list[Word]] = []
    rows = zip(
        passage.tokens.tolist(), passage.words.tolist(), passage.sentences.tolist(), strict=True
    )
    for token, word, sentence in rows:
        if sentence or not result:
            result.append([[]])
        elif word:
            result[-1].append([])
        result[-1][-1].append(token)
    return result


def infill(
    words: Sequence[Word], lengths: Sequence[int], mask: int, generator: Generator
) -> list[Word]:
    """The words, of which each of some spans has become one mask token.

    The spans and the words that stay are put in a row, in which the spans have random places. With
    lengths 0 and 2, and draws in favour of the fourth and the second place:

        a b c d e  ->  a [MASK] d [MASK] e
    """
    count = len(words) - sum(lengths) + len(lengths)
    drawn = torch.randperm(count, generator=generator)[: len(lengths)].tolist()
    spans, result, done = dict(zip(drawn, lengths, strict=True)), [], 0
    for place in range(count):
        result.append([mask] if place in spans else words[done])
        done += spans.get(place, 1)
    return result


class Denoising(Objective):
    roles = ("encoder-decoder",)
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        self.start, self.end = tokenizer.need("pad"), tokenizer.need("end")
        self.mask = tokenizer.need("mask")

    @property
    def longest(self) -> int:
        """There is room for end-of-text, and for a space: see ``spaced``."""
        return self.length - 2

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """Windows of the documents."""
        plan = Plan(windows(corpus, self.longest, seed, epoch), corpus.passage)
        begin, end = torch.searchsorted(corpus.words, plan.rows + torch.tensor([1, 0])).T
        why = f"denoising needs passages of {LEAST} words"  # their first token begins one
        return without_short(plan, 1 + end - begin, LEAST, why).grouped(seed, epoch)

    def batch(self, passages: Sequence[Passage], draws: Sequence[Draw]) -> Batch:
        """The encoder gets the damaged texts, the decoder writes the texts."""
        read = [
            torch.tensor([*self.damaged(passage, draw.generator), self.end])
            for passage, draw in zip(passages, draws, strict=True)
        ]
        end = torch.tensor([self.end])
        written = [torch.cat([passage.tokens, end]) for passage in passages]
        return input_output(self.role, read, written, self.start)

    def damaged(self, passage: Passage, generator: Generator) -> list[int]:
        """The tokens of a passage, damaged as the settings say."""
        settings, sentences = self.settings, sentences_of(passage)
        if settings.permute:
            order = torch.randperm(len(sentences), generator=generator).tolist()
            if order[0] != 0:
                sentences[0][0] = self.spaced(sentences[0][0])
            sentences = [sentences[place] for place in order]
        words = [word for sentence in sentences for word in sentence]
        lengths = self.spans(len(words), generator)
        tokens = sum(infill(words, lengths, self.mask, generator), [])
        if settings.deletion:
            stays = torch.rand(len(tokens), generator=generator) >= settings.deletion
            stays |= torch.tensor(tokens) == self.mask
            tokens = torch.tensor(tokens)[stays].tolist()
        if settings.rotate:
            first = int(torch.randint(len(tokens), (), generator=generator))
            tokens = tokens[first:] + tokens[:first]
        return tokens

    def spans(self, words: int, generator: Generator) -> list[int]:
        """How many words each mask token hides, of a text of ``words`` words, 2 or more."""
        hidden = min(math.ceil(self.settings.rate * words), words - 1)
        mean, lengths, inserted = torch.tensor(float(self.settings.span)), [], 0
        while sum(lengths) < hidden:
            length = int(torch.poisson(mean, generator=generator))
            if length:
                lengths.append(min(length, hidden - sum(lengths)))
            inserted += not length
        return lengths + [0] * min(inserted, hidden - len(lengths))

    def spaced(self, word: Word) -> Word:
        """A word that may follow another one: with a space in front, at most one token longer."""
        encode, text = self.tokenizer.encode, self.tokenizer.decode(word)
        if text[:1].isspace():
            return word
        return min(encode(f" {text}"), encode(" ") + word, key=len)

    # --- what a trained model does with a text

    def generate(self, model, text: str, sampling, generator: Generator) -> str:
        """Writes a text again in which mask tokens stand for what is missing."""
        *parts, last = text.split(self.tokenizer.token(self.mask))
        read = []
        for part in parts:  # the space before a gap belongs to what fills it
            read += [*self.tokenizer.encode(part.removesuffix(" ")), self.mask]
        read += [*self.tokenizer.encode(last), self.end]
        generation.check_length(read, self.length)
        return self.written(model, read, sampling, generator)

    def probe(self, model, passage: Passage, sampling, draw: Draw) -> str:
        """What the encoder reads of a passage, and what the model writes."""
        read = self.damaged(passage, draw.generator)
        mask = self.tokenizer.token(self.mask)
        shown = mask.join(self.tokenizer.decode(part) for part in split(read, self.mask))
        written = self.written(model, [*read, self.end], sampling, draw.generator)
        return f"{shown.strip()} -> {written}"

    def written(self, model, read: list[int], sampling, generator: Generator) -> str:
        ids = generation.rewrite_tokens(model, read, self.tokenizer, sampling, generator)
        return self.tokenizer.decode(ids).strip()


def split(tokens: Sequence[int], at: int) -> list[list[int]]:
    """The runs of tokens between those that are ``at``.

    >>> split([5, 0, 6, 7], at=0)
    [[5], [6, 7]]
    """
    runs: list[list[int]] = [[]]
    for token in tokens:
        if token == at:
            runs.append([])
        else:
            runs[-1].append(token)
    return runs
