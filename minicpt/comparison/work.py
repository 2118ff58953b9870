"""One part of a comparison: how it is trained, and how it is measured.

Every part is trained as ``train`` does it: a ``RunConfig`` says how, and ``runs.assembly`` makes
model, remedies and trainer of it. Every part is measured in the same way, on the new and on the old
text.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from minicpt import checkpoint
from minicpt.checkpoint import Checkpoint
from minicpt.common.parts import take_over
from minicpt.comparison.measure import in_bits, measure
from minicpt.comparison.plan import CONTROL, NOTHING, Asked, Part, base_objective, model_of
from minicpt.comparison.probe import probe
from minicpt.comparison.store import Store
from minicpt.comparison.summary import SIDES
from minicpt.comparison.texts import Domain
from minicpt.data.tokenizer import Tokenizer
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.runs import assembly, parts
from minicpt.runs.config import Base, Length, RunConfig, Vocabulary
from minicpt.runs.texts import Texts
from minicpt.training.resuming import state_of
from minicpt.training.trainer import Trainer, Training


@dataclass(frozen=True)
class Work:
    """What all parts share.

    roles    of the model that each objective trains
    sides    the texts that were read: "old", "new" and, if it is another text, "wrong"
    domains  the same as they are used, and "wrong" always
    given    the folder of a base that is there already; None: bases are trained
    """

    asked: Asked
    roles: Mapping[str, str]
    sides: Mapping[str, Sequence[Texts]]
    domains: Mapping[str, Domain]
    tokenizer: Tokenizer
    store: Store
    given: Path | None

    def do(self, part: Part, watch: Callable[[Iterable], None]) -> dict:
        """The result of a part. ``watch`` goes through the steps, and may end them.

        A base gives the losses of every objective that continues it, a continuation those of its
        own.
        """
        begun = time.perf_counter()
        trainer = None
        if part.arm is None and (folder := self.folder(part)).is_dir():
            model = self.loaded(folder).model
        else:
            trainer = self.trainer(part)
            watch(trainer.run())
            model = trainer.model
            if part.arm is None:
                self.save(part, trainer)
        trained = time.perf_counter()
        names = [name for name, role in self.roles.items() if role == part.role]
        result = {
            "losses": {
                name: self.losses(part, name, model, trainer)
                for name in (names if part.arm is None else [part.objective])
            },
            "probe": {side: self.probed(part, model, side) for side in SIDES},
        }
        now = time.perf_counter()
        seconds = {"training": trained - begun, "measuring": now - trained}
        return result | {"seconds": seconds}

    def config(self, part: Part) -> RunConfig:
        """How a part is trained."""
        comparison = self.asked.comparison
        if part.objective is None:
            name, settings = base_objective(part.role)
            seed, rate = part.base, comparison.base_learning_rate
        else:
            name, settings, seed, rate = part.objective, {}, part.seed, comparison.learning_rate
        side = "old" if part.objective is None else "wrong" if part.arm == CONTROL else "new"
        return RunConfig(
            objective=name,
            settings={"window": comparison.window} | settings,
            model=model_of(part.role) if self.given is None else "",
            sizes=comparison.sizes,
            text=self.sides.get(side, self.sides["old"])[0].settings,
            vocabulary=Vocabulary(vocab_size=comparison.vocab_size),
            base=Base(init=None if part.objective is None else str(self.folder(part.from_base))),
            length=Length(steps=part.steps(comparison)),
            training=Training(batch_size=comparison.batch_size, seed=seed, learning_rate=rate),
            machine=self.asked.machine,
            remedies=self.asked.remedies(part.arm),
        )

    def objective(self, part: Part, model: Model | type[Model]) -> Objective:
        config = self.config(part)
        kind = assembly.objective_kind(config.objective)
        settings = kind.Settings(**config.settings)
        return assembly.make_objective(kind, self.tokenizer, settings, model)

    def new_model(self, part: Part) -> Model:
        """The model of a base, untrained."""
        config = self.config(part)
        kind = assembly.model_kind(config.model, assembly.objective_kind(config.objective))
        objective = self.objective(part, kind)
        return assembly.new_model(kind, objective, config.sizes, config.training.seed)

    def trainer(self, part: Part) -> Trainer:
        config, learnt = self.config(part), {}
        if part.arm is None:
            model, side = self.new_model(part), "old"
            objective = self.objective(part, model)
        else:
            base = self.loaded(self.folder(part.from_base))
            model, objective = base.model, self.objective(part, base.model)
            learnt = parts.kept(base, objective)
            side = "wrong" if part.arm == CONTROL else "new"
        trainer = assembly.make_trainer(
            model,
            objective,
            self.domains[side].training,
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

    # --- measuring ---------------------------------------------------------------------------

    def losses(self, part: Part, name: str, model: nn.Module, trainer: Trainer | None) -> dict:
        """The held-out losses of one objective, by side."""
        objective = self.objective(Part(part.role, part.base, name), model)
        passages = self.asked.comparison.evaluate_passages
        bits = in_bits(objective, [self.domains[side].held_out for side in SIDES])
        learnt = trainer.parts if trainer and self.config(part).objective == name else None
        if trainer is None:  # a base that was there before may have learnt some
            learnt, _ = parts.of_checkpoint(self.loaded(self.folder(part)), objective)
            learnt.to(self.asked.machine.device)
        found = {}
        for side in SIDES:
            corpus = self.domains[side].held_out
            found[side] = measure(model, objective, corpus, passages, bits, learnt)
        return found

    def probed(self, part: Part, model: nn.Module, side: str) -> dict | None:
        """What the probe finds, see ``probe``; None where the text has too few parts.

        Models are tuned where objectives are compared: without a remedy, on a base of our own.
        """
        if (task := self.domains[side].probe) is None:
            return None
        plain = self.given is None and part.arm in (None, NOTHING)
        rate = self.asked.comparison.base_learning_rate if plain else None
        return probe(model, self.tokenizer, task, rate)
