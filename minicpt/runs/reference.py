"""The reference model of a run that selects its targets: loaded, held against the run, frozen."""

from __future__ import annotations

from minicpt import checkpoint
from minicpt.common.disk import digest, sha256
from minicpt.common.errors import InputError
from minicpt.common.randomness import seeded
from minicpt.common.registry import name_of
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.runs.console import say
from minicpt.training.device import Machine
from minicpt.training.preparing import Selecting, Selection

READ = (".json", ".bin", ".safetensors", ".pt", ".txt")  # the files that loading may read


def record_of(settings: Selecting) -> dict[str, str]:
    """What a run's record says of its reference: the very folder, and the hash of its files."""
    if settings.reference is None:
        return {}
    folder, _ = checkpoint.find(settings.reference)
    paths = [path for path in folder.iterdir() if path.suffix in READ and path.is_file()]
    files = {path.name: sha256(path) for path in paths}
    return {"folder": str(folder.resolve()), "sha256": digest(files)}


def selection(
    settings: Selecting, objective: Objective, model: Model, machine: Machine
) -> Selection | None:
    """The selection that the settings ask for; None: they ask for none.

    model  the one that learns

    Raises InputError where the reference does not give a loss at each target of the run.
    """
    if settings.select is None:
        return None
    base = checkpoint.load(settings.reference)
    for note in base.notes:
        say(note)
    check(base, objective, model)
    with seeded("reference"):
        parts = objective.parts(base.model)
    if len(parts):
        load_parts(parts, base, objective)
    for module in (base.model, parts):
        module.to(machine.device).eval().requires_grad_(False)
    return Selection(settings.select, objective, base.model, parts)


def check(base: checkpoint.Checkpoint, objective: Objective, model: Model) -> None:
    """InputError unless the loaded model reads what the run's model reads, token by token."""
    folder, roles = f"--reference {base.folder}", (base.model.ROLE, model.ROLE)
    if roles[0] != roles[1]:
        raise InputError(f"{folder} is of the role {roles[0]}, the run's model of {roles[1]}; use"
                         " another folder")  # fmt: skip
    if base.tokenizer.sha256 != objective.tokenizer.sha256:
        raise InputError(
            f"{folder} has another tokenizer than the run, so the losses cannot be compared; use"
            " one with the same tokenizer, or train from scratch with --tokenizer of the reference"
        )
    if absent := sorted(set(objective.extra) - set(base.model.INPUTS)):
        raise InputError(f"{folder} takes no {absent[0]}, and the run's model does; use another"
                         " folder")  # fmt: skip
    positions = getattr(base.model.config, "positions", objective.length)
    if objective.length > positions:
        raise InputError(
            f"{folder} reads {positions} tokens at once, and the run {objective.length}; use"
            f" --window {positions} or less"
        )
    for head in objective.heads:
        if any(f"head {head!r}" in note for note in base.notes):  # initialised at random
            raise InputError(f"{folder} lacks the head {head!r}; use a folder that has it")


def load_parts(parts, base: checkpoint.Checkpoint, objective: Objective) -> None:
    """Gives the parts of the objective the weights that they have in the reference's folder."""
    name = name_of(type(objective))
    try:
        if base.record["config"]["objective"] != name:
            raise KeyError(name)
        parts.load_state_dict(base.state()["parts"])
    except (KeyError, RuntimeError):
        raise InputError(
            f"--reference {base.folder} lacks what {name} trains beside the model; use a run of"
            f" minicpt train {name} with the same settings"
        ) from None
