"""Self-replay: texts that the base writes itself stand in for old text that is gone.

arXiv 2605.26097; the idea is older: Robins 1995, "Catastrophic Forgetting, Rehearsal and
Pseudorehearsal". The texts are written before the training starts.

Each row of a batch writes one document after the other, each behind what begins a document and up
to end-of-text, at temperature 1, so the texts are drawn from the distribution that the model has
learnt. Of the special tokens only end-of-text can be drawn. When a row has filled the window, it
goes on with its newest token alone in a new one, as training cuts a document into windows that do
not see each other. Every row writes as many tokens as the others, so short documents are not
preferred. The last document of a row is broken off, and its end is no target.

Only decoders do it: an encoder gives no probability to a whole text, and an encoder-decoder writes
only in reply to one.

B rows, L tokens of a row, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from minicpt.common.errors import InputError
from minicpt.common.evaluating import evaluating
from minicpt.common.randomness import generator
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.tokenizer import Tokenizer
from minicpt.remedies.base import Remedy, Situation
from minicpt.remedies.mixture import Mixture

ROWS = 64


@dataclass(frozen=True)
class Settings(Checked):
    self_replay: float = setting(
        0.0, "share of the passages that are texts which the base wrote itself", least=0, below=1
    )
    self_replay_tokens: int = setting(
        2**16, "the most tokens that it writes; they are used again when they run out", least=1
    )


class SelfReplay(Remedy):
    Settings = Settings
    roles = ("decoder",)
    claims = ("what is mixed into the text",)
    measured = {"self_replay": 0.05}
    swept = (0.01, 0.05, 0.25, 0.5)

    @classmethod
    def label(cls, settings: Settings) -> str:
        return f"self-replay {settings.self_replay * 100:g} %"

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        """Has the base write as much as the run needs, and no more than the settings allow."""
        tokenizer, window = situation.objective.tokenizer, situation.objective.length
        if state is None:
            tokens = self.settings.self_replay_tokens
            if situation.passages is not None:
                needed = math.ceil(situation.passages * self.settings.self_replay) * window
                tokens = min(tokens, needed)

            def progress(steps: Iterable) -> Iterable:
                return situation.progress(steps, "the base writes")

            reads = situation.model, tokenizer, tokens, window, situation.seed
            self.written = sample(*reads, progress)
        else:
            self.written = state["written"]
        self.corpus = Samples.of(self.written, tokenizer.need("end"))
        if not len(self.corpus.tokens):
            raise InputError(
                "--self-replay: the base writes nothing but ends of text; train it longer"
            )

    def mixed(self, stream) -> Mixture:
        return Mixture(stream, self.corpus, self.settings.self_replay)

    def state(self, model: nn.Module) -> dict:
        return {"written": self.written}


@dataclass(frozen=True)
class Samples(Corpus):
    """A corpus that a model has written: some of its documents do not come to an end.

    unfinished  where such a document stops, and the token that came next: it is the last target
    """

    unfinished: dict[int, int] = field(default_factory=dict)

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
    newest = torch.full((rows,), end)  # as if a document had just ended
    written = []
    with evaluating(model):
        cache = model.cache(rows, window)
        for _ in progress(range(-(-tokens // rows))):
            read = torch.where(newest == end, tokenizer.begin, newest)
            hidden = model.step(read[:, None].to(device), cache)[:, 0]  # (B, D)
            logits = model.heads["tokens"](hidden)[:, : tokenizer.size].float().cpu()
            logits[:, forbidden] = -torch.inf
            newest = choose_each(logits, draws)
            written.append(newest)
            begins = (newest == end).to(device) | (cache.place == window)
            cache.place = cache.place.masked_fill(begins, 0)
    return torch.stack(written, dim=1)


def choose_each(logits: Tensor, draws: Generator) -> Tensor:
    """One token of each row of logits (B, V), drawn with the probability that they give it: (B,).

    By the inverse of the cumulated probabilities, several times faster than torch.multinomial.
    """
    cumulated = logits.softmax(dim=1).double().cumsum(dim=1)
    drawn = torch.rand(len(logits), 1, generator=draws, dtype=torch.float64) * cumulated[:, -1:]
    return torch.searchsorted(cumulated, drawn, right=True)[:, 0]
