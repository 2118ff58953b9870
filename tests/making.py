"""What several tests use: small corpora, models and batches; one step; equal up to rounding."""

import torch

from minicpt import objectives, remedies
from minicpt.batch import Batch
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.order import Draw
from minicpt.proofs import bounds
from minicpt.remedies.base import Situation
from minicpt.runs.assembly import make_objective, model_kind, new_model
from minicpt.training.stream import Stream
from minicpt.training.trainer import Learner, train_step

SIZES = {"width": 16, "layers": 1, "num_heads": 2, "dropout": 0.0}


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


def drawn(*key) -> Draw:
    """A draw whose numbers are a function of the key."""
    return Draw(0, generator(*key))


def draws(count: int, *key) -> list[Draw]:
    """One draw for each of ``count`` passages."""
    return [Draw(place, generator(*(key or ("test",)), place)) for place in range(count)]


def objective_of(name: str, tokenizer, role=None, **settings):
    """The objective of that name on the command line, for a role, or for the model in its place."""
    kind = objectives.known()[name]
    if hasattr(role, "ROLE"):
        return make_objective(kind, tokenizer, kind.Settings(**settings), role)
    return kind(tokenizer, kind.Settings(**settings), role)


def model_of(objective, seed: int = 0, model: str = "", **sizes):
    """A small model that the objective can train, as a run makes it."""
    return new_model(model_kind(model, type(objective)), objective, SIZES | sizes, seed)


def losses_of(model, objective, parts=None, fused: bool = True):
    """The losses of a batch by head, as a function of the batch."""
    parts = objective.parts(model) if parts is None else parts
    return lambda batch: objective.losses(model, parts, batch, fused)


def step_of(model, objective, optimizer, batches, max_grad_norm=0.0, chosen=()):
    """One training step; its losses by head, and below each remedy's name its term."""
    learner = Learner(model, objective, chosen)
    found = train_step(learner, optimizer, batches, max_grad_norm)
    return found.pop(""), found


def remedy_of(name: str, model, objective, corpus=None, state=None, seed: int = 0, **settings):
    """A remedy that has begun, with ``model`` as the base and ``corpus`` as the old text."""
    kind = remedies.known()[name]
    remedy = kind(kind.Settings(**settings))
    remedy.begin(Situation(model, objective, seed, old_text=lambda names: corpus), state)
    return remedy


def batches_of(objective, corpus, *sizes):
    """Batches of these sizes from the first passages, each with noise of its own."""
    passages, some = Stream(objective, corpus, 0).passages(0, sum(sizes))
    result, begin = [], 0
    for size in sizes:
        cut = slice(begin, begin + size)
        result.append(objective.batch(passages[cut], some[cut]))
        begin += size
    return result


def close(found, expected, operations, batch=None, size=None):
    """That two tensors, or two numbers, are the same up to rounding: see ``proofs.bounds``.

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
