"""The base class of a remedy: what keeps a continued model near its base.

A new remedy is one new file in this folder: a class that derives from ``Remedy``. It has
``Settings``, whose field of the remedy's own name says how strong it is, and overrides the hooks
that it needs. All hooks do nothing by default:

    begin       before the training: which weights learn, a copy of the base, old text that is read
    mixed       which passages are mixed into the stream
    rates       which weights learn more slowly, or begin later
    on_targets  a term beside the loss at each target
    on_weights  a term beside the loss that reads the weights
    after_step  what happens to the model after each step
    at_end      what happens to the model after the last step
    moments     Adam's moments that the run begins with
    state       what a resumed run needs; ``begin`` gets it back

What every remedy keeps to, and tests/test_remedies.py holds it to:

* A term grows in proportion to its strength. It is zero in value and gradient at the base, with
  dropout off (to rounding for T5), and is not zero elsewhere. In bfloat16 it is a float32.
* While a term is computed, neither model nor batch changes, and the base does not learn.
* No number is drawn from torch's generator.
* Each setting has a help text, and the docstring names the paper with its arXiv number.

A remedy that acts at the end alone keeps to this instead: at full strength it gives the base's bits
or the trained ones, and the steps before are bitwise those of a run without it. Evaluations and
checkpoints before the last step show the weights that are trained, those of the last step what
``at_end`` made of them: what is evaluated is what is saved.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from minicpt.common.errors import InputError
from minicpt.common.evaluating import evaluating
from minicpt.common.registry import name_of
from minicpt.common.settings import Checked, flag
from minicpt.loss import Loss, TargetLosses

ROLES = ("encoder", "decoder", "encoder-decoder")


@dataclass(frozen=True)
class Situation:
    """What a remedy finds before the training.

    model      the base, as it is now, on its device
    objective  of the run
    seed       of the run
    passages   how many passages the run will read; None: not known yet
    old_text   source names -> the corpus of old text for training; none named: all that the base
               was trained on. What any text holds out is not in it
    progress   puts a bar over an iterable: (iterable, description)
    parts      the state of what learnt beside the base, for the same objective; {}: nothing did
    moments    Adam's of the base's run, by the names of its parameters; {}: see ``reads_moments``
    within     (model) -> a context in which the model is the base; None: it moves away from it
    """

    model: nn.Module
    objective: object
    seed: int = 0
    passages: int | None = None
    old_text: Callable[[tuple[str, ...]], object] | None = None
    progress: Callable[[Iterable, str], Iterable] = lambda iterable, description: iterable
    parts: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    within: Callable[[nn.Module], AbstractContextManager] | None = None
    moments: Mapping[str, dict] = dataclasses.field(default_factory=dict)

    @cached_property
    def base(self) -> nn.Module:
        """The base for all remedies: in evaluation mode, without gradients.

        A frozen copy, or, where the base stays in the model, what reads with that.
        """
        if self.within:
            return BaseWithin(self.model, self.within)
        return copy.deepcopy(self.model).eval().requires_grad_(False)


class BaseWithin:
    """The base that a model still holds, without a copy: it has no weights of its own.

    within  see ``Situation``
    """

    def __init__(self, model: nn.Module, within: Callable[[nn.Module], AbstractContextManager]):
        self.model, self.within = model, within

    @torch.no_grad()
    def __call__(self, **inputs: Tensor) -> Tensor:
        """Hidden states, as the base gives them."""
        with evaluating(self.model), self.within(self.model):
            return self.model(**inputs)

    @property
    def heads(self) -> nn.ModuleDict:
        return self.model.heads

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The base comes back with the model."""


class Rate(NamedTuple):
    """factor  of the run's learning rate. begins  how many steps pass before the weight learns."""

    factor: float = 1.0
    begins: int = 0


