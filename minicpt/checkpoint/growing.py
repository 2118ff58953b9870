"""A base for which more special tokens are needed: tokenizer, embedding and head grow together.

The rows of the new tokens are drawn from a normal distribution with the mean and the covariance of
the rows of the tokens that the base was trained with. So a new token is as likely as an average
one at first, and costs the others little of their probability (Hewitt 2021, "Initializing New Word
Embeddings for Pretrained Language Models").

K tokens that are known, N new ones, D width.
"""

import dataclasses

import torch
from torch import Generator, Tensor

from minicpt.checkpoint.draft import without_memory
from minicpt.checkpoint.folder import Checkpoint
from minicpt.models.layers import Model


def grown(base: Checkpoint, names: list[str], generator: Generator) -> Checkpoint:
    """The checkpoint with these special tokens as well. What it already holds stays as it is.

    A folder may have spare rows behind those of its tokenizer: these are taken first, drawn anew.
    """
    known = base.tokenizer.size
    tokenizer = base.tokenizer.with_tokens(names)
    model = with_rows(base.model, known, tokenizer.size, generator)
    return dataclasses.replace(base, model=model, tokenizer=tokenizer)


def with_rows(model: Model, known: int, size: int, generator: Generator) -> Model:
    """A copy of the model for the ids below ``size``, of which those from ``known`` on are new.

    It has the parameters of the model, in one place where they are in one, and more rows in those
    that hold a row for each token: embedding, head, the head's bias.
    """
    config = dataclasses.replace(model.config, vocabulary=max(model.config.vocabulary, size))
    with torch.random.fork_rng(devices=[]):
        larger = type(model)(config)
    rows = rows_by_token(model)
    factors = torch.randn(size - known, known, generator=generator)  # one draw for all of them
    with torch.no_grad():
        for name, parameter in larger.named_parameters():
            old = model.get_parameter(name)
            if name not in rows:
                parameter.copy_(old)
                continue
            parameter[: len(old)] = old
            parameter[known:size] = like(old[:known], factors)
    return larger.train(model.training)


def rows_by_token(model: Model) -> list[str]:
    """The names of the parameters that hold a row for each token."""
    config = dataclasses.replace(model.config, vocabulary=model.config.vocabulary + 1)
    larger = without_memory(type(model), config)
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.shape != larger.get_parameter(name).shape
    ]


def like(known: Tensor, factors: Tensor) -> Tensor:
    """New rows (N, …) with the mean and the covariance of the known ones (K, …).

    factors  (N, K) standard normal numbers. The sum of the known rows' deviations from their mean,
             each multiplied by such a number and divided by sqrt(K), has their covariance. No
             matrix needs to be decomposed, and K may be smaller than D
    """
    mean = known.mean(dim=0)
    return mean + factors.to(known) @ (known - mean) / len(known) ** 0.5
