"""Which objective a checkpoint's model is used with, and whether the two fit."""

from collections.abc import Mapping, Sequence

from minicpt import models, objectives
from minicpt.checkpoint import Checkpoint
from minicpt.common.errors import InputError
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.runs.assembly import make_objective, objective_kind
from minicpt.runs.config import tuples

# Where several objectives fit a folder of somebody else.
USUAL = ("causal-lm", "masked-lm", "reconstruction")
READ = 512  # tokens: as much as most models can, and little enough for a laptop


def objective_of(base: Checkpoint, name: str | None = None) -> Objective:
    """The objective that a checkpoint was trained with, or another one that fits its model.

    A folder of somebody else shows what it does with the usual objective of its role, in windows
    as long as its model can read, up to READ tokens.
    """
    if name is None and base.record:
        name = base.record["config"]["objective"]
    elif name is None:
        role = base.model.ROLE
        fits = [each for each, kind in objectives.known().items() if role in kind.roles]
        name = min(fits, key=lambda each: each not in USUAL)  # the first of the usual ones
    return fitted(base, name, {} if base.record else long_window(base.model, name))


def long_window(model: Model, name: str) -> dict[str, int]:
    """The window of a model that nobody says how it was trained, as a setting of an objective."""
    has = "window" in objective_kind(name).Settings.__dataclass_fields__
    return {"window": min(READ, getattr(model.config, "positions", READ))} if has else {}


def fitted(base: Checkpoint, name: str, given: Mapping[str, object]) -> Objective:
    """An objective for a checkpoint's model, with the settings that were given.

    What is not given is as in the checkpoint's own training, if that had the same objective; a
    window that nobody gave shrinks to the model's positions. InputError where the two do not fit.
    """
    kind = objective_kind(name)
    check_kind(base.model, name, base.folder)
    recorded = base.record.get("config", {})
    own = recorded["settings"] if recorded.get("objective") == name else {}
    settings = tuples(own) | dict(given)
    objective = make_objective(kind, base.tokenizer, kind.Settings(**settings), base.model)
    positions = getattr(base.model.config, "positions", objective.length)
    if "window" not in settings and objective.length > positions:
        settings["window"] = positions
        objective = make_objective(kind, base.tokenizer, kind.Settings(**settings), base.model)
    check_fit(base.model, objective, base.folder)
    return objective


def check_kind(model: Model, name: str, folder) -> None:
    """InputError unless the objective ``name`` trains models like the one that ``folder`` holds.

    Comes before the objective is made: that one would complain about the other kind's tokenizer.
    """
    roles = objective_kind(name).roles
    if model.ROLE not in roles:
        fits = [n for n, kind in objectives.known().items() if model.ROLE in kind.roles]
        own = described(model.ROLE, [models.name_of(model)])
        wanted = " or ".join(
            described(role, [n for n, kind in models.known().items() if kind.ROLE == role])
            for role in roles
        )
        raise InputError(
            f"{folder} holds {own}, and {name} trains {wanted}; use"
            f" {', '.join(fits)} or another folder"
        )


def described(role: str, names: Sequence[str]) -> str:
    """A role with its article and its models: "an encoder (BERT)"."""
    article = "an" if role[0] in "aeiou" else "a"
    return f"{article} {role} ({', '.join(names).upper()})"


def check_fit(model: Model, objective: Objective, folder) -> None:
    """InputError unless the objective's length and tokenizer fit the model in ``folder``."""
    positions = getattr(model.config, "positions", objective.length)
    if objective.length > positions:
        raise InputError(
            f"--window is {objective.length}, but the model in {folder} has {positions} positions;"
            f" use --window {positions} or less"
        )
    if objective.tokenizer.size > model.config.vocabulary:
        raise InputError(
            f"the tokenizer has {objective.tokenizer.size} tokens, more than the"
            f" {model.config.vocabulary} of the model in {folder}; use the tokenizer that"
            " belongs to it"
        )
