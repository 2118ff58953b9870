"""Mistakes with a middle that moves to the end. The batch rules catch all of them."""

import copy
import dataclasses
from collections.abc import Callable

import torch

from minicpt.batch import Batch
from minicpt.data.order import Plan, windows
from minicpt.proofs.faults.base import fault
from minicpt.proofs.subject import Subject


def cutting(subject: Subject, parts: Callable) -> Subject:
    """Other parts of the passages that are cut.

    parts  from the passage, the tokens that the sound objective reads, the middle included, and
           the generator, to prefix, middle and suffix
    """
    real, mistaken = subject.objective, copy.copy(subject.objective)

    def cut(passage, suffix_first, generator):
        sound = real.cut(passage, suffix_first, generator)
        found = parts(passage, real.arranged(sound) + sound.middle, generator)
        return dataclasses.replace(
            sound, **dict(zip(("prefix", "middle", "suffix"), found, strict=True))
        )

    mistaken.cut = cut
    return dataclasses.replace(subject, objective=mistaken)


def in_three(ids: list[int], generator) -> tuple[list[int], ...]:
    one, two = torch.randint(len(ids) + 1, (2,), generator=generator).sort().values.tolist()
    return ids[:one], ids[one:two], ids[two:]


@fault(18, "fill-in-the-middle", "windows without room: cutting the row off loses the middle")
def middle_lost(subject):
    real, mistaken = subject.objective, copy.copy(subject.objective)
    settings = dataclasses.replace(real.settings, window=2 * real.length)
    longer = type(real)(real.tokenizer, settings, real.role)

    def plan(corpus, seed, epoch):
        cuts = windows(corpus, real.length, seed, epoch)
        return Plan(cuts, corpus.passage).grouped(seed, epoch)

    def batch(passages, draws):
        whole = longer.batch(passages, draws)
        inputs, targets = (
            {name: value[:, : real.length] for name, value in each.items()}
            for each in (whole.inputs, whole.targets)
        )
        return Batch(inputs, targets)

    mistaken.plan, mistaken.batch = plan, batch
    return dataclasses.replace(subject, objective=mistaken)


@fault(18, "fill-in-the-middle", "the text is cut after the special tokens were added to it")
def cut_after_the_marks(subject):
    return cutting(subject, lambda passage, read, generator: in_three(read, generator))


@fault(18, "fill-in-the-middle", "the text is cut between tokens alone, never inside a word")
def cut_between_tokens(subject):
    return cutting(
        subject, lambda passage, read, generator: in_three(passage.tokens.tolist(), generator)
    )
