"""Small corpora and batches, made by hand, that several tests read."""

import torch

from minicpt.data.corpus import Corpus
from minicpt.training import Stream


def fake(lengths: list[int]) -> Corpus:
    """A corpus of documents with the given numbers of tokens, counted up from 0."""
    total = sum(lengths)
    starts = torch.tensor([sum(lengths[:index]) for index in range(len(lengths))])
    return Corpus(
        tokens=torch.arange(total, dtype=torch.int32),
        words=torch.arange(0, total, 2),
        sentences=starts,
        documents=starts,
        bytes=torch.arange(total + 1, dtype=torch.int32),
        unknown=torch.empty(0, dtype=torch.int64),
        names=tuple(f"d{index}" for index in range(len(lengths))),
    )


def batches_of(objective, corpus, *sizes):
    """Batches of these sizes from the first passages, each with noise of its own."""
    passages, generators = Stream(objective, corpus, 0).passages(0, sum(sizes))
    result, begin = [], 0
    for size in sizes:
        cut = slice(begin, begin + size)
        result.append(objective.batch(passages[cut], generators[cut]))
        begin += size
    return result
