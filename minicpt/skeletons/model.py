"""Toy piece: a decoder that looks at the mean of what stands before.

A skeleton: say here which published architecture it is, and what is left out. Losses do not belong
here: a model turns tokens into hidden states, and objectives do the rest.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minicpt.common.settings import setting
from minicpt.fast.dropout import Dropout
from minicpt.models.embedding import look_up
from minicpt.models.initial import initialise
from minicpt.models.layers import Model, Sizes, TiedHead, causal_mask_of


@dataclass(frozen=True)
class ToyPieceConfig(Sizes):
    """Each field becomes a flag of ``minicpt train OBJECTIVE --model toy-piece``."""

    toy_piece_gain: float = setting(1.0, "what the mean counts", above=0)


class ToyPiece(Model):
    ROLE = "decoder"
    INPUTS = ("tokens", "mask", "positions")  # of all inputs, those that ``forward`` takes
    Config = ToyPieceConfig

    def __init__(self, config: ToyPieceConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(2))
        self.heads = nn.ModuleDict({"tokens": TiedHead(self.tokens)})
        initialise(self, config.width)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Hidden states (B, T, D) of tokens (B, T)."""
        x = self.dropout(look_up("ToyPiece", tokens=(self.tokens, tokens)))  # (B, T, D)
        seen = causal_mask_of(tokens, mask)  # True: may be looked at
        seen = seen.reshape(-1, *seen.shape[-2:]).to(x)  # (B or 1, T, T)
        for layer in self.layers:
            mean = seen @ x / seen.sum(-1, keepdim=True).clamp(min=1)
            x = x + self.config.toy_piece_gain * torch.tanh(layer(mean))
        return x
