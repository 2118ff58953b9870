"""An epoch's pairs of two runs of sentences, cut so that nothing but their content tells the class.

Class 0 is a run A and the run B that follows it. Class 1 is A and another B or, if the order is
asked for, B and A. A model finds every trace that the cutting leaves, so:

1. Both readings of a pair are made before its class is drawn. A pair with one reading alone is not
   used.
2. Where A ends depends on A alone. If A ended where the next sentence no longer fits, that sentence
   would be a long one, and a long one at the start of B would tell that B follows.
3. A wrong B starts where the true B of another pair starts, in another document but as far from
   the end of it. It ends by the rule of the true one: with what still fits beside A.
4. Swapped runs are the two parts of one window, parted at any sentence with the same chance.

In a text whose sentences are drawn independently, the two classes then look alike. No model can be
better than chance. ``alone`` takes away the white space around a run, and ``next_sentence.trim``
cuts a run that is too long.

P pairs.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from minicpt.data.corpus import Corpus
from minicpt.data.tokenizer import Tokenizer

ALIKE = 64  # sentences that agree in so many tokens read alike
TRIES = 20  # draws of another B before the next best places are tried

Run = tuple[int, int]  # the first sentence, and the one behind the last


class Pairing:
    """Cuts the pairs of a corpus, of about ``budget`` tokens each: ``rows``."""

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
        end = torch.tensor([len(corpus.tokens)])
        stops = torch.cat([corpus.sentences[1:], end])
        self.starts, self.stops = whole_numbers(corpus.sentences), whole_numbers(stops)
        # The first sentence of each document, and one past the last of all.
        bounds = torch.cat([corpus.documents, end])
        self.documents = whole_numbers(torch.searchsorted(corpus.sentences, bounds))
        fitting = torch.searchsorted(stops, corpus.sentences + budget, right=True)
        # No run of sentences that fits has more of them, so a document's end is out of reach.
        self.most = max(1, int((fitting - torch.arange(len(stops))).max()))

    def rows(self) -> Tensor:
        """(P, 5) of the tokens at which A starts and stops, B starts and stops, and the class.

        Half of the pairs are of each class, in random order.
        """
        readings = array("q")
        for runs in self.swapped() if self.order else self.replaced():
            for first, stop in runs:
                readings.extend((self.starts[first], self.stops[stop - 1]))
        if not readings:
            return torch.empty(0, 5, dtype=torch.int64)
        both = torch.frombuffer(readings, dtype=torch.int64).view(-1, 2, 4)
        labels = torch.randperm(len(both), generator=self.generator)
        labels = (labels + self.draw(2)) % 2  # whichever has one more, where they are odd
        chosen = both[torch.arange(len(both)), labels]
        return torch.cat([chosen, labels[:, None]], dim=1)

    def swapped(self) -> Iterator[tuple[Run, Run, Run, Run]]:
        """Windows of whole sentences that fit (at least two), parted: (A, B, B, A)."""
        for first, end in zip(self.documents, self.documents[1:], strict=False):
            while first + 1 < end:
                stop = min(end, max(first + 2, self.fitting(first, self.budget)))
                cut = first + 1 + self.draw(stop - first - 1)
                yield (first, cut), (cut, stop), (cut, stop), (first, cut)
                first = stop

    def replaced(self) -> Iterator[tuple[Run, Run, Run, Run]]:
        """A and what follows, A and another B: (A, B, A, other B)."""
        walk, found = Walk(self), 0
        for anywhere in (False, True):
            for place in range(len(walk)):
                document, first, cut = walk.documents[place], walk.firsts[place], walk.cuts[place]
                other = self.elsewhere(walk, place, anywhere)
                if other is not None:
                    found += 1
                    stop = self.filled(first, cut, cut, self.documents[document + 1])
                    yield (first, cut), (cut, stop), (first, cut), other
            if found:
                return

    def elsewhere(self, walk: "Walk", place: int, anywhere: bool) -> Run | None:
        """A run that does not follow A; None where none is found.

        At a place as far from its document's end as the true B or, if there is none, farther. In a
        text with so few sentences that no pair has one: ``anywhere``.
        """
        document, first, cut = walk.documents[place], walk.firsts[place], walk.cuts[place]
        alone = len(self.documents) == 2
        most = self.documents[document + 1] - cut  # sentences that the true B can have
        left, (low, high) = walk.left[place], walk.equal(place)
        true = self.words_of(cut - 1), self.words_of(cut)
        if anywhere:
            low, left = 0, 1
        for begin, end in ((low, high), (low, len(walk))):
            for _ in range(TRIES):
                other = walk.ranked[begin + self.draw(end - begin)]
                start = walk.cuts[other]
                limit = self.documents[walk.documents[other] + 1]
                if alone:
                    if first <= start <= cut:
                        continue
                    limit = first if start < first else limit  # it must not reach into A
                elif walk.documents[other] == document:
                    continue
                if limit - start < left:
                    continue
                # Words that follow A, or that follow A's last words elsewhere, are no wrong answer.
                if self.words_of(start) == true[1] or self.words_of(start - 1) == true[0]:
                    continue
                return start, self.filled(first, cut, start, min(limit, start + most))
        return None

    def filled(self, first: int, cut: int, start: int, limit: int) -> int:
        """Where a run from ``start`` ends that fills what A = [first, cut) leaves of the budget."""
        room = self.budget - (self.stops[cut - 1] - self.starts[first])
        return min(limit, self.fitting(start, room))

    def fitting(self, start: int, size: int) -> int:
        """Where a run from ``start`` ends that has as many sentences as fit, and at least one."""
        return max(start + 1, bisect_right(self.stops, self.starts[start] + size, start))

    def words_of(self, sentence: int) -> list[str]:
        """Its first words, not its tokens: at the start of a text there is no leading space."""
        start = self.starts[sentence]
        tokens = self.corpus.tokens[start : min(self.stops[sentence], start + ALIKE)]
        return self.tokenizer.decode(tokens.tolist()).split()

    def draw(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self.generator))


class Walk:
    """The documents cut into runs: each is some A, and where it ends the true B of it starts.

    documents  of each pair, its document
    firsts     the first sentence of A
    cuts       the first sentence of B
    left       how many sentences the document has from there on, ``pairing.most`` at most
    ranked     the pairs by ``left``, ascending

    A run ends with the sentence in which a token stands that is drawn from the budget, or after a
    number of sentences that is drawn from those that are left: whichever comes first. It leaves two
    sentences where it can.
    """

    def __init__(self, pairing: Pairing):
        self.documents, self.firsts, self.cuts = array("q"), array("q"), array("q")
        left = array("q")
        # Two thirds: then A and B are of like length, as A goes on to the end of its sentence.
        deepest = max(1, 2 * pairing.budget // 3)
        bounds = zip(pairing.documents, pairing.documents[1:], strict=False)
        for document, (first, end) in enumerate(bounds):
            while first + 1 < end:
                target = pairing.starts[first] + pairing.draw(deepest)
                most = 1 + pairing.draw(max(1, end - first - 2))
                cut = min(bisect_left(pairing.stops, target, first) + 1, first + most)
                self.documents.append(document)
                self.firsts.append(first)
                self.cuts.append(cut)
                left.append(min(end - cut, pairing.most))
                first = cut
        self.left = left
        order = torch.tensor(left, dtype=torch.int64).argsort(stable=True)
        self.ranked = whole_numbers(order)
        self.keys = array("q", (left[place] for place in self.ranked))

    def __len__(self) -> int:
        return len(self.cuts)

    def equal(self, place: int) -> tuple[int, int]:
        """The part of ``ranked`` that has as much left as this one."""
        left = self.left[place]
        return bisect_left(self.keys, left), bisect_right(self.keys, left)


def whole_numbers(values: Tensor) -> array:
    """The same numbers, 8 bytes each, in a form that Python reads fast one by one."""
    numbers = array("q")
    for part in values.split(1 << 16):
        numbers.extend(part.tolist())
    return numbers
