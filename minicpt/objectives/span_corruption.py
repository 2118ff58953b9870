"""Span corruption: runs of tokens are cut out of a text, and written (encoder-decoder, decoder).

Each run leaves a sentinel in the text that is read. What is written is each sentinel followed by
what it stands for, and end-of-text. With the sentinels <0> and <1>:

    text      Thank you for inviting me to your party
    reads     Thank you <0> me to your <1> <end>
    writes    <0> for inviting <1> party <end>

A text of L tokens loses ``rate`` L of them, in runs of ``span`` tokens on average. These and the
runs of tokens that stay are drawn as compositions: each way to write a number as a sum of so many
parts is as likely. They alternate, and the first run stays. So the last one is always lost, the
first one never, and of a short text only the end; with ``roll`` the pattern is turned by a random
number of tokens, as in UL2R.

A decoder reads and writes in one row (see ``data/input_output.py``). Windows never cross documents;
T5 joins short documents. Sentinels are T5's: <extra_id_0> comes first, and has the highest id.

Raffel et al. 2019, arXiv 1910.10683, with the rounding of its ``random_spans_noise_mask``; Tay et
al. 2022, arXiv 2210.11399 (roll).
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Generator, Tensor

from minicpt import generation
from minicpt.batch import Batch
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.input_output import GAP, SENTINEL, SENTINELS, input_output, sees_the_input
from minicpt.data.order import Draw, Plan, windows
from minicpt.data.skipping import without_short
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective

LEAST = 2  # tokens of a text: one that is lost, one that stays


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(
        128,
        "the most positions of the encoder and of the decoder, or of a decoder's row with both",
        least=8,
        most=2**20,
    )
    rate: float = setting(0.15, "share of the tokens that are cut out", above=0, below=1)
    span: float = setting(3.0, "mean length of what is cut out at one place, in tokens", least=1)
    roll: bool = setting(False, "turn the pattern by a random number of tokens (UL2R)")

    def __post_init__(self):
        super().__post_init__()
        if self.span > self.window:
            raise InputError(
                f"--span {self.span:g} is longer than --window {self.window}; lower the one, or"
                " raise the other"
            )


def sizes(length: int, settings: Settings) -> tuple[int, int]:
    """How many tokens of a text of ``length`` tokens, 2 or more, are noise, and in how many spans.

    >>> sizes(568, Settings())
    (85, 28)
    """
    noise = min(max(round(settings.rate * length), 1), length - 1)
    spans = max(1, round(noise / settings.span))
    return noise, min(spans, noise, length - noise)


def composition(total: int, parts: int, generator: Generator) -> list[int]:
    """``parts`` positive numbers that add up to ``total``; each such sum is as likely."""
    cuts = 1 + torch.randperm(total - 1, generator=generator)[: parts - 1].sort().values
    return [stop - start for start, stop in pairwise([0, *cuts.tolist(), total])]


def noise_mask(length: int, settings: Settings, generator: Generator) -> Tensor:
    """Which tokens of a text are cut out: (length,) bool."""
    noise, spans = sizes(length, settings)
    stays = composition(length - noise, spans, generator)
    lost = composition(noise, spans, generator)
    runs = torch.tensor([run for both in zip(stays, lost, strict=True) for run in both])
    mask = (torch.arange(2 * spans) % 2 == 1).repeat_interleave(runs)
    if settings.roll:
        mask = mask.roll(int(torch.randint(length, (), generator=generator)))
    return mask


def corrupt(tokens: Tensor, noise: Tensor, sentinels: Tensor) -> tuple[Tensor, Tensor]:
    """What is read and what is written, both without end-of-text.

    tokens     (L,) int64, and ``noise``, (L,) bool: which of them are cut out
    sentinels  (S,) int64, the first one first

    >>> noise = torch.tensor([0, 0, 1, 1, 0, 1], dtype=torch.bool)
    >>> read, written = corrupt(torch.arange(10, 16), noise, torch.tensor([999, 998]))
    >>> read.tolist(), written.tolist()
    ([10, 11, 999, 14, 998], [999, 12, 13, 998, 15])
    """
    begins = noise & ~torch.cat([noise.new_zeros(1), noise[:-1]])  # the first token of each span
    marks = sentinels[begins.cumsum(0) - 1]  # (L,), that of the newest span
    read = torch.where(begins, marks, tokens)[begins | ~noise]
    written = torch.stack([marks, tokens], dim=1)[torch.stack([begins, noise], dim=1)]
    return read, written


class SpanCorruption(Objective):
    roles = ("encoder-decoder", "decoder")
    reserved = SENTINELS
    needs_text = True
    looks_ahead = True
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        self.end = tokenizer.need("end")
        self.start = tokenizer.begin if self.role == "decoder" else tokenizer.need("pad")
        count = sizes(self.longest, self.settings)[1] + self.settings.roll
        names = [SENTINEL.format(number) for number in reversed(range(count))]
        why = f"span-corruption with --window {self.length}"
        self.sentinels = torch.tensor(tokenizer.need_special(names, why)[::-1])

    @cached_property
    def longest(self) -> int:
        """The most tokens of a text of which the positions fit into the window."""
        lengths = range(2 * self.length + 2)
        return bisect_right(lengths, self.length, lo=LEAST, key=self.positions) - 1

    def positions(self, length: int) -> int:
        """The positions that are needed for a text of ``length`` tokens."""
        noise, spans = sizes(length, self.settings)
        spans += self.settings.roll  # it may part one in two
        both = length - noise + spans + 1, noise + spans + 1  # with end-of-text
        return sum(both) if self.role == "decoder" else max(both)

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """Windows of the documents, as long as what becomes of them fits."""
        plan = Plan(windows(corpus, self.longest, seed, epoch), corpus.passage)
        why = f"span-corruption needs passages of {LEAST} tokens"
        return without_short(plan, plan.lengths, LEAST, why).grouped(seed, epoch)

    def batch(self, passages: Sequence[Passage], draws: Sequence[Draw]) -> Batch:
        """Each passage corrupted by draws of its own generator."""
        end = torch.tensor([self.end])
        both = [
            [torch.cat([each, end]) for each in self.cut(passage.tokens, draw.generator)]
            for passage, draw in zip(passages, draws, strict=True)
        ]
        return input_output(self.role, *zip(*both, strict=True), self.start)

    def cut(self, tokens: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """As ``corrupt``, with spans that are drawn."""
        noise = noise_mask(len(tokens), self.settings, generator)
        return corrupt(tokens, noise, self.sentinels)

    def visibility(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """A decoder's targets see all of the input, and the output up to themselves."""
        if self.role != "decoder":
            return super().visibility(batch)
        return {"tokens": {"tokens": sees_the_input(batch)}}

    # --- what a trained model does with a text

    def generate(
        self, model, text: str, sampling, generator: Generator, front: Sequence[int] = ()
    ) -> str:
        """Fills the gaps of a text, <extra_id_0> and so on; without any, some that are drawn.

        front  tokens that stand before all that is read
        """
        # The space before a gap belongs to what fills it.
        *parts, last = re.split(rf" ?{GAP}", text)
        if len(parts) > len(self.sentinels):
            raise InputError(
                f"the text has {len(parts)} gaps, and the model was trained with at most"
                f" {len(self.sentinels)}; leave fewer"
            )
        read = []
        for part, sentinel in zip(parts, self.sentinels.tolist(), strict=False):
            read += [*self.tokenizer.encode(part), sentinel]
        read += self.tokenizer.encode(last)
        if not parts:
            if len(read) < LEAST:
                raise InputError("no span can be cut out of a text so short; give a longer one")
            generation.check_length(read, self.longest)
            read = self.cut(torch.tensor(read), generator)[0].tolist()
        return self.filled(model, read, sampling, generator, front)

    def probe(self, model, passage: Passage, sampling, draw: Draw, front=()) -> str:
        """A passage whose gaps the model has filled; ``front`` as above."""
        read, _ = self.cut(passage.tokens, draw.generator)
        return self.filled(model, read.tolist(), sampling, draw.generator, front)

    def filled(self, model, read: list[int], sampling, generator, front=()) -> str:
        """What is read, and in brackets in it what the model writes for each sentinel."""
        known = {*self.sentinels.tolist()}
        gaps = [index for index in read if index in known]
        given = [*read, self.end]
        written = generation.write_after(
            model, self, given, self.start, sampling, generator, front, gaps
        )
        spans = dict(zip(gaps, written, strict=True))
        return generation.with_spans(self.tokenizer, read, spans).strip()
