"""A mixture of denoisers: one is drawn for each passage, and its mode stands in front (UL2, UL2R).

    [NLU]  R, regular      span corruption with short, rare spans
    [NLG]  X, extreme      span corruption with long spans, or many
    [S2S]  S, sequential   prefix LM

The token tells the model in which mode it reads, and a user can choose one with it. A decoder reads
it before all else, its start token included. The passages are no longer than the denoiser with the
least room for text can take, so that all of them get the same ones.

UL2 (Tay et al. 2022, arXiv 2205.05131) has seven denoisers with equal shares. UL2R (Tay et al.
2022, arXiv 2210.11399) continues a causal base: half of its passages are those of S, and the
patterns of the other denoisers are turned (``span-corruption --roll``).

It draws from the objectives named in RECIPES. One that is not there is left out, and the shares of
the others grow.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from minicpt import generation, objectives
from minicpt.batch import IGNORE, Batch
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.input_output import GAP, SENTINELS, sees_the_input
from minicpt.data.order import Draw, Plan, windows
from minicpt.data.skipping import without_short
from minicpt.data.stacking import stacked
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective

R, X, S = "[NLU]", "[NLG]", "[S2S]"
LEAST = 2  # tokens of a passage: each denoiser shows one and hides one


@dataclass(frozen=True)
class Denoiser:
    """An objective with some settings, the mode that it belongs to, and its share of the passages.
    """

    mode: str
    share: float
    objective: str
    settings: Mapping[str, object]


def spans(mode: str, share: float, span: float, rate: float, roll: bool = False) -> Denoiser:
    settings = {"span": span, "rate": rate, "roll": roll}
    return Denoiser(mode, share, "span-corruption", settings)


RECIPES = {
    "ul2": (
        spans(R, 1 / 7, 3.0, 0.15),
        spans(R, 1 / 7, 8.0, 0.15),
        spans(X, 1 / 7, 3.0, 0.5),
        spans(X, 1 / 7, 8.0, 0.5),
        spans(X, 1 / 7, 64.0, 0.15),
        spans(X, 1 / 7, 64.0, 0.5),
        Denoiser(S, 1 / 7, "prefix-lm", {}),
    ),
    "ul2r": (
        Denoiser(S, 0.5, "prefix-lm", {}),
        spans(R, 0.25, 3.0, 0.15, roll=True),
        spans(X, 0.125, 32.0, 0.15, roll=True),
        spans(X, 0.125, 3.0, 0.5, roll=True),
    ),
}


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(
        128,
        "the most positions of the encoder and of the decoder, or of a decoder's row with both",
        least=10,
        most=2**20,
    )
    recipe: Literal["ul2", "ul2r"] = setting(
        "ul2", "the denoisers: those of UL2, or of UL2R, which continues a causal base"
    )


class Mixture(Objective):
    roles = ("encoder-decoder", "decoder")
    reserved = (*SENTINELS, S, X, R)
    needs_text = True
    looks_ahead = True
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        kinds, recipe = objectives.known(), RECIPES[self.settings.recipe]
        recipe = [each for each in recipe if each.objective in kinds]
        if not recipe:
            raise InputError("mixture needs span-corruption or prefix-lm, and neither is there")
        self.modes = dict(zip((R, X, S), tokenizer.need_special((R, X, S), "mixture"), strict=True))
        self.recipe = [(each.mode, self.made(kinds[each.objective], each)) for each in recipe]
        self.shares = torch.tensor([each.share for each in recipe])
        self.start = tokenizer.begin if self.role == "decoder" else tokenizer.need("pad")

    def made(self, kind: type[Objective], denoiser: Denoiser) -> Objective:
        """A denoiser, which leaves room for its mode token."""
        settings, window = dict(denoiser.settings), self.length - 1
        if "span" in settings:
            # What is hidden fits into the window: a longer span makes the same patterns.
            settings["span"] = min(settings["span"], float(window))
        return kind(self.tokenizer, kind.Settings(window=window, **settings), self.role)

    @property
    def longest(self) -> int:
        """The most tokens of a text for which every denoiser has room."""
        return min(denoiser.longest for _, denoiser in self.recipe)

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """Windows of the documents; the first of each leaves room for what stands before it."""
        plan = Plan(windows(corpus, self.longest, seed, epoch, lead=1), corpus.passage)
        why = f"mixture needs passages of {LEAST} tokens"
        return without_short(plan, plan.lengths, LEAST, why).grouped(seed, epoch)

    def drawn(self, generator: Generator) -> tuple[str, Objective]:
        """A denoiser and its mode."""
        return self.recipe[int(torch.multinomial(self.shares, 1, generator=generator))]

    def batch(self, passages: Sequence[Passage], draws: Sequence[Draw]) -> Batch:
        """Each passage's row as its denoiser makes it, behind the mode token."""
        rows = []
        for passage, draw in zip(passages, draws, strict=True):
            mode, denoiser = self.drawn(draw.generator)
            rows.append(with_front(denoiser.batch([passage], [draw]), self.modes[mode]))
        fills = {"tokens": self.start, "decoder_tokens": self.start}
        return stacked(rows, self.role, fills)

    def visibility(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """A decoder's targets see all of the input, and the output up to themselves."""
        if self.role != "decoder":
            return super().visibility(batch)
        return {"tokens": {"tokens": sees_the_input(batch)}}

    # --- what a trained model does with a text

    def generate(self, model, text: str, sampling, generator: Generator) -> str:
        """Fills the gaps of a text (mode R); continues one without gaps (mode S)."""
        found = dict(reversed(self.recipe))
        if R in found and (S not in found or re.search(GAP, text)):
            return found[R].generate(model, text, sampling, generator, [self.modes[R]])
        return text + self.continued(model, self.tokenizer.encode(text), sampling, generator)

    def probe(self, model, passage: Passage, sampling, draw: Draw) -> str:
        """A passage whose gaps are filled, or a continuation of its first third."""
        mode, denoiser = self.drawn(draw.generator)
        if mode != S:
            return denoiser.probe(model, passage, sampling, draw, [self.modes[mode]])
        prefix = passage.tokens[: max(1, min(len(passage.tokens) // 3, 24))].tolist()
        written = self.continued(model, prefix, sampling, draw.generator)
        return f"{self.tokenizer.decode(prefix)} | {written}"

    def continued(self, model, prefix: list[int], sampling, generator: Generator) -> str:
        denoiser, front = dict(self.recipe)[S], [self.modes[S]]
        (written,) = generation.write_after(
            model, denoiser, prefix, self.start, sampling, generator, front
        )
        return self.tokenizer.decode(written, prefix)


def with_front(row: Batch, token: int) -> Batch:
    """A batch with one more token in front of all that is read.

    It sees what the token behind it sees, and is seen where that one is. It has no target.
    """

    def grown(name: str, value: Tensor) -> Tensor:
        if name.startswith("decoder_"):
            return value
        value = torch.cat([value[:, :1], value], dim=1)
        if value.dim() == 3:  # who sees whom
            value = torch.cat([value[:, :, :1], value], dim=2)
        if name == "tokens":
            value[:, 0] = token
        return value

    targets = row.targets["tokens"]
    if "decoder_tokens" not in row.inputs:
        targets = F.pad(targets, (1, 0), value=IGNORE)
    inputs = {name: grown(name, each) for name, each in row.inputs.items()}
    return Batch(inputs, {"tokens": targets})
