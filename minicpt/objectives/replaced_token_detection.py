"""Replaced-token detection: which tokens of a text did a small model write? (ELECTRA; encoder)

A window is masked as in masked language modelling. A generator, a narrow sister of the model,
predicts the chosen tokens, and a token drawn from its prediction is put at each of them. The model
reads the result, and says of every real token whether it is the original one (class 0) or a
replaced one (class 1). A drawn token that happens to be the original counts as original.

    generator reads   [CLS] the [MASK] sat on [MASK] mat [SEP]
    head "tokens"       .    .   cat    .  .   the    .    .
    the model reads   [CLS] the  dog   sat on  the   mat [SEP]
    head "original"     0    0    1     0  0    0     0    0

What is minimised is the generator's masked LM plus 50 times the model's binary cross-entropy over
all real tokens. The generator learns from the former alone: a drawn token is a number through which
no gradient flows back. It reads with the model's tables and writes with its head "tokens". So these
learn from both. Generator and head "original" are parts: they learn beside the model, are kept in
checkpoints, and are left out of exports.

The batch cannot know the labels, which the draws decide. For the head "original" it holds the token
that belongs at each position, and ``losses`` makes the labels of it. What a draw needs is a uniform
number, which the passage's own generator has drawn with the batch.

Clark et al. 2020, arXiv 2003.10555. There the model gives one logit and a sigmoid; here it gives
two and a softmax, which is the sigmoid of their difference. As there, a draw may give any token of
the vocabulary, and [CLS] and [SEP] are judged too.

B batch, T positions, D width, V vocabulary, N chosen positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from minicpt import generation
from minicpt.batch import IGNORE, Batch, pad
from minicpt.common.errors import InputError
from minicpt.common.evaluating import evaluating
from minicpt.common.settings import setting
from minicpt.data.order import Draw
from minicpt.loss import TargetLosses, losses_of_head
from minicpt.objectives.masked_lm import MaskedLM
from minicpt.objectives.masked_lm import Settings as MaskedSettings

SMALLEST = 2.0**-25  # below every other number that is drawn; 0 says that nothing is


@dataclass(frozen=True)
class Settings(MaskedSettings):
    mask: float = setting(0.85, "share of the chosen that become the mask token", least=0, most=1)
    random: float = setting(
        0.0, "share of the chosen that become a random token; the rest stay", least=0, most=1
    )
    generator_width: float = setting(
        0.25, "width of the generator, as a share of the model's", above=0, most=1
    )
    original_weight: float = setting(
        50.0, "what the loss of the model counts beside the generator's", least=0, most=10_000
    )


class OriginalHead(nn.Module):
    """Dense, GELU, then the logits of the two classes: 0 original, 1 replaced."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        self.weight = nn.Parameter(torch.empty(2, width).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(2))

    def transform(self, hidden: Tensor) -> Tensor:
        return F.gelu(self.dense(hidden))  # (N, D)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), self.weight, self.bias)  # (N, 2)


def sample(logits: Tensor, numbers: Tensor) -> Tensor:
    """A token for each row of logits (N, V), drawn with its uniform number (N,) in [0, 1): (N,).

    The probabilities of the tokens divide [0, 1) among them; the number says whose share it hits.

    >>> sample(torch.tensor([[0.5, 0.2, 0.3]] * 3).log(), torch.tensor([0.4, 0.6, 0.9])).tolist()
    [0, 1, 2]
    """
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    shares = logits.softmax(dim=-1).cumsum(dim=-1)  # (N, V); the last is 1 up to rounding
    places = numbers.to(shares)[:, None] * shares[:, -1:]
    return torch.searchsorted(shares, places, right=True)[:, 0].clamp(max=logits.shape[1] - 1)


