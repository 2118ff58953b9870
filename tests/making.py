"""What several tests use: small corpora and batches, made by hand; equal up to rounding."""

import torch

from minicpt.batch import Batch
from minicpt.data.corpus import Corpus
from minicpt.proofs import bounds
from minicpt.training.trainer import Stream


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


def close(found, expected, operations, batch=None, size=None):
    """That two tensors, or two numbers, are the same up to rounding: see ``verify.bounds``.

    operations  how many lie behind a number; or the model that made it from ``batch``, which is a
                Batch, the inputs of one, or (B, T) tokens
    size        of what is added; None: the largest number that is expected
    """
    found, expected = (
        each.detach() if isinstance(each, torch.Tensor) else torch.tensor(each, dtype=torch.float64)
        for each in (found, expected)
    )
    assert found.shape == expected.shape
    if not isinstance(operations, int):
        inputs = {"tokens": batch} if isinstance(batch, torch.Tensor) else batch
        batch = batch if isinstance(batch, Batch) else Batch(inputs, {})
        operations = bounds.additions(operations, batch)
    coarsest = max((found.dtype, expected.dtype), key=lambda kind: torch.finfo(kind).eps)
    allowed = bounds.tolerance(operations, coarsest)
    worst = bounds.gap(found, expected, bounds.largest(expected) if size is None else size)
    assert worst <= allowed, f"differs by {worst:.1e} of the size, and rounding makes {allowed:.1e}"
