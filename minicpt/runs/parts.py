"""Parts, which learn beside a model, where a checkpoint is used again.

What the objective needs and the checkpoint does not have is new, and is named. A checkpoint that
another objective has trained has none of them.
"""

from torch import Tensor, nn

from minicpt import objectives
from minicpt.checkpoint import Checkpoint, trained_by
from minicpt.common.parts import take_over
from minicpt.common.randomness import seeded
from minicpt.common.registry import name_of
from minicpt.objectives.base import Objective

SEED = 0  # of parts that are new where nothing is trained


def trainers(base: Checkpoint) -> dict[str, type[Objective]]:
    """The objectives that have trained a checkpoint, as far as they are there: one, or a mix."""
    known = objectives.known()
    return {name: known[name] for name in trained_by(base.record) if name in known}


def kept(base: Checkpoint, *users: Objective) -> dict[str, Tensor]:
    """The state of the parts that a checkpoint keeps for these objectives; {}: it keeps none."""
    names = [name_of(type(each)) for each in users if type(each).parts is not Objective.parts]
    return base.state()["parts"] if set(names) & trainers(base).keys() else {}


def left_out(base: Checkpoint) -> list[str]:
    """What an export says of the parts of a checkpoint."""
    users = [name for name, kind in trainers(base).items() if kind.parts is not Objective.parts]
    if not users:
        return []
    names = dict.fromkeys(key.split(".")[0] for key in base.state()["parts"])
    return [f"left out, as {' and '.join(users)} alone uses it: {', '.join(names)}"]


def of_checkpoint(base: Checkpoint, objective: Objective) -> tuple[nn.ModuleDict, list[str]]:
    """The objective's parts beside a checkpoint's model, and the names of those that are new."""
    with seeded("parts", SEED):
        parts = objective.parts(base.model)
    return parts, take_over(parts, kept(base, objective))
