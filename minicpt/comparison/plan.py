"""What a comparison consists of: its settings, and the parts that have to be done.

A part is a base (one model of an architecture, trained on the old text) or a continuation of one:
an objective, an arm and a seed. An arm is a remedy against forgetting, or one of two measures to
hold them against: ``nothing``, and ``control``, the same budget spent on the wrong text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting

OBJECTIVES = ("causal-lm", "masked-lm", "next-sentence", "reconstruction")
# What the base of an architecture is trained with. The encoder's is BERT's own pre-training, so
# that both of its heads have learnt something before either is continued.
BASES = {
    "decoder": ("causal-lm", {}),
    "encoder": ("next-sentence", {"masked": True}),
    "encoder-decoder": ("reconstruction", {}),
}
NOTHING, CONTROL, SELF = "nothing", "control", "self-replay"
ARMS = (NOTHING, "replay", SELF, "kl", "l2", "lora", CONTROL)


@dataclass(frozen=True)
class Comparison(Checked):
    """The budget and the sizes, the same for all parts."""

    seeds: int = setting(3, "how many continuations of each kind, seeds 0, 1, 2, …", least=1)
    steps: int = setting(300, "steps of a continuation", least=1, most=10**9)
    base_steps: int = setting(2000, "steps of a base", least=1, most=10**9)
    one_base: bool = setting(False, "train each base once; else once for each seed")
    batch_size: int = setting(16, "passages of a step", least=1, most=2**20)
    window: int = setting(64, "the most tokens that a model reads at once", least=8, most=2**20)
    vocab_size: int = setting(
        2048, "ordinary tokens of the tokenizer, made from the old text", least=256, most=2**20
    )
    width: int = setting(128, "width of the models", least=4, most=2**16)
    layers: int = setting(2, "layers of the models", least=1, most=1024)
    base_learning_rate: float = setting(2e-3, "highest rate of a base", above=0, most=10)
    learning_rate: float = setting(1e-3, "highest rate of a continuation", above=0, most=10)
    replay_fraction: float = setting(
        0.05, "replay and self-replay: share of old text", above=0, below=1
    )
    kl: float = setting(1.0, "kl: weight of the divergence from the base", above=0)
    l2: float = setting(0.01, "l2: weight of the distance to the base's weights", above=0)
    lora: int = setting(8, "lora: rank of the factors", least=1)
    evaluate_passages: int = setting(
        256, "held-out passages of each text for a loss", least=1
    )
    probe_passages: int = setting(
        60, "passages of each part of a text from which the probe learns", least=1
    )


# What --quick changes.
QUICK = {
    "steps": 150,
    "base_steps": 2000,
    "one_base": True,
    "width": 96,
    "evaluate_passages": 192,
}
QUICK_REMEDIES = ("causal-lm",)  # the objectives that --quick continues with every arm


@dataclass(frozen=True)
class Part:
    """A base (``objective`` and ``arm`` are None) or a continuation of it.

    base  the seed of the base
    """

    architecture: str
    base: int
    objective: str | None = None
    arm: str | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        """For files and messages."""
        if self.arm is None:
            return f"base.{self.role}.{self.base}"
        return f"{self.objective}.{self.arm}.{self.seed}"

    @property
    def from_base(self) -> "Part":
        return Part(self.role, self.base)

    def steps(self, comparison: Comparison) -> int:
        return comparison.base_steps if self.arm is None else comparison.steps


def parts(
    comparison: Comparison, architectures: dict[str, str], arms: dict[str, Sequence[str]]
) -> list[Part]:
    """All parts in the order in which they are done: each base before what continues it.

    architectures  that of each objective
    arms           those of each objective
    """
    found: list[Part] = []
    for seed in range(comparison.seeds):
        for objective, names in arms.items():
            base = 0 if comparison.one_base else seed
            for arm in names:
                part = Part(architectures[objective], base, objective, arm, seed)
                if part.from_base not in found:
                    found.append(part.from_base)
                found.append(part)
    return found


def arms_of(
    objectives: Sequence[str], asked: Sequence[str], architectures: dict[str, str], quick: bool
) -> dict[str, list[str]]:
    """The arms of each objective: all that are asked for and possible.

    Only a decoder can write the text that self-replay replays: the others fill in or repair what
    they are given.
    """
    unknown = [arm for arm in asked if arm not in ARMS]
    if unknown:
        raise InputError(f"--remedies: no remedy is called {unknown[0]!r}; use {', '.join(ARMS)}")
    wanted = [arm for arm in ARMS if arm == NOTHING or not asked or arm in asked]
    found = {}
    for objective in objectives:
        able = [arm for arm in wanted if arm != SELF or architectures[objective] == "decoder"]
        found[objective] = able if not quick or objective in QUICK_REMEDIES else [NOTHING]
    return found


def label(arm: str, comparison: Comparison) -> str:
    """An arm with its strength, as tables show it."""
    share = f"{comparison.replay_fraction * 100:g} %"
    strengths = {
        "replay": share, SELF: share, "kl": f"{comparison.kl:g}", "l2": f"{comparison.l2:g}",
        "lora": f"rank {comparison.lora}",
    }  # fmt: skip
    names = {NOTHING: "no remedy", "kl": "KL", "l2": "L2", "lora": "LoRA", CONTROL: "wrong text"}
    return f"{names.get(arm, arm)} {strengths.get(arm, '')}".strip()
