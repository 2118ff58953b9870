"""What becomes of a batch before a training step: some of its targets stay, and it gets terms.

Selection (Rho-1): train where the loss exceeds a reference model's by most. Of the targets of each
passage the share K with the largest excess, loss - the reference's loss, stay targets; the others
become IGNORE. With the excess .1 .9 -.2 .5 and K = 0.5 the second and the fourth stay. The idea:
what the reference finds easier than the model can still be learnt; what both find hard is noise.

Both models read the batch in evaluation mode, before the step. So the targets that stay are counted
before the first backward pass, they do not depend on how a step is cut into micro-batches, and no
number is drawn. It costs two more forward passes.

Differs from Rho-1, which selects among the targets of a whole batch.

Lin et al. 2024, arXiv 2404.07965. The terms: ``minicpt.terms``.

B batch, T positions of the targets' stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch
from minicpt.common.errors import InputError
from minicpt.common.evaluating import evaluating
from minicpt.common.settings import Checked, setting
from minicpt.loss import TargetLosses
from minicpt.training.device import CPU, Machine


@dataclass(frozen=True)
class Selecting(Checked):
    select: float | None = setting(
        None,
        "share of each passage's targets that stay targets: those whose loss exceeds that of"
        " --reference by most",
        above=0,
        most=1,
    )
    reference: str | None = setting(
        None,
        "for --select: a checkpoint, or Hugging Face folder, with the same tokenizer",
        metavar="DIR",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.select is not None and self.reference is None:
            raise InputError("--select compares with another model; name its folder: --reference")
        if self.reference is not None and self.select is None:
            raise InputError("--reference belongs to --select, which is not given")


@dataclass(frozen=True)
class Selection:
    """The selection of a run.

    share      K, in (0, 1]
    reference  the model to compare with, and ``parts``, what learnt beside it: both in evaluation
               mode
    """

    share: float
    objective: object
    reference: nn.Module
    parts: nn.ModuleDict

    @torch.no_grad()
    def __call__(self, model: nn.Module, parts: nn.ModuleDict, batch: Batch) -> Batch:
        """The batch with the targets that stay; ``model`` and ``parts`` are those that learn."""
        with evaluating(model), evaluating(parts):
            own = self.objective.losses(model, parts, batch)
        other = self.objective.losses(self.reference, self.parts, batch)
        targets = {
            head: target.where(selected(target, own[head], other[head], self.share), IGNORE)
            for head, target in batch.targets.items()
        }
        return replace(batch, targets=targets)


def selected(target: Tensor, own: TargetLosses, other: TargetLosses, share: float) -> Tensor:
    """Which targets (B, T) of a head stay: (B, T) bool.

    Of a passage's targets of weight 0, which have no loss, the same share stays. So the sum of the
    losses and the count that divides it shrink alike.
    """
    excess = torch.zeros_like(target, dtype=own.losses.dtype)
    excess[own.rows, own.positions] = own.losses - other.losses
    weighed = torch.zeros_like(target, dtype=torch.bool)
    weighed[own.rows, own.positions] = True
    silent = (target != IGNORE) & ~weighed
    return largest(excess, weighed, share, least=1) | largest(excess, silent, share, least=0)


def largest(values: Tensor, among: Tensor, share: float, least: int) -> Tensor:
    """In each row the largest of the values (B, T) that are ``among`` some: (B, T) bool.

    Of n in a row round(share n), but at least ``least`` of them. Of equal ones the first stay.

    >>> excess = torch.tensor([[0.1, 0.9, -0.2, 0.5]])
    >>> largest(excess, torch.ones(1, 4).bool(), share=0.5, least=1).int().tolist()
    [[0, 1, 0, 1]]
    """
    counts = among.sum(dim=1).cpu().double()  # (B,); some devices have no float64
    budget = (share * counts).round().clamp(min=least).long().to(values.device)
    order = values.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return among & (order.argsort(dim=1) < budget[:, None])  # the largest has rank 0


@dataclass(frozen=True)
class Preparing:
    """What becomes of a run's batches.

    terms      name -> strength, of what is added to the loss of each target
    selection  None: all targets stay
    machine    how the losses that are compared are computed
    """

    terms: Mapping[str, float] = field(default_factory=dict)
    selection: Selection | None = None
    machine: Machine = CPU

    def __call__(self, model: nn.Module, parts: nn.ModuleDict, batch: Batch) -> Batch:
        if self.selection:
            with self.machine.autocast():
                batch = self.selection(model, parts, batch)
        return replace(batch, terms=self.terms)
