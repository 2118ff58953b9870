"""Toy piece: each token from those before it, and again through a part that learns.

A skeleton: say here what the model reads and predicts, and the paper that it is from. What your
objective does not need can go: the second head, its weights, its part.
"""

from dataclasses import dataclass

import torch
from torch import nn

from minicpt.batch import IGNORE, Batch, pad, padding, shift
from minicpt.common.settings import Checked, setting
from minicpt.loss import losses_of_head
from minicpt.objectives.base import Objective


@dataclass(frozen=True)
class Settings(Checked):
    """Each field becomes a flag of ``minicpt train toy-piece``."""

    window: int = setting(32, "the most tokens that the model reads at once", least=2)
    toy_piece_share: float = setting(0.5, "weight of the second loss", above=0, most=1)


class ToyPiece(Objective):
    roles = ("decoder",)  # of the models that it can train
    Settings = Settings

    @property
    def head_weights(self):
        """What each head's loss counts in the sum that is minimised; 1 where it is not named."""
        return {"again": self.settings.toy_piece_share}

    def batch(self, passages, draws):
        """What is read, and the target of each position: IGNORE where nothing is predicted.

        The shift by one happens here, and nowhere else. Random choices come from ``draws`` alone.
        """
        rows = [passage.tokens for passage in passages]
        following = [IGNORE if each.following is None else each.following for each in passages]
        targets = pad([shift(*each) for each in zip(rows, following, strict=True)], IGNORE)  # (B,T)
        every_other = (torch.arange(targets.shape[1]) % 2).float().expand(targets.shape)
        inputs = {"tokens": pad(rows, self.tokenizer.need("pad")), "mask": padding(rows)}
        return Batch(inputs, {"tokens": targets, "again": targets}, {"again": every_other})

    def parts(self, model):
        """Modules that learn beside the model, and are saved with it."""
        return nn.ModuleDict({"more": nn.Linear(model.config.width, model.config.width)})

    def head_of(self, name, model, parts):
        return model.heads["tokens"]

    def losses(self, model, parts, batch, fused=True):
        """One forward pass; without parts the base class does this."""
        hidden, head = model(**batch.inputs), model.heads["tokens"]  # (B, T, D)
        again = hidden + parts["more"](hidden)
        of_head = {"tokens": hidden, "again": again}
        return {
            name: losses_of_head(name, of_head[name], head, batch, fused) for name in batch.targets
        }
