"""Parts, which learn beside a model, where a checkpoint is used again.

What the objective needs and the checkpoint does not have is new, and is named. A checkpoint that
another objective has trained has none of them.
"""

from torch import Tensor, nn

from minicpt import objectives
from minicpt.checkpoint import Checkpoint
from minicpt.common.parts import take_over
from minicpt.common.randomness import seeded
from minicpt.common.registry import name_of
from minicpt.objectives.base import Objective

SEED = 0  # of parts that are new where nothing is trained


def kept(base: Checkpoint, objective: Objective) -> dict[str, Tensor]:
    """The state of the parts that a checkpoint keeps for this objective; {} where it keeps none."""
    kind, config = type(objective), base.record.get("config", {})
    if kind.parts is Objective.parts or config.get("objective") != name_of(kind):
        return {}
    return base.state()["parts"]


def left_out(base: Checkpoint) -> list[str]:
    """What an export says of the parts of a checkpoint."""
    name = base.record.get("config", {}).get("objective")
    kind = objectives.known().get(name, Objective)
    if kind.parts is Objective.parts:
        return []
    names = dict.fromkeys(key.split(".")[0] for key in base.state()["parts"])
    return [f"left out, as {name} alone uses it: {', '.join(names)}"]


def of_checkpoint(base: Checkpoint, objective: Objective) -> tuple[nn.ModuleDict, list[str]]:
    """The objective's parts beside a checkpoint's model, and the names of those that are new."""
    with seeded("parts", SEED):
        parts = objective.parts(base.model)
    return parts, take_over(parts, kept(base, objective))
