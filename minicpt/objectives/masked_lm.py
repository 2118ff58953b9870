"""Masked language modelling: some tokens are hidden, and predicted from both sides (encoder).

A window of a document is read as ``[CLS] tokens [SEP]``. Some of its tokens are chosen; most of
those become the mask token, some a random token, some stay. All chosen positions are targets,
those that stayed too (else the model would learn that a token it can read is always right); every
other position is IGNORE. Special tokens and padding are never chosen.

    read     [CLS] the [MASK] sat on purple mat [SEP]
    predict    .    .   cat    .  .   the    .    .

Devlin et al. 2018, arXiv 1810.04805 (80 % / 10 % / 10 % of 15 %); Liu et al. 2019, arXiv 1907.11692
(a fresh draw each epoch). Random tokens come from the vocabulary without special tokens, where
both references draw from the whole vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from minicpt.batch import IGNORE, Batch, pad, padding
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.hiding import hidden_batch, hide_some
from minicpt.data.order import Draw, Plan, windows
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective

SPECIAL = 2  # [CLS] and [SEP] around a window
EDGE = torch.ones(1, dtype=torch.bool)  # each of them is a word of its own


@dataclass(frozen=True)
class Masking(Checked):
    """How many tokens are chosen, and what becomes of them."""

    rate: float = setting(0.15, "share of the tokens that are chosen", above=0, most=1)
    choice: Literal["exact", "bert", "independent"] = setting(
        "exact",
        "exact: max(1, round(rate L)) tokens of a text of L; bert: the same, special tokens counted"
        " into L; independent: each token with probability rate",
    )
    mask: float = setting(0.8, "share of the chosen that become the mask token", least=0, most=1)
    random: float = setting(
        0.1, "share of the chosen that become a random token; the rest stay", least=0, most=1
    )
    whole_word: bool = setting(False, "choose all tokens of a word together, within the budget")

    def __post_init__(self):
        super().__post_init__()
        if self.mask + self.random > 1 + 1e-9:
            total = self.mask + self.random
            raise InputError(f"--mask and --random must not exceed 1 together, but give {total:g}")


@dataclass(frozen=True)
class Settings(Masking):
    window: int = setting(
        128, "the most tokens read at once", least=SPECIAL + 1, most=2**20
    )


def choose(candidates: Tensor, words: Tensor, settings: Masking, generator: Generator) -> Tensor:
    """Which positions are predicted: (T,) bool.

    candidates  (T,) bool: real, ordinary tokens
    words       (T,) bool: True where a word starts
    """
    places = candidates.nonzero()[:, 0]
    counted = len(candidates) if settings.choice == "bert" else len(places)
    budget = min(len(places), max(1, round(settings.rate * counted)))
    if settings.whole_word:
        drawn = choose_words(words.cumsum(0)[places], budget, settings, generator)
    elif settings.choice == "independent":
        drawn = torch.rand(len(places), generator=generator) < settings.rate
    else:
        drawn = torch.randperm(len(places), generator=generator)[:budget]
    chosen = torch.zeros_like(candidates)
    chosen[places[drawn]] = True
    return chosen


def choose_words(
    numbers: Tensor, budget: int, settings: Masking, generator: Generator
) -> Tensor:
    """Which tokens are predicted, (N,) bool: of each word all or none.

    numbers  (N,) the word to which each token belongs
    """
    words, members = numbers.unique_consecutive(return_inverse=True)  # (W,), (N,)
    if settings.choice == "independent":
        return (torch.rand(len(words), generator=generator) < settings.rate)[members]
    sizes = torch.bincount(members).tolist()
    drawn = torch.zeros(len(words), dtype=torch.bool)
    for word in torch.randperm(len(words), generator=generator).tolist():
        if sizes[word] <= budget:
            drawn[word] = True
            budget -= sizes[word]
        if budget == 0:
            break
    return drawn[members]


class Masker:
    """Hides some tokens of a text, as the settings say. ``mask``: the id of the mask token."""

    def __init__(self, tokenizer: Tokenizer, settings: Masking, mask: int | None = None):
        self.settings, self.ordinary = settings, tokenizer.ordinary
        self.mask = tokenizer.need("mask") if mask is None else mask
        self.is_ordinary = torch.zeros(tokenizer.size, dtype=torch.bool)  # (V,)
        self.is_ordinary[tokenizer.ordinary] = True

    def __call__(
        self, tokens: Tensor, words: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """The corrupted copy of ``tokens`` (T,) and its targets (T,), IGNORE where none is.

        ``words`` (T,) is True where a word starts. With ``mask=1, random=0``, a mask token of id 4
        and the third token chosen:

            tokens [1 10 11 12 2]  ->  inputs [1 10 4 12 2],  targets [. . 11 . .]
        """
        chosen = choose(self.is_ordinary[tokens], words, self.settings, generator).nonzero()[:, 0]
        fate = torch.rand(len(chosen), generator=generator)

        def random(places: Tensor) -> Tensor:
            drawn = torch.randint(len(self.ordinary), (len(places),), generator=generator)
            return self.ordinary[drawn]

        return self.hide(tokens, chosen, fate, random)

    def hide(
        self, tokens: Tensor, chosen: Tensor, fate: Tensor, random: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The same for positions that are chosen already.

        chosen  (N,) int64: these are predicted
        fate    (N,) uniform in [0, 1): decides what becomes of each
        random  from positions (n,) to the random tokens (n,) that are put there
        """
        share = self.settings.mask
        replaced = chosen[(fate >= share) & (fate < share + self.settings.random)]
        inputs, targets = tokens.clone(), torch.full_like(tokens, IGNORE)
        inputs[chosen[fate < share]] = self.mask
        inputs[replaced] = random(replaced)
        targets[chosen] = tokens[chosen]
        return inputs, targets


