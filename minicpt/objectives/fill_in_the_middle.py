"""Fill in the middle: a text is cut in three, and its middle moves to the end (decoder).

A window of the text is cut at two characters, and each part is tokenised anew. What stands on both
sides of the gap is read first, the middle last. All of it is predicted as in causal LM, and
end-of-text follows the middle, so that the model learns where to stop. ``abcdef``, cut at 2 and 4:

    prefix first (PSM)    <PRE> ab <SUF> ef <MID> cd     predicted    ab <SUF> ef <MID> cd <end>
    suffix first (SPM)    <PRE> <SUF> ef <MID> ab cd     predicted    <SUF> ef <MID> ab cd <end>

A share of the windows is cut, and half of these are read suffix first; the others are causal LM.
The window is cut after it was made, and leaves room for the three special tokens. (Where a whole
document is cut, and windows are made afterwards, the middle is often lost.) A part may be empty.
Parts of a character that a window begins or ends with stay at its two ends.

Bavarian et al. 2022, arXiv 2207.14255. They cut documents, or windows ("context level") as here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from minicpt import generation
from minicpt.batch import IGNORE, Batch, pad, padding, shift
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.framing import framed
from minicpt.data.order import Draw, Plan, windows
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective

# Of each special token the names by which models call it; the first is that of tokenizers made
# here. StarCoder, Granite; Qwen, CodeGemma; DeepSeek; Mistral; SantaCoder.
PREFIX = ("<fim_prefix>", "<|fim_prefix|>", "<｜fim▁begin｜>", "[PREFIX]", "<fim-prefix>")
SUFFIX = ("<fim_suffix>", "<|fim_suffix|>", "<｜fim▁hole｜>", "[SUFFIX]", "<fim-suffix>")
MIDDLE = ("<fim_middle>", "<|fim_middle|>", "<｜fim▁end｜>", "[MIDDLE]", "<fim-middle>")
SPECIAL = 3
# Tokens by which a window may grow: a word that is cut takes more of them. With a vocabulary of
# 4,096 on builtin:docs a window grows by 2.5 on average, and one of 300 by more than 8.
SPARE = 8
AROUND = 30  # characters that a probe shows on both sides of its gap


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(
        128, "the most tokens that the model reads at once", least=SPECIAL + SPARE + 1, most=2**20
    )
    rate: float = setting(0.5, "the probability with which a window is cut", above=0, most=1)
    spm: float = setting(0.5, "the share of these that is read suffix first", least=0, most=1)


@dataclass(frozen=True)
class Cut:
    """The tokens of the three parts of a text, and which of them is read first."""

    prefix: list[int]
    middle: list[int]
    suffix: list[int]
    suffix_first: bool = False


class FillInTheMiddle(Objective):
    roles = ("decoder",)
    sampling = ("suffix",)
    reserved = (PREFIX[0], SUFFIX[0], MIDDLE[0])
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        self.end = tokenizer.need("end")
        if tokenizer.decode([*tokenizer.encode("a"), *tokenizer.encode("b")]) != "ab":
            raise InputError(
                "fill-in-the-middle cuts inside words, and this tokenizer puts a space before every"
                " text; use a byte-level one that does not (GPT-2's)"
            )
        names = [PREFIX, SUFFIX, MIDDLE]
        self.marks = tokenizer.need_special(names, "fill-in-the-middle")

    @property
    def longest(self) -> int:
        """What the special tokens and words that are cut leave of the window."""
        return self.length - SPECIAL - SPARE

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """Windows of the documents."""
        cuts = windows(corpus, self.longest, seed, epoch)
        return Plan(cuts, corpus.passage).grouped(seed, epoch)

    def batch(self, passages: Sequence[Passage], draws: Sequence[Draw]) -> Batch:
        """Every position has a target, the next token, whether its window was cut or not."""
        rows = [self.row(*each) for each in zip(passages, draws, strict=True)]
        tokens = [read for read, _ in rows]
        targets = [shift(*row) for row in rows]
        inputs = {"tokens": pad(tokens, self.end), "mask": padding(tokens)}
        return Batch(inputs, {"tokens": pad(targets, IGNORE)})

    def row(self, passage: Passage, draw: Draw) -> tuple[Tensor, int]:
        """What is read of a passage, and the token that follows the last one."""
        wanted, order = torch.rand(2, generator=draw.generator, dtype=torch.float64).tolist()
        if wanted < self.settings.rate:
            cut = self.cut(passage, order < self.settings.spm, draw.generator)
            read = self.arranged(cut) + cut.middle
            if len(read) <= self.length:  # nearly always, see SPARE; the others stay whole
                return passage.tokens.new_tensor(read), self.end
        return framed(passage, self.tokenizer)

    def cut(self, passage: Passage, suffix_first: bool, generator: Generator) -> Cut:
        """The parts of a passage, cut at two points drawn from all places between characters."""
        ids = passage.tokens.tolist()
        begin, stop = self.whole_characters(passage)
        text = self.tokenizer.decode(ids[begin:stop])
        one, two = torch.randint(len(text) + 1, (2,), generator=generator).sort().values.tolist()
        parts = self.tokenizer.encode_batch([text[:one], text[one:two], text[two:]])
        return Cut(ids[:begin] + parts[0], parts[1], parts[2] + ids[stop:], suffix_first)

    def whole_characters(self, passage: Passage) -> tuple[int, int]:
        """The first and the last place of a passage, between two tokens, that is inside no
        character: there a token begins whose first byte continues none (10...... in UTF-8)."""
        ids = passage.tokens.tolist()
        after = [] if passage.following is None else [passage.following]
        data = [self.tokenizer.data(index) or b"." for index in ids + after]
        places = [place for place, each in enumerate(data) if each[0] >> 6 != 0b10]
        places += [] if after else [len(ids)]
        return (places[0], places[-1]) if places else (0, 0)

    def arranged(self, cut: Cut) -> list[int]:
        """What is read before the middle."""
        before, after, middle = self.marks
        if cut.suffix_first:
            return [before, after, *cut.suffix, middle, *cut.prefix]
        return [before, *cut.prefix, after, *cut.suffix, middle]

    # --- what a trained model does with a text

    def generate(self, model: nn.Module, text: str, sampling, generator: Generator) -> str:
        """With a suffix, what stands between the text and it; else the text goes on."""
        if sampling.suffix is None:
            return super().generate(model, text, sampling, generator)
        prefix, suffix = self.tokenizer.encode_batch([text, sampling.suffix])
        written = self.filled(model, Cut(prefix, [], suffix), sampling, generator)
        return text + written + sampling.suffix

    def probe(self, model: nn.Module, passage: Passage, sampling, draw: Draw) -> str:
        """What the model writes into a gap of the passage, in brackets, and what stands around."""
        cut = self.cut(passage, False, draw.generator)
        if len(self.arranged(cut)) >= self.length:
            return super().probe(model, passage, sampling, draw)
        written = self.filled(model, cut, sampling, draw.generator)
        before, after = self.tokenizer.decode(cut.prefix), self.tokenizer.decode(cut.suffix)
        return f"{before[-AROUND:]}[{written}]{after[:AROUND]}"

    def filled(self, model: nn.Module, cut: Cut, sampling, generator: Generator) -> str:
        """What the model writes between prefix and suffix, as far as its window goes."""
        prompt = self.arranged(cut)
        generation.check_length(prompt, self.length - 1)
        sampling = replace(sampling, length=min(sampling.length, self.length - len(prompt)))
        reads = model, prompt, self.length, self.tokenizer
        return self.tokenizer.decode(generation.continue_tokens(*reads, sampling, generator))
