"""The parts of a comparison: a base, or a continuation of one, each done by itself and kept.

A base is one model of a role, trained on the old text. A continuation has an objective, an arm and
a seed. An objective is named by a word: "next-sentence"; with settings that are switched on behind
it, "next-sentence+masked"; or with a second one that reads half of the passages,
"causal-lm&prefix-lm".

Objectives are found by themselves. The lists here only name defaults, and what is not there is
skipped.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minicpt import models, objectives
from minicpt.common.errors import InputError
from minicpt.comparison.arms import CONTROL, NOTHING
from minicpt.comparison.plan import Comparison
from minicpt.objectives.base import Objective
from minicpt.runs.assembly import DEFAULTS, objective_kind

# What is compared where nothing is named.
OBJECTIVES = ("causal-lm", "masked-lm", "next-sentence", "reconstruction")
# What bases of a role are trained with; the first that is there is the usual one. The encoder's is
# BERT's own pre-training, so that both of its heads have learnt something before either is
# continued.
BASES = {
    "decoder": ("causal-lm", "prefix-lm"),
    "encoder": ("next-sentence+masked", "masked-lm", "replaced-token-detection"),
    "encoder-decoder": ("reconstruction", "span-corruption", "denoising"),
}
HALF = "&"  # between two objectives, each of which reads half of the passages


# --- objectives --------------------------------------------------------------------------------


def understood(word: str) -> tuple[str, dict]:
    """The name of an objective and its settings; of two, those of the first.

    >>> understood("next-sentence+masked"), understood("causal-lm&prefix-lm")
    (('next-sentence', {'masked': True}), ('causal-lm', {}))
    """
    name, *on = word.partition(HALF)[0].split("+")
    return name, dict.fromkeys(on, True)


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


def bases_of(role: str) -> list[str]:
    """What bases of a role are trained with; the usual one first."""
    found = [name for name, kind in objectives.known().items() if role in kind.roles]
    return [word for word in BASES.get(role, ()) if understood(word)[0] in found] or found[:1]


def base_objective(role: str) -> tuple[str, dict]:
    """What the usual base of a role is trained with: an objective's name and settings."""
    return understood(bases_of(role)[0])


def ways(asked: Sequence[str], base: str | None) -> dict[str, list[str]]:
    """By role: all objectives that continue its bases, those of the bases themselves with them.

    asked  these alone, where some are named; and ``base`` as in ``roles_of``
    """
    chosen = roles_of(asked, base) if asked else objectives.known()
    found: dict[str, list[str]] = {}
    for name in chosen:
        for role in objective_kind(name).roles:
            if base in (None, role) and any(k.ROLE == role for k in models.known().values()):
                own = [word for word in bases_of(role) if word.partition("+")[0] == name]
                found.setdefault(role, []).extend(dict.fromkeys([name, *own]))
    return found


def model_of(role: str) -> str:
    """The name of the model that bases of a role are."""
    fits = [name for name, kind in models.known().items() if kind.ROLE == role]
    return next((name for name in DEFAULTS if name in fits), fits[0])


# --- parts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A base (``objective`` and ``arm`` are None) or a continuation of it.

    role       of the model
    base       the seed of the base
    objective  in words, "next-sentence+masked"
    trained    what the base was trained with, in words; None: the usual of the role
    """

    role: str
    base: int
    objective: str | None = None
    arm: str | None = None
    seed: int = 0
    trained: str | None = None

    @property
    def name(self) -> str:
        """For files and messages."""
        base = f"{self.role}-{self.trained}" if self.trained else self.role
        if self.arm is None:
            return f"base.{base}.{self.base}"
        own = objectives.known().get(understood(self.objective)[0], Objective)
        usual = not self.trained and getattr(own, "roles", [self.role])[0] == self.role
        return f"{'' if usual else base + '.'}{self.objective}.{self.arm}.{self.seed}"

    @property
    def first(self) -> str | None:
        """The objective, without a second one."""
        return self.objective and self.objective.partition(HALF)[0]

    @property
    def second(self) -> str | None:
        """The name of an objective that reads half of the passages; None: there is none."""
        return self.objective and self.objective.partition(HALF)[2] or None

    @property
    def from_base(self) -> "Part":
        return Part(self.role, self.base, trained=self.trained)

    @property
    def plain(self) -> "Part":
        """The same continuation without a remedy."""
        return dataclasses.replace(self, arm=NOTHING)

    @property
    def side(self) -> str:
        """The text that it is trained on."""
        return "old" if self.arm is None else "wrong" if self.arm == CONTROL else "new"

    @property
    def way(self) -> tuple[str, dict]:
        """The objective that trains it, by name, and its settings."""
        if self.arm is not None:
            return understood(self.objective)
        return understood(self.trained) if self.trained else base_objective(self.role)

    def steps(self, comparison: Comparison) -> int:
        return comparison.base_steps if self.arm is None else comparison.steps


def parts(
    comparison: Comparison,
    roles: Mapping[str, str],
    arms: Mapping[str, Sequence[str]],
    changes: Mapping[str, Sequence[str]] | None = None,
    given: bool = False,
) -> list[Part]:
    """All parts in the order in which they are done: each base before what continues it.

    roles    of each objective's models
    arms     of each objective
    changes  by role: the objectives that continue bases of each of its objectives
    given    whether there is a base, and no other is trained
    """
    found: dict[Part, None] = {}
    for seed in range(comparison.seeds):
        base = 0 if comparison.one_base else seed
        for objective, names in arms.items():
            for arm in names:
                part = Part(roles[objective], base, objective, arm, seed)
                found |= {part.from_base: None, part: None}
        for role, words in (changes or {}).items():
            mains = bases_of(role)
            for own in mains[:1] if given else mains:
                trained = None if own == mains[0] else own
                others = [word.partition("+")[0] for word in mains if word != own]
                halves = [f"{own}{HALF}{name}" for name in others if not given and own in words
                          and name in words]  # fmt: skip
                for word in [*words, *halves]:
                    part = Part(role, base, word, NOTHING, seed, trained)
                    found |= {part.from_base: None, part: None}
    return list(found)
