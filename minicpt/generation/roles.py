"""What a model of each role does with a text, unless its objective says otherwise."""

import torch
from torch import Generator, Tensor, nn

from minicpt.batch import IGNORE
from minicpt.common.errors import InputError
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.order import Draw
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation.filling import bracketed, fill_gaps, with_gaps
from minicpt.generation.sampling import check_length
from minicpt.generation.writing import continue_tokens, rewrite_tokens

SPECIAL = 2  # [CLS] and [SEP] around a text that an encoder reads


class Continue:
    """A decoder goes on with the text."""

    @staticmethod
    def generate(objective, model: nn.Module, text: str, sampling, generator: Generator) -> str:
        tokenizer = objective.tokenizer
        prompt = [tokenizer.begin, *tokenizer.encode(text)]
        reads = model, prompt, objective.length, tokenizer
        return text + tokenizer.decode(continue_tokens(*reads, sampling, generator), prompt)

    @staticmethod
    def probe(objective, model: nn.Module, passage, sampling, draw) -> str:
        """A continuation of the first third of a passage, set off by a bar.

        Of a row that holds several passages the first is taken.
        """
        tokenizer = objective.tokenizer
        passage = getattr(passage, "passages", (passage,))[0]
        prompt = passage.tokens[: max(1, min(len(passage.tokens) // 3, 24))].tolist()
        opening = [tokenizer.begin] if passage.first else []
        reads = model, opening + prompt, objective.length, tokenizer
        written = continue_tokens(*reads, sampling, draw.generator)
        return f"{tokenizer.decode(prompt)} | {tokenizer.decode(written, prompt)}"


class Fill:
    """An encoder fills gaps, each with the likeliest token."""

    @staticmethod
    def generate(objective, model: nn.Module, text: str, sampling, generator: Generator) -> str:
        """Mask tokens in the text are the gaps; without one, the objective makes some."""
        tokenizer = objective.tokenizer
        mask = tokenizer.need("mask")
        inner = with_gaps(tokenizer, text, mask)
        if mask not in inner:
            corpus = Corpus.build([Document("the text", text)], tokenizer)
            passage = corpus.passage(0, len(corpus.tokens))
            check_length(passage.tokens, objective.length - SPECIAL)
            return Fill.probe(objective, model, passage, sampling, Draw(0, generator))
        ids = [tokenizer.need("cls"), *inner, tokenizer.need("sep")]
        check_length(ids, objective.length)
        tokens = torch.tensor(ids)
        return Fill.shown(model, tokenizer, {"tokens": tokens[None]}, tokens == mask)

    @staticmethod
    def probe(objective, model: nn.Module, passage, sampling, draw) -> str:
        """The passage with what the model puts at each target, in brackets."""
        batch = objective.batch([passage], [draw])
        chosen = batch.targets["tokens"][0] != IGNORE
        return Fill.shown(model, objective.tokenizer, batch.inputs, chosen)

    @staticmethod
    def shown(model: nn.Module, tokenizer: Tokenizer, inputs: dict, chosen: Tensor) -> str:
        gaps = chosen.nonzero()[:, 0]
        ids = fill_gaps(model, tokenizer, inputs, gaps)[1:-1]  # without [CLS] and [SEP]
        return bracketed(tokenizer, ids, [gap - 1 for gap in gaps.tolist()])


class Rewrite:
    """An encoder-decoder reads a text and writes another one."""

    @staticmethod
    def generate(objective, model: nn.Module, text: str, sampling, generator: Generator) -> str:
        tokenizer = objective.tokenizer
        ids = tokenizer.encode(" ".join(text.split()))
        if not ids:
            raise InputError("the model rewrites words, but the text holds none; give some")
        check_length(ids, objective.length)
        return tokenizer.decode(rewrite_tokens(model, ids, tokenizer, sampling, generator)).strip()

    @staticmethod
    def probe(objective, model: nn.Module, passage, sampling, draw) -> str:
        """What the encoder reads of a passage, and what the model writes."""
        batch, tokenizer = objective.batch([passage], [draw]), objective.tokenizer
        ids = batch.inputs["tokens"][0].tolist()
        written = rewrite_tokens(model, ids, tokenizer, sampling, draw.generator)
        return f"{tokenizer.decode(ids).strip()} -> {tokenizer.decode(written).strip()}"


BY_ROLE = {"decoder": Continue, "encoder": Fill, "encoder-decoder": Rewrite}
