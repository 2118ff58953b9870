"""Multi-token prediction: each position predicts the next token and those after it (decoder).

Head 1, "tokens", is causal language modelling. Each later head, "tokens+2", "tokens+3", …, is one
more layer over the model's hidden states, and then the output matrix that all heads share. The
target of head k at position t is ``x[t+k]``:

    read        <end>  a      b      c      d
    tokens      a      b      c      d      <end>
    tokens+2    b      c      d      <end>  .
    tokens+3    c      d      <end>  .      .

Where the text that is read, with the one token that follows it, has no such token, there is no
target: neither the next document, nor the next packed text, nor padding is predicted. What is
minimised is the mean of the heads' means. The layers of the later heads are parts: they learn
beside the model, are kept in checkpoints, and are left out of exports.

Gloeckle et al. 2024, arXiv 2404.19737. There each head, the first one too, has a last layer of its
own, and the final norm stands behind these layers. Here the layers are added to a whole model, its
final norm included, whose first head stays as it is. Leaves out their order of the backward passes,
which saves memory, and faster generation with the later heads.

B batch, T positions, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch, shift
from minicpt.common.errors import InputError
from minicpt.common.settings import setting
from minicpt.data.order import Draw
from minicpt.data.patterns import prefix_mask
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import TargetLosses, losses_of_head
from minicpt.objectives.causal_lm import CausalLM
from minicpt.objectives.causal_lm import Settings as CausalSettings


@dataclass(frozen=True)
class Settings(CausalSettings):
    ahead: int = setting(
        4, "how many tokens each position predicts, with a head for each", least=2, most=64
    )

    def __post_init__(self):
        super().__post_init__()
        if self.ahead > self.window:
            raise InputError(
                f"--ahead {self.ahead} is more than --window {self.window}: the last head would"
                " never have a target; give less"
            )


def one_further(targets: Tensor, last: Tensor) -> Tensor:
    """The targets (B, T) of the next head, from those of the head before it.

    last  (B, T) bool, where a text of the row ends: what stands there next is another one's

    Read are 1 2 3 4, with 5 to follow; then, packed, 1 2 with 3 to follow and 7 8 with 9:

    >>> whole, packed = torch.tensor([[0, 0, 0, 1], [0, 1, 0, 1]]).bool()
    >>> one_further(torch.tensor([[2, 3, 4, 5]]), whole[None]).tolist()
    [[3, 4, 5, -100]]
    >>> one_further(torch.tensor([[2, 3, 8, 9]]), packed[None]).tolist()
    [[3, -100, 9, -100]]
    """
    return torch.stack([shift(row) for row in targets]).masked_fill(last, IGNORE)


class MultiTokenPrediction(CausalLM):
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        later = range(2, self.settings.ahead + 1)
        self.heads = ("tokens", *(f"tokens+{ahead}" for ahead in later))
        self.head_weights = dict.fromkeys(self.heads, 1 / len(self.heads))

    def batch(self, passages: Sequence, draws: Sequence[Draw]) -> Batch:
        """That of causal language modelling, with the targets of the later heads."""
        batch = super().batch(passages, draws)
        targets = batch.targets["tokens"]
        # Packed texts count their positions from 0, each its own.
        places = batch.inputs.get("positions", torch.arange(targets.shape[1]).expand_as(targets))
        last = F.pad(places[:, 1:] == 0, (0, 1), value=True)
        found = {"tokens": targets}
        for head in self.heads[1:]:
            found[head] = targets = one_further(targets, last)
        return replace(batch, targets=found)

    def visibility(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Every head sees what the first one sees."""
        return dict.fromkeys(batch.targets, super().visibility(batch)["tokens"])

    def parts(self, model: nn.Module) -> nn.ModuleDict:
        """One more layer for each head but the first."""
        return nn.ModuleDict({head: model.block() for head in self.heads[1:]})

    def head_of(self, name: str, model: nn.Module, parts: nn.ModuleDict) -> nn.Module:
        return model.heads["tokens"]

    def losses(
        self, model: nn.Module, parts: nn.ModuleDict, batch: Batch, fused: bool = True
    ) -> dict[str, TargetLosses]:
        """One pass of the model, and one of its layer for each later head that has targets."""
        hidden, mask = model(**batch.inputs), batch.inputs["mask"]  # (B, T, D)
        if mask.dim() == 2:
            mask = prefix_mask(mask, mask.new_zeros(len(mask), dtype=torch.int64))  # no prefix
        of_head = {
            name: parts[name](hidden, mask[:, None]) if name in parts else hidden
            for name in batch.targets
        }
        return {
            name: losses_of_head(name, each, model.heads["tokens"], batch, fused)
            for name, each in of_head.items()
        }