class Remedy:
    """What keeps a continued model near its base.

    roles      the roles of models that it fits
    reads_old  it reads text that the base was trained on
    reads_moments  it needs the moments of Adam that the base's run had
    claims     what only one remedy of a run can decide, in words: "which weights learn"
    needs      what must hold for it. A remedy is refused beside one that ``removes`` it
    removes    what does not hold any more with it, and why
    measured   its settings in ``compare``, where nothing else is said; None: it is not compared
    swept      the strengths that a sweep of ``compare`` goes through, from weak to strong
    only_at_end  it changes the model after the last step and nothing before, so that one training
               serves all its strengths: ``begin`` with the base, ``at_end`` on a copy of the model
    base_within  (model) -> a context in which the model is the base, whose weights stay in it;
               None: they do not
    """

    Settings: ClassVar[type[Checked]]
    roles: ClassVar[tuple[str, ...]] = ROLES
    reads_old: ClassVar[bool] = False
    reads_moments: ClassVar[bool] = False
    claims: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    removes: ClassVar[Mapping[str, str]] = {}
    measured: ClassVar[Mapping[str, object] | None] = None
    swept: ClassVar[tuple[float, ...]] = ()
    only_at_end: ClassVar[bool] = False
    base_within: Callable[[nn.Module], AbstractContextManager] | None = None

    def __init__(self, settings: Checked):
        self.settings = settings

    @property
    def name(self) -> str:
        """Its name on the command line and in tables."""
        return name_of(type(self))

    @classmethod
    def asked(cls, settings: Checked) -> bool:
        """Whether the settings ask for it: by default, whether the field of its name is set."""
        return bool(getattr(settings, name_of(cls).replace("-", "_")))

    @classmethod
    def label(cls, settings: Checked) -> str:
        """Its name and strength, as tables show them."""
        strength = getattr(settings, name_of(cls).replace("-", "_"))
        return f"{name_of(cls)} {strength:g}"

    @classmethod
    def refuses(cls, objective) -> str:
        """Why it cannot be used with an objective, or with a kind of them; "": it can."""
        return ""

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        """Before the training. ``state`` is what ``state`` gave to a run that goes on."""

    def moments(self) -> Mapping[str, dict]:
        """Adam's moments to begin with, by the names of parameters; {}: all are zero."""
        return {}

    def mixed(self, stream):
        """The stream of passages, with what is mixed in."""
        return stream

    def rates(self, model: nn.Module) -> Mapping[str, Rate]:
        """The rates of weights by name, after ``begin``; others learn at the full rate."""
        return {}

    def on_targets(self, model: nn.Module, found: Mapping[str, TargetLosses]) -> dict[str, Loss]:
        """A loss by head at the targets of one forward pass, divided as the objective's is."""
        return {}

    def on_weights(self, model: nn.Module) -> Tensor | None:
        """A number (), a function of the weights alone. It counts once a step."""
        return None

    def after_step(self, model: nn.Module) -> None:
        """After each update of the weights."""

    def at_end(self, model: nn.Module) -> None:
        """After the last step, before the model is evaluated and saved."""

    def state(self, model: nn.Module) -> dict:
        """What ``begin`` needs in a run that goes on."""
        return {}


def check_together(kinds: Mapping[str, type[Remedy]], role: str) -> None:
    """InputError where remedies, by name, do not fit each other or a model of this role."""
    names = list(kinds)
    for name, kind in kinds.items():
        if role not in kind.roles:
            article = "an" if role.startswith("e") else "a"
            fits = " and ".join(kind.roles)
            raise InputError(f"--{name} fits {fits} models, and this one is {article} {role}")
        for other in names[names.index(name) + 1 :]:
            for claim in set(kind.claims) & set(kinds[other].claims):
                raise InputError(f"--{name} and --{other} both decide {claim}; give one of them")
        for other in names:
            for need in kind.needs:
                if why := kinds[other].removes.get(need):
                    raise InputError(f"--{name} and --{other} exclude each other: {why}")


def details(kind: type[Remedy], given: Mapping[str, object]) -> None:
    """InputError for settings of a remedy that is not asked for."""
    if kind.asked(kind.Settings(**given)):
        return
    for field in dataclasses.fields(kind.Settings):
        if field.name in given and field.name != name_of(kind).replace("-", "_"):
            raise InputError(f"{flag(field)} belongs to --{name_of(kind)}, which is not given")
