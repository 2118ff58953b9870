"""Training: one loop for every model and every objective. It knows neither by name.

    passages -> batch -> forward -> loss -> backward -> clip -> step

What makes it exact:

* The data are addressed by one integer, the number of passages seen; every draw of an objective is
  a pure function of (seed, epoch, place). Dropout is the only use of torch's own generator.
* The targets of a step are counted over all its micro-batches before the first backward pass, and
  every micro-batch is divided by that count: however a step is split, it has one gradient.
* A step without targets changes nothing. A loss or gradient that is not finite stops the run
  before the weights change.
* Regularizers (terms beside the objective) read the hidden states of the step's one forward pass.
  Those on the targets are divided as the loss is; those on the weights count once a step.

Leaves out files, signals and what is printed: ``Trainer.run`` yields after each step, and the
caller does those things.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Generator, Tensor, nn

from minicpt.batch import Batch, real
from minicpt.common.errors import InputError, WorkError
from minicpt.common.randomness import generator
from minicpt.common.settings import MOST, setting
from minicpt.data.order import planned
from minicpt.loss import Loss, objective_loss, whole_sequence_loss
from minicpt.remedies.adapters import factors, restore_factors
from minicpt.remedies.replay import Mixture, Replay
from minicpt.training.device import CPU, Machine
from minicpt.training.optimizer import (
    Optimization,
    learning_rate,
    make_optimizer,
    restore_optimizer,
)

NONE: Mapping = MappingProxyType({})  # no regularizers


@dataclass(frozen=True)
class Training(Optimization):
    batch_size: int = setting(16, "passages of a step", least=1, most=2**20)
    micro_batches: int = setting(1, "parts into which a step is split, to save memory", least=1)
    seed: int = setting(0, "seed of weights, order, noise and dropout", least=0, most=MOST)
    fused_loss: bool = setting(True, "the loss a few rows at a time, without holding all logits")

    def __post_init__(self):
        super().__post_init__()
        if self.micro_batches > self.batch_size:
            raise InputError(
                f"--micro-batches must be at most --batch-size ({self.batch_size}), "
                f"but is {self.micro_batches}"
            )


# --- the step --------------------------------------------------------------------------------


class NotFinite(WorkError):
    """A loss or gradient was NaN or infinite; the weights are as they were before the step."""


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    clip: float,
    fused: bool = True,
    machine: Machine = CPU,
    regularizers: Mapping[str, nn.Module] = NONE,
) -> dict[str, Loss]:
    """One update of the weights from the micro-batches of a step.

    Returns the step's loss by head, and by the name of each regularizer the value of its term
    (count 1). Raises NotFinite, with the weights unchanged, if one of them or the gradient's norm
    is not finite.
    """
    counts = sum((Counter(batch.counts()) for batch in batches), Counter())
    optimizer.zero_grad(set_to_none=True)
    total: dict[str, Loss] = {}
    values: dict[str, Tensor] = {}
    on_targets = {name: each for name, each in regularizers.items() if each.on == "targets"}
    on_weights = {name: each for name, each in regularizers.items() if each.on == "weights"}
    for batch in batches:
        with machine.autocast():
            hidden = model(**batch.inputs)
            losses = whole_sequence_loss(model, batch, fused, hidden)
            near = {name: each(model, batch, hidden) for name, each in on_targets.items()}
        for name, loss in losses.items():
            total[name] = total[name] + loss.detach() if name in total else loss.detach()
        if counts:
            terms = {name: objective_loss(each, counts) for name, each in near.items()}
            (objective_loss(losses, counts) + sum(terms.values())).backward()
            for name, term in terms.items():
                values[name] = values.get(name, 0) + term.detach()
    if not counts:
        return total
    for name, each in on_weights.items():
        term = each(model)
        term.backward()
        values[name] = term.detach()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip or float("inf"))
    checked = {f"{name} loss": loss.sum for name, loss in total.items()}
    checked |= {f"{name} term": value for name, value in values.items()}
    for name, value in (checked | {"gradient norm": norm}).items():
        if not torch.isfinite(value):
            raise NotFinite(f"the {name} is {value.item()}")
    optimizer.step()
    return total | {name: Loss(value, 1) for name, value in values.items()}


# ---------------------------------------------------------------------------------------------


class Stream:
    """The endless sequence of an objective's passages, epoch after epoch, by one integer."""

    def __init__(self, objective, corpus, seed: int):
        self.objective, self.corpus, self.seed = objective, corpus, seed
        self.begins = [0]  # the position at which each epoch so far begins

    def plan(self, epoch: int) -> Sequence:
        plan = planned(self.objective, self.corpus, self.seed, epoch)
        if not len(plan):
            raise InputError("the corpus is too short: it gives not a single passage")
        return plan

    def epoch_length(self, epoch: int) -> int:
        """How many passages an epoch has; those of later epochs may be cut differently."""
        while len(self.begins) <= epoch + 1:
            self.begins.append(self.begins[-1] + len(self.plan(len(self.begins) - 1)))
        return self.begins[epoch + 1] - self.begins[epoch]

    def passages(self, position: int, count: int) -> tuple[list, list[Generator]]:
        """Passages ``position``, ``position + 1``, … and the generator of each one's noise."""
        passages, generators = [], []
        while self.begins[-1] <= position + count:
            self.epoch_length(len(self.begins) - 1)
        for place in range(position, position + count):
            epoch = bisect_right(self.begins, place) - 1
            index = place - self.begins[epoch]
            passages.append(self.plan(epoch)[index])
            generators.append(generator("noise", self.seed, epoch, index))
        return passages, generators


