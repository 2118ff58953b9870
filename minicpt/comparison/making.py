"""How a part of a comparison is trained: as ``train`` does it.

A ``RunConfig`` says how, and ``runs.assembly`` makes model, remedies and trainer of it. A base is
kept as a checkpoint, and what continues it reads it from there.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from minicpt import checkpoint
from minicpt.checkpoint import Checkpoint
from minicpt.common.parts import take_over
from minicpt.comparison.parts import Part, model_of
from minicpt.comparison.plan import Asked
from minicpt.comparison.store import Store
from minicpt.comparison.texts import Domain
from minicpt.data.tokenizer import Tokenizer
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.remedies.base import Situation
from minicpt.runs import assembly, mixing, parts
from minicpt.runs.config import Base, Length, RunConfig, Vocabulary
from minicpt.runs.texts import Texts
from minicpt.training.mixing import Mixing
from minicpt.training.resuming import state_of
from minicpt.training.trainer import Trainer, Training


@dataclass(frozen=True)
class Making:
    """What all parts share.

    roles     of the model that each objective trains
    sides     the texts that were read: "old", "new" and, if it is another text, "wrong"
    domains   the same as they are used, and "wrong" always
    given     the folder of a base that is there already; None: bases are trained
    changes   by role: the objectives that continue bases of all kinds, and measure what comes of it
    path      whether the old text's loss is followed while the control reads the old text again
    probes    whether the models are probed
    ends      whether arms are to be done that act on a finished continuation
    rates     the highest learning rates that were chosen, by role and objective
    finished  the newest continuation without a remedy: what acts at the end shares it
    """

    asked: Asked
    roles: Mapping[str, str]
    sides: Mapping[str, Sequence[Texts]]
    domains: Mapping[str, Domain]
    tokenizer: Tokenizer
    store: Store
    given: Path | None

    changes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    path: bool = False
    probes: bool = True
    ends: bool = False
    rates: dict[tuple[str, str], float] = field(default_factory=dict)
    finished: dict[Part, tuple[Model, nn.ModuleDict]] = field(default_factory=dict)

    def config(self, part: Part) -> RunConfig:
        """How a part is trained."""
        comparison, (name, settings) = self.asked.comparison, part.way
        if part.arm is None:
            seed, rate = part.base, comparison.base_learning_rate
        else:
            seed, key = part.seed, (part.role, part.first)
            rate = self.rates.get(key, comparison.learning_rate)
        training = Training(batch_size=comparison.batch_size, seed=seed, learning_rate=rate)
        return RunConfig(
            objective=name,
            settings={"window": comparison.window} | settings,
            mixing=Mixing((part.second, "0.5")) if part.second else Mixing(),
            model=model_of(part.role) if self.given is None else "",
            sizes=comparison.sizes,
            text=self.sides.get(part.side, self.sides["old"])[0].settings,
            vocabulary=Vocabulary(vocab_size=comparison.vocab_size),
            base=Base(init=None if part.objective is None else str(self.folder(part.from_base))),
            length=Length(steps=part.steps(comparison)),
            training=replace(training, **self.asked.training(part.arm)),
            machine=self.asked.machine,
            remedies=self.asked.remedies(part.arm),
        )

    def objective(self, part: Part, model: Model | type[Model]) -> Objective:
        """The objective that trains a part; with a second one, both as one."""
        first, *second = self.objectives(part, model)
        config = self.config(part)
        return mixing.mixed(config, first, *second, config.machine) if second else first

    def objectives(self, part: Part, model: Model | type[Model]) -> list[Objective]:
        """The objective of a part, and the second one, if there is one."""
        config = self.config(part)
        kind = assembly.objective_kind(config.objective)
        settings = kind.Settings(**config.settings)
        first = assembly.make_objective(kind, self.tokenizer, settings, model)
        return [first, *filter(None, [mixing.second_of(config, first, model)])]

    def new_model(self, part: Part) -> Model:
        """The model of a base, untrained."""
        config = self.config(part)
        kind = assembly.model_kind(config.model, assembly.objective_kind(config.objective))
        objective = self.objective(part, kind)
        return assembly.new_model(kind, objective, config.sizes, config.training.seed)

    def trainer(self, part: Part) -> Trainer:
        config, learnt = self.config(part), {}
        if part.arm is None:
            model = self.new_model(part)
            objective = self.objective(part, model)
        else:
            base = self.loaded(self.folder(part.from_base))
            model, objective = base.model, self.objective(part, base.model)
            learnt = parts.kept(base, *self.objectives(part, base.model))
        trainer = assembly.make_trainer(
            model,
            objective,
            self.domains[part.side].training,
            config.training,
            config.length.count,
            config.machine,
            assembly.make_remedies(config.remedies, part.role),
            lambda sources: self.domains["old"].training,
            parts=learnt,
        )
        take_over(trainer.parts, learnt)
        return trainer

    def folder(self, base: Part) -> Path:
        return self.given or self.store.base(base)

    def loaded(self, folder: Path) -> Checkpoint:
        found = checkpoint.load(folder, dropout=0.0)
        found.model.to(self.asked.machine.device)
        return found

    def save(self, part: Part, trainer: Trainer) -> None:
        """Keeps a base as a checkpoint, as ``train`` would."""
        record = {
            "config": self.config(part).plain(),
            "fused": trainer.model.config.fused,
            "step": trainer.step,
            "steps": trainer.steps,
            "evaluations": [],
            "before": {},
            "texts": [each.record for each in self.sides["old"]],
            "old_texts": [],
            "held_out": {},
            "read": {},
            "vocabulary": {},
            "tokenizer": self.tokenizer.sha256,
            "versions": self.store.versions,
            "threads": torch.get_num_threads(),
            "base": None,
        }
        folder = self.folder(part)
        folder.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(folder, trainer.model, self.tokenizer, record, state_of(trainer))

    def keep(self, part: Part, trainer: Trainer) -> None:
        self.finished.clear()
        self.finished[part] = trainer.model, trainer.parts

    def ended(self, part: Part, watch: Callable[[Iterable], None]) -> tuple[Model, nn.ModuleDict]:
        """What an arm that acts at the end makes of the continuation without a remedy."""
        if part.plain not in self.finished:
            trainer = self.trainer(part.plain)
            watch(trainer.run())
            self.keep(part.plain, trainer)
        model, learnt = copy.deepcopy(self.finished[part.plain])
        base = self.loaded(self.folder(part.from_base)).model
        situation = Situation(base, self.objective(part, base), part.seed)
        for remedy in assembly.make_remedies(self.asked.remedies(part.arm), part.role):
            remedy.begin(situation)
            remedy.at_end(model)
        return model, learnt