def fate(read: int, target: int, mask: int) -> str:
    """What became of a chosen token ``target``, where ``read`` is read.

    A random token that is the token itself counts as kept: it reads the same.
    """
    return "hidden" if read == mask else "kept" if read == target else "replaced"


def fates(batch: Batch, mask: int) -> dict[str, list[dict[int, str]]]:
    """What became of the chosen tokens of each row, by position."""
    rows = zip(batch.inputs["tokens"].tolist(), batch.targets["tokens"].tolist(), strict=True)
    return {
        "tokens": [
            {
                place: fate(read[place], target, mask)
                for place, target in enumerate(targets)
                if target != IGNORE
            }
            for read, targets in rows
        ]
    }


class MaskedLM(Objective):
    roles = ("encoder",)
    likelihood = "pseudo"
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        self.cls, self.sep = tokenizer.need("cls"), tokenizer.need("sep")
        self.pad = tokenizer.need("pad")
        self.masker = Masker(tokenizer, self.settings)

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """Windows of the documents, with room for the special tokens around them."""
        cuts = windows(corpus, self.length - SPECIAL, seed, epoch)
        return Plan(cuts, corpus.passage).grouped(seed, epoch)

    def batch(self, passages: Sequence[Passage], draws: Sequence[Draw]) -> Batch:
        """Each passage corrupted by draws of its own generator."""
        inputs, targets = [], []
        for passage, draw in zip(passages, draws, strict=True):
            words = torch.cat([EDGE, passage.words, EDGE])
            masked, target = self.masker(self.framed(passage.tokens), words, draw.generator)
            inputs.append(masked)
            targets.append(target)
        return Batch(
            {"tokens": pad(inputs, self.pad), "mask": padding(inputs)},
            {"tokens": pad(targets, IGNORE)},
        )

    def likelihood_batch(self, passages: Sequence[Passage], draws: Sequence[Draw]) -> Batch:
        """One of each passage's L tokens is masked and stands for all: it weighs L.

        The pseudo-likelihood of Salazar et al. 2020, arXiv 1910.14659, which masks each in turn.
        """
        texts = [self.framed(passage.tokens) for passage in passages]
        rows = [
            hide_some(text, self.masker.is_ordinary[text], 1, self.masker.mask, draw.generator)
            for text, draw in zip(texts, draws, strict=True)
        ]
        return hidden_batch(rows, self.pad)

    def places(self, passage: Passage) -> Tensor:
        numbers = passage.start + torch.arange(len(passage.tokens))
        return torch.cat([-EDGE.long(), numbers, -EDGE.long()])

    def framed(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens.new_tensor([self.cls]), tokens, tokens.new_tensor([self.sep])])

    def fates(self, batch: Batch) -> dict[str, list[dict[int, str]]]:
        """What became of the chosen tokens: hidden, replaced or kept."""
        return fates(batch, self.masker.mask)
