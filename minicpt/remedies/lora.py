"""LoRA: all weights of the base stay, and a product of two thin matrices beside each learns.

Hu et al. 2021, arXiv 2106.09685. A frozen matrix W (out, in) becomes W + (alpha/R) B A, with
A (R, in) drawn at random and B (out, R) zero, so that training starts from the base itself. Each of
query, key, value and output has its own A and B, in cross-attention too. Where one matrix holds
several of them, their products are stacked in the same way. The sum is never made in training:

    x W^T + (alpha/R) (x A^T) B^T

costs two thin products more than the base, and W, which is frozen, no gradient. It exists twice:
``products`` is the definition, and ``minicpt.fast.low_rank`` computes the same in fewer passes. A
folder holds the sum, under the usual names, so that other tools can open it. W, A and B are in the
state that resuming needs. There is no dropout on the product's input. Without the second term the
model is the base: a remedy that needs the base's predictions needs no copy.

N positions, R rank, P projections that stand in one matrix, (out, in) the shape of that matrix.
"""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from minicpt.common.errors import InputError
from minicpt.common.merging import Beside, switched_off
from minicpt.common.randomness import generator
from minicpt.common.settings import Checked, setting
from minicpt.fast.low_rank import low_rank
from minicpt.remedies.base import Remedy, Situation

# The projections of an attention by name, and how many stand in the one matrix.
PROJECTIONS = {"qkv": 3, "query": 1, "key_value": 2, "output": 1}
PROJECTION = re.compile(rf".*attention\.({'|'.join(PROJECTIONS)})")


@dataclass(frozen=True)
class Settings(Checked):
    lora: int = setting(
        0, "LoRA: train products of this rank beside the attention's projections; 0: off", least=0
    )
    lora_alpha: float = setting(16.0, "LoRA: the product counts alpha/rank times", above=0)


class LoRA(Remedy):
    Settings = Settings
    claims = ("which weights learn",)
    removes = {
        "weights that move": "LoRA leaves the base's weights as they are, and its products have no"
        " place in the base; use --kl, or a smaller --lora"
    }
    measured = {"lora": 8}
    swept = (1, 2, 4, 8, 16)

    @classmethod
    def label(cls, settings: Settings) -> str:
        return f"lora rank {settings.lora}"

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        add_adapters(situation.model, self.settings, generator("lora", situation.seed))
        if state is not None:
            restore_lora(situation.model, state)

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        return lora_state(model)

    def base_within(self, model: nn.Module) -> AbstractContextManager:
        return switched_off(model)


class LowRank(Beside):
    """x -> x W^T + bias + (alpha/R) (x A^T) B^T, in place of the linear layer of W and bias."""

    def __init__(self, linear: nn.Linear, parts: int, settings: Settings, draws: Generator):
        super().__init__(linear)
        out, width = linear.weight.shape
        if settings.lora > min(out // parts, width):
            raise InputError(
                f"--lora {settings.lora} is more than the {min(out // parts, width)} rows or"
                " columns of a projection; give less"
            )
        self.scale = settings.lora_alpha / settings.lora
        first = torch.randn(parts, settings.lora, width, generator=draws) * width**-0.5
        self.A = nn.Parameter(first.to(self.weight))  # (P, R, in)
        # (P, out/P, R)
        self.B = nn.Parameter(self.weight.new_zeros(parts, out // parts, settings.lora))

    def forward(self, x: Tensor) -> Tensor:
        if not self.on:
            return F.linear(x, self.weight, self.bias)  # (..., out)
        rows = x.flatten(0, -2)  # (N, in)
        # Each of the P products has rows of its own: one matrix with blocks, (P*R, out).
        factors = self.A.flatten(0, 1), torch.block_diag(*self.B.transpose(1, 2))
        result = low_rank(rows, self.weight, self.bias, *factors, self.scale)
        return result.unflatten(0, x.shape[:-1])  # (..., out)

    def merged(self) -> Tensor:
        return self.weight + self.scale * (self.B @ self.A).flatten(0, 1)  # (out, in)


def products(
    x: Tensor, weight: Tensor, bias: Tensor | None, first: Tensor, second: Tensor, scale: float
) -> Tensor:
    """Written out what ``minicpt.fast.low_rank`` computes in fewer passes."""
    return F.linear(x, weight, bias) + scale * F.linear(F.linear(x, first), second.t())


def add_adapters(model: nn.Module, settings: Settings, draws: Generator) -> None:
    """Freezes the model and gives each projection of its attention a product that learns."""
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if found := PROJECTION.fullmatch(name):
            model.set_submodule(name, LowRank(module, PROJECTIONS[found[1]], settings, draws))


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The frozen matrices and the factors, by name; empty without LoRA."""
    return {
        f"{name}.{own}": getattr(module, own).detach()
        for name, module in model.named_modules()
        if isinstance(module, LowRank)
        for own in ("weight", "A", "B")
    }


def restore_lora(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts back what ``lora_state`` gave. Raises ValueError where it is another model's."""
    if state.keys() != lora_state(model).keys():
        raise ValueError("LoRA's factors are not those of the run")
    model.load_state_dict(state, strict=False)
