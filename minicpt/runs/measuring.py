"""One model measured by several objectives: those that can train its role.

Each is made with the model's own tokenizer, and with the window of the training, so that all of
them read as much text at once. Nothing of this trains or changes the model.
"""

from collections.abc import Iterable, Sequence

from torch import nn

from minicpt import objectives
from minicpt.checkpoint import Checkpoint
from minicpt.common.errors import InputError
from minicpt.common.randomness import seeded
from minicpt.common.registry import name_of
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.runs import parts
from minicpt.runs.assembly import make_objective, objective_kind
from minicpt.runs.fitting import fitted, long_window, objective_of


def check_beside(names: Iterable[str], own: str, role: str, flag: str = "--also") -> None:
    """InputError for a name that ``beside`` refuses, before any text is read.

    own   the name of the run's objective, and ``role`` that of its model
    flag  that gives the names
    """
    known = objectives.known()
    for name in names:
        roles = objective_kind(name).roles
        if name == own:
            raise InputError(f"{flag} {name} is the objective of the run; name another one")
        if role not in roles:
            fits = [each for each in known if role in known[each].roles and each != own]
            raise InputError(
                f"{flag} {name} is for a model of the role {' or '.join(roles)}, and this one is of"
                f" the role {role}; use {', '.join(fits) or f'no {flag}'}"
            )


def beside(names: Iterable[str], own: Objective, model: Model) -> dict[str, Objective]:
    """Objectives by which the model of a run is measured too, by name.

    own  the run's objective

    Raises InputError for that one, for one of another role, and for one with parts.
    """
    check_beside(names, name_of(type(own)), model.ROLE)
    found = {}
    for name in dict.fromkeys(names):
        window = window_of(name, getattr(own.settings, "window", None))
        kind = objective_kind(name)
        found[name] = make_objective(kind, own.tokenizer, kind.Settings(**window), model)
        with seeded("parts", 0):
            refuse_parts("--also", name, found[name].parts(model))
    return found


def window_of(name: str, window: int | None) -> dict[str, int]:
    """The window of the training as a setting of an objective, if it has such a setting."""
    has = "window" in objective_kind(name).Settings.__dataclass_fields__
    return {"window": window} if has and window else {}


def refuse_parts(flag: str, name: str, new: Iterable[str]) -> None:
    """InputError where an objective has parts that are ``new``: they would measure nothing."""
    if names := ", ".join(new):
        raise InputError(
            f"{flag} {name} cannot measure this model: it needs parts that are trained with the"
            f" model ({names}); train with {name}, or name another objective"
        )


def measures_of(
    base: Checkpoint, names: Sequence[str] = ()
) -> dict[str, tuple[Objective, nn.ModuleDict]]:
    """Objectives by which a checkpoint's model is measured, each with what learnt beside the model.

    names  none: those that it was trained with. The others read windows of the same length; a
           folder of somebody else does not say which, and has long ones

    Raises InputError for one that does not fit, or whose parts the checkpoint does not hold.
    """
    found = {}
    trained = base.record.get("config", {}).get("settings", {})
    own = parts.trainers(base) or [name_of(type(objective_of(base)))]
    for name in dict.fromkeys(names or own):
        window = long_window(base.model, name)
        if base.record:
            window = window_of(name, trained.get("window"))
        objective = fitted(base, name, window)
        beside, new = parts.of_checkpoint(base, objective)
        refuse_parts("--objective", name, new)
        found[name] = objective, beside
    return found
