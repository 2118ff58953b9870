"""Prefix language modelling: the beginning of a text is given, the rest is predicted from it.

A passage of L tokens is cut in two, at one of its L - 1 places between two tokens, each as likely.
The first part is the prefix. It is read in both directions, and nothing in it is predicted. The
rest is the suffix. It is read from left to right, and all of its tokens are targets. With the
prefix a b:

    a decoder reads      <begin> a b c d e     the first three look at one another
    and predicts            .    . c d e <end>

    an encoder reads     a b
    its decoder reads    <start> c d e
    and predicts            c    d e <end>

What a decoder reads are the tokens that it predicts, moved right by one. So the part that is read
in both directions ends with the position that predicts the suffix's first token: that part is one
longer than the prefix, and the token that its last position predicts stands outside of it.

What stands before and after a document is as in causal LM (``data/framing.py``). A later window of
a document is read without a token in front (its first one takes that place), and the token that
follows a window is its last target. ``<start>`` is the pad id, as in T5.

The losses of the targets add up to the loss of the suffix, given the prefix: they are an exact
log-likelihood.

Raffel et al. 2019, arXiv 1910.10683; Lester et al. 2021, arXiv 2104.08691 (T5 continued with it).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from minicpt import generation
from minicpt.batch import IGNORE, Batch, pad, padding, shift
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.framing import framed, numbered
from minicpt.data.input_output import input_output, sees_the_input
from minicpt.data.order import Draw, Plan, windows
from minicpt.data.patterns import prefix_mask
from minicpt.data.skipping import without_short
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective

LEAST = 2  # tokens of a passage: one of the prefix, one of the suffix


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(
        128, "the most tokens that the model reads at once", least=LEAST + 1, most=2**20
    )


class PrefixLM(Objective):
    roles = ("decoder", "encoder-decoder")
    likelihood = "exact"  # of the suffix, given the prefix
    looks_ahead = True  # as a decoder, within the prefix
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        self.end = tokenizer.need("end")
        self.filler = self.end if self.role == "decoder" else tokenizer.need("pad")

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """The windows of causal LM, for both roles; one of a single token is skipped."""
        cuts = windows(corpus, self.length, seed, epoch, lead=1)
        sizes = cuts[:, 1] - cuts[:, 0]
        lengths = sizes + torch.isin(cuts[:, 0], corpus.documents)
        why = f"prefix-lm needs passages of {LEAST} tokens"
        plan = without_short(Plan(cuts, corpus.passage, lengths), sizes, LEAST, why)
        return plan.grouped(seed, epoch)

    def batch(self, passages: Sequence[Passage], draws: Sequence[Draw]) -> Batch:
        """Each passage cut in two by a draw of its own generator."""
        cuts = [
            int(torch.randint(1, len(passage.tokens), (), generator=draw.generator))
            for passage, draw in zip(passages, draws, strict=True)
        ]
        build = self.for_decoder if self.role == "decoder" else self.for_encoder_decoder
        return build(passages, cuts)

    def for_decoder(self, passages: Sequence[Passage], cuts: Sequence[int]) -> Batch:
        """``cuts``: how many tokens of each passage are its prefix."""
        rows, targets, both_ways = [], [], []
        for passage, cut in zip(passages, cuts, strict=True):
            read, following = framed(passage, self.tokenizer)
            target = shift(read, following)
            part = len(read) - len(passage.tokens) + cut  # is read in both directions
            target[: part - 1] = IGNORE  # the last of them predicts the suffix's first token
            rows.append(read)
            targets.append(target)
            both_ways.append(part)
        mask = prefix_mask(padding(rows), torch.tensor(both_ways))
        return Batch(
            {"tokens": pad(rows, self.filler), "mask": mask}, {"tokens": pad(targets, IGNORE)}
        )

    def for_encoder_decoder(self, passages: Sequence[Passage], cuts: Sequence[int]) -> Batch:
        pairs = list(zip(passages, cuts, strict=True))
        prefixes = [passage.tokens[:cut] for passage, cut in pairs]
        suffixes = [
            shift(*framed(passage, self.tokenizer))[cut - len(passage.tokens) - 1 :]
            for passage, cut in pairs
        ]
        return input_output(self.role, prefixes, suffixes, self.filler)

    def visibility(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """In a decoder's row, the position of the first target and those before it see one another;
        each later one sees what stands up to itself."""
        if self.role != "decoder":
            return super().visibility(batch)
        return {"tokens": {"tokens": sees_the_input(batch)}}

    def places(self, passage: Passage) -> Tensor:
        """As in causal LM, whatever the cut: of each position of a decoder's row. Those of an
        encoder-decoder's shorter rows are the last ones."""
        return shift(*numbered(passage))

    # --- what a trained model does with a text

    def generate(self, model, text: str, sampling, generator: Generator) -> str:
        """Continues the text, which is the prefix."""
        return text + self.written(model, self.tokenizer.encode(text), True, sampling, generator)

    def probe(self, model, passage: Passage, sampling, draw: Draw) -> str:
        """A continuation of the first third of a passage, set off by a bar."""
        prefix = passage.tokens[: max(1, min(len(passage.tokens) // 3, 24))].tolist()
        written = self.written(model, prefix, passage.first, sampling, draw.generator)
        return f"{self.tokenizer.decode(prefix)} | {written}"

    def written(self, model, prefix: list[int], first: bool, sampling, generator) -> str:
        """What the model writes after a prefix; ``first``: it begins a document."""
        how = self.tokenizer, sampling, generator
        if self.role == "decoder":
            given = [self.tokenizer.begin] * first + prefix
            ids = generation.continue_prefix(model, given, self.length, *how)
        else:
            if not prefix:
                raise InputError("the encoder reads the text, but it holds no token; give some")
            generation.check_length(prefix, self.length)
            ids = generation.rewrite_tokens(model, prefix, *how)
        return self.tokenizer.decode(ids, prefix)
