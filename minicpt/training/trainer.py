"""Training: one loop for every model and every objective. It knows neither by name.

    passages -> batch -> forward -> loss -> backward -> clip -> step

What makes it exact:

* The targets of a step are counted over all its micro-batches (of all processes) before the first
  backward pass. Each is divided by that count. However a step is split, it has one gradient.
* Dropout is the only use of torch's own generator. It is seeded by (step, micro-batch).
* A step without targets changes nothing, weight decay included. A loss or gradient that is not
  finite stops the run before the weights change.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from minicpt.batch import Batch, valid_positions
from minicpt.common.errors import NotFinite
from minicpt.common.randomness import generator, seeded
from minicpt.common.settings import MOST, setting
from minicpt.fast.optimizer import clipped_step
from minicpt.loss import Loss, objective_loss
from minicpt.terms import apart
from minicpt.training.device import CPU, Machine
from minicpt.training.distributed import ALONE, World, add_losses, current, whole, without_targets
from minicpt.training.optimizer import Optimization, learning_rate, make_optimizer
from minicpt.training.rates import learning, set_rates, split_groups
from minicpt.training.step import Step
from minicpt.training.stream import Stream
from minicpt.training.usual_rate import settled


@dataclass(frozen=True)
class Training(Optimization):
    batch_size: int = setting(16, "passages of a step", least=1, most=2**20)
    micro_batch_size: int = setting(
        0, "passages of a forward pass, to save memory; 0: all that it has", least=0, most=2**20
    )
    seed: int = setting(0, "seed of weights, order, noise and dropout", least=0, most=MOST)
    fused_loss: bool = setting(True, "the loss a few rows at a time, without holding all logits")


# --- the step --------------------------------------------------------------------------------


class Learner(nn.Module):
    """All that learns in a step, as one module: a batch in, losses out.

    model     hidden states from tokens
    parts     the objective's modules that learn beside it
    remedies  what keeps the model near its base; each may add a term beside the loss
    """

    def __init__(self, model: nn.Module, objective, remedies: Sequence = (), fused: bool = True):
        super().__init__()
        self.model, self.parts = model, objective.parts(model)
        self.objective, self.remedies, self.fused = objective, list(remedies), fused

    def forward(self, batch: Batch, first: bool = True) -> dict[str, dict[str, Loss]]:
        """The losses by head under "", and under the name of each term or remedy what it adds.

        first  whether this is the step's first micro-batch: a term on the weights counts once
        """
        found = self.objective.losses(self.model, self.parts, batch, self.fused)
        result = apart(found)
        for remedy in self.remedies:
            if term := remedy.on_targets(self.model, found):
                result[remedy.name] = term
            if first and (value := remedy.on_weights(self.model)) is not None:
                result[remedy.name] = {"weights": Loss(value, 1)}
        return result

    def within(self, function: Callable, *given):
        """``function(model, parts, …)`` as another forward: its weights may be shared out."""
        return function(self.model, self.parts, *given)


def train_step(
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    max_grad_norm: float = 0.0,
    machine: Machine = CPU,
    seed: int | None = None,
    head_weights=None,
    world: World = ALONE,
) -> dict[str, dict[str, Loss]]:
    """One update of the weights from the micro-batches of a step, or from a process's share.

    max_grad_norm  a longer gradient is shortened to it; 0: none is
    seed           of the step's dropout; None: torch's generator is left alone

    Returns the step's losses as ``Learner`` does. Raises NotFinite, with the weights unchanged, if
    one of them or the gradient's norm is not finite.
    """
    counts = world.added(sum((Counter(batch.counts()) for batch in batches), Counter()))
    optimizer.zero_grad(set_to_none=True)
    total: dict[str, dict[str, Loss]] = {}
    for place, batch in enumerate(batches):
        number = place * world.size + world.rank  # of the step's micro-batches: see ``deal``
        world.communicate(learner, now=place == len(batches) - 1)
        if seed is not None:
            torch.manual_seed(generator("dropout", seed, number).initial_seed())
        with machine.autocast():
            found = learner(batch, first=number == 0)
        if counts:  # what is divided is counted over the whole step
            divisors = counts + Counter(weights=1)
            sum(
                objective_loss(losses, divisors, None if name else head_weights)
                for name, losses in found.items()
            ).backward()
        add_losses(total, found)
    total = world.added_losses(total)
    if not counts:
        return total
    norm = whole(nn.utils.get_total_norm(learning(optimizer)))
    values = {}
    for name, losses in total.items():
        for head, loss in losses.items():
            values[f"{name} term" if name else f"{head} loss"] = loss.sum
    for name, value in (values | {"gradient norm": norm}).items():
        if not torch.isfinite(value):
            raise NotFinite(f"the {name} is {value.item()}")
    clipped_step(optimizer, norm, max_grad_norm)
    return total


# ---------------------------------------------------------------------------------------------


@dataclass
class Trainer:
    """A model, an objective and a corpus, and how far training has come.

    steps     the length of the run, to which the schedule is fitted
    machine   where and how the steps run; the model is moved there
    remedies  what keeps the model near its base, ready for use
    prepare   (model, parts, batch) -> the batch as training has it: see ``preparing``
    step      the number of steps done; the data position is ``step * batch_size``
    """

    model: nn.Module
    objective: object
    corpus: object
    settings: Training
    steps: int
    machine: Machine = CPU
    remedies: Sequence = ()
    step: int = 0
    steps_without_targets: int = 0
    prepare: Callable = lambda model, parts, batch: batch
    world: World = field(default_factory=current)
    stream: object = field(init=False)

    def __post_init__(self):
        self.settings = settings = settled(self.settings, self.model.config.width)
        self.model.to(self.machine.device)
        with seeded("parts", settings.seed):
            learner = Learner(self.model, self.objective, self.remedies, settings.fused_loss)
        self.parts, self.alone = learner.parts.to(self.machine.device), learner
        self.learner = self.world.wrapped(self.machine.compiled(learner), self.machine.shard)
        stream = getattr(self.objective, "stream", Stream)  # a mix has its own
        self.stream = stream(self.objective, self.corpus, settings.seed)
        for remedy in self.remedies:
            self.stream = remedy.mixed(self.stream)
        self.optimizer = make_optimizer(nn.ModuleList([self.model, self.parts]), settings)
        split_groups(self.optimizer, self.model, self.remedies)

    def run(self) -> Iterator[Step]:
        """Trains until ``steps``, and hands over after every step."""
        while self.step < self.steps:
            yield self.advance()

    def advance(self) -> Step:
        self.learner.train()
        settings = self.settings
        at, size = self.step * settings.batch_size, settings.batch_size
        shares = self.world.share(range(at, at + size), settings.micro_batch_size)
        batches = [self.batch(share) for share in shares]
        rate = learning_rate(self.step, self.steps, settings)
        set_rates(self.optimizer, rate, self.step)
        try:
            found = train_step(
                self.learner,
                self.optimizer,
                batches,
                settings.max_grad_norm,
                self.machine,
                generator("dropout", settings.seed, self.step).initial_seed(),
                self.objective.head_weights,
                self.world,
            )
        except NotFinite as error:
            passages, _ = self.stream.passages(at, size)
            raise error.at(self.step + 1, [each.place for each in passages]) from None
        for remedy in self.remedies:
            remedy.after_step(self.model)
        self.step += 1
        if self.step == self.steps:
            for remedy in self.remedies:
                remedy.at_end(self.model)
        losses = found.pop("")
        self.steps_without_targets += not any(loss.count for loss in losses.values())
        terms = {name: float(sum(x.mean for x in each.values())) for name, each in found.items()}
        own = zip(batches, shares, strict=True)
        tokens = sum(valid_positions(x.inputs["mask"]).sum().item() for x, share in own if share)
        return Step(self.step, losses, terms, self.world.added({"": tokens})[""], rate)

    def batch(self, places: range) -> Batch:
        """A micro-batch, as training has it; of no places, a passage without its targets."""
        found = self.stream.passages(places.start, len(places) or 1)
        batch = self.objective.batch(*found).to(self.machine.device)
        batch = self.alone.within(self.prepare, batch)
        return batch if places else without_targets(batch)
