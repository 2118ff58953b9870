"""A batch: what the model reads, and which positions have a target.

Leaves out everything else: no loss, no model, no tokenizer. The shift by one between a token and
the target that it predicts is made here, in ``shift``, and nowhere else.

B batch, T positions, S decoder positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE = -100  # a position without a target; outside every vocabulary


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs.

    inputs   exactly the keyword arguments of the model's forward: ``tokens (B, T) int64``,
             ``mask (B, T) bool`` (True = real) or the whole pattern ``(B, T, T)``, and what the
             architecture adds to them
    targets  head name -> (B, T) int64, IGNORE where nothing is predicted
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]

    def counts(self) -> dict[str, int]:
        """The number of targets of each head."""
        return {name: int((target != IGNORE).sum()) for name, target in self.targets.items()}

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(
            {name: value.to(device) for name, value in self.inputs.items()},
            {name: value.to(device) for name, value in self.targets.items()},
        )


def shift(tokens: Tensor, following: int = IGNORE) -> Tensor:
    """The next-token targets of a row of tokens; ``following`` comes after the last one.

    >>> shift(torch.tensor([5, 6, 7]), following=8).tolist()
    [6, 7, 8]
    """
    return torch.cat([tokens[1:], tokens.new_tensor([following])])


def pad(rows: Sequence[Tensor], value: int) -> Tensor:
    """Rows of different lengths as one matrix, filled up on the right with ``value``.

    >>> pad([torch.tensor([1, 2, 3]), torch.tensor([4])], value=0).tolist()
    [[1, 2, 3], [4, 0, 0]]
    """
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def padding(rows: Sequence[Tensor]) -> Tensor:
    """Where ``pad(rows)`` is real: (B, T) bool. Never told by a token's id.

    >>> padding([torch.tensor([1, 2, 3]), torch.tensor([4])]).tolist()
    [[True, True, True], [True, False, False]]
    """
    lengths = torch.tensor([len(row) for row in rows])
    return torch.arange(int(lengths.max())) < lengths[:, None]


def apart(numbers: Tensor) -> Tensor:
    """The mask of rows in which several texts stand: each sees itself alone, causally.

    numbers  (B, T) int64: to which text of its row a position belongs; below 0, to none (padding)

    >>> apart(torch.tensor([[0, 0, 1, -1]])).int().tolist()
    [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]]
    """
    same = numbers[:, :, None] == numbers[:, None, :]  # (B, T, T)
    return same.tril() & (numbers >= 0)[:, None, :]


def real(mask: Tensor) -> Tensor:
    """The real positions (B, T) of a mask that may be a pattern: there, those that see themselves.
    """
    return mask if mask.dim() == 2 else mask.diagonal(dim1=1, dim2=2)


# What a target may see, as objectives declare it. Written here from the definition, and not taken
# from the models' masks, because the proofs hold the one against the other.


def everything(mask: Tensor, positions: int) -> Tensor:
    """Each of ``positions`` sees every real position of ``mask`` (B, T): (B, positions, T) bool."""
    return mask[:, None, :].expand(-1, positions, -1)


def up_to_itself(mask: Tensor) -> Tensor:
    """Position t sees the real positions 0..t of ``mask`` (B, T): (B, T, T) bool."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return mask[:, None, :] & (places[None, None, :] <= places[None, :, None])
