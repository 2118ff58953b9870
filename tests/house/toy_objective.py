"""Toy task: each token from those before it, twice, the second time through a part that learns."""

from dataclasses import dataclass

import torch
from torch import nn

from minicpt.batch import IGNORE, Batch, pad, padding, shift
from minicpt.common.settings import Checked, setting
from minicpt.loss import losses_of_head
from minicpt.objectives.base import Objective


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(32, "the most tokens that the model reads at once", least=2)
    toy_share: float = setting(0.5, "what the second loss counts", above=0, most=1)


class ToyTask(Objective):
    roles = ("decoder",)
    Settings = Settings

    @property
    def head_weights(self):
        return {"again": self.settings.toy_share}

    def batch(self, passages, draws):
        rows = [passage.tokens for passage in passages]
        following = [IGNORE if each.following is None else each.following for each in passages]
        targets = pad([shift(*each) for each in zip(rows, following, strict=True)], IGNORE)
        every_other = (torch.arange(targets.shape[1]) % 2).float().expand(targets.shape)
        inputs = {"tokens": pad(rows, self.tokenizer.need("pad")), "mask": padding(rows)}
        return Batch(inputs, {"tokens": targets, "again": targets}, {"again": every_other})

    def parts(self, model):
        return nn.ModuleDict({"more": nn.Linear(model.config.width, model.config.width)})

    def head_of(self, name, model, parts):
        return model.heads["tokens"]

    def losses(self, model, parts, batch, fused=True):
        hidden, head = model(**batch.inputs), model.heads["tokens"]
        again = hidden + parts["more"](hidden)
        of_head = {"tokens": hidden, "again": again}
        return {
            name: losses_of_head(name, of_head[name], head, batch, fused) for name in batch.targets
        }
