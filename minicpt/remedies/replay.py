"""Replay: old text is mixed into the batches, so that new text does not push it out.

Ibrahim et al. 2024, arXiv 2403.08763. How the streams are mixed stands in ``mixture``.
"""

from dataclasses import dataclass

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Remedy, Situation
from minicpt.remedies.mixture import Mixture


@dataclass(frozen=True)
class Settings(Checked):
    replay: tuple[str, ...] = setting(
        (), "mix in old text: `base` (what the base was trained on), or files, folders"
    )
    replay_fraction: float = setting(
        0.05, "share of the passages that are replayed", above=0, below=1
    )

    def __post_init__(self):
        super().__post_init__()
        if "base" in self.replay and len(self.replay) > 1:
            raise InputError("--replay takes `base` alone, or files and folders")


class Replay(Remedy):
    Settings = Settings
    reads_old = True
    claims = ("what is mixed into the text",)
    measured = {"replay": ("base",), "replay_fraction": 0.05}
    swept = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5)  # the doses of the paper

    @classmethod
    def label(cls, settings: Settings) -> str:
        return f"replay {settings.replay_fraction * 100:g} %"

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        sources = () if self.settings.replay == ("base",) else self.settings.replay
        self.corpus = situation.old_text(sources)

    def mixed(self, stream) -> "Mixture":
        return Mixture(stream, self.corpus, self.settings.replay_fraction)
