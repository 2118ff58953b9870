"""The probe's task: which part of a text does a short passage come from?

A part is a folder right below the one that all files share, or a file that lies beside these
folders: of builtin:code a package or a module, of builtin:docs a topic. A model learns from a few
passages of each part, the shots, and is asked about others. Neighbouring passages are like each
other. So they stand in stretches of a few, and no stretch is on both sides. Intervals count units
that hold stretches of every part. They speak of other passages of these parts. They say nothing of
other parts, nor of other shots; DRAWS sets of shots are averaged.

The passages are held out. Only where these are too few, passages of the training text join them,
which is said: models have read those, but without labels.

P passages, C parts, K shots of each, A passages that are asked.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.documents import Document
from minicpt.data.order import windows

SHOTS = (4, 16, 64)  # of each part
MOST_PARTS = 8
TOKENS = 32  # of a passage, at most; at least half as many
STRETCH = 4  # passages
DRAWS = 4  # of the shots
UNITS = 50  # at most
# Of all parts together, in times the most shots of one. 1,088 answers are within 3 points of the
# truth in 95 % of cases, if they are independent: 1.96 * sqrt(0.25 / 1,088) = 0.0297.
ENOUGH, ASKED = 17, 26

Stretch = tuple[Corpus, Tensor]  # with rows (start, stop) of its passages


@dataclass(frozen=True)
class Task:
    """Passages with the number of the part that each comes from, and the stretch it belongs to.

    labels     (P,) int64
    stretches  (P,) int64, counted from 0 in each part; they are in random order
    parts      the names of the C parts
    shots      how many passages of each part are learnt from, ascending
    read       whether some of the passages stand in training text
    """

    passages: Sequence[Passage]
    labels: Tensor
    stretches: Tensor
    parts: Sequence[str]
    shots: Sequence[int]
    read: bool

    @property
    def said(self) -> str:
        """What is told apart, in one line."""
        asked = len(self.draw(0)[1])
        seen = ", some of them from training text" if self.read else ""
        return (
            f"the probe learns from {self.shots[-1]} passages of each part and asks {asked:,}"
            f"{seen}: {', '.join(self.parts)}"
        )

    @property
    def units(self) -> Tensor:
        """The unit of each passage, (P,) int64: each holds the like share of every part."""
        counts = torch.tensor([
            int(self.stretches[self.labels == label].max()) + 1 for label in range(len(self.parts))
        ])
        return self.stretches * counts.min().clamp(max=UNITS) // counts[self.labels]

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Draw ``number``: the places of the shots, (C, K), and of what is asked, (A,).

        Of each part stretches are drawn until they hold K passages, and the shots are drawn from
        these; the first few are the shots of a smaller task. All other stretches are asked.
        """
        draws, most = generator("shots", number), self.shots[-1]
        shots, asked = [], torch.ones(len(self.labels), dtype=torch.bool)
        for label in range(len(self.parts)):
            places = torch.nonzero(self.labels == label)[:, 0]
            stretches = self.stretches[places]
            order = torch.randperm(int(stretches.max()) + 1, generator=draws)
            before = order.argsort()[stretches]  # how many stretches are drawn before its own
            sizes = stretches.bincount()[order].cumsum(0)
            drawn = places[before <= int(torch.searchsorted(sizes, most))]
            asked[drawn] = False
            shots.append(drawn[torch.randperm(len(drawn), generator=draws)[:most]])
        return torch.stack(shots), torch.nonzero(asked)[:, 0]


def task(
    held_out: tuple[Sequence[Document], Corpus],
    training: tuple[Sequence[Document], Corpus],
    size: int,
    most: int,
) -> Task | None:
    """The task of a text; None where it has no two parts that are long enough.

    size  tokens of a passage, at most
    most  shots of a part, at most
    """
    both = held_out, training
    names = parts([document for documents, _ in both for document in documents])
    stretches: dict[str, list[Stretch]] = {}
    found = None
    for read, (documents, corpus) in enumerate(both):
        own, names = names[: len(documents)], names[len(documents) :]
        for part, stretch in stretches_of(documents, own, corpus, min(size, TOKENS)):
            stretches.setdefault(part, []).append(stretch)
        found = of_stretches(stretches, most, bool(read))
        if found and len(found.passages) - len(found.parts) * most >= ENOUGH * most:
            break
    return found


def parts(documents: Sequence[Document]) -> list[str]:
    """The part that each document belongs to, by name.

    >>> parts([Document("notes/a/1.txt", ""), Document("notes/b/2.txt", "")])
    ['a', 'b']
    """
    files = [document.file for document in documents]
    folders = {os.path.dirname(each) for each in files}
    try:
        shared = os.path.commonpath(folders)
    except ValueError:  # relative and absolute paths
        shared = ""
    return [os.path.relpath(each, shared or ".").split(os.sep)[0] for each in files]


def stretches_of(
    documents: Sequence[Document], names: Sequence[str], corpus: Corpus, size: int
) -> Iterator[tuple[str, Stretch]]:
    """Neighbouring passages of a document, STRETCH at most, without short ones; with their part.

    names  the part of each document
    """
    places = [(document.source, document.start) for document in documents]
    part_of = dict(zip(places, names, strict=True))
    rows = windows(corpus, size, 0, 0)
    owners = torch.searchsorted(corpus.documents, rows[:, 0].contiguous(), right=True) - 1
    numbers, counts = owners.unique_consecutive(return_counts=True)
    for number, own in zip(numbers.tolist(), rows.split(counts.tolist()), strict=True):
        start = 0 if corpus.starts is None else int(corpus.starts[number])
        part = part_of[corpus.names[number], start]
        for some in own.split(STRETCH):
            some = some[some[:, 1] - some[:, 0] > size // 2]
            if len(some):
                yield part, (corpus, some)


def of_stretches(stretches: dict[str, list[Stretch]], most: int, read: bool) -> Task | None:
    """The task of these parts: the largest ones, and the most shots that two of them allow."""
    sizes = {part: sum(len(rows) for _, rows in each) for part, each in stretches.items()}
    for shots in sorted({most, *(each for each in SHOTS if each < most)}, reverse=True):
        least = shots + shots // 2 + STRETCH  # some of a stretch with shots in it are not asked
        able = [part for part, size in sizes.items() if size >= least]
        if len(able) > 1:
            break
    else:
        return None
    able = sorted(sorted(able), key=lambda part: -sizes[part])[:MOST_PARTS]
    room = shots + -(-ASKED * shots // len(able))
    passages, labels, numbers = [], [], []
    for label, part in enumerate(able):
        order = torch.randperm(len(stretches[part]), generator=generator("probe", part))
        left = room
        for number, chosen in enumerate(order.tolist()):
            corpus, rows = stretches[part][chosen]
            rows = rows[:left].tolist()
            passages += [corpus.passage(*row) for row in rows]
            numbers += [number] * len(rows)
            left -= len(rows)
        labels += [label] * (room - left)
    shots = [*(each for each in SHOTS if each < shots), shots]
    return Task(passages, torch.tensor(labels), torch.tensor(numbers), able, shots, read)
