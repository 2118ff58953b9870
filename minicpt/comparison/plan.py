"""What a comparison consists of: its settings, and the parts that have to be done.

A part is a base (one model of a role, trained on the old text) or a continuation of one: an
objective, an arm and a seed. An arm is a remedy against forgetting, or one of two measures to hold
them against: ``nothing``, and ``control``, the same budget spent on the wrong text.

Objectives and remedies are found by themselves. The lists here only name defaults, and what is not
there is skipped.
"""

import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from minicpt import models, objectives, remedies
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, flag, setting
from minicpt.remedies.base import Remedy
from minicpt.runs.assembly import DEFAULTS, objective_kind
from minicpt.runs.config import Text, tuples
from minicpt.training.device import Machine

# What is compared where nothing is named.
OBJECTIVES = ("causal-lm", "masked-lm", "next-sentence", "reconstruction")
# What the base of a role is trained with: the first that is there. The encoder's is BERT's own
# pre-training, so that both of its heads have learnt something before either is continued.
BASES = {
    "decoder": {"causal-lm": {}},
    "encoder": {"next-sentence": {"masked": True}, "masked-lm": {}},
    "encoder-decoder": {"reconstruction": {}},
}
NOTHING, CONTROL = "nothing", "control"
# The arms of --quick, which continues one objective with all of them and the others with nothing.
QUICK_ARMS = (NOTHING, "replay", "self-replay", "kl", "l2", "lora", CONTROL)
QUICK_OBJECTIVES = ("causal-lm",)
QUICK = {
    "steps": 150,
    "base_steps": 2000,
    "one_base": True,
    "width": 96,
    "evaluate_passages": 192,
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
    evaluate_passages: int = setting(256, "held-out passages of each text for a loss", least=1)
    probe_passages: int = setting(
        64, "passages of each part of a text from which the probe learns, at most", least=1
    )

    @property
    def sizes(self) -> dict[str, object]:
        """Of the models that are trained."""
        return {"width": self.width, "layers": self.layers, "dropout": 0.0}


# --- the remedies' strengths -----------------------------------------------------------------


def compared() -> dict[str, type[Remedy]]:
    """The remedies that can be compared, by name."""
    return {name: kind for name, kind in remedies.known().items() if kind.measured is not None}


def strength(kind: type[Remedy]) -> type[Checked]:
    """A remedy's settings, with those that are ``measured`` as defaults.

    A setting that names texts gets no flag: what is replayed is the comparison's old text.
    """
    hints = typing.get_type_hints(kind.Settings)
    changed = []
    for field in dataclasses.fields(kind.Settings):
        default = kind.measured.get(field.name, field.default)
        metadata = {} if isinstance(default, tuple) else field.metadata
        new = dataclasses.field(default=default, metadata=metadata)
        changed.append((field.name, hints[field.name], new))
    return dataclasses.make_dataclass("Settings", changed, bases=(kind.Settings,), frozen=True)


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
        return names[arm] if arm in names else compared()[arm].label(self.strengths[arm])

    def remedies(self, arm: str | None) -> dict[str, dict]:
        """The remedies of an arm with their settings, as a run's config has them."""
        if arm in (None, NOTHING, CONTROL):
            return {}
        return {arm: dataclasses.asdict(self.strengths[arm])}


# --- objectives and arms ---------------------------------------------------------------------


def roles_of(asked: Sequence[str], base: str | None) -> dict[str, str]:
    """The objectives that are compared, and the role of the model that each of them trains.

    asked  their names; none: those of OBJECTIVES that fit, else all that fit
    base   the role of a given base; None: bases are trained
    """
    able = {base} if base else {kind.ROLE for kind in models.known().values()}
    fits = {}
    for name, kind in objectives.known().items():
        if roles := [role for role in kind.roles if role in able]:
            fits[name] = roles[0]
    for name in asked:
        roles = objective_kind(name).roles
        if name not in fits:
            raise InputError(f"{name} trains {' or '.join(roles)} models, and there is none")
    names = asked or [name for name in OBJECTIVES if name in fits] or list(fits)
    if not names:
        raise InputError("no objective trains a model like the base of --init")
    return {name: fits[name] for name in names}


def base_objective(role: str) -> tuple[str, dict]:
    """What the base of a role is trained with: an objective's name and settings."""
    found = {name: {} for name, kind in objectives.known().items() if role in kind.roles}
    first = {name: each for name, each in BASES.get(role, {}).items() if name in found}
    return next(iter((first or found).items()))


def model_of(role: str) -> str:
    """The name of the model that bases of a role are."""
    fits = [name for name, kind in models.known().items() if kind.ROLE == role]
    return next((name for name in DEFAULTS if name in fits), fits[0])


def arms() -> list[str]:
    """All arms, in the order of the tables: those of --quick first, the control last."""
    found = compared()
    first = [arm for arm in QUICK_ARMS if arm == NOTHING or arm in found]
    return [*first, *(arm for arm in found if arm not in first), CONTROL]


def arms_of(roles: Mapping[str, str], asked: Sequence[str], quick: bool) -> dict[str, list[str]]:
    """The arms of each objective: all that are asked for and fit the role of its model."""
    known, kinds = arms(), compared()
    if unknown := [arm for arm in asked if arm not in known]:
        raise InputError(
            f"--remedies: no remedy is called {unknown[0]!r}; use {', '.join(known)}"
        )
    wanted = asked or (QUICK_ARMS if quick else known)
    found = {}
    for objective, role in roles.items():
        kind = objectives.known().get(objective, objectives.Objective)
        fits = [
            arm
            for arm in known
            if arm not in kinds or role in kinds[arm].roles and not kinds[arm].refuses(kind)
        ]
        full = not quick or objective in QUICK_OBJECTIVES
        found[objective] = [arm for arm in fits if arm == NOTHING or full and arm in wanted]
    return found


def check_strengths(asked: Asked, names: Iterable[str]) -> None:
    """InputError for a remedy, among the arms that are compared, whose settings leave it out."""
    for name, kind in compared().items():
        if name in names and not kind.asked(asked.strengths[name]):
            field = dataclasses.fields(kind.Settings)[0]
            value = getattr(asked.strengths[name], field.name)
            raise InputError(
                f"{flag(field)} {value} leaves {name} out; give it a strength, or name the other"
                " arms with --remedies"
            )


# --- parts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A base (``objective`` and ``arm`` are None) or a continuation of it.

    role  of the model
    base  the seed of the base
    """

    role: str
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
    comparison: Comparison, roles: Mapping[str, str], arms: Mapping[str, Sequence[str]]
) -> list[Part]:
    """All parts in the order in which they are done: each base before what continues it.

    roles  of each objective's models
    arms   of each objective
    """
    found: list[Part] = []
    for seed in range(comparison.seeds):
        for objective, names in arms.items():
            base = 0 if comparison.one_base else seed
            for arm in names:
                part = Part(roles[objective], base, objective, arm, seed)
                if part.from_base not in found:
                    found.append(part.from_base)
                found.append(part)
    return found
