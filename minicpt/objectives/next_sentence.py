"""Next-sentence prediction: does the second text follow the first? (BERT; encoder)

A and B are runs of whole sentences, read as ``[CLS] A [SEP] B [SEP]``, with segments 0 and 1 where
the model takes them. One without segments, as ModernBERT, tells A from B by ``[SEP]`` alone. One
target, at position 0: class 0 where B is what follows A, class 1 where it is not (half of the pairs
each). For class 1, B is taken from another document; with one document alone, from elsewhere in
that one, and never from what follows A. How pairs are cut so that nothing but their content tells
the class: ``data.pairing``. Both runs are tokenised as texts of their own, without white space at
their ends, as ``transformers`` tokenises the pair (A, B).

``order`` asks ALBERT's question instead: two consecutive runs, in order (0) or swapped (1).
``masked`` adds masked-LM targets to the same pairs: BERT's own pre-training, whose loss is the
mean of the one plus the mean of the other.

Devlin et al. 2018, arXiv 1810.04805; Lan et al. 2019, arXiv 1909.11942. Class 0 means "is next" as
in both references. Leaves out BERT's share of deliberately short pairs. Differs from BERT in where
a wrong B starts: BERT draws any sentence of another document, its first one too, which a true B
never is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator

from minicpt import generation
from minicpt.batch import IGNORE, Batch, pad, padding
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator as generator_of
from minicpt.common.settings import setting
from minicpt.data.alone import alone
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.order import Draw, Plan
from minicpt.data.pairing import Pairing
from minicpt.data.text import Document, sentences
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective
from minicpt.objectives.masked_lm import EDGE, Masker, Masking, fates

SPECIAL = 3  # [CLS], [SEP] and [SEP]
IS_NEXT, IS_NOT_NEXT = 0, 1
NUMBERS = {2: "two", 3: "three"}  # A and what follows it; a wrong B as well


@dataclass(frozen=True)
class Settings(Masking):
    window: int = setting(
        128, "the most tokens read at once", least=SPECIAL + 2, most=2**20
    )
    order: bool = setting(False, "ask whether two consecutive runs were swapped (ALBERT)")
    masked: bool = setting(False, "predict masked tokens of the same pairs too (BERT)")


@dataclass(frozen=True)
class Pair:
    """Two runs of tokens as they are read, and the class of their relation."""

    first: Passage
    second: Passage
    label: int

    @property
    def place(self) -> str:
        return f"{self.first.place} with {self.second.place}"

    @property
    def document(self) -> str:
        """The document of the first run, and ``start`` likewise."""
        return self.first.document

    @property
    def start(self) -> int:
        return self.first.start


class NextSentence(Objective):
    roles = ("encoder",)
    heads = ("pair", "tokens")
    unit = "pair"
    extra = ("segments",)
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        self.cls, self.sep = tokenizer.need("cls"), tokenizer.need("sep")
        self.pad = tokenizer.need("pad")
        answers = ("in order", "swapped") if self.settings.order else ("follows", "does not follow")
        self.classes = {"pair": answers}
        if self.settings.masked:
            self.masker = Masker(tokenizer, self.settings)

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """The epoch's pairs, cut from the corpus by ``Pairing``."""
        budget, generator = self.length - SPECIAL, generator_of("pairs", seed, epoch)
        rows = Pairing(corpus, self.tokenizer, budget, self.settings.order, generator).rows()
        least = 2 if self.settings.order else 3
        if not len(rows) or len(corpus.sentences) < least:
            raise InputError(
                f"next-sentence found no pair of sentences in the text: give {NUMBERS[least]} or"
                " more different sentences, two of them one after the other in one document"
            )

        def cut(start, stop, other_start, other_stop, label):
            first, second = corpus.passage(start, stop), corpus.passage(other_start, other_stop)
            return Pair(first, second, label)

        lengths = (rows[:, 1] - rows[:, 0] + rows[:, 3] - rows[:, 2]).clamp(max=budget)
        return Plan(rows, cut, lengths).grouped(seed, epoch)

    def batch(self, passages: Sequence[Pair], draws: Sequence[Draw]) -> Batch:
        """One target a pair, at position 0; with ``masked``, those of the masked tokens too."""
        cls, sep = torch.tensor([self.cls]), torch.tensor([self.sep])
        inputs, segments, pairs, tokens = [], [], [], []
        sides = self.read([side for pair in passages for side in (pair.first, pair.second)])
        runs = zip(sides[::2], sides[1::2], strict=True)
        for pair, (a, b), draw in zip(passages, runs, draws, strict=True):
            a, b = trim(a, b, self.length - SPECIAL, draw.generator)
            read = torch.cat([cls, a.tokens, sep, b.tokens, sep])
            segment = torch.zeros_like(read)
            segment[len(a.tokens) + 2 :] = 1
            target = torch.full_like(read, IGNORE)
            target[0] = pair.label
            if self.settings.masked:
                words = torch.cat([EDGE, a.words, EDGE, b.words, EDGE])
                read, chosen = self.masker(read, words, draw.generator)
                tokens.append(chosen)
            inputs.append(read)
            segments.append(segment)
            pairs.append(target)
        targets = {"pair": pad(pairs, IGNORE)}
        if self.settings.masked:
            targets["tokens"] = pad(tokens, IGNORE)
        read = {"tokens": pad(inputs, self.pad), "mask": padding(inputs)}
        if "segments" in self.extra:
            read["segments"] = pad(segments, 0)
        return Batch(read, targets)

    def read(self, runs: Sequence[Passage]) -> list[Passage]:
        """The runs with the tokens that they have as texts of their own: see ``alone``."""
        return alone(runs, self.tokenizer)

    def fates(self, batch: Batch) -> dict[str, list[dict[int, str]]]:
        """What became of the chosen tokens, with ``masked``: hidden, replaced or kept."""
        return fates(batch, self.masker.mask) if self.settings.masked else {}

    def generate(self, model, text: str, sampling, generator: Generator) -> str:
        """Judges whether the rest of the text follows its first sentence."""
        spans = sentences(text)
        corpus = Corpus.build([Document("the text", text)], self.tokenizer)
        if len(corpus.sentences) < 2:
            raise InputError("next-sentence judges two sentences, but the text holds one; give two")
        cut, end = int(corpus.sentences[1]), len(corpus.tokens)
        pair = Pair(corpus.passage(0, cut), corpus.passage(cut, end), IS_NEXT)
        likely = self.judgement(model, self.batch([pair], [Draw(0, generator)]))
        return f"{likely}: {text[: spans[0][1]]} ||{text[spans[0][1] :]}"

    def probe(self, model, passage: Pair, sampling, draw: Draw) -> str:
        """The pair, and how likely the model finds it that the second follows the first."""
        batch = self.batch([passage], [draw])
        first, second = (
            self.tokenizer.decode(side.tokens.tolist()).strip()
            for side in (passage.first, passage.second)
        )
        truth = "yes" if passage.label == IS_NEXT else "no"
        return f"{self.judgement(model, batch)} (truth: {truth}): {first} || {second}"

    def judgement(self, model, batch: Batch) -> str:
        likely = generation.predict(model, batch.inputs, "pair", 0, [0])[0, IS_NEXT]
        return f"{likely:.0%} {'in order' if self.settings.order else 'is next'}"


def trim(
    first: Passage, second: Passage, budget: int, generator: Generator
) -> tuple[Passage, Passage]:
    """Both runs cut to ``budget`` tokens together, one token at a time.

    Each token comes off the longer run (the second where they are alike), at random from its front
    or its back.
    """
    bounds = [[0, len(first.tokens)], [0, len(second.tokens)]]
    excess = max(0, len(first.tokens) + len(second.tokens) - budget)
    for front in (torch.rand(excess, generator=generator) < 0.5).tolist():
        longer = max(reversed(bounds), key=lambda bound: bound[1] - bound[0])
        if front:
            longer[0] += 1
        else:
            longer[1] -= 1
    return first.part(*bounds[0]), second.part(*bounds[1])
