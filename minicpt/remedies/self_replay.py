"""Texts that a decoder writes by itself, many at once: what self-replay trains on.

Each row of a batch writes one document after the other, from end-of-text to end-of-text, at
temperature 1, so the texts are drawn from the very distribution that the model has learnt. Of the
special tokens only end-of-text can be drawn. When a row has filled the window it goes on with its
newest token alone in a new one, as training cuts a document into windows that do not see each
other. Every row writes as many tokens as the others, so short documents are not preferred; the last
document of a row is broken off, and its end is no target.

A key-value cache saves running the model on the whole window for every token, as ``generation``
does for one text: with 64 rows and windows of 128 it wrote 2,500 tokens a second, and 240 without
(4 layers of width 128, one thread of a busy CPU). It is written around the modules of
``models/decoder.py``. Leaves out encoders, which give no probability to a whole text, and
encoder-decoders, which write only in reply to one.

B rows, T positions of the window, D width, H heads, K width of a head, V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import evaluating
from minicpt.models.layers import attention

ROWS = 64


@dataclass(frozen=True)
class Samples(Corpus):
    """A corpus that a model has written: some of its documents do not come to an end.

    unfinished  where such a document stops, and the token that came next: it is the last target
    """

    unfinished: dict[int, int]

    def passage(self, start: int, stop: int) -> Passage:
        passage = super().passage(start, stop)
        if stop not in self.unfinished:
            return passage
        return dataclasses.replace(passage, last=False, following=self.unfinished[stop])

    @staticmethod
    def of(written: Tensor, end: int) -> "Samples":
        """From rows of tokens (B, L), with ``end`` between the documents.

        >>> samples = Samples.of(torch.tensor([[5, 1, 6, 7], [1, 8, 9, 1]]), end=1)
        >>> samples.tokens.tolist(), samples.documents.tolist(), samples.unfinished
        ([5, 6, 8, 9], [0, 1, 2], {2: 7})
        """
        tokens, documents, unfinished = [], [], {}
        for row in written.tolist():
            documents.append(len(tokens))
            for token in row:
                if token != end:
                    tokens.append(token)
                elif documents[-1] < len(tokens):  # a document without a token is none
                    documents.append(len(tokens))
            following = tokens.pop() if documents[-1] < len(tokens) else None
            if documents[-1] == len(tokens):
                documents.pop()
            else:
                unfinished[len(tokens)] = following
        starts = torch.tensor(documents, dtype=torch.int64)
        names = tuple(f"text {number} of the base" for number in range(len(documents)))
        # What is a word or a sentence in it is not known, and no objective of a decoder asks. Nor
        # has it a text, of which tokens could stand for bytes.
        return Samples(
            tokens=torch.tensor(tokens, dtype=torch.int32),
            words=starts,
            sentences=starts,
            documents=starts,
            bytes=torch.zeros(len(tokens) + 1, dtype=torch.int32),
            unknown=starts.new_empty(0),
            names=names,
            unfinished=unfinished,
        )


@torch.no_grad()
def sample(
    model: nn.Module,
    tokenizer: Tokenizer,
    tokens: int,
    window: int,
    seed: int,
    progress: Callable[[Iterable], Iterable] = lambda iterable: iterable,
) -> Tensor:
    """About ``tokens`` tokens (B, L) written by a decoder, a function of its weights and ``seed``.

    window  T, the most positions that the model reads at once
    """
    end = tokenizer.need("end")
    device = next(model.parameters()).device
    rows = max(1, min(ROWS, tokens // window))
    draws = generator("self-replay", seed)
    forbidden = sorted(set(range(tokenizer.size)).difference([end, *tokenizer.ordinary.tolist()]))
    newest = torch.full((rows,), end)
    place = torch.zeros(rows, dtype=torch.int64)  # of the newest token in its row's window
    written = []
    with evaluating(model):
        cache = Cache(model, rows, window)
        for _ in progress(range(-(-tokens // rows))):
            hidden = cache.read(newest.to(device), place.to(device))  # (B, D)
            logits = model.heads["tokens"](hidden)[:, : tokenizer.size].float().cpu()
            logits[:, forbidden] = -torch.inf
            newest = choose_each(logits, draws)
            written.append(newest)
            place = torch.where((newest == end) | (place + 1 == window), 0, place + 1)
    return torch.stack(written, dim=1)


def choose_each(logits: Tensor, draws: Generator) -> Tensor:
    """One token of each row of logits (B, V), drawn with the probability that they give it: (B,).

    By the inverse of the cumulated probabilities, several times faster than torch.multinomial.
    """
    cumulated = logits.softmax(dim=1).double().cumsum(dim=1)
    drawn = torch.rand(len(logits), 1, generator=draws, dtype=torch.float64) * cumulated[:, -1:]
    return torch.searchsorted(cumulated, drawn, right=True)[:, 0]


class Cache:
    """The keys and values of all positions that each row of a decoder has read so far."""

    def __init__(self, model: nn.Module, rows: int, window: int):
        attention = model.layers[0].attention
        width = model.config.width // attention.heads
        weight = model.tokens.weight
        self.model, self.rows = model, torch.arange(rows, device=weight.device)
        self.slots = torch.arange(window, device=weight.device)
        shape = (len(model.layers), 2, rows, attention.heads, window, width)
        self.kept = weight.new_zeros(shape)

    def read(self, tokens: Tensor, place: Tensor) -> Tensor:
        """Reads one more token (B,) of each row, at its place (B,): its hidden state (B, D).

        A row sees its own places up to this one; a place that is used again forgets the old text.
        """
        model, longest = self.model, int(place.max()) + 1
        seen = (self.slots[:longest] <= place[:, None])[:, None, None]  # (B, 1, 1, T)
        x = model.embed(tokens[:, None], place[:, None])  # (B, 1, D)
        for layer, (keys, values) in zip(model.layers, self.kept, strict=True):
            module = layer.attention
            query, key, value = (
                part.unflatten(-1, (module.heads, -1)).transpose(1, 2)  # (B, H, 1, K)
                for part in module.qkv(layer.attention_norm(x)).chunk(3, dim=-1)
            )
            keys[self.rows, :, place], values[self.rows, :, place] = key[:, :, 0], value[:, :, 0]
            past = keys[:, :, :longest], values[:, :, :longest]  # (B, H, T, K)
            mixed = attention(query, *past, seen, fused=module.fused)  # (B, H, 1, K)
            x = x + module.output(mixed.transpose(1, 2).flatten(2))
            x = x + layer.feed_forward(layer.feed_forward_norm(x))
        return model.norm(x)[:, 0]
