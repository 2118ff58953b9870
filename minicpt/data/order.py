"""The plan of an epoch: which passages are read, in which order, and which of them stand together.

    windows          cuts the documents into passages that fit
    group_by_length  puts passages of like length together, so that a batch is padded little;
                     it is used where random batches would be padded much

All of it is a pure function of seed and epoch. A plan knows nothing of batches: it is one sequence,
of which a step takes as many as it wants.

P passages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus

RUN = 96  # passages of like length in a row: whole batches of 8, 12, 16, 24, 32 or 48
NEWEST = 2  # plans of a corpus that are remembered: where epochs meet both are read
EVEN = 0.75  # of the longest passage: where the mean is longer, passages are not grouped
POOL = 20 * RUN  # passages that are sorted together: fewer are more random, more are more alike


@dataclass(frozen=True)
class Draw:
    """What belongs to one passage of a plan beside its tokens.

    place      its place in the plan
    generator  of all its random choices, and of nobody else's
    """

    place: int
    generator: Generator


class Plan(Sequence):
    """The passages of an epoch in their order, each cut only when it is asked for.

    rows     (P, K) int64, what ``cut`` needs to know of each passage
    cut      called with the K integers of a row
    lengths  (P,) int64, how many positions are read of each, up to a constant; if not given, what
             lies between the first two integers of a row
    skipped  how many more passages the text has, which are too short: see ``skipping``

    >>> plan = Plan(torch.tensor([[0, 2], [2, 5]]), lambda start, stop: "hello"[start:stop])
    >>> len(plan), plan[1], plan[:], plan.lengths.tolist()
    (2, 'llo', ['he', 'llo'], [2, 3])
    """

    def __init__(
        self, rows: Tensor, cut: Callable[..., object], lengths: Tensor | None = None, skipped=0
    ):
        self.rows, self.cut, self.skipped = rows, cut, skipped
        self.lengths = rows[:, 1] - rows[:, 0] if lengths is None else lengths

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place):
        if isinstance(place, slice):
            return [self.cut(*row) for row in self.rows[place].tolist()]
        if not -len(self) <= place < len(self):
            raise IndexError(f"no passage {place} in a plan of {len(self)}")
        return self.cut(*self.rows[place].tolist())

    def grouped(self, seed: int, epoch: int) -> "Plan":
        """The same passages in random order; where that would be padded much, by like length.

        Grouping has a price: the short passages, which are ends of documents, get small batches of
        their own, and a model learns less from these. Where most passages fill their window, that
        costs more than padding does (benchmarks/README.md, orders.py).
        """
        draws = generator("order", seed, epoch)
        even = len(self) and self.lengths.double().mean() >= EVEN * self.lengths.max()
        if even:
            order = torch.randperm(len(self), generator=draws)
        else:
            order = group_by_length(self.lengths, draws)
        return Plan(self.rows[order], self.cut, self.lengths[order], self.skipped)


def planned(objective, corpus: Corpus, seed: int, epoch: int) -> Plan:
    """As ``objective.plan``, which is called only if this is none of the corpus' newest plans."""
    key = (id(objective), seed, epoch)
    # The objective is kept too, so that no other one gets its id.
    found = corpus.plans.pop(key, None) or (objective, objective.plan(corpus, seed, epoch))
    corpus.plans[key] = found
    for oldest in list(corpus.plans)[:-NEWEST]:
        del corpus.plans[oldest]
    return found[1]


def group_by_length(lengths: Tensor, generator: Generator) -> Tensor:
    """A random order of passages in which neighbours have like lengths: (P,) int64, a permutation.

    The passages are shuffled and sorted by length within pools of POOL. Each pool is cut into runs
    of RUN, and the runs come in random order. So a batch is padded little, and each epoch puts
    other passages together. The passages that do not fill a run come last, as shuffled. A batch
    whose size divides RUN lies within one run, if the epoch begins with a whole batch.
    """
    shuffled = torch.randperm(len(lengths), generator=generator)
    whole = len(lengths) // RUN * RUN
    runs = [
        pool[lengths[pool].argsort(stable=True)].view(-1, RUN)
        for pool in shuffled[:whole].split(POOL)
    ]
    runs = torch.cat(runs)  # (P // RUN, RUN)
    order = torch.randperm(len(runs), generator=generator)
    return torch.cat([runs[order].flatten(), shuffled[whole:]])


def windows(corpus: Corpus, size: int, seed: int, epoch: int, lead: int = 0) -> Tensor:
    """All tokens once, in windows of at most ``size``: (P, 2) int64 of (start, stop), ascending.

    No window crosses documents. A document that is too long for one window is cut at another
    phase in each epoch but the first: its first window is shorter. ``lead`` positions are kept
    free before the first token of each document, for what an objective puts there.

    A pure function of its arguments. Raises InputError for a window without room for a token.
    """
    if size < 1 or not 0 <= lead < size:
        raise InputError(f"a window of {size} tokens leaves no room for text: make it longer")
    starts = corpus.documents
    stops = torch.cat([starts[1:], starts.new_tensor([len(corpus.tokens)])])
    room = size - lead  # in a document's first window
    firsts = torch.full_like(starts, room)
    if epoch > 0:
        draw = torch.randint(room, firsts.shape, generator=generator("phases", seed, epoch))
        firsts = torch.where(stops - starts > room, firsts - draw, firsts)
    rest = (stops - starts - firsts).clamp(min=0)
    counts = 1 + (rest + size - 1) // size
    document = torch.repeat_interleave(torch.arange(len(starts)), counts)
    within = torch.arange(len(document)) - (counts.cumsum(0) - counts)[document]
    # Window j > 0 starts at first + (j - 1) * size, and each stops where the next one starts.
    begin = starts[document] + torch.where(within > 0, firsts[document] + (within - 1) * size, 0)
    end = torch.minimum(starts[document] + firsts[document] + within * size, stops[document])
    return torch.stack([begin, end], dim=1)