@dataclass(frozen=True)
class Step:
    """What one step did.

    losses  by head: the objective's
    terms   by name: what each regularizer added to it
    tokens  the real positions that the model read
    """

    number: int
    losses: dict[str, Loss]
    terms: dict[str, float]
    tokens: int
    learning_rate: float


class Trainer:
    """A model, an objective and a corpus, and how far training has come.

    steps         the length of the run, to which the schedule is fitted
    step          the number of steps done; the data position is ``step * batch_size``
    machine       where and how the steps run; the model is moved there
    regularizers  the terms beside the objective, by name, on the machine's device
    replay        old text to mix in
    """

    def __init__(
        self,
        model: nn.Module,
        objective,
        corpus,
        settings: Training,
        steps: int,
        machine: Machine = CPU,
        regularizers: Mapping[str, nn.Module] = NONE,
        replay: Replay | None = None,
    ):
        self.model, self.objective, self.settings = model.to(machine.device), objective, settings
        self.machine, self.compiled = machine, machine.compiled(model)
        self.regularizers = regularizers
        self.steps, self.step = steps, 0
        self.stream, self.replay = Stream(objective, corpus, settings.seed), replay
        if replay:
            own = int(generator("replay", settings.seed).initial_seed())
            old = Stream(objective, replay.corpus, own)
            self.stream = Mixture(self.stream, old, replay.fraction)
        self.optimizer = make_optimizer(model, settings)
        self.steps_without_targets = 0
        torch.manual_seed(int(generator("dropout", settings.seed).initial_seed()))

    def run(self) -> Iterator[Step]:
        """Trains until ``steps``, and hands over after every step."""
        while self.step < self.steps:
            yield self.advance()

    def advance(self) -> Step:
        self.model.train()
        passages, generators = self.stream.passages(
            self.step * self.settings.batch_size, self.settings.batch_size
        )
        parts = self.settings.micro_batches
        cuts = [len(passages) * part // parts for part in range(parts + 1)]
        batches = [
            self.objective.batch(passages[begin:end], generators[begin:end]).to(self.machine.device)
            for begin, end in zip(cuts, cuts[1:], strict=False)
        ]
        rate = learning_rate(self.step, self.steps, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        random = self.machine.random_states()
        try:
            losses = train_step(
                self.compiled,
                self.optimizer,
                batches,
                self.settings.clip,
                self.settings.fused_loss,
                self.machine,
                self.regularizers,
            )
        except NotFinite as error:
            self.machine.set_random_states(random)  # dropout too is as it was before the step
            places = ", ".join(passage.place for passage in passages[:3])
            more = f" and {len(passages) - 3} more" if len(passages) > 3 else ""
            raise NotFinite(
                f"step {self.step + 1} stopped before the weights changed: {error}; its batch is"
                f" {places}{more}; lower --learning-rate, or look at that text"
            ) from None
        terms = {n: float(losses.pop(n).mean) for n in self.regularizers if n in losses}
        self.step += 1
        self.steps_without_targets += not any(loss.count for loss in losses.values())
        tokens = sum(int(real(batch.inputs["mask"]).sum()) for batch in batches)
        return Step(self.step, losses, terms, tokens, rate)

    def state(self) -> dict:
        """What a new process needs, beside weights and settings, to go on exactly as this one."""
        return {
            "step": self.step,
            "steps_without_targets": self.steps_without_targets,
            "optimizer": self.optimizer.state_dict(),
            "factors": factors(self.model),
            "written": self.replay.written if self.replay else None,
            "random": self.machine.random_states(),
            "regularizers": {name: each.state_dict() for name, each in self.regularizers.items()},
        }

    def restore(self, state: dict) -> None:
        """The other side of ``state``. Raises InputError where it is not one of this run."""
        try:
            step, without = state["step"], state["steps_without_targets"]
            if not (type(step) is type(without) is int and 0 <= without <= step <= self.steps):
                raise InputError(f"step {step!r:.20} is none of the run's {self.steps}")
            restore_factors(self.model, state["factors"])
            restore_optimizer(self.optimizer, state["optimizer"])
            for name, each in self.regularizers.items():
                each.load_state_dict(state["regularizers"][name])
            self.machine.set_random_states(state["random"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"the state to go on from does not fit: {reason}") from None
        self.step, self.steps_without_targets = step, without