class ReplacedTokenDetection(MaskedLM):
    heads = ("tokens", "original")
    classes = {"original": ("original", "replaced")}
    asks = False
    likelihood = ""  # the head "tokens" is the generator's
    Settings = Settings

    @property
    def head_weights(self) -> dict[str, float]:
        return {"original": self.settings.original_weight}

    def batch(self, passages: Sequence, draws: Sequence[Draw]) -> Batch:
        """That of masked LM; with the tokens that belong at all real positions as targets of the
        head "original", and a uniform number at each chosen position."""
        batch = super().batch(passages, draws)
        tokens, mask, chosen = batch.inputs["tokens"], batch.inputs["mask"], batch.targets["tokens"]
        belongs = torch.where(chosen == IGNORE, tokens, chosen)
        both = zip(mask.sum(dim=1).tolist(), draws, strict=True)
        numbers = pad([torch.rand(size, generator=draw.generator) for size, draw in both], value=0)
        numbers = numbers.clamp(min=SMALLEST)
        return replace(
            batch,
            targets=batch.targets | {"original": belongs.where(mask, IGNORE)},
            noise={"sample": numbers.where(chosen != IGNORE, 0.0)},
        )

    def parts(self, model: nn.Module) -> nn.ModuleDict:
        width = model.config.width
        narrow = max(1, round(self.settings.generator_width * width))
        return nn.ModuleDict({"generator": model.smaller(narrow), "original": OriginalHead(width)})

    def losses(
        self, model: nn.Module, parts: nn.ModuleDict, batch: Batch, fused: bool = True
    ) -> dict[str, TargetLosses]:
        """One pass of the generator, and one of the model over what comes of it."""
        hidden = parts["generator"](model, **batch.inputs)  # (B, T, D)
        found = {}
        if "tokens" in batch.targets:
            each = losses_of_head("tokens", hidden, model.heads["tokens"], batch, fused)
            found["tokens"] = replace(each, inputs={})  # the model itself read nothing for it
        if "original" in batch.targets:
            batch = self.filled(model, hidden, batch)
            hidden = model(**batch.inputs)
            found["original"] = losses_of_head("original", hidden, parts["original"], batch, fused)
        return found

    @torch.no_grad()
    def filled(self, model: nn.Module, hidden: Tensor, batch: Batch) -> Batch:
        """The batch with a drawn token at each chosen position, and the labels 0 and 1.

        hidden  (B, T, D), the generator's
        """
        numbers, belongs = batch.noise["sample"], batch.targets["original"]  # (B, T)
        places = (numbers > 0).nonzero(as_tuple=True)
        drawn = sample(model.heads["tokens"](hidden[places]), numbers[places])  # (N,)
        tokens = batch.inputs["tokens"].index_put(places, drawn)
        labels = (tokens != belongs).long().where(belongs != IGNORE, IGNORE)
        return replace(
            batch,
            inputs=batch.inputs | {"tokens": tokens},
            targets=batch.targets | {"original": labels},
        )

    # --- what a trained model does with a text

    def generate(self, model: nn.Module, text: str, sampling, generator: Generator) -> str:
        """Puts those tokens of the text into brackets that the model holds for replaced."""
        ids = self.tokenizer.encode(text)
        generation.check_length(ids, self.length - generation.SPECIAL)
        ids = [self.cls, *ids, self.sep]
        return self.judged(model, torch.tensor([ids]))[0]

    def probe(self, model: nn.Module, passage, sampling, draw: Draw) -> str:
        """The same with a passage in which the generator has replaced some tokens."""
        batch = self.batch([passage], [draw]).to(next(model.parameters()).device)
        parts = self.needed()
        with torch.no_grad(), evaluating(model), evaluating(parts):
            batch = self.filled(model, parts["generator"](model, **batch.inputs), batch)
        shown, judged = self.judged(model, batch.inputs["tokens"])
        truth = batch.targets["original"][0].bool().cpu()
        return f"{shown} ({int((truth & judged).sum())} of {int(truth.sum())} replaced ones found)"

    def judged(self, model: nn.Module, tokens: Tensor) -> tuple[str, Tensor]:
        """The text of a row of tokens (1, T) with the replaced ones in brackets, and where these
        stand: (T,) bool."""
        head = self.needed()["original"]
        with torch.no_grad(), evaluating(model), evaluating(head):
            hidden = model(tokens=tokens.to(next(model.parameters()).device))
            replaced = head(hidden[0]).argmax(dim=-1).bool().cpu()  # (T,)
        replaced[[0, -1]] = False  # [CLS] and [SEP] are not shown
        places = (replaced.nonzero()[:, 0] - 1).tolist()
        ids = tokens[0, 1:-1].tolist()
        return generation.bracketed(self.tokenizer, ids, places), replaced

    def needed(self) -> nn.ModuleDict:
        """The parts that learnt beside the model. InputError where they are not known."""
        if self.learnt is None:
            raise InputError(
                "what tells replaced tokens apart is no part of this model; train it with"
                " replaced-token-detection"
            )
        return self.learnt
