"""Llama, the decoder of Touvron et al. 2023 (arXiv 2302.13971, 2307.09288), and its family.

Layers as in GPT-2, norm first, with other parts: an RMS norm; rotary positions in place of a table;
heads of which several share one key and value (Ainslie et al. 2023, arXiv 2305.13245); SiLU with a
gate (Shazeer 2020, arXiv 2002.05202); no biases. What the family changes:

mistral  a window: a position sees the last W positions, itself included (arXiv 2310.06825)
qwen2    biases of queries, keys and values (arXiv 2407.10671); a window in some layers
qwen3    an RMS norm of each head's query and key, before the rotation (arXiv 2505.09388)
smollm3  layers without any positions (NoPE; Kazemnejad et al. 2023, arXiv 2305.19466)

B batch, T positions of the queries, S positions of the keys, D width, H heads of the queries,
G heads of the keys and values, K width of a head, V vocabulary, N targets.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.common.errors import InputError
from minicpt.common.settings import setting
from minicpt.fast.attention import additive
from minicpt.fast.gate import gated_layer, gated_silu
from minicpt.models.cache import Cache, LayerCache, Steps
from minicpt.models.embedding import look_up
from minicpt.models.initial import initialise
from minicpt.models.layers import Model, Sizes, TiedHead, attention, causal_mask_of, split_heads
from minicpt.models.narrow import Narrow, even_heads
from minicpt.models.norm import RMSNorm
from minicpt.models.rotary import count, frequencies, llama3_frequencies, rotate, rotation
from minicpt.models.window import window_mask


@dataclass(frozen=True)
class LlamaConfig(Sizes):
    """Defaults are those of a small model from scratch; a config.json sets all of them.

    positions       of the longest text in training; longer ones are computed all the same
    sliding_window  positions that a sliding layer sees, its own included; None: no layer slides
    attends         "full" or "sliding" for each layer; (): all sliding with a window, or all full
    rotates         "rotary" or "none" for each layer: its positions; (): all are rotary
    """

    dropout: float = setting(0.0, "dropout probability of attention weights", least=0, below=1)
    num_key_value_heads: int = setting(
        0, "heads of keys and values; must divide --num-heads; 0 = as many", least=0
    )
    head_width: int = setting(0, "width of a head; 0 = width / heads", least=0)
    family: Literal["llama", "mistral", "qwen2", "qwen3", "smollm3"] = "llama"
    positions: int = field(default=2048, metadata={"least": 1})
    tied: bool = True  # the head is the token embedding
    attention_bias: bool = False  # of all four projections
    epsilon: float = field(default=1e-6, metadata={"above": 0})
    sliding_window: int | None = field(default=None, metadata={"least": 1})
    attends: tuple[str, ...] = ()
    rotates: tuple[str, ...] = ()
    rope_theta: float = field(default=10_000.0, metadata={"above": 0})
    rope_type: Literal["default", "linear", "llama3"] = "default"
    rope_factor: float = field(default=8.0, metadata={"above": 0})  # of linear and llama3
    rope_low: float = field(default=1.0, metadata={"above": 0})  # of llama3, and the next two
    rope_high: float = field(default=4.0, metadata={"above": 0})
    rope_length: int = field(default=8192, metadata={"least": 1})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_heads % self.key_value_heads:
            raise InputError(
                f"--num-key-value-heads {self.num_key_value_heads} does not divide --num-heads"
                f" {self.num_heads}"
            )
        if self.key_width % 2:
            raise InputError(
                f"a head has the width {self.key_width}, and rotary positions need an even one:"
                " change --width, --num-heads or --head-width"
            )
        if self.rope_low >= self.rope_high:
            raise InputError(
                f"rope_low must be less than rope_high, {self.rope_high}, but is {self.rope_low}"
            )
        for name, kinds in (("attends", ("full", "sliding")), ("rotates", ("rotary", "none"))):
            found = getattr(self, name)
            if found and (len(found) != self.layers or not set(found) <= {*kinds}):
                raise InputError(f"{name} must say {' or '.join(kinds)} for each of the layers")
        if "sliding" in self.attends and not self.sliding_window:
            raise InputError("sliding layers need a window")

    @property
    def key_value_heads(self) -> int:
        """The number of heads of keys and values (G)."""
        return self.num_key_value_heads or self.num_heads

    @property
    def key_width(self) -> int:
        """The width of a head (K)."""
        return self.head_width or self.width // self.num_heads

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have biases."""
        return self.attention_bias or self.family == "qwen2"

    def layer_attends(self, number: int) -> str:
        """ "full" or "sliding"."""
        if self.attends:
            return self.attends[number]
        return "sliding" if self.sliding_window else "full"

    def layer_rotates(self, number: int) -> bool:
        return not self.rotates or self.rotates[number] == "rotary"


