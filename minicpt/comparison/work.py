"""One part of a comparison: it is trained, and then measured on the new and on the old text.

Every part is measured in the same way. A part whose objective changes is measured by all objectives
of its role, where what they ask of the model was trained.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from minicpt.comparison.arms import CONTROL, NOTHING, at_end
from minicpt.comparison.making import Making
from minicpt.comparison.measure import in_bits, measure
from minicpt.comparison.parts import Part, understood
from minicpt.comparison.probe import probe
from minicpt.comparison.summary import SIDES
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.runs import parts
from minicpt.training.stream import Stream
from minicpt.training.trainer import Trainer

PROBED, PATH, KNOWN = "probed", "path", "known"  # what a result may say beside the losses
MARKS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # of the steps: where a path is measured
AT_BASE = "@base"  # behind a measure: with what learnt beside the base, and stayed as it was


@dataclass(frozen=True)
class Work(Making):
    """What all parts share, and what does one."""

    @property
    def probing(self) -> str:
        """What a result says that holds the probe."""
        return f"{PROBED} {self.asked.comparison.probe_passages}"

    def measures(self, part: Part) -> list[str]:
        """What a part's result must say: the objectives that measure it, and more."""
        words = list(self.changes.get(part.role, ()))
        if part.arm is None:
            own = [name for name, role in self.roles.items() if role == part.role]
        else:
            own = [part.first]
            if part.arm != NOTHING or part.first not in words:
                words = []
        found = [*own, *words] if part.trained is None or part.arm else words
        if part.arm == CONTROL and self.path:
            found.append(PATH)
        if words:
            found.append(KNOWN)
        plain = part.arm is None or part.objective in self.roles and "=" not in part.arm
        if self.probes and plain and part.trained is None:
            found.append(self.probing)
        return list(dict.fromkeys(found))

    def do(self, part: Part, watch: Callable[[Iterable], None]) -> dict:
        """The result of a part. ``watch`` goes through the steps, and may end them.

        A base gives the losses of every objective that continues it, a continuation those of its
        own; where the objective changes, both give those of all objectives of the role.
        """
        begun = time.perf_counter()
        measures, result = self.measures(part), {}
        if part.arm is None and (folder := self.folder(part)).is_dir():
            model, learnt = self.loaded(folder).model, None
        elif part.arm and at_end(part.arm):
            model, learnt = self.ended(part, watch)
        else:
            trainer, path = self.trainer(part), {}
            watch(self.followed(trainer, path) if PATH in measures else trainer.run())
            model, learnt = trainer.model, trainer.parts
            result = {PATH: path} if PATH in measures else {}
            if part.arm is None:
                self.save(part, trainer)
            elif part.arm == NOTHING and self.ends:
                self.keep(part, trainer)
        trained = time.perf_counter()
        losses, known = {}, {}
        for word in measures:
            if word in (PATH, KNOWN, self.probing):
                continue
            if KNOWN in measures:
                known[word] = self.is_known(part, word, model)
            own = learnt if self.trains(part, word) else None
            if known.get(word, True) or word in self.roles:
                losses[word] = self.losses(part, word, model, own)
            else:
                losses[word] = None
            if own and part.arm and KNOWN in measures and self.of_base(part, word, model)[1]:
                losses[word + AT_BASE] = self.losses(part, word, model, None)
        probes = self.probing in measures
        result |= {
            "losses": losses,
            KNOWN: known,
            self.probing: probes,
            "probe": {side: self.probed(part, model, side) if probes else None for side in SIDES},
        }
        now = time.perf_counter()
        seconds = {"training": trained - begun, "measuring": now - trained}
        return result | {"seconds": seconds}

    def followed(self, trainer: Trainer, path: dict) -> Iterator:
        """The steps of a training; at some of them it is measured what the old text's loss is."""
        marks = {max(1, round(share * trainer.steps)) for share in MARKS}
        for step in trainer.run():
            if trainer.step in marks:
                objective, passages = trainer.objective, self.asked.comparison.evaluate_passages
                corpus = self.domains["old"].held_out
                bits = self.bits(objective)
                found = measure(trainer.model, objective, corpus, passages, bits, trainer.parts)
                path[str(trainer.step)] = found
            yield step

    # --- measuring ---------------------------------------------------------------------------

    def losses(
        self, part: Part, word: str, model: nn.Module, learnt: nn.ModuleDict | None
    ) -> dict:
        """The held-out losses of one objective, by side.

        learnt  beside the model; None: what learnt beside the base, or is new
        """
        objective = self.measuring(part, word, model)
        passages = self.asked.comparison.evaluate_passages
        if learnt is None:
            learnt, _ = self.of_base(part, word, model)
        found, bits = {}, self.bits(objective)
        for side in SIDES:
            corpus = self.domains[side].held_out
            found[side] = measure(model, objective, corpus, passages, bits, learnt)
        return found

    def measuring(self, part: Part, word: str, model: nn.Module) -> Objective:
        return self.objective(Part(part.role, part.base, word, NOTHING), model)

    def bits(self, objective: Objective) -> bool:
        return in_bits(objective, [self.domains[side].held_out for side in SIDES])

    def of_base(self, part: Part, word: str, model: nn.Module) -> tuple[nn.ModuleDict, bool]:
        """The parts of an objective beside a base, and whether they learnt there."""
        objective = self.measuring(part, word, model)
        if type(objective).parts is Objective.parts:
            return nn.ModuleDict(), False
        learnt, new = parts.of_checkpoint(self.loaded(self.folder(part.from_base)), objective)
        return learnt.to(self.asked.machine.device), not new

    def trains(self, part: Part, word: str) -> bool:
        """Whether an objective is what trains a part, or the second one of two."""
        return part.way == understood(word) or part.second == word

    def is_known(self, part: Part, word: str, model: nn.Module) -> bool:
        """Whether what an objective asks of a model was trained: its heads, and its parts."""
        if part.arm and self.trains(part, word):
            return True
        own, base = self.measuring(part, word, model), self.objective(part.from_base, model)
        if type(own).parts is not Objective.parts and not self.of_base(part, word, model)[1]:
            return False
        trained = [base, *self.objectives(part, model)] if part.arm else [base]
        heads = set().union(*(self.heads(each, model) for each in trained))
        return self.given is not None or self.heads(own, model) <= heads

    def heads(self, objective: Objective, model: Model) -> set[str]:
        """The heads of the model that an objective asks, and trains."""
        if not objective.asks:
            return set()
        found = Stream(objective, self.domains["old"].training, 0).passages(0, 1)
        return objective.batch(*found).targets.keys() & model.heads.keys()

    def probed(self, part: Part, model: nn.Module, side: str) -> dict | None:
        """What the probe finds, see ``probe``; None where the text has too few parts.

        Models are tuned where objectives are compared: without a remedy, on a base of our own.
        """
        if (task := self.domains[side].probe) is None:
            return None
        plain = self.given is None and part.arm in (None, NOTHING)
        rate = self.asked.comparison.base_learning_rate if plain else None
        return probe(model, self.tokenizer, task, rate)
