"""Partial training: which weights of a base learn, and LoRA.

    --freeze embeddings   the tables of tokens, positions and segments stay as they are; a head
                          that is tied to the token table shares its matrix, which so stays too
    --train-last K        only the last K layers learn, and what comes after them: the final norm
                          and what the heads have of their own. The layers of an encoder-decoder
                          count through both stacks, the decoder's last.
    --lora R              everything stays but a product of two thin matrices beside each
                          projection of the attention

LoRA, Hu et al. 2021, arXiv 2106.09685: a frozen matrix W (out, in) becomes W + (alpha/R) B A, with
A (R, in) drawn at random and B (out, R) zero, so that training starts from the base itself. Each of
query, key, value and output has its own A and B, in cross-attention too; where several of them are
one matrix, one below the other, so are theirs. The model reads the sum, and that is what a folder
holds under the usual names, for other tools to open; W, A and B are in the state that resuming
needs. Leaves out dropout on the product's input.

R rank, P projections that stand in one matrix, (out, in) the shape of that matrix.
"""

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.common.settings import Checked, setting

# The projections of an attention by name, and how many stand in the one matrix.
PROJECTIONS = {"qkv": 3, "query": 1, "key_value": 2, "output": 1}
PROJECTION = re.compile(rf".*attention\.({'|'.join(PROJECTIONS)})")


@dataclass(frozen=True)
class Partial(Checked):
    freeze: Literal["none", "embeddings"] = setting(
        "none", "keep the embeddings (and a head tied to them) as they are"
    )
    train_last: int | None = setting(
        None, "train the last K layers and what follows them alone", least=1, metavar="K"
    )
    lora: int = setting(
        0, "LoRA: train products of this rank beside the attention's projections; 0: off", least=0
    )
    lora_alpha: float = setting(16.0, "LoRA: the product counts alpha/rank times", above=0)

    def __post_init__(self):
        super().__post_init__()
        if self.lora and (self.freeze != "none" or self.train_last):
            raise InputError("--lora keeps all the rest as it is: leave out --freeze, --train-last")


def restrict(model: nn.Module, settings: Partial, seed: int) -> None:
    """Leaves to training only what the settings name. InputError where they do not fit the model.

    ``seed`` decides LoRA's A.
    """
    if settings.freeze == "embeddings":
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.requires_grad_(False)
    if settings.train_last:
        train_last(model, settings.train_last)
    if settings.lora:
        add_factors(model, settings, generator("lora", seed))


def train_last(model: nn.Module, count: int) -> None:
    """Freezes all that is computed before the last ``count`` layers.

    The model files register their parts in the order of computation, and a tied matrix with the
    embedding, so what comes before is what stands before in ``parameters()``.
    """
    stacks = [model] if hasattr(model, "layers") else [model.encoder, model.decoder]
    layers = [layer for stack in stacks for layer in stack.layers]
    if count > len(layers):
        raise InputError(f"--train-last is {count}, but the model has {len(layers)} layers")
    first = next(layers[-count].parameters())
    for parameter in model.parameters():
        if parameter is first:
            break
        parameter.requires_grad_(False)


class LowRank(nn.Module):
    """W -> W + (alpha/R) B A, as a parametrization of W."""

    def __init__(self, weight: Tensor, parts: int, settings: Partial, draws: Generator):
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


def add_factors(model: nn.Module, settings: Partial, draws: Generator) -> None:
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if found := PROJECTION.fullmatch(name):
            low_rank = LowRank(module.weight, PROJECTIONS[found[1]], settings, draws)
            parametrize.register_parametrization(module, "weight", low_rank)


def factors(model: nn.Module) -> dict[str, Tensor]:
    """LoRA's frozen matrices and factors, by name; empty without LoRA."""
    state = model.state_dict()
    return {name: value for name, value in state.items() if ".parametrizations." in name}


def restore_factors(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts back what ``factors`` gave into a model that ``restrict`` has prepared alike.

    Raises ValueError or RuntimeError where it was prepared otherwise.
    """
    if state.keys() != factors(model).keys():
        raise ValueError("LoRA's factors are not those of the run")
    model.load_state_dict(state, strict=False)


def trained(model: nn.Module) -> tuple[int, int]:
    """How many numbers learn, and how many there are in the model (LoRA's factors apart)."""
    added = (each for each in model.modules() if isinstance(each, LowRank))
    of_factors = sum(each.numel() for module in added for each in module.parameters())
    parameters = list(model.parameters())
    learning = sum(each.numel() for each in parameters if each.requires_grad)
    return learning, sum(each.numel() for each in parameters) - of_factors
