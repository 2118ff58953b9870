"""Replay: old text mixed into the batches, so that new text does not push it out.

Two streams of passages become one. Of the first n passages floor(n F + 1/2) are replayed, for the
fraction F as it is written in decimals: never off by more than half a passage, spread evenly, and a
function of the position alone. So the position in the data stays one integer, and batches and
micro-batches are cut as ever. Each of the two streams keeps its own order, drawn from seed and
epoch; the old text begins anew when it is used up. F is a share of passages, not of tokens. Batches
are padded more than without: each old passage has a length of its own among new ones of like
length, and shifts the runs of these against the batches.

Replay from nothing but the base: when the old text is gone, texts that the base writes itself stand
in for it (self-replay, arXiv 2605.26097; the idea is older: Robins 1995, "Catastrophic Forgetting,
Rehearsal and Pseudorehearsal"). ``sampling`` writes them, before the training starts.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from torch import Generator, Tensor

from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus


@dataclass(frozen=True)
class Settings(Checked):
    replay: tuple[str, ...] = setting(
        (),
        "mix in old text: `base` (what the base was trained on), `self` (written by the base, a"
        " decoder, before training), or files, folders",
    )
    replay_fraction: float = setting(
        0.05, "share of the passages that are replayed", above=0, below=1
    )
    replay_tokens: int = setting(
        2**16, "the most tokens that --replay self writes; used again when they run out", least=1
    )


@dataclass(frozen=True)
class Replay:
    """What is replayed, and which share of the passages.

    written  the tokens (B, L) that the base has written, where the corpus is made of these: they
             are kept with the state of the run, so that they need not be written again
    """

    corpus: Corpus
    fraction: float
    written: Tensor | None = None


def replayed(count: int, fraction: Fraction) -> int:
    """How many of the first ``count`` passages are old ones.

    >>> [replayed(count, Fraction("0.3")) for count in range(11)]
    [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    """
    return math.floor(count * fraction + Fraction(1, 2))


class Mixture:
    """The stream of new passages with old ones between them; ``corpus`` is the new text's."""

    def __init__(self, new, old, fraction: float):
        self.new, self.old, self.corpus = new, old, new.corpus
        self.fraction = Fraction(str(fraction))  # 0.05 is 1/20, not the nearest binary number

    def passages(self, position: int, count: int) -> tuple[list, list[Generator]]:
        """Passages ``position``, ``position + 1``, … and the generator of each one's noise."""
        before = [replayed(place, self.fraction) for place in range(position, position + count + 1)]
        first, some = before[0], before[-1] - before[0]
        old = zip(*self.old.passages(first, some), strict=True)
        new = zip(*self.new.passages(position - first, count - some), strict=True)
        steps = zip(before, before[1:], strict=False)
        chosen = [next(old if after > before else new) for before, after in steps]
        return [passage for passage, _ in chosen], [noise for _, noise in chosen]

    def epoch_length(self, epoch: int) -> int:
        """How many passages it takes to see the new text once more, the old ones with them."""
        for each in range(epoch + 1):
            self.new.epoch_length(each)
        begin, end = self.new.begins[epoch : epoch + 2]
        return self.place(end) - self.place(begin)

    def place(self, count: int) -> int:
        """The fewest passages that hold ``count`` new ones."""
        # n - floor(n F + 1/2) >= count, solved for n
        return math.floor((count - Fraction(1, 2)) / (1 - self.fraction)) + 1 if count else 0
