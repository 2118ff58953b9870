"""Toy piece: a number times the squared distance of all weights to the base's.

A skeleton: say here what keeps the model near its base, and the paper that it is from. This one is
twice the L2-SP of Li et al. 2018, arXiv 1802.01483. ``Remedy`` has the other hooks.
"""

from dataclasses import dataclass

from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Remedy


@dataclass(frozen=True)
class Settings(Checked):
    """The field of the remedy's own name says how strong it is; 0: not at all."""

    toy_piece: float = setting(0.0, "weight of the squared distance", least=0)


class ToyPiece(Remedy):
    Settings = Settings
    needs = ("weights that move",)
    measured = {"toy_piece": 0.125}  # in ``minicpt compare``

    def begin(self, situation, state=None):
        """Keeps a copy of the base; a run that goes on gets it back from ``state``."""
        self.base = situation.base
        if state is not None:
            self.base.load_state_dict(state)

    def state(self, model):
        return self.base.state_dict()

    def on_weights(self, model):
        """The term that is added to the loss once a step: zero as long as the model is the base."""
        pairs = zip(model.parameters(), self.base.parameters(), strict=True)
        squares = sum((now - then).square().sum() for now, then in pairs if now.requires_grad)
        return self.settings.toy_piece * squares
