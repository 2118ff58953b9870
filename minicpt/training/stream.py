"""Which passages a run reads: an endless sequence, addressed by one integer.

Order and draws are pure functions of (seed, epoch, place). So the position in the data is the
number of passages seen, two runs agree, and neither the number of processes nor the split of a step
into micro-batches changes what is read.
"""

from bisect import bisect_right
from collections.abc import Sequence

from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.order import Draw, planned


class Stream:
    """The endless sequence of an objective's passages, epoch after epoch."""

    def __init__(self, objective, corpus, seed: int):
        self.objective, self.corpus, self.seed = objective, corpus, seed
        self.begins = [0]  # the position at which each epoch so far begins

    def plan(self, epoch: int) -> Sequence:
        plan = planned(self.objective, self.corpus, self.seed, epoch)
        if not len(plan):
            raise InputError("the corpus is too short: it gives not a single passage")
        return plan

    def epoch_length(self, epoch: int) -> int:
        """How many passages an epoch has; those of later epochs may be cut differently."""
        while len(self.begins) <= epoch + 1:
            self.begins.append(self.begins[-1] + len(self.plan(len(self.begins) - 1)))
        return self.begins[epoch + 1] - self.begins[epoch]

    def passages(self, position: int, count: int) -> tuple[list, list[Draw]]:
        """Passages ``position``, ``position + 1``, … and each one's draw."""
        passages, draws = [], []
        while self.begins[-1] <= position + count:
            self.epoch_length(len(self.begins) - 1)
        for number in range(position, position + count):
            epoch = bisect_right(self.begins, number) - 1
            place = number - self.begins[epoch]
            passages.append(self.plan(epoch)[place])
            draws.append(Draw(place, generator("noise", self.seed, epoch, place)))
        return passages, draws
