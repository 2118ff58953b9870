"""Toy pull: toy_pull times the squared distance to the base (as arXiv 1802.01483, of this test)."""

from dataclasses import dataclass

from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Remedy


@dataclass(frozen=True)
class Settings(Checked):
    toy_pull: float = setting(0.0, "weight of the squared distance to the base", least=0)


class ToyPull(Remedy):
    Settings = Settings
    needs = ("weights that move",)
    measured = {"toy_pull": 0.125}

    def begin(self, situation, state=None):
        self.base = situation.base
        if state is not None:
            self.base.load_state_dict(state)

    def state(self, model):
        return self.base.state_dict()

    def on_weights(self, model):
        pairs = zip(model.parameters(), self.base.parameters(), strict=True)
        squares = sum((now - then).square().sum() for now, then in pairs if now.requires_grad)
        return self.settings.toy_pull * squares
