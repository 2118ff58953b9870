"""Next-sentence prediction: does the second text follow the first? (BERT; encoder)

A and B are runs of whole sentences, read as ``[CLS] A [SEP] B [SEP]`` with segments 0 and 1. One
target, at position 0: class 0 where B is what follows A, class 1 where it is not (half of the
pairs each). For class 1, B starts at a random sentence of another document; with one document
alone, elsewhere in that one, and never at what follows A.

``order`` asks ALBERT's question instead: two consecutive runs, in order (0) or swapped (1).
``masked`` adds masked-LM targets to the same pairs: BERT's own pre-training, whose loss is the
mean of the one plus the mean of the other.

Devlin et al. 2018, arXiv 1810.04805; Lan et al. 2019, arXiv 1909.11942. Class 0 means "is next" as
in both references. Leaves out BERT's share of deliberately short pairs.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from minicpt import generation
from minicpt.batch import IGNORE, Batch, everything, pad, padding
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.plan import Plan
from minicpt.data.text import Document, sentences
from minicpt.data.tokenizer import Tokenizer
from minicpt.errors import InputError
from minicpt.objectives import masked_lm
from minicpt.randomness import generator as generator_of
from minicpt.settings import setting

SPECIAL = 3  # [CLS], [SEP] and [SEP]
IS_NEXT, IS_NOT_NEXT = 0, 1
ALIKE = 64  # sentences that agree in so many tokens read alike
NUMBERS = {2: "two", 3: "three"}  # A and what follows it; a wrong B as well
TRIES = 20  # draws of another B before a pair is given up


@dataclass(frozen=True)
class Settings(masked_lm.Corruption):
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


class Objective:
    architecture = "encoder"
    whole_text = False
    unit = "pair"

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None):
        self.tokenizer = tokenizer
        self.settings = settings or Settings()
        self.length = self.settings.window
        self.cls, self.sep = tokenizer.need("cls"), tokenizer.need("sep")
        self.pad = tokenizer.need("pad")
        answers = ("in order", "swapped") if self.settings.order else ("follows", "does not follow")
        self.classes = {"pair": answers}
        if self.settings.masked:
            self.corrupt = masked_lm.Corrupter(tokenizer, self.settings)

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """The epoch's pairs, cut from the corpus by ``Pairing``."""
        generator = generator_of("pairs", seed, epoch)
        budget = self.length - SPECIAL
        found = array("q")
        for pair in Pairing(corpus, self.tokenizer, budget, self.settings.order, generator):
            found.extend(pair)
        least = 2 if self.settings.order else 3
        if not found or len(corpus.sentences) < least:
            raise InputError(
                f"next-sentence found no pair of sentences in the text: give {NUMBERS[least]} or"
                " more different sentences, two of them one after the other in one document"
            )

        def cut(start, stop, other_start, other_stop, label):
            first, second = corpus.passage(start, stop), corpus.passage(other_start, other_stop)
            return Pair(first, second, label)

        rows = torch.frombuffer(found, dtype=torch.int64).view(-1, 5)
        lengths = (rows[:, 1] - rows[:, 0] + rows[:, 3] - rows[:, 2]).clamp(max=budget)
        return Plan(rows, cut, lengths).grouped(seed, epoch)

    def batch(self, passages: Sequence[Pair], generators: Sequence[Generator]) -> Batch:
        """One target a pair, at position 0; with ``masked``, those of the masked tokens too."""
        cls, sep = torch.tensor([self.cls]), torch.tensor([self.sep])
        inputs, segments, pairs, tokens = [], [], [], []
        for pair, generator in zip(passages, generators, strict=True):
            a, b = trim(pair.first, pair.second, self.length - SPECIAL, generator)
            read = torch.cat([cls, a.tokens, sep, b.tokens, sep])
            segment = torch.zeros_like(read)
            segment[len(a.tokens) + 2 :] = 1
            target = torch.full_like(read, IGNORE)
            target[0] = pair.label
            if self.settings.masked:
                edge = masked_lm.EDGE
                words = torch.cat([edge, a.words, edge, b.words, edge])
                read, chosen = self.corrupt(read, words, generator)
                tokens.append(chosen)
            inputs.append(read)
            segments.append(segment)
            pairs.append(target)
        targets = {"pair": pad(pairs, IGNORE)}
        if self.settings.masked:
            targets["tokens"] = pad(tokens, IGNORE)
        return Batch(
            {
                "tokens": pad(inputs, self.pad),
                "mask": padding(inputs),
                "segments": pad(segments, 0),
            },
            targets,
        )

    def visibility(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Every position sees the whole pair."""
        mask = batch.inputs["mask"]
        seen = {"tokens": everything(mask, mask.shape[1])}
        return {head: seen for head in batch.targets}

    def fates(self, batch: Batch) -> dict[str, list[dict[int, str]]]:
        """What became of the chosen tokens, with ``masked``: hidden, replaced or kept."""
        return masked_lm.fates(batch, self.corrupt.mask) if self.settings.masked else {}

    def generate(self, model, text: str, sampling, generator: Generator) -> str:
        """Judges whether the rest of the text follows its first sentence."""
        spans = sentences(text)
        corpus = Corpus.build([Document("the text", text)], self.tokenizer)
        if len(corpus.sentences) < 2:
            raise InputError("next-sentence judges two sentences, but the text holds one; give two")
        cut, end = int(corpus.sentences[1]), len(corpus.tokens)
        pair = Pair(corpus.passage(0, cut), corpus.passage(cut, end), IS_NEXT)
        likely = self.judgement(model, self.batch([pair], [generator]))
        return f"{likely}: {text[: spans[0][1]]} ||{text[spans[0][1] :]}"

    def probe(self, model, passage: Pair, sampling, generator: Generator) -> str:
        """The pair, and how likely the model finds it that the second follows the first."""
        batch = self.batch([passage], [generator])
        first, second = (
            self.tokenizer.decode(side.tokens.tolist()).strip()
            for side in (passage.first, passage.second)
        )
        truth = "yes" if passage.label == IS_NEXT else "no"
        return f"{self.judgement(model, batch)} (truth: {truth}): {first} || {second}"

    def judgement(self, model, batch: Batch) -> str:
        likely = generation.predict(model, batch.inputs, "pair", 0, [0])[0, IS_NEXT]
        return f"{likely:.0%} {'in order' if self.settings.order else 'is next'}"


class Pairing:
    """Cuts an epoch's pairs: iterates over (A start, A stop, B start, B stop, label).

    Sentences of a document are gathered until they fill ``budget`` tokens (at least two of them),
    and parted at a random sentence into A and what follows it. A pair of class 1 keeps A and takes
    another B; what followed A then opens the next pair, so no text is lost to the wrong answers.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        budget: int,
        order: bool,
        generator: Generator,
    ):
        self.corpus, self.tokenizer = corpus, tokenizer
        self.budget, self.order, self.generator = budget, order, generator
        self.starts = whole_numbers(corpus.sentences)
        self.stops = self.starts[1:]
        self.stops.append(len(corpus.tokens))
        bounds = torch.cat([corpus.documents, torch.tensor([len(corpus.tokens)])])
        # The first sentence of each document, and one past the last of all.
        self.documents = whole_numbers(torch.searchsorted(corpus.sentences, bounds))
        self.labels: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int, int, int, int]]:
        label = self.next_label()
        for document, (sentence, end) in enumerate(
            zip(self.documents, self.documents[1:], strict=False)
        ):
            while sentence + 1 < end:
                last = sentence + 2
                while last < end and self.stops[last] - self.starts[sentence] <= self.budget:
                    last += 1
                cut = sentence + 1 + self.draw(last - sentence - 1)
                pair = self.pair(document, sentence, cut, last, label)
                if pair is None or label == IS_NEXT or self.order:
                    sentence = last
                else:
                    sentence = cut
                if pair is not None:
                    yield pair
                    label = self.next_label()

    def pair(self, document: int, sentence: int, cut: int, last: int, label: int):
        first = (self.starts[sentence], self.stops[cut - 1])
        second = (self.starts[cut], self.stops[last - 1])
        if label == IS_NEXT:
            return (*first, *second, label)
        if self.order:
            return (*second, *first, label)
        other = self.elsewhere(document, sentence, cut)
        return None if other is None else (*first, *other, label)

    def elsewhere(self, document: int, sentence: int, cut: int) -> tuple[int, int] | None:
        """A run that does not follow A = sentences [sentence, cut), or None where none is found."""
        alone = len(self.documents) == 2
        wanted = self.budget - (self.stops[cut - 1] - self.starts[sentence])
        for _ in range(TRIES):
            if alone:
                begin, end = self.documents
            else:
                other = self.draw(len(self.documents) - 2)
                other += other >= document
                begin, end = self.documents[other], self.documents[other + 1]
            start = begin + self.draw(end - begin)
            if alone and sentence <= start <= cut:
                continue
            # Words that follow A, or that follow A's last words elsewhere, are no wrong answer.
            if self.words_of(start) == self.words_of(cut):
                continue
            if start > begin and self.words_of(start - 1) == self.words_of(cut - 1):
                continue
            stop = start + 1
            # In one document the run must not reach into A.
            limit = sentence if alone and start < sentence else end
            while stop < limit and self.stops[stop] - self.starts[start] <= wanted:
                stop += 1
            return self.starts[start], self.stops[stop - 1]
        return None

    def words_of(self, sentence: int) -> list[str]:
        """Its first words, not its tokens: at the start of a text there is no leading space."""
        start = self.starts[sentence]
        tokens = self.corpus.tokens[start : min(self.stops[sentence], start + ALIKE)]
        return self.tokenizer.decode(tokens.tolist()).split()

    def next_label(self) -> int:
        """Classes in shuffled twos: half of the pairs each, and no pattern beyond that."""
        if not self.labels:
            self.labels = torch.randperm(2, generator=self.generator).tolist()
        return self.labels.pop()

    def draw(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self.generator))


def whole_numbers(values: Tensor) -> array:
    """The same numbers, 8 bytes each, in a form that Python reads fast one by one."""
    numbers = array("q")
    for part in values.split(1 << 16):
        numbers.extend(part.tolist())
    return numbers


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
