"""Masked next token: tokens are hidden and predicted from both sides, each one position early.

A decoder reads a window of a document in both directions, so it can use what follows a gap. Masked
LM's corruption hides some of the tokens. But the token at position i is predicted at position
i - 1, as in causal LM: a model that was trained to predict the next token keeps its habit.

    read       a b [MASK] d
    predict    . c   .    .

In front of a document stands what stands there in causal LM (``data/framing.py``), so its first
token can be predicted too. The first token of a later window cannot: it is never chosen.
End-of-text is never chosen.

With ``causal_share`` some of the passages are causal LM instead: read from left to right, and each
position predicts what follows, the end of a document included. One model learns both.

BehnamGhader et al. 2024, arXiv 2404.05961 (LLM2Vec; 20 % are chosen); Charpentier and Samuel 2024,
arXiv 2410.24159 (GPT-BERT, both kinds together).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from minicpt import generation
from minicpt.batch import (
    IGNORE,
    Batch,
    pad,
    padding,
    sees_everything,
    sees_the_past,
    shift,
    valid_positions,
)
from minicpt.common.settings import setting
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.documents import Document
from minicpt.data.framing import framed
from minicpt.data.order import Draw, Plan, windows
from minicpt.data.patterns import prefix_mask, two_way_mask
from minicpt.data.skipping import without_short
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective
from minicpt.objectives.masked_lm import EDGE, Masker, Masking, fate

LEAST = 2  # positions of a row: one that predicts, one that is predicted
MASK = ("[MASK]", "<mask>")


@dataclass(frozen=True)
class Settings(Masking):
    rate: float = setting(0.2, "share of the tokens that are chosen", above=0, most=1)
    choice: Literal["exact", "independent"] = setting(
        "exact",
        "exact: max(1, round(rate L)) of the L tokens that can be predicted; independent: each with"
        " probability rate",
    )
    window: int = setting(
        128, "the most tokens that the model reads at once", least=LEAST, most=2**20
    )
    causal_share: float = setting(
        0.0, "share of the passages that are causal LM instead (GPT-BERT)", least=0, most=1
    )


class MaskedNextToken(Objective):
    roles = ("decoder",)
    reserved = MASK[:1]
    looks_ahead = True
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        self.end = tokenizer.need("end")
        declared = tokenizer.roles.get("mask")
        if declared is None:
            (declared,) = tokenizer.need_special([MASK], "masked-next-token")
        self.masker = Masker(tokenizer, self.settings, declared)

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """The windows of causal LM; a row of one position, which can predict nothing, is skipped.
        """
        cuts = windows(corpus, self.length, seed, epoch, lead=1)
        lengths = cuts[:, 1] - cuts[:, 0] + torch.isin(cuts[:, 0], corpus.documents)
        why = f"masked-next-token needs rows of {LEAST} positions"
        plan = without_short(Plan(cuts, corpus.passage, lengths), lengths, LEAST, why)
        return plan.grouped(seed, epoch)

    def batch(self, passages: Sequence[Passage], draws: Sequence[Draw]) -> Batch:
        """Each passage corrupted, or with ``causal_share`` left as it is, by its own generator."""
        rows, targets, both_ways = [], [], []
        for passage, draw in zip(passages, draws, strict=True):
            read, following = framed(passage, self.tokenizer)
            if float(torch.rand((), generator=draw.generator)) < self.settings.causal_share:
                target = shift(read, following)
                both_ways.append(0)
            else:
                read, target = self.masked(read, passage, draw.generator)
                both_ways.append(len(read))
            rows.append(read)
            targets.append(target)
        mask = prefix_mask(padding(rows), torch.tensor(both_ways))
        return Batch(
            {"tokens": pad(rows, self.end), "mask": mask}, {"tokens": pad(targets, IGNORE)}
        )

    def masked(
        self, read: Tensor, passage: Passage, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """The corrupted row (T,), and its targets (T,), each one position early.

        Nothing stands before the first position that could predict it. With ``mask=1, random=0``, a
        mask token of id 4 and the third token chosen:

            read [10 11 12 13]  ->  inputs [10 11 4 13],  targets [. 12 . .]
        """
        words = torch.cat([EDGE[: len(read) - len(passage.tokens)], passage.words])
        hidden, chosen = self.masker(read[1:], words[1:], generator)
        own = torch.cat([chosen.new_tensor([IGNORE]), chosen])  # where the tokens stand
        return torch.cat([read[:1], hidden]), shift(own)

    def visibility(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Everything; in a row of causal LM position t sees the positions 0..t."""
        mask = valid_positions(batch.inputs["mask"])  # (B, T)
        seen = sees_everything(mask, mask.shape[1])
        causal = self.are_causal(batch)[:, None, None]
        return {"tokens": {"tokens": torch.where(causal, sees_the_past(mask), seen)}}

    @staticmethod
    def are_causal(batch: Batch) -> Tensor:
        """Which rows are causal LM, (B,) bool: those whose last real position has a target."""
        lengths = valid_positions(batch.inputs["mask"]).sum(dim=1, keepdim=True)  # (B, 1)
        last = batch.targets["tokens"].gather(1, (lengths - 1).clamp(min=0))
        return last[:, 0] != IGNORE

    def fates(self, batch: Batch) -> dict[str, list[dict[int, str]]]:
        """What became of the chosen tokens: hidden, replaced or kept. None is in causal rows."""
        rows = zip(
            batch.inputs["tokens"].tolist(),
            batch.targets["tokens"].tolist(),
            self.are_causal(batch).tolist(),
            strict=True,
        )
        return {
            "tokens": [
                {
                    place: fate(read[place + 1], target, self.masker.mask)
                    for place, target in enumerate(targets)
                    if target != IGNORE and not causal
                }
                for read, targets, causal in rows
            ]
        }

    # --- what a trained model does with a text

    def generate(self, model, text: str, sampling, generator: Generator) -> str:
        """Fills the mask tokens of the text. A text without one is continued if some passages were
        causal LM; else some of its tokens are hidden and filled."""
        mask = self.masker.mask
        if self.tokenizer.token(mask) in text:
            ids = [self.tokenizer.begin, *generation.with_gaps(self.tokenizer, text, mask)]
            generation.check_length(ids, self.length)
            tokens = torch.tensor(ids)
            return self.filled(model, tokens, (tokens == mask).nonzero()[:, 0])
        if self.settings.causal_share:
            return super().generate(model, text, sampling, generator)
        corpus = Corpus.build([Document("the text", text)], self.tokenizer)
        passage = corpus.passage(0, len(corpus.tokens))
        generation.check_length(passage.tokens, self.length - 1)
        return self.probe(model, passage, sampling, Draw(0, generator))

    def probe(self, model, passage: Passage, sampling, draw: Draw) -> str:
        """The passage with what the model puts at each target, in brackets; one that is causal LM
        is continued."""
        batch = self.batch([passage], [draw])
        if self.are_causal(batch)[0]:
            return super().probe(model, passage, sampling, draw)
        places = (batch.targets["tokens"][0] != IGNORE).nonzero()[:, 0]
        return self.filled(model, batch.inputs["tokens"][0], places + 1)

    def filled(self, model, tokens: Tensor, gaps: Tensor) -> str:
        """The text of a row (T,), in brackets what the model puts into its gaps (K,)."""
        mask = two_way_mask(torch.ones(1, len(tokens), dtype=torch.bool))
        inputs = {"tokens": tokens[None], "mask": mask}
        ids = generation.fill_gaps(model, self.tokenizer, inputs, gaps, shifted=True)
        return generation.bracketed(self.tokenizer, ids, gaps.tolist())
