"""Equivalence for a model that is not ours: whole sequence against each prefix alone.

The loss of every token and the gradient of every parameter: once from one forward pass over a batch
of whole sequences, and once from running the model on each prefix of each row, by
``loss.per_token_losses``.

B batch, T positions, V vocabulary.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minicpt.batch import Batch, sees_the_past, shift
from minicpt.loss import TargetLosses, losses_of_head, per_token_losses
from minicpt.proofs.black_box.calling import BlackBox
from minicpt.proofs.black_box.loading import one_line
from minicpt.proofs.black_box.probing import CEILING, can_test, returns
from minicpt.proofs.bounds import tolerance
from minicpt.proofs.influence import backward
from minicpt.proofs.result import Proof

ADDITIONS = 250  # behind a loss or a gradient; what is apart by more is put to the test again


@dataclass(frozen=True)
class Comparison:
    """Both computations. Losses (B, T), NaN where the model refuses the prefix; a gradient for each
    parameter that has one, by its place in ``BlackBox.parameters``."""

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


def compare(box: BlackBox, tokens: Tensor) -> Comparison:
    """Runs both computations on ``tokens`` (B, T); each target is the token that follows."""
    targets = torch.stack([shift(row, int(row[0])) for row in tokens])  # (B, T)
    batch = Batch({"tokens": tokens}, {"tokens": targets})
    visible = sees_the_past(torch.ones_like(tokens, dtype=torch.bool))  # (B, T, T)
    total: dict[int, Tensor] = {}
    refused, without = "", ""

    def losses(some: Batch) -> TargetLosses:
        logits = box.logits(some.inputs["tokens"])  # (B, T, V)
        return losses_of_head("tokens", logits, nn.Identity(), some, fused=False)

    def of_prefix(some: Batch) -> dict[str, TargetLosses]:
        """The loss of one prefix. Its gradient is added to ``total`` at once."""
        nonlocal refused, without
        comparable = next(finite)  # a target that the model rules out has no gradient to compare
        try:
            one = losses(some)
        except Exception as error:
            refused = refused or f"prefix of {some.inputs['tokens'].shape[1]}: {one_line(error)}"
            return {"tokens": replace(one_pass, losses=whole.new_full((1,), torch.nan).detach())}
        if comparable and bool(one.losses.isfinite()):
            found, why = gradients(box, one.losses.sum())
            without = without or why
            for place, each in found.items():
                total[place] = total[place] + each if place in total else each
        return {"tokens": replace(one, losses=one.losses.detach())}

    with torch.enable_grad():
        one_pass = losses(batch)
        whole = one_pass.losses  # (B*T,)
        finite = iter(whole.isfinite().tolist())
        alone = per_token_losses(of_prefix, batch, {"tokens": {"tokens": visible}})["tokens"]
        found, why = gradients(box, whole[alone.isfinite() & whole.isfinite()].sum())
    if without or why:
        found, total = {}, {}
    zeros = {place: torch.zeros_like(box.parameters[place]) for place in found | total}
    whole, alone = (
        each.detach().to(one_pass.hidden.dtype).view(tokens.shape) for each in (whole, alone)
    )
    return Comparison(whole, alone, zeros | found, zeros | total, refused, without or why)


def gradients(box: BlackBox, loss: Tensor) -> tuple[dict[int, Tensor], str]:
    """The gradient of each parameter by its place, or why there is none."""
    trained = {i: each for i, each in enumerate(box.parameters) if each.requires_grad}
    if not trained:
        return {}, "no parameter takes a gradient"
    if not loss.requires_grad:
        return {}, "the model's outputs carry no gradient"
    try:
        found = backward(loss, list(trained.values()))
    except Exception as error:
        return {}, f"its backward pass fails ({one_line(error)})"
    return {i: each for i, each in zip(trained, found, strict=True) if each is not None}, ""


def prove_equivalence(box: BlackBox, tokens: Tensor, precision: str) -> Proof:
    """Values and gradients of the one pass are those of the prefixes, but for rounding."""
    name = "whole-sequence loss equals per-prefix loss, eval mode"
    against = (
        "every token's loss and the gradient of every parameter, from one pass over the batch and "
        "from running each prefix of each row alone"
    )
    try:
        found = compare(box, tokens)
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
    allowed = tolerance(ADDITIONS, found.whole.dtype)
    passed = worst <= allowed or (
        worst <= CEILING
        and can_test(box)
        and not returns(box, found.vector(), lambda: compare(box, tokens).vector())
    )
    compared = int((~found.alone.isnan()).sum())
    where = {"loss at position": position, "row": row}
    notes = [f"{compared} losses"]
    if gradient:
        where["gradient of"] = parameter_name(box, parameter)
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


def parameter_name(box: BlackBox, place: int) -> str:
    wanted = box.parameters[place]
    names = (n for m in box.modules for n, p in m.named_parameters() if p is wanted)
    return next(names, f"parameter {place}")
