"""An input that is read in both directions, and an output that is written after it, as a batch.

An encoder-decoder has a stream for each. A decoder has one row, in which the positions of the input
look at one another, and those of the output at what stands before them:

    encoder     i j k                    a decoder alone
    decoder     <start> o p              reads       <start> i j k o p
    predicts       o    p q              predicts       .    . . o p q

So the last position of the input predicts the first token of the output (Raffel et al. 2019, arXiv
1910.10683, section 3.2.1).

B batch, T positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from minicpt.batch import IGNORE, Batch, pad, padding, shift, valid_positions
from minicpt.data.patterns import prefix_mask

SENTINEL = "<extra_id_{}>"  # T5's names of the tokens that stand for a gap in a text
GAP = r"<extra_id_\d+>"
# T5 has a hundred. The first one has the highest id, so what is reserved begins with the last one.
SENTINELS = tuple(SENTINEL.format(number) for number in reversed(range(100)))


def input_output(
    role: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], start: int
) -> Batch:
    """The batch of some inputs and their outputs, rows of token ids each.

    start  the token before the first one that is written (or, by a decoder, read); it also fills up
    """
    first = torch.tensor([start])
    if role == "decoder":
        rows = [torch.cat([first, i, o[:-1]]) for i, o in zip(inputs, outputs, strict=True)]
    else:
        rows = [torch.cat([first, each[:-1]]) for each in outputs]
    targets = [shift(row, int(each[-1])) for row, each in zip(rows, outputs, strict=True)]
    if role == "decoder":
        for target, each in zip(targets, inputs, strict=True):
            target[: len(each)] = IGNORE  # the input is given
        mask = prefix_mask(padding(rows), torch.tensor([1 + len(each) for each in inputs]))
        return Batch({"tokens": pad(rows, start), "mask": mask}, {"tokens": pad(targets, IGNORE)})
    return Batch(
        {
            "tokens": pad(inputs, start),
            "mask": padding(inputs),
            "decoder_tokens": pad(rows, start),
            "decoder_mask": padding(rows),
        },
        {"tokens": pad(targets, IGNORE)},
    )


def sees_the_input(batch: Batch) -> Tensor:
    """What the targets of a decoder's rows may see: (B, T, T) bool.

    The position of the first target ends the input. A position sees what stands up to there, or up
    to itself where it comes later.
    """
    mask = valid_positions(batch.inputs["mask"])  # (B, T)
    places = torch.arange(mask.shape[1], device=mask.device)
    first = (batch.targets["tokens"] != IGNORE).int().argmax(dim=1)  # (B,)
    last = torch.maximum(places, first[:, None])  # (B, T): the last position that each one sees
    return mask[:, None, :] & (places <= last[:, :, None])
