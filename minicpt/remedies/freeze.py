"""Freezing: some weights of the base stay as they are.

    --freeze embeddings   the tables of tokens, positions and segments stay, and with them the
                          matrix of a head that is tied to the token table
    --train-last K        only the last K layers learn, and what comes after them: the final norm
                          and the heads' own weights. In an encoder-decoder the encoder's layers
                          come first and the decoder's last
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Remedy, Situation
from minicpt.remedies.depth import layers_of


@dataclass(frozen=True)
class Settings(Checked):
    freeze: Literal["none", "embeddings"] = setting(
        "none", "keep the embeddings (and a head tied to them) as they are"
    )
    train_last: int | None = setting(
        None, "train the last K layers and what follows them alone", least=1, metavar="K"
    )


class Freeze(Remedy):
    Settings = Settings
    claims = ("which weights learn",)
    measured = {"train_last": 1}

    @classmethod
    def asked(cls, settings: Settings) -> bool:
        return settings.freeze != "none" or settings.train_last is not None

    @classmethod
    def label(cls, settings: Settings) -> str:
        last = f"last {settings.train_last} learn" if settings.train_last else ""
        return f"freeze {last or settings.freeze}"

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        if self.settings.freeze == "embeddings":
            for module in situation.model.modules():
                if isinstance(module, nn.Embedding):
                    module.requires_grad_(False)
        if self.settings.train_last:
            train_last(situation.model, self.settings.train_last)


def train_last(model: nn.Module, count: int) -> None:
    """Freezes all that is computed before the last ``count`` layers.

    The parameters stand in the order of computation: see ``depth``.
    """
    layers = layers_of(model)
    if count > len(layers):
        raise InputError(f"--train-last is {count}, but the model has {len(layers)} layers")
    first = next(layers[-count].parameters())
    for parameter in model.parameters():
        if parameter is first:
            break
        parameter.requires_grad_(False)
