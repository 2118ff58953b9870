"""Causal language modelling: each token is predicted from those before it (GPT-2; decoder).

Input ``x[0..T-1]``, the target at ``t`` is ``x[t+1]``. A document is read as

    <end> a b c d      and predicted as      a b c d <end>

The end-of-text token after a document is a target like any other: a model that never learns it
never stops. The one before it is what a GPT-2 stream of documents shows at that place (the end of
the previous document), so that the first token of a text is predicted too, and the losses of all
targets add up to those of all the text. Windows never cross documents.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from minicpt import generation
from minicpt.batch import IGNORE, Batch, pad, padding, shift, up_to_itself
from minicpt.data.corpus import Corpus, Passage, Plan, windows
from minicpt.data.tokenizer import Tokenizer
from minicpt.settings import Checked, setting


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(128, "the most tokens that the model reads at once", least=2, most=2**20)


class Objective:
    architecture = "decoder"
    whole_text = True

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None):
        self.tokenizer = tokenizer
        self.settings = settings or Settings()
        self.length = self.settings.window
        self.end = tokenizer.need("end")

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """Windows of the documents; the first of each leaves room for the end-of-text before it."""
        rows = windows(corpus, self.settings.window, seed, epoch, lead=1)
        return Plan(rows, corpus.passage)

    def batch(self, passages: Sequence[Passage], generators: Sequence[Generator]) -> Batch:
        """Every position has a target, the next token. Nothing is drawn: there is no noise."""
        inputs, targets = [], []
        for passage in passages:
            opening = passage.tokens.new_tensor([self.end] if passage.first else [])
            tokens = torch.cat([opening, passage.tokens])
            inputs.append(tokens)
            targets.append(shift(tokens, self.end if passage.last else passage.following))
        return Batch(
            {"tokens": pad(inputs, self.end), "mask": padding(inputs)},
            {"tokens": pad(targets, IGNORE)},
        )

    def visibility(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Position t sees the real positions 0..t."""
        return {"tokens": {"tokens": up_to_itself(batch.inputs["mask"])}}

    def generate(self, model, text: str, sampling, generator: Generator) -> str:
        """The text and its continuation; with no text, a text from its beginning."""
        prompt = [self.end] + self.tokenizer.encode(text)
        return text + self.continuation(model, prompt, sampling, generator)

    def probe(self, model, passage: Passage, sampling, generator: Generator) -> str:
        """A continuation of the first third of a passage, set off by a bar."""
        prompt = passage.tokens[: max(1, min(len(passage.tokens) // 3, 24))].tolist()
        opening = [self.end] if passage.first else []
        continued = self.continuation(model, opening + prompt, sampling, generator)
        return f"{self.tokenizer.decode(prompt)} | {continued}"

    def continuation(self, model, prompt: list[int], sampling, generator: Generator) -> str:
        tokens = generation.continue_tokens(
            model, prompt, self.length, self.end, self.tokenizer.ordinary, sampling, generator
        )
        return self.tokenizer.decode(tokens)
