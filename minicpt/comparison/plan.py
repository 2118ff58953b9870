"""What is asked of a comparison: texts, budget, sizes, objectives, remedies and their strengths."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.comparison.arms import CONTROL, KNOBS, NOTHING, compared, knob, parted, strength
from minicpt.runs.config import Text, tuples
from minicpt.training.device import Machine

QUICK = {
    "steps": 100,
    "base_steps": 1000,
    "one_base": True,
    "width": 64,
    "evaluate_passages": 128,
}
# The settings that say how a base is made, so that they have no meaning with --init.
OF_BASES = ("base_steps", "base_learning_rate", "one_base", "vocab_size", "width", "layers")


@dataclass(frozen=True)
class Sources(Text):
    """Which texts, from which base, and where to."""

    corpus: tuple[str, ...] = setting(("builtin:code",), "the new text")
    held_out: float = setting(
        0.2, "share of each text that is kept for evaluation", above=0, most=0.5
    )
    old_corpus: tuple[str, ...] = setting(
        (), "the old text (default: builtin:docs, or what the folder of --init says)"
    )
    control: tuple[str, ...] = setting(
        (), "the wrong text, on which the control spends its budget (default: the old text)"
    )
    characters: int = setting(4_000_000, "the most characters of each text; 0: all", least=0)
    init: str | None = setting(
        None, "take this checkpoint, or Hugging Face folder, as the base", metavar="DIR"
    )
    out: str | None = setting(
        None, "folder for the results (default: runs/compare, or runs/compare-quick)", metavar="DIR"
    )
    objectives: tuple[str, ...] = setting(
        (), "compare these alone (default: all that fit)", metavar="OBJECTIVE"
    )
    remedies: tuple[str, ...] = setting(
        (), "beside no remedy, these, and `control`, the wrong text (default: all)",
        metavar="REMEDY",
    )  # fmt: skip
    sweep: tuple[str, ...] = setting(
        (), "go through the strengths of these remedies, of `learning-rate` or `warmup`; `all`:"
        " of every one (causal-lm alone, where no objective is named)", metavar="REMEDY",
    )  # fmt: skip
    change: bool = setting(
        False, "change the objective: continue bases of each main objective with every objective of"
        " their role, and measure each by all",
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        if len(set(self.objectives)) < len(self.objectives):
            raise InputError("--objectives names one of them twice; name each once")

    def text(self, corpus: tuple[str, ...]) -> Text:
        """A text that is split as all others are."""
        rule = {field.name: getattr(self, field.name) for field in dataclasses.fields(Text)}
        return Text(**rule | {"corpus": corpus})


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
    tune_rates: bool = setting(
        False, "choose the highest rate of each objective among three by the same rule, in place of"
        " --learning-rate",
    )  # fmt: skip
    evaluate_passages: int = setting(256, "held-out passages of each text for a loss", least=1)
    probe_passages: int = setting(
        64, "passages of each part of a text from which the probe learns, at most", least=1
    )

    @property
    def sizes(self) -> dict[str, object]:
        """Of the models that are trained."""
        return {"width": self.width, "layers": self.layers, "dropout": 0.0}


def groups() -> dict[str, list[type[Checked]]]:
    """All settings of a comparison, by the heading of their flags."""
    return {
        "texts and folders": [Sources],
        "the budget and the sizes": [Comparison],
        f"the remedies: {', '.join(compared())}": [strength(kind) for kind in compared().values()],
        "the machine": [Machine],
    }


@dataclass(frozen=True)
class Asked:
    """All that was asked for.

    strengths  the settings of each remedy that can be compared, by its name
    """

    sources: Sources
    comparison: Comparison
    machine: Machine
    strengths: Mapping[str, Checked]
    quick: bool = False

    @staticmethod
    def of(quick: bool = False, **given) -> "Asked":
        """From the settings that were given by name; the others have their defaults.

        Raises InputError for a name that no setting has, and for a value that one does not take.
        """
        left = tuples(given)

        def made(kind: type[Checked], defaults: Mapping[str, object] | None = None) -> Checked:
            mine = dict(defaults or {})
            for name, hint in typing.get_type_hints(kind).items():
                if name in left:
                    value = left.pop(name)
                    if hint is float and type(value) is int:  # 2 and 2.0 are the same setting
                        value = float(value)
                    single = typing.get_origin(hint) is tuple and isinstance(value, str)
                    mine[name] = (value,) if single else value
            return kind(**mine)

        sources, machine = made(Sources), made(Machine)
        if sources.init and (wrong := [name for name in OF_BASES if name in left]):
            name = wrong[0].replace("_", "-")
            raise InputError(f"--{name} cannot be used here: the base comes from --init")
        comparison = made(Comparison, QUICK if quick else None)
        strengths = {name: made(strength(kind)) for name, kind in compared().items()}
        if left:
            raise InputError(f"compare has no setting called {next(iter(left))!r}")
        return Asked(sources, comparison, machine, strengths, quick)

    def label(self, arm: str) -> str:
        """An arm with its strength, as tables show it."""
        names = {NOTHING: "no remedy", CONTROL: "wrong text"}
        name, value = parted(arm)
        if name in KNOBS:
            return f"{name.replace('-', ' ')} {value:g}"
        return names[arm] if arm in names else compared()[name].label(self.strength(arm))

    def strength(self, arm: str) -> Checked:
        """The settings of a remedy's arm."""
        name, value = parted(arm)
        usual = self.strengths[name]
        return usual if value is None else dataclasses.replace(usual, **{knob(name): value})

    def value(self, arm: str) -> float:
        """How strong an arm is: the number by which a sweep orders it."""
        name, value = parted(arm)
        if value is None and name in self.strengths:
            value = getattr(self.strengths[name], knob(name))
        return float(value or 0)

    def remedies(self, arm: str | None) -> dict[str, dict]:
        """The remedies of an arm with their settings, as a run's config has them."""
        name, _ = parted(arm or NOTHING)
        if name in (NOTHING, CONTROL, *KNOBS):
            return {}
        return {name: dataclasses.asdict(self.strength(arm))}

    def training(self, arm: str | None) -> dict[str, float]:
        """What an arm changes of the training's own settings."""
        name, value = parted(arm or NOTHING)
        return {name.replace("-", "_"): float(value)} if name in KNOBS else {}
