"""The second objective of a run, ``--mix``: what it must be, and how it is made.

It has the settings that it has by default, and windows of the training's length.
"""

from minicpt.common.errors import InputError
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.runs.assembly import make_objective, objective_kind
from minicpt.runs.config import RunConfig
from minicpt.runs.measuring import check_beside, window_of
from minicpt.training.device import Machine
from minicpt.training.mixing import Mixed


def check_mix(config: RunConfig, role: str) -> None:
    """InputError for a second objective that cannot train a model of this role with the run's."""
    if not (name := config.mixing.name):
        return
    check_beside([name], config.objective, role, "--mix")
    if config.selecting.select is not None:
        raise InputError("--mix and --select exclude each other; give one of them")


def second_of(
    config: RunConfig, own: Objective, model: Model | type[Model]
) -> Objective | None:
    """The second objective; None: there is none.

    own  the first one
    """
    if not (name := config.mixing.name):
        return None
    kind = objective_kind(name)
    window = window_of(name, getattr(own.settings, "window", None))
    return make_objective(kind, own.tokenizer, kind.Settings(**window), model)


def mixed(config: RunConfig, own: Objective, second: Objective | None, machine: Machine):
    """What trains: the run's objective, or both."""
    if second is None:
        return own
    both = Mixed(own, second, config.mixing.share)
    if machine.shard == "weights" and not both.in_one_pass:
        raise InputError(
            f"--mix {config.mixing.name}: the two objectives read in passes of their own, which"
            " --shard weights cannot; leave it out"
        )
    return both
