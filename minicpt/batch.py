"""A batch: what the model reads, and which positions have a target.

The shift by one between a token and the target that it predicts is made here, in ``shift``, and
nowhere else.

B batch, T positions, S decoder positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

IGNORE = -100  # a position without a target; outside every vocabulary


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs.

    inputs   exactly the keyword arguments of the model's forward: ``tokens (B, T) int64``,
             ``mask (B, T) bool`` (True = real) or the whole pattern ``(B, T, T)``, and what the
             model takes beside them
    targets  head -> (B, T) int64, IGNORE where nothing is predicted
    weights  head -> (B, T) float >= 0: what each target's loss is multiplied by. A head that is
             absent counts every target once. A target of weight 0 costs no computation, and it
             still counts in ``Loss.count``
    noise    uniform numbers (B, T, ...) in [0, 1) that an objective's ``losses`` uses; a name that
             begins with ``decoder_`` says that they belong to the decoder's positions
    terms    what training adds to the loss of each target, name -> strength: ``minicpt.terms``
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    weights: dict[str, Tensor] = field(default_factory=dict)
    noise: dict[str, Tensor] = field(default_factory=dict)
    terms: Mapping[str, float] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """The number of targets of each head."""
        return {name: int((target != IGNORE).sum()) for name, target in self.targets.items()}

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        parts = (self.inputs, self.targets, self.weights, self.noise)
        moved = ({name: each.to(device) for name, each in part.items()} for part in parts)
        return Batch(*moved, self.terms)


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


def valid_positions(mask: Tensor) -> Tensor:
    """(B, T) bool: the positions that hold real tokens.

    In a pattern (B, T, T) a position is real if it may look at itself.
    """
    return mask if mask.dim() == 2 else mask.diagonal(dim1=1, dim2=2)


# What a target may see, as objectives declare it. It is written here from the definition, and not
# taken from the models' masks, because the proofs compare the two.


def sees_everything(mask: Tensor, positions: int) -> Tensor:
    """Each of ``positions`` sees every real position of ``mask`` (B, T): (B, positions, T) bool."""
    return mask[:, None, :].expand(-1, positions, -1)


def sees_the_past(mask: Tensor) -> Tensor:
    """Position t sees the real positions 0..t of ``mask`` (B, T): (B, T, T) bool."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return mask[:, None, :] & (places[None, None, :] <= places[None, :, None])


def target_stream(batch: Batch) -> str:
    """The input stream along which the hidden states and the targets lie."""
    return "decoder_tokens" if "decoder_tokens" in batch.inputs else "tokens"


def seen_by(
    batch: Batch, head: str, row: int, position: int, visibility: Mapping[str, Tensor]
) -> Batch:
    """The batch of one target: one row, cut down to the positions that this target may see.

    visibility  input stream -> (B, T, length of the stream) bool, as the objective declares it for
                the head. The target's own position must be among what it sees.

    What a stream's tokens lose, its mask, positions, segments and noise lose with them. A mask that
    is a pattern (B, T, T) loses rows and columns.
    """
    seen = {stream: may[row, position] for stream, may in visibility.items()}
    own = seen[target_stream(batch)]

    def cut(name: str, value: Tensor) -> Tensor:
        kept = seen["decoder_tokens" if name.startswith("decoder_") else "tokens"]
        part = value[row, kept]
        return (part[:, kept] if name.endswith("mask") and value.dim() == 3 else part)[None]

    target = torch.full_like(batch.targets[head][row], IGNORE)
    target[position] = batch.targets[head][row, position]
    return Batch(
        {name: cut(name, value) for name, value in batch.inputs.items()},
        {head: target[own][None]},
        {name: each[row, own][None] for name, each in batch.weights.items() if name == head},
        {name: cut(name, value) for name, value in batch.noise.items()},
        batch.terms,
    )
