"""Going on: what a new process needs to go on exactly as this one, and runs that become longer."""

import dataclasses
from collections.abc import Mapping

import torch

from minicpt.checkpoint import pieces
from minicpt.common.errors import InputError
from minicpt.training.optimizer import Optimization, learning_rate
from minicpt.training.trainer import Trainer


def state_of(trainer: Trainer) -> dict:
    """What a new process needs beside weights and settings."""
    return {
        "step": trainer.step,
        "steps_without_targets": trainer.steps_without_targets,
        "optimizer": trainer.optimizer.state_dict(),
        "names": list(optimized(trainer)),
        "parts": trainer.parts.state_dict(),
        "remedies": {each.name: each.state(trainer.model) for each in trainer.remedies},
    }


def restore(trainer: Trainer, state: dict) -> None:
    """The other side of ``state_of``. The remedies have got their part when they began.

    Raises InputError where the state is not one of this run.
    """
    try:
        step, without = state["step"], state["steps_without_targets"]
        if not (type(step) is type(without) is int and 0 <= without <= step <= trainer.steps):
            raise InputError(f"step {step!r:.20} is none of the run's {trainer.steps}")
        pieces.put(trainer.parts.state_dict(), state["parts"])
        restore_optimizer(trainer.optimizer, state["optimizer"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"the state to go on from does not fit: {reason}") from None
    trainer.step, trainer.steps_without_targets = step, without


def optimized(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The parameters in the order of the optimizer, by name; those beside the model: "parts.…"."""
    model, parts = trainer.model.named_parameters(), trainer.parts.named_parameters("parts")
    names = {each: name for name, each in (*parts, *model)}
    groups = trainer.optimizer.param_groups
    return {names[each]: each for group in groups for each in group["params"]}


def named_moments(state: dict) -> dict[str, dict]:
    """The optimizer's moments by the names of its parameters. LookupError: it has no names."""
    return {state["names"][at]: each for at, each in state["optimizer"]["state"].items()}


def carry(trainer: Trainer, moments: Mapping[str, dict]) -> str:
    """Gives a new optimizer those moments whose name and shape are a parameter's.

    The number of steps comes with them. Returns what there is to say of it.
    """
    own, found = optimized(trainer), {}
    for at, (name, each) in enumerate(own.items()):
        mean = moments[name]["exp_avg"] if name in moments else None
        if mean is not None and (mean.shape, mean.dtype) == (each.shape, each.dtype):
            found[at] = moments[name]
    restore_optimizer(trainer.optimizer, trainer.optimizer.state_dict() | {"state": found})
    rest = f"; {len(own) - len(found)} begin anew" if len(found) < len(own) else ""
    return f"Adam's moments of {len(found)} of {len(own)} parameters go on from the base{rest}"


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Loads a state into a new optimizer of the same parameters and settings.

    Raises InputError, and changes nothing, where it is another optimizer's.
    """
    fresh = optimizer.state_dict()
    fields = {"step": (), "exp_avg": None, "exp_avg_sq": None}  # shape; None: the parameter's
    for found, own in zip(state["param_groups"], fresh["param_groups"], strict=True):
        if {**found, "lr": 0} != {**own, "lr": 0}:
            raise InputError("the optimizer's settings are not those of the run")
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    if not state["state"].keys() <= set(range(len(parameters))):
        raise InputError(f"the optimizer's state is not one of {len(parameters)} parameters")
    values, owners = {}, {}
    for index, moments in state["state"].items():
        for name, shape in fields.items():
            own = parameters[index] if shape is None else torch.zeros(shape)  # the step: float32
            value = moments[name]
            if (value.shape, value.dtype) != (own.shape, own.dtype) or len(moments) != len(fields):
                raise InputError(f"the optimizer's {name} of parameter {index} does not fit it")
            values[index, name], owners[index, name] = value, own
    values = pieces.spread(values, owners)
    moments = {at: {name: values[at, name] for name in fields} for at in state["state"]}
    optimizer.load_state_dict(state | {"state": moments})


def lengthened(step: int, old: int, new: int, settings: Optimization) -> Optimization:
    """The settings of a run of ``old`` steps, of which ``step`` are done, that shall have ``new``.

    The warm-up keeps its number of steps, so that the run is the one that had ``new`` from the
    beginning. Raises InputError if that one's rates would have been others: where the rate has
    begun to fall, or would have.
    """
    warmup = min(1.0, round(settings.warmup * old) / new)
    changed = dataclasses.replace(settings, warmup=warmup)
    if any(
        learning_rate(each, old, settings) != learning_rate(each, new, changed)
        for each in range(step)
    ):
        raise InputError(
            f"--steps {new} does not fit: in the first {step} of {old} steps the learning rate"
            f" ({settings.schedule}) was not what it is in a run of {new}; start a new run with"
            " --init"
        )
    return changed
