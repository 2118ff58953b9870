"""Looking ids up in a model's tables, with one line for an id that is not there.

B batch, T positions, D width.
"""

import torch
from torch import Tensor, nn

from minicpt.common.errors import InputError


def count_up(model: str, tokens: Tensor, most: int) -> Tensor:
    """The positions 0, 1, 2, … of tokens (B, T): (T,). InputError where the model has too few."""
    if tokens.size(1) > most:
        raise InputError(
            f"{model}: {tokens.size(1)} positions, but the model has {most}: use shorter passages"
        )
    return torch.arange(tokens.size(1), device=tokens.device)


def look_up(model: str, **tables: tuple[nn.Embedding, Tensor]) -> Tensor:
    """The sum of what each table gives for its ids: (B, T, D).

    tables  what the ids are called -> (table, ids)

    Raises InputError for an id that lies outside its table.
    """
    try:
        found = [table(ids) for table, ids in tables.values()]
    except IndexError:  # raised by the CPU's look-up, so the check costs nothing
        sizes = ", ".join(f"{table.num_embeddings} {what}" for what, (table, _) in tables.items())
        raise InputError(
            f"{model}: an id lies outside its table ({sizes}): use the tokenizer that belongs to"
            " the model"
        ) from None
    return sum(found[1:], found[0])
