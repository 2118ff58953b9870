"""From names and settings to objective, model, remedies and trainer: the one way to set up a run.

``train``, ``resume``, ``compare``, the demo, the proofs and the tests all come through here.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import torch

from minicpt import models, objectives, remedies
from minicpt.checkpoint.draft import without_memory
from minicpt.common.errors import InputError, WorkError
from minicpt.common.memory import machine_memory
from minicpt.common.settings import Checked
from minicpt.data.tokenizer import Tokenizer
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.remedies.base import Remedy, Situation, check_together
from minicpt.runs.console import bar_over, say
from minicpt.training.device import CPU, Machine
from minicpt.training.preparing import Preparing
from minicpt.training.resuming import carry, restore
from minicpt.training.trainer import Trainer, Training

DEFAULTS = ("gpt2", "bert", "t5")  # the models that are taken first, where several have a role


def named(kind: str, found: Mapping[str, type], name: str) -> type:
    """One of the classes that were found. InputError names them where there is no such one."""
    if name not in found:
        raise InputError(f"no {kind} is called {name!r}; use one of {', '.join(found)}")
    return found[name]


def objective_kind(name: str) -> type[Objective]:
    return named("objective", objectives.known(), name)


def fitting(objective: type[Objective]) -> dict[str, type[Model]]:
    """The models that an objective can train, by name; the default first."""
    found = [
        (objective.roles.index(kind.ROLE), name not in DEFAULTS, name, kind)
        for name, kind in models.known().items()
        if kind.ROLE in objective.roles
    ]
    return {name: kind for *_, name, kind in sorted(found, key=lambda each: each[:3])}


def trainable() -> dict[str, type[Objective]]:
    """The objectives that a model is there for, by name."""
    return {name: kind for name, kind in objectives.known().items() if fitting(kind)}


def model_kind(name: str, objective: type[Objective]) -> type[Model]:
    """The model of that name, or, where it is "", the default one for an objective.

    Raises InputError where the objective cannot train it.
    """
    fits = fitting(objective)
    if not fits:
        raise InputError(f"no model has the role {' or '.join(objective.roles)}")
    if not name:
        return next(iter(fits.values()))
    kind = named("model", models.known(), name)
    if name not in fits:
        raise InputError(
            f"--model {name} is a model of the role {kind.ROLE}, and the objective trains"
            f" {' or '.join(objective.roles)}; use --model {' or '.join(fits)}"
        )
    return kind


def make_objective(
    kind: type[Objective], tokenizer: Tokenizer, settings: Checked, model: Model | type[Model]
) -> Objective:
    """An objective whose batches fit a model: of its role, and with the inputs that it takes."""
    objective = kind(tokenizer, settings, model.ROLE)
    objective.extra = tuple(name for name in objective.extra if name in model.INPUTS)
    return objective


def check_sizes(kind: type[Model], sizes: Mapping[str, object]) -> None:
    """InputError for sizes that a model does not have, or that are wrong, before any text is read.
    """
    fields = {field.name: field for field in dataclasses.fields(kind.Config)}
    for name in sizes:
        if name not in fields:
            raise InputError(
                f"--{name.replace('_', '-')} cannot be used here: {kind.__name__} has no such size"
            )
    unknown = {name: 1 for name, each in fields.items() if each.default is dataclasses.MISSING}
    kind.Config(**unknown | dict(sizes))


def new_model(
    kind: type[Model], objective: Objective, sizes: Mapping[str, object], seed: int | None = None
) -> Model:
    """An untrained model that fits an objective; what the text decides is filled in.

    seed  of its weights; None: torch's generator goes on

    Raises InputError where weights, gradients and AdamW's moments do not fit into the machine.
    """
    tokenizer = objective.tokenizer
    decided = {"vocabulary": tokenizer.size, "positions": objective.length}
    decided["pad"] = tokenizer.roles.get("pad")
    names = {field.name for field in dataclasses.fields(kind.Config)}
    config = kind.Config(**{n: v for n, v in decided.items() if n in names} | dict(sizes))
    check_memory(kind, config)
    if seed is None:
        return kind(config)
    torch.manual_seed(seed)
    return kind(config)


def check_memory(kind: type[Model], config) -> None:
    numbers = sum(each.numel() for each in without_memory(kind, config).parameters())
    need, have = 4 * 4 * numbers, machine_memory()
    if have and need > have:
        raise InputError(
            f"a model of {numbers:,} weights needs {need >> 30:,} GiB to be trained, and this"
            f" machine has {have >> 30}; lower --width, --layers or --vocab-size"
        )


def make_remedies(
    asked: Mapping[str, Mapping[str, object]], role: str, objective: Objective | None = None
) -> list[Remedy]:
    """The remedies by name and settings. Raises InputError where they do not fit each other, or the
    objective."""
    found = {name: named("remedy", remedies.known(), name) for name in asked}
    check_together(found, role)
    for name, kind in found.items():
        if why := objective and kind.refuses(objective):
            raise InputError(f"--{name} cannot be used here: {why}")
    return [kind(kind.Settings(**asked[name])) for name, kind in found.items()]


def make_trainer(
    model: Model,
    objective: Objective,
    corpus,
    training: Training,
    steps: int | None,
    machine: Machine = CPU,
    chosen: Iterable[Remedy] = (),
    old_text: Callable[[tuple[str, ...]], object] | None = None,
    state: dict | None = None,
    prepare: Preparing | None = None,
    parts: Mapping[str, torch.Tensor] | None = None,
    moments: Mapping[str, dict] | None = None,
) -> Trainer:
    """A trainer whose remedies have begun; with ``state``, one that goes on where that was kept.

    steps     None: not known yet, and set later
    old_text  see ``Situation``, and ``parts`` and ``moments`` likewise
    prepare   what becomes of each batch before its step; None: nothing
    """
    model.to(machine.device)
    passages = steps and steps * training.batch_size
    chosen = list(chosen)
    within = next((each.base_within for each in chosen if each.base_within), None)
    given = passages, old_text, bar_over, parts or {}, within, moments or {}
    situation = Situation(model, objective, training.seed, *given)
    try:
        # What leaves the base's weights as they are comes last: the others copy the base first.
        for remedy in sorted(chosen, key=lambda each: bool(each.removes)):
            remedy.begin(situation, state and state["remedies"][remedy.name])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if state is None or isinstance(error, (InputError, WorkError)):
            raise
        raise InputError(
            f"the state to go on from does not fit: {' '.join(str(error).split())[:120]}"
        ) from None
    trainer = Trainer(model, objective, corpus, training, steps or 1, machine, chosen)
    trainer.prepare = prepare or trainer.prepare
    if state:
        restore(trainer, state)
    for found in [] if state else filter(None, [each.moments() for each in chosen]):
        say(carry(trainer, found))
    return trainer
