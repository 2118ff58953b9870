"""Does a part: trains a base or continues one, and measures it on the old and on the new text."""

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from minicpt import checkpoint
from minicpt.comparison.measure import in_bits, measure
from minicpt.comparison.plan import BASES, Comparison, Part
from minicpt.comparison.probe import probe
from minicpt.comparison.remedies import trainer_of
from minicpt.comparison.store import Store
from minicpt.comparison.texts import Domain
from minicpt.data.tokenizer import Tokenizer
from minicpt.training.device import Machine
from minicpt.training.trainer import Trainer, Training

SIDES = ("new", "old")  # the texts on which everything is measured


@dataclass(frozen=True)
class Work:
    """What all parts share.

    domains       "new", "old" and "wrong"
    objectives    the objectives that are compared, by name
    objective     from a name and settings to an objective
    untrained     from an objective to a new model
    given         the folder of a base that is there already; None: they are trained
    old_record    what a base's checkpoint says of its text
    """

    comparison: Comparison
    tokenizer: Tokenizer
    domains: dict[str, Domain]
    objectives: dict[str, object]
    objective: Callable[..., object]
    untrained: Callable[[object], nn.Module]
    store: Store
    machine: Machine
    given: Path | None
    old_record: dict

    def do(self, part: Part, watch: Callable[[Iterable], Iterable]) -> dict:
        """The result of a part. ``watch`` stands around the steps, and may end them.

        A base gives the losses of every objective of its architecture, a continuation those of
        its own.
        """
        begun = time.perf_counter()
        if part.arm is None:
            model = self.base_model(part, watch)
            names = [n for n, o in self.objectives.items() if o.role == part.role]
        else:
            model = self.continued(part, watch)
            names = [part.objective]
        trained = time.perf_counter()
        result = {
            "losses": {name: self.losses(model, self.objectives[name]) for name in names},
            "probe": {side: self.probed(model, part.role, side) for side in SIDES},
        }
        now = time.perf_counter()
        seconds = {"training": trained - begun, "measuring": now - trained}
        return result | {"seconds": seconds}

    def base_model(self, part: Part, watch) -> nn.Module:
        """The base, from its checkpoint if it has one, else trained and saved."""
        folder = self.given or self.store.base(part)
        if self.given or folder.is_dir():
            return self.loaded(folder)
        name, changes = BASES[part.role]
        objective = self.objective(name, **changes)
        torch.manual_seed(part.base)
        settings = Training(
            batch_size=self.comparison.batch_size,
            seed=part.base,
            learning_rate=self.comparison.base_learning_rate,
        )
        steps, text = self.comparison.base_steps, self.domains["old"].training
        trainer = Trainer(self.untrained(objective), objective, text, settings, steps, self.machine)
        for _ in watch(trainer.run()):
            pass
        record = {
            "objective": name,
            "objective_settings": dataclasses.asdict(objective.settings),
            "training": dataclasses.asdict(settings),
            "machine": dataclasses.asdict(self.machine),
            "fused": trainer.model.config.fused,
            "steps": steps,
            "step": steps,
            "text": self.old_record,
            "old_texts": [],
            "base": None,
            "tokenizer": self.tokenizer.sha256,
            "versions": self.store.versions,
        }
        folder.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(folder, trainer.model, self.tokenizer, record, trainer.state())
        return trainer.model

    def continued(self, part: Part, watch) -> nn.Module:
        model = self.loaded(self.given or self.store.base(part.from_base))
        trainer = trainer_of(
            part.arm,
            model,
            self.objectives[part.objective],
            self.domains,
            self.comparison,
            part.seed,
            self.machine,
        )
        for _ in watch(trainer.run()):
            pass
        return trainer.model

    def loaded(self, folder: Path) -> nn.Module:
        return checkpoint.load(folder, dropout=0.0).model.to(self.machine.device)

    def losses(self, model: nn.Module, objective) -> dict:
        passages = self.comparison.evaluate_passages
        corpora = {side: self.domains[side].held_out for side in SIDES}
        bits = in_bits(objective, corpora.values())
        return {
            side: measure(model, objective, corpus, passages, bits)
            for side, corpus in corpora.items()
        }

    def probed(self, model: nn.Module, architecture: str, side: str) -> dict | None:
        """The probe's right answers by unit; None where the text has too few parts."""
        sides = self.domains[side].probe
        if sides is None:
            return None
        right = probe(model, architecture, self.tokenizer, *sides)
        units = sorted(set(sides[1].units))
        counts = {unit: [0, 0] for unit in units}
        for unit, yes in zip(sides[1].units, right, strict=True):
            counts[unit][0] += yes
            counts[unit][1] += 1
        return {
            "units": units,
            "right": [counts[unit][0] for unit in units],
            "asked": [counts[unit][1] for unit in units],
            "parts": list(sides[1].parts),
            "majority": float(sides[1].labels.bincount().max() / len(sides[1].labels)),
        }
