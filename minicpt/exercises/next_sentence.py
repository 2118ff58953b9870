"""Exercise: a pair of texts, as BERT reads it."""

import dataclasses
from types import SimpleNamespace

import torch

from minicpt.batch import IGNORE, Batch, pad, padding
from minicpt.data.order import Draw
from minicpt.exercises.base import Exercise, Mistake, ids, tokenizer
from minicpt.objectives.next_sentence import IS_NEXT, IS_NOT_NEXT, NextSentence, Pair
from minicpt.proofs.faults.base import targets


def row(first, second, follows, cls, sep, *, close=True, zeros=2, own=0, other=1, at=0):
    """A pair with some of its parts changed.

    close  whether [SEP] stands at the end; zeros  positions of segment 0 beside those of A
    own, other   the classes of a pair that follows, and that does not; at  where the class stands
    """
    one, two = first.new_tensor([cls]), first.new_tensor([sep])
    read = torch.cat([one, first, two, second, *([two] if close else [])])
    segments = (torch.arange(len(read)) >= len(first) + zeros).long()
    target = torch.full_like(read, IGNORE)
    target[at] = own if follows else other
    return read, segments, target


class NextSentencePairs(Exercise):
    """Two texts in one row, and one target: does the second follow the first?"""

    ORDER = 70
    minutes = 6
    task = """
    BERT reads a pair of texts in one row, and judges at the first position whether B is what
    follows A in the document. Class 0 means: B follows. Class 1 means: B comes from elsewhere.

        read       [CLS]  A A A  [SEP]  B B  [SEP]
        segment      0    0 0 0    0    1 1    1
        target     class  .  .     .    .      .

    Write the three rows of a pair.
    """
    stub = '''
    def pair(first, second, follows, cls, sep):
        """What is read (T,), the segments (T,) and the targets (T,), all int64.

        first, second  A and B, int64
        follows        True where B follows A
        cls, sep       the ids of [CLS] and [SEP]

        >>> for row in pair(torch.tensor([10, 11]), torch.tensor([12]), True, 2, 3):
        ...     print(row.tolist())
        [2, 10, 11, 3, 12, 3]
        [0, 0, 0, 0, 1, 1]
        [0, -100, -100, -100, -100, -100]
        """
        # The targets are IGNORE at all positions but the first.
    '''
    inputs = ("first", "second", "follows", "cls", "sep")
    outputs = ("read", "segments", "targets")
    tokens = frozenset({"first", "second", "cls", "sep", "read"})
    hints = (
        "torch.cat joins [CLS], A, [SEP], B, [SEP]. Single ids need torch.tensor([cls]).",
        "Segment 0 is as long as [CLS] A [SEP], that is len(first) + 2; the rest is segment 1.",
        "torch.full_like(read, IGNORE) gives targets of the right length; then set position 0.",
    )
    subject = "next-sentence"
    proofs = ("batch rules",)
    mistakes = (
        Mistake(
            "labels-reversed",
            "class 0 means that B follows",
            lambda *given: row(*given, own=1, other=0),
        ),
        Mistake(
            "one-segment",
            "all positions are of segment 0, so that only [SEP] parts the texts",
            lambda *given: row(*given, zeros=10**6),
        ),
        Mistake(
            "separator-in-the-second-segment",
            "the [SEP] behind A belongs to segment 0",
            lambda *given: row(*given, zeros=1),
        ),
        Mistake(
            "not-closed",
            "the [SEP] behind B is missing",
            lambda *given: row(*given, close=False),
        ),
        Mistake(
            "class-at-the-end",
            "the class is predicted at the last position, and not at [CLS]",
            lambda *given: row(*given, at=-1),
        ),
        Mistake(
            "class-everywhere",
            "every position has the class as its target; only [CLS] should",
            lambda *given: row(*given, at=slice(None)),
        ),
        Mistake(
            "always-follows",
            "the class is the same for every pair",
            lambda *given: row(*given, other=0),
        ),
    )

    def cases(self):
        cls, sep = tokenizer().need("cls"), tokenizer().need("sep")
        for one, other, follows in (
            ("a", "b", True), ("a", "b", False), ("hi", "x", False), ("I am", "so.", True),
        ):  # fmt: skip
            yield ids(one), ids(other), follows, cls, sep

    def reference(self, first, second, follows, cls, sep):
        objective = NextSentence(tokenizer())
        objective.cls, objective.sep, objective.read = cls, sep, list
        sides = (SimpleNamespace(tokens=each, part=lambda *_, each=each: SimpleNamespace(
            tokens=each)) for each in (first, second))  # fmt: skip
        pair = Pair(*sides, IS_NEXT if follows else IS_NOT_NEXT)
        batch = objective.batch([pair], [Draw(0, torch.Generator())])
        found = batch.inputs["tokens"], batch.inputs["segments"], batch.targets["pair"]
        return tuple(each[0] for each in found)

    def patched(self, subject, function):
        objective = subject.objective

        def change(batch: Batch) -> Batch:
            columns = batch.inputs["tokens"], batch.inputs["mask"], batch.targets["pair"]
            rows = []
            for tokens, real, target in zip(*columns, strict=True):
                one, end = (tokens[real] == objective.sep).nonzero()[:, 0].tolist()
                sides = tokens[1:one], tokens[one + 1 : end]
                follows = int(target[0]) == IS_NEXT
                rows.append(function(*sides, follows, objective.cls, objective.sep))
            read, segments, found = zip(*rows, strict=True)
            inputs = {"tokens": pad(read, objective.pad), "mask": padding(read)}
            inputs["segments"] = pad(segments, 0)
            return dataclasses.replace(
                batch, inputs=inputs, targets=batch.targets | {"pair": pad(found, IGNORE)}
            )

        return targets(subject, change)
