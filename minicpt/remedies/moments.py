"""Moments: Adam's moments go on from the base's run, and do not begin anew at zero.

Adam divides a running mean of the gradient by the root of one of its square (Kingma & Ba 2014,
arXiv 1412.6980). A new run has neither. Its first steps are as long as the rate, whatever the
gradients are, and go where a few passages point. With ``--moments`` the base's means are there at
the first step, and its number of steps too: moments that are no longer near zero get no second
correction of their bias. The rate is the run's own, and so are its ``--beta1`` and ``--beta2``.

What is carried has the same name and shape in both runs. All else begins anew, as an objective's
own parts do where another one trained the base. This is what a run does that is resumed. Whether it
helps on new text, beside a rate that rises again (Ibrahim et al. 2024, arXiv 2403.08763), is for
the reader to measure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Remedy, Situation


@dataclass(frozen=True)
class Settings(Checked):
    moments: bool = setting(
        False, "go on with the moments of Adam that the base's run had, not with new ones"
    )


class Moments(Remedy):
    Settings = Settings
    reads_moments = True
    needs = ("weights that move",)

    @classmethod
    def label(cls, settings: Settings) -> str:
        return "Adam's moments go on"

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        self.found = situation.moments

    def moments(self) -> Mapping[str, dict]:
        return self.found
