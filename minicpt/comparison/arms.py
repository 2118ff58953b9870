"""Arms: a remedy against forgetting, or a measure to hold remedies against.

An arm is a word. ``nothing`` and ``control`` (the same budget on the wrong text) are measures. The
name of a remedy, "kl", is that remedy as the flags set it. "kl=0.1" is the same at another
strength: a sweep is several of these. "learning-rate=0.003" changes how the training itself is
done, without a remedy.

Remedies are found by themselves, and each says which strengths are worth a sweep (``swept``).
"""

import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence

from minicpt import objectives, remedies
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, flag
from minicpt.remedies.base import Remedy

NOTHING, CONTROL = "nothing", "control"
# The arms of --quick, which continues one objective with all of them and the others with nothing.
QUICK_ARMS = (NOTHING, "replay", "self-replay", "kl", "l2", "lora", CONTROL)
QUICK_OBJECTIVES = ("causal-lm",)
# Settings of the training that are swept as remedies are: the highest rate, and the share of the
# steps in which the rate rises again.
KNOBS = {
    "learning-rate": (0.0001, 0.0003, 0.001, 0.003, 0.01),
    "warmup": (0.0, 0.2, 0.5),
}
ALL = "all"


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


# --- an arm's word -----------------------------------------------------------------------------


def parted(arm: str) -> tuple[str, float | int | None]:
    """The name of what an arm does, and the strength that it is swept to, if it is.

    >>> parted("kl"), parted("kl=0.1"), parted("lora=8")
    (('kl', None), ('kl', 0.1), ('lora', 8))
    """
    name, _, value = arm.partition("=")
    if not value:
        return name, None
    return name, int(value) if value.isdigit() else float(value)


def knob(name: str) -> str:
    """The strength of a remedy as one of its settings: the first number that is measured."""
    measured = compared()[name].measured
    return next(each for each, value in measured.items() if type(value) in (int, float))


def at_end(arm: str) -> bool:
    """Whether an arm only changes a finished continuation, so that all of them share one."""
    kind = compared().get(parted(arm)[0])
    return kind is not None and kind.only_at_end


# --- which arms there are ----------------------------------------------------------------------


def arms() -> list[str]:
    """All arms without a sweep, in the order of the tables: those of --quick first, the control
    last."""
    found = compared()
    first = [arm for arm in QUICK_ARMS if arm == NOTHING or arm in found]
    return [*first, *(arm for arm in found if arm not in first), CONTROL]


def fits(arm: str, objective: str, role: str) -> bool:
    """Whether an arm can be used with an objective on a model of this role."""
    kind = compared().get(parted(arm)[0])
    asked = objectives.known().get(objective, objectives.Objective)
    return kind is None or role in kind.roles and not kind.refuses(asked)


def arms_of(
    roles: Mapping[str, str], asked: Sequence[str], quick: bool
) -> dict[str, list[str]]:
    """The arms of each objective: all that are asked for and fit the role of its model."""
    known = arms()
    if unknown := [arm for arm in asked if arm not in known]:
        raise InputError(
            f"--remedies: no remedy is called {unknown[0]!r}; use {', '.join(known)}"
        )
    wanted = asked or (QUICK_ARMS if quick else known)
    found = {}
    for objective, role in roles.items():
        able = [arm for arm in known if fits(arm, objective, role)]
        full = not quick or objective in QUICK_OBJECTIVES
        found[objective] = [arm for arm in able if arm == NOTHING or full and arm in wanted]
    return found


def sweeps() -> dict[str, tuple]:
    """The strengths of each sweep, by the name of the remedy or of the training's setting."""
    return KNOBS | {name: kind.swept for name, kind in compared().items() if kind.swept}


def swept(names: Sequence[str], strengths: Mapping[str, Checked]) -> list[str]:
    """The arms of the sweeps that are asked for, "all" for every one.

    strengths  of the arms that have none of their own: such a strength is that arm, "kl"
    """
    known = sweeps()
    if unknown := [name for name in names if name not in (ALL, *known)]:
        raise InputError(
            f"--sweep: nothing called {unknown[0]!r} has strengths to go through; use {ALL}, or"
            f" {', '.join(known)}"
        )
    found = []
    for name in known if ALL in names else dict.fromkeys(names):
        usual = None if name in KNOBS else getattr(strengths[name], knob(name))
        found += [name if value == usual else f"{name}={value:g}" for value in known[name]]
    return found


def check_strengths(strengths: Mapping[str, Checked], names: Iterable[str]) -> None:
    """InputError for a remedy, among the arms that are compared, whose settings leave it out."""
    for name, kind in compared().items():
        if name in names and not kind.asked(strengths[name]):
            field = dataclasses.fields(kind.Settings)[0]
            value = getattr(strengths[name], field.name)
            raise InputError(
                f"{flag(field)} {value} leaves {name} out; give it a strength, or name the other"
                " arms with --remedies"
            )
