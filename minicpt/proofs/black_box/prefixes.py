"""Equivalence for a model that is not ours: whole sequence against each prefix alone.

The loss of every token and the gradient of every parameter, once from one forward pass over a batch
of whole sequences, and once from running the model on each prefix of each row, all by itself.

B batch, T positions, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minicpt.batch import shift
from minicpt.proofs.black_box.calling import Guest
from minicpt.proofs.black_box.loading import one_line
from minicpt.proofs.influence import backward
from minicpt.proofs.result import Proof
from minicpt.proofs.rounding import CEILING, can_test, returns


@dataclass(frozen=True)
class Comparison:
    """Both computations. Losses (B, T), NaN where the model refuses the prefix; a gradient for each
    parameter that has one, by its place in ``Guest.parameters``."""

    whole: Tensor
    alone: Tensor
    whole_gradients: dict[int, Tensor]
    alone_gradients: dict[int, Tensor]
    refused: str
    without_gradients: str

    def loss_differences(self) -> Tensor:
        """(B, T), relative to the largest finite loss; equal infinities differ by nothing."""
        same = self.alone.isnan() | (self.alone == self.whole)
        finite = self.whole.where(self.whole.isfinite(), 0.0).abs().max()
        return (self.alone - self.whole).where(~same, 0.0) / finite.clamp(min=1e-300)

    def gradient_differences(self) -> dict[int, Tensor]:
        """By parameter, relative to the largest derivative of all."""
        scale = max((float(g.abs().max()) for g in self.whole_gradients.values()), default=0.0)
        return {
            place: (self.alone_gradients[place] - each) / (scale or 1.0)
            for place, each in self.whole_gradients.items()
        }

    def vector(self) -> Tensor:
        parts = [self.loss_differences(), *self.gradient_differences().values()]
        return torch.cat([part.flatten().double() for part in parts])


def compare(guest: Guest, tokens: Tensor) -> Comparison:
    """Runs both computations on ``tokens`` (B, T); each target is the token that follows."""
    targets = torch.stack([shift(row, int(row[0])) for row in tokens])  # (B, T)
    with torch.enable_grad():
        logits = guest.logits(tokens)  # (B, T, V)
        whole = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        whole = whole.view(tokens.shape)
        alone = torch.full_like(whole.detach(), torch.nan)
        total: dict[int, Tensor] = {}
        refused, without = "", ""
        for row in range(tokens.shape[0]):
            for length in range(1, tokens.shape[1] + 1):
                try:
                    prefix = guest.logits(tokens[row : row + 1, :length].clone())[:, -1]  # (1, V)
                except Exception as error:
                    refused = refused or f"prefix of {length}: {one_line(error)}"
                    continue
                loss = F.cross_entropy(prefix, targets[row, length - 1].view(1))
                alone[row, length - 1] = loss.detach()
                if not (loss.isfinite() and whole[row, length - 1].isfinite()):
                    continue  # a target that the model rules out: no gradient to compare
                found, why = gradients(guest, loss)
                without = without or why
                for place, each in found.items():
                    total[place] = total[place] + each if place in total else each
        found, why = gradients(guest, whole[alone.isfinite() & whole.isfinite()].sum())
    if without or why:
        found, total = {}, {}
    zeros = {place: torch.zeros_like(guest.parameters[place]) for place in found | total}
    return Comparison(
        whole.detach(), alone, zeros | found, zeros | total, refused, without or why
    )


def gradients(guest: Guest, loss: Tensor) -> tuple[dict[int, Tensor], str]:
    """The gradient of each parameter by its place, or why there is none."""
    trained = {i: each for i, each in enumerate(guest.parameters) if each.requires_grad}
    if not trained:
        return {}, "no parameter takes a gradient"
    if not loss.requires_grad:
        return {}, "the model's outputs carry no gradient"
    try:
        found = backward(loss, list(trained.values()))
    except Exception as error:
        return {}, f"its backward pass fails ({one_line(error)})"
    return {i: each for i, each in zip(trained, found, strict=True) if each is not None}, ""


def prove_equivalence(guest: Guest, tokens: Tensor, precision: str) -> Proof:
    """Values and gradients of the one pass are those of the prefixes, but for rounding."""
    name = "whole-sequence loss equals per-prefix loss, eval mode"
    against = (
        "every token's loss and the gradient of every parameter, from one pass over the batch and "
        "from running each prefix of each row alone"
    )
    try:
        found = compare(guest, tokens)
    except Exception as error:
        numbers = {"worst": None, "place": None, "tolerance": None}
        message = f"could not be run: {one_line(error)}"
        return Proof(name, None, against, numbers, message=message)
    losses, gradient = found.loss_differences().abs(), found.gradient_differences()
    worst_loss = float(losses.nan_to_num(torch.inf).max())
    place = int(losses.nan_to_num(torch.inf).argmax())
    row, position = place // tokens.shape[1], place % tokens.shape[1]
    sizes = {i: float(each.abs().nan_to_num(torch.inf).max()) for i, each in gradient.items()}
    parameter = max(sizes, key=sizes.get, default=None)
    worst_gradient = sizes.get(parameter, 0.0)
    worst = max(worst_loss, worst_gradient)
    allowed = 256 * torch.finfo(found.whole.dtype).eps
    passed = worst <= allowed or (
        worst <= CEILING
        and can_test(guest)
        and not returns(guest, found.vector(), lambda: compare(guest, tokens).vector())
    )
    compared = int((~found.alone.isnan()).sum())
    where = {"loss at position": position, "row": row}
    notes = [f"{compared} losses"]
    if gradient:
        where["gradient of"] = parameter_name(guest, parameter)
        notes.append(f"gradients of {len(gradient)} parameters")
    message = ("the same from one pass as from every prefix alone: " if passed else "") + (
        " and ".join(notes)
    )
    if not passed and worst_loss > allowed:
        whole, alone = (float(each[row, position]) for each in (found.whole, found.alone))
        message = (
            f"the loss at position {position} (row {row}) is {whole:.6f} in the whole sequence, "
            f"but {alone:.6f} with the prefix alone"
        )
    elif not passed:
        name_of = where["gradient of"]
        message = f"the gradient of {name_of} differs by {worst_gradient:.2g} of the largest"
    elif worst > allowed:
        message += "; what is above the tolerance does not come back when the weights are moved: "
        message += "rounding inside the model"
    if found.without_gradients:
        message += f"; values only: {found.without_gradients}"
    if found.refused:
        message += f"; not compared where the model refuses the {found.refused}"
    return Proof(
        name=name,
        passed=passed if compared else None,
        compared=against,
        numbers={
            "worst": worst,
            "place": where if worst else None,
            "tolerance": allowed,
            "worst loss": worst_loss,
            "worst gradient": worst_gradient,
            "length": tokens.shape[1],
            "rows": tokens.shape[0],
            "precision": precision,
        },
        why="in a causal model the logits at a position are those of the prefix alone, so one pass "
        "adds up the same losses, and their sum has the same gradient",
        not_covered="other tokens and longer rows; train mode, where dropout draws differ",
        message=message,
        worst=worst,
        tolerance=allowed,
    )


def parameter_name(guest: Guest, place: int) -> str:
    wanted = guest.parameters[place]
    names = (n for m in guest.modules for n, p in m.named_parameters() if p is wanted)
    return next(names, f"parameter {place}")
