"""Which objectives, arms and changes a comparison has, from what was asked."""

from collections.abc import Callable

from minicpt import objectives
from minicpt.common.errors import InputError
from minicpt.common.memory import machine_memory
from minicpt.comparison.advice import too_large
from minicpt.comparison.arms import (
    CONTROL,
    NOTHING,
    QUICK_OBJECTIVES,
    arms_of,
    at_end,
    fits,
    swept,
)
from minicpt.comparison.parts import roles_of, ways
from minicpt.comparison.plan import Asked
from minicpt.models.layers import Model

NOT_DRAWN = "--plot draws remedies; give --sweep or --remedies beside --change"


def drawable(asked: Asked) -> None:
    """InputError for a picture of nothing, before any work."""
    sources = asked.sources
    if sources.change and not sources.sweep and not sources.remedies:
        raise InputError(NOT_DRAWN)


def fitting(
    arms: dict[str, list[str]], base: Model, tell: Callable[[str], None]
) -> dict[str, list[str]]:
    """The arms without those that need more memory than this machine has; it is said which.

    InputError where training without a remedy does.
    """
    every = dict.fromkeys(arm for each in arms.values() for arm in each)
    large = too_large(every, base, machine_memory())
    if NOTHING in large:
        raise InputError(
            f"--init: to train all weights of this base takes {large[NOTHING]}, more than this"
            " machine has; use `minicpt train … --lora 8`, which compare cannot hold against it"
        )
    if large:
        said = ", ".join(f"{arm} ({need})" for arm, need in large.items())
        tell(f"left out  more than this machine's memory: {said}")
    return {name: [arm for arm in each if arm not in large] for name, each in arms.items()}


def planned(
    asked: Asked, base: str | None
) -> tuple[dict[str, str], dict[str, list[str]], dict[str, list[str]]]:
    """The roles of the objectives that are compared, the arms of each, and the changes by role.

    base  the role of a given base
    """
    sources = asked.sources
    named, changes = sources.objectives, {}
    if sources.change:
        changes = ways(named, base)
        if not sources.sweep and not sources.remedies:
            return {}, {}, changes
    if sources.sweep and not named and not base:
        named = [name for name in QUICK_OBJECTIVES if name in objectives.known()]
    roles = roles_of(named, base)
    if asked.quick and not named:  # one objective a role
        first = {role: name for name, role in reversed(roles.items())}
        roles = {name: role for name, role in roles.items() if first[role] == name}
    chosen = sources.remedies or ([NOTHING, CONTROL] if sources.sweep else ())
    arms = arms_of(roles, chosen, asked.quick)
    for word in swept(sources.sweep, asked.strengths):
        for objective, role in roles.items():
            if word not in arms[objective] and fits(word, objective, role):
                arms[objective].append(word)
    return roles, {name: _together(each) for name, each in arms.items()}, changes


def _together(arms: list[str]) -> list[str]:
    """Those that share a finished continuation stand behind it; the control is the last."""
    last = [arm for arm in arms if arm == CONTROL]
    ends = [arm for arm in arms if at_end(arm)]
    rest = [arm for arm in arms if arm not in (*ends, *last, NOTHING)]
    return [NOTHING, *ends, *rest, *last]
