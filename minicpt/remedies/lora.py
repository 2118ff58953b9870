"""LoRA: all weights of the base stay, and a product of two thin matrices beside each learns.

Hu et al. 2021, arXiv 2106.09685. A frozen matrix W (out, in) becomes W + (alpha/R) B A, with
A (R, in) drawn at random and B (out, R) zero, so that training starts from the base itself. Each of
query, key, value and output has its own A and B, in cross-attention too. Where one matrix holds
several of them, their products are stacked in the same way. The model reads the sum. A folder holds
the sum too, under the usual names, so that other tools can open it. W, A and B are in the state
that resuming needs. There is no dropout on the product's input.

R rank, P projections that stand in one matrix, (out, in) the shape of that matrix.
"""

import re
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.common.settings import Checked, setting
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

    @classmethod
    def label(cls, settings: Settings) -> str:
        return f"lora rank {settings.lora}"

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        add_adapters(situation.model, self.settings, generator("lora", situation.seed))
        if state is not None:
            restore_lora(situation.model, state)

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        return lora_state(model)


class LowRank(nn.Module):
    """W -> W + (alpha/R) B A, as a parametrization of W."""

    def __init__(self, weight: Tensor, parts: int, settings: Settings, draws: Generator):
        super().__init__()
        out, width = weight.shape
        if settings.lora > min(out // parts, width):
            raise InputError(
                f"--lora {settings.lora} is more than the {min(out // parts, width)} rows or"
                " columns of a projection; give less"
            )
        self.scale = settings.lora_alpha / settings.lora
        first = torch.randn(parts, settings.lora, width, generator=draws) * width**-0.5
        self.A = nn.Parameter(first.to(weight))  # (P, R, in)
        self.B = nn.Parameter(weight.new_zeros(parts, out // parts, settings.lora))  # (P, out/P, R)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.B @ self.A).flatten(0, 1)  # (out, in)


def add_adapters(model: nn.Module, settings: Settings, draws: Generator) -> None:
    """Freezes the model and gives each projection of its attention a product that learns."""
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if found := PROJECTION.fullmatch(name):
            low_rank = LowRank(module.weight, PROJECTIONS[found[1]], settings, draws)
            parametrize.register_parametrization(module, "weight", low_rank)


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The frozen matrices and the factors, by name; empty without LoRA."""
    state = model.state_dict()
    return {name: value for name, value in state.items() if ".parametrizations." in name}


def restore_lora(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts back what ``lora_state`` gave. Raises ValueError where it is another model's."""
    if state.keys() != lora_state(model).keys():
        raise ValueError("LoRA's factors are not those of the run")
    model.load_state_dict(state, strict=False)