class Attention(nn.Module):
    """Attention in which H / G heads of queries share each head of keys and values."""

    def __init__(self, config: LlamaConfig, rotates: bool) -> None:
        super().__init__()
        self.num_heads, self.key_value_heads = config.num_heads, config.key_value_heads
        self.fused, self.dropout, self.rotates = config.fused, config.attention_rate, rotates
        inner, shared = (n * config.key_width for n in (self.num_heads, self.key_value_heads))
        self.query = nn.Linear(config.width, inner, bias=config.qkv_bias)
        self.key_value = nn.Linear(config.width, 2 * shared, bias=config.qkv_bias)
        self.output = nn.Linear(inner, config.width, bias=config.attention_bias)
        self.query_norm, self.key_norm = nn.Identity(), nn.Identity()
        if config.family == "qwen3":
            self.query_norm = RMSNorm(config.key_width, config.epsilon, config.fused)
            self.key_norm = RMSNorm(config.key_width, config.epsilon, config.fused)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        turns: tuple[Tensor, Tensor],
        cache: LayerCache | None = None,
    ) -> Tensor:
        query = split_heads(self.query(x), self.num_heads)  # (B, H, T, K)
        key, value = (
            split_heads(part, self.key_value_heads) for part in self.key_value(x).chunk(2, dim=-1)
        )  # (B, G, T, K) each
        query, key = self.query_norm(query), self.key_norm(key)
        if self.rotates:
            query, key = (rotate(each, turns, self.fused) for each in (query, key))
            value = value.contiguous()  # else it would keep the keys as they were before, too
        if cache is not None:
            key, value = cache.add(key, value)  # (B, G, S, K): with those of the text so far
        dropout = self.dropout if self.training else 0.0
        mixed = attention(query, key, value, mask, dropout=dropout, fused=self.fused)
        return self.output(mixed.transpose(1, 2).flatten(2))  # (B, T, D)


class FeedForward(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.fused = config.fused
        self.gate_expand = nn.Linear(config.width, 2 * config.inner, bias=False)
        self.contract = nn.Linear(config.inner, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused and not torch.is_autocast_enabled(x.device.type):
            return gated_layer(x, self.gate_expand.weight, self.contract.weight)
        both = self.gate_expand(x)
        if self.fused:
            return self.contract(gated_silu(both))
        gate, expanded = both.chunk(2, dim=-1)
        return self.contract(F.silu(gate) * expanded)


class Layer(nn.Module):
    def __init__(self, config: LlamaConfig, number: int) -> None:
        super().__init__()
        self.attends = config.layer_attends(number)
        self.attention_norm = RMSNorm(config.width, config.epsilon, config.fused)
        self.attention = Attention(config, config.layer_rotates(number))
        self.feed_forward_norm = RMSNorm(config.width, config.epsilon, config.fused)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, places: "Places", cache: LayerCache | None = None) -> Tensor:
        mask = places.masks[self.attends]
        x = x + self.attention(self.attention_norm(x), mask, places.turns, cache)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Places:
    """What all layers share: who sees whom, and how far queries and keys turn.

    masks  "full", "sliding" -> broadcastable to (B, H, T, S): bool, True = may look; fused: added
           to the scores, 0 or -inf
    turns  cosine and sine, (B, 1, T, K/2) each

    Made from a mask of full attention, and the positions of queries (B, T) and keys (B, S).
    """

    def __init__(
        self, config: LlamaConfig, x: Tensor, mask: Tensor, queries: Tensor, keys: Tensor
    ) -> None:
        self.masks = {"full": mask}
        if config.sliding_window:
            self.masks["sliding"] = mask & window_mask(queries, keys, config.sliding_window)
        if config.fused:  # once for all layers: the kernel would make and keep one for each
            self.masks = {name: additive(each, x.dtype) for name, each in self.masks.items()}
        at_least = torch.promote_types(x.dtype, torch.float32)
        turning = frequencies(config.key_width, config.rope_theta, at_least, x.device)
        if config.rope_type == "linear":
            turning = turning / config.rope_factor
        if config.rope_type == "llama3":
            stretch = config.rope_factor, config.rope_low, config.rope_high, config.rope_length
            turning = llama3_frequencies(turning, *stretch)
        self.turns = rotation(queries, turning)


class OneMore(Layer):
    """A layer of its own, of the kind of the last: it finds the places itself."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config, config.layers - 1)
        self.config = config

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        # Distances alone count, so positions may be counted through a row of packed documents.
        positions = count(x)
        return super().forward(x, Places(self.config, x, mask, positions, positions))


class OwnHead(nn.Linear):
    """A matrix of its own: nothing before the projection, no bias."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config.width, config.vocabulary, bias=False)

    def transform(self, hidden: Tensor) -> Tensor:
        return hidden  # (N, D)


class Llama(Steps, Model):
    """Llama. Initialised as its folders say: normal with standard deviation 0.02 (see ``deviation``
    for models narrower than 768), biases zero."""

    ROLE = "decoder"
    INPUTS = ("tokens", "mask", "positions")
    TABLES = ("tokens",)
    Config = LlamaConfig

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.layers))
        self.norm = RMSNorm(config.width, config.epsilon, config.fused)
        head = TiedHead(self.tokens) if config.tied else OwnHead(config)
        self.heads = nn.ModuleDict({"tokens": head})
        initialise(self, config.width)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Hidden states (B, T, D), the final norm included.

        tokens     (B, T) int64
        mask       (B, T) bool, True = real: combined with the causal mask; or (B, T, T): the whole
                   pattern (a prefix is read in both directions), of which a sliding layer uses
                   what lies in its window, to both sides; None: all real
        positions  (B, T) int64; None: 0, 1, 2, ... Their differences count. There is no last one

        Raises InputError for ids beyond the vocabulary.
        """
        return self.run(self.embed(tokens), mask, positions)

    def embed(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """What the table gives: (B, T, D). Positions have none."""
        return look_up("Llama", tokens=(self.tokens, tokens))

    def run(self, x: Tensor, mask: Tensor | None, positions: Tensor | None = None) -> Tensor:
        """Hidden states (B, T, D) from what the table gives."""
        positions = count(x) if positions is None else positions
        mask = causal_mask_of(x[:, :, 0], mask)  # (T, T) or (B, 1, T, T)
        places = Places(self.config, x, mask, positions, positions)
        return self.through(x, places, [None] * len(self.layers))

    def through(self, x: Tensor, places: Places, caches: Iterable[LayerCache | None]) -> Tensor:
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, places, cache)
        return self.norm(x)

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """See ``Abilities.step``. The cache holds keys that have been turned."""
        positions, mask = cache.open(tokens.size(1))
        x = self.embed(tokens)
        keys = cache.slots[None, : cache.longest]
        return self.through(x, Places(self.config, x, mask, positions, keys), cache.layers)

    def block(self) -> nn.Module:
        return initialise(OneMore(self.config), self.config.width)

    def smaller(self, width: int) -> Narrow:
        heads = even_heads("Llama", width, self.config.num_heads)
        return Narrow(self, width, num_heads=heads, num_key_value_heads=0, head_width=0)
