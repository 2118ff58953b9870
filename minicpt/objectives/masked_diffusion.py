"""Masked diffusion: any share of the text is hidden, and predicted from the rest.

Each passage draws a level t between 0 and 1. Each of its tokens becomes the mask token with
probability t, and is then predicted from both sides. With t near 1 the model writes from nothing;
with t near 0 it fills a gap. Every token is a target. The hidden ones weigh 1/t, the rest weigh 0,
and the sum is divided by the number of all of them: in the mean over t, this is a bound on what
causal language modelling measures, the loss of the text in nats per token.

    t = 0.5    read     [CLS] the [MASK] sat [MASK] [SEP]
               predict    .   the  cat   sat  down    .
               weight     .    0    2     0    2      .

* The levels of an epoch are spread evenly: t = frac(u + 0.618034 place), mapped to [0.001, 1], with
  one u for each epoch. Levels drawn apart from each other would make the loss noisier.
* The mask token is never predicted: its logit is taken out.
* An evaluation hides exactly l of the L tokens, with l uniform in 1..L, and weighs them L/l. It
  has the same mean as the training, and less noise.
* A decoder sees both sides too, and keeps its shift: the token at i is predicted at i-1. So each
  window begins with the token before a document (``data/framing.py``), behind which its first
  token is predicted.

Sahoo et al. 2024, arXiv 2406.07524 (MDLM); Nie et al. 2025, arXiv 2502.09992 (LLaDA); from a causal
base: Gong et al. 2024, arXiv 2410.17891 (DiffuLLaMA).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from minicpt.batch import Batch, sees_everything, shift, valid_positions
from minicpt.common.evaluating import evaluating
from minicpt.common.randomness import generator
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.hiding import hidden_batch, hide, hide_some
from minicpt.data.order import Draw, Plan, windows
from minicpt.data.patterns import two_way_mask
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import bracketed, check_length, unmask, with_gaps
from minicpt.objectives.base import Objective

LEAST = 1e-3  # the lowest level: 1/t is at most 1000
GOLDEN = 0.618034  # its multiples, modulo 1, fill [0, 1) evenly, however many they are
MASK = ("[MASK]", "<mask>", "<|mask|>", "<|mdm_mask|>")


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(128, "the most tokens read at once", least=3, most=2**20)


@dataclass(frozen=True)
class Leveled(Passage):
    """A passage, and the ``uniform`` number u in [0, 1) that all passages of its epoch share."""

    uniform: float = 0.0

    def level(self, place: int) -> float:
        """The share t of its tokens that is hidden, in [LEAST, 1], at this place of the plan."""
        return LEAST + (1 - LEAST) * ((self.uniform + GOLDEN * place) % 1)


class MaskedDiffusion(Objective):
    roles = ("encoder", "decoder")
    whole_text = True
    likelihood = "bound"
    looks_ahead = True
    sampling = ("rounds",)
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        self.mask = tokenizer.roles.get("mask")
        if self.mask is None:
            (self.mask,) = tokenizer.need_special([MASK], "masked-diffusion")
        self.never = {"tokens": (self.mask,)}
        if self.role == "encoder":
            around, self.pad = [tokenizer.need("cls"), tokenizer.need("sep")], tokenizer.need("pad")
        else:
            around, self.pad = [tokenizer.begin], tokenizer.need("end")
        self.before, self.behind = torch.tensor(around[:1]), torch.tensor(around[1:]).long()
        self.room = self.length - len(around)
        self.is_maskable = torch.zeros(tokenizer.size, dtype=torch.bool)  # (V,)
        self.is_maskable[tokenizer.ordinary] = True

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """Windows of the documents, with room for the special tokens around them."""
        uniform = float(torch.rand((), generator=generator("levels", seed, epoch)))

        def cut(start: int, stop: int) -> Leveled:
            return Leveled(**vars(corpus.passage(start, stop)), uniform=uniform)

        return Plan(windows(corpus, self.room, seed, epoch), cut).grouped(seed, epoch)

    def batch(self, passages: Sequence[Leveled], draws: Sequence[Draw]) -> Batch:
        """Each token is hidden with the probability that the passage's place decides."""
        rows = []
        for passage, draw in zip(passages, draws, strict=True):
            level, tokens = passage.level(draw.place), self.framed(passage.tokens)
            maskable = self.is_maskable[tokens]
            chosen = maskable & (torch.rand(len(tokens), generator=draw.generator) < level)
            rows.append(hide(tokens, maskable, chosen, 1 / level, self.mask))
        return self.batch_of(rows)

    def likelihood_batch(self, passages: Sequence[Passage], draws: Sequence[Draw]) -> Batch:
        """Exactly l of each passage's L tokens are hidden, l uniform in 1..L: LLaDA's estimator."""
        rows = []
        for passage, draw in zip(passages, draws, strict=True):
            tokens = self.framed(passage.tokens)
            maskable = self.is_maskable[tokens]
            most = max(1, int(maskable.sum()))
            count = int(torch.randint(1, most + 1, (), generator=draw.generator))
            rows.append(hide_some(tokens, maskable, count, self.mask, draw.generator))
        return self.batch_of(rows)

    def framed(self, tokens: Tensor) -> Tensor:
        """The tokens between those that stand around them: [CLS] and [SEP], or end-of-text."""
        return torch.cat([self.before, tokens, self.behind])

    def batch_of(self, rows: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Batch:
        """The batch of what is read, targets and weights; a decoder's are shifted by one."""
        if self.role == "encoder":
            return hidden_batch(rows, self.pad)
        shifted = [(read, shift(target), shift(weight, 0)) for read, target, weight in rows]
        batch = hidden_batch(shifted, self.pad)
        return replace(batch, inputs=batch.inputs | {"mask": two_way_mask(batch.inputs["mask"])})

    def places(self, passage: Passage) -> Tensor:
        numbers = torch.arange(passage.start, passage.start + len(passage.tokens))
        row = torch.cat([-torch.ones_like(self.before), numbers, -torch.ones_like(self.behind)])
        return shift(row, -1) if self.role == "decoder" else row

    def visibility(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Every target sees every real position, on a decoder too."""
        mask = valid_positions(batch.inputs["mask"])  # (B, T)
        return {"tokens": {"tokens": sees_everything(mask, mask.shape[1])}}

    def fates(self, batch: Batch) -> dict[str, list[dict[int, str]]]:
        """The hidden tokens, at the positions that predict them."""
        hidden = batch.weights["tokens"] > 0
        return {"tokens": [dict.fromkeys(row.nonzero()[:, 0].tolist(), "hidden") for row in hidden]}

    # --- what a trained model does with a text

    def generate(self, model: nn.Module, text: str, sampling, generator: Generator) -> str:
        """Fills the mask tokens of the text, in brackets; without one, writes on behind it."""
        gaps = with_gaps(self.tokenizer, text, self.mask)
        check_length(gaps, self.room)
        if self.mask in gaps:
            written = self.filled(model, gaps, sampling, generator)
            places = [place for place, token in enumerate(gaps) if token == self.mask]
            return bracketed(self.tokenizer, written, places)
        return text + self.tokenizer.decode(self.written(model, gaps, sampling, generator), gaps)

    def probe(self, model: nn.Module, passage: Passage, sampling, draw: Draw) -> str:
        """What it writes behind the first third of a passage, set off by a bar."""
        prompt = passage.tokens[: max(1, min(len(passage.tokens) // 3, 24))].tolist()
        written = self.written(model, prompt, sampling, draw.generator)
        return f"{self.tokenizer.decode(prompt)} | {self.tokenizer.decode(written, prompt)}"

    def written(self, model: nn.Module, prompt: list[int], sampling, generator) -> list[int]:
        """The tokens that it writes behind a prompt, as far as the window reaches."""
        masks = [self.mask] * min(sampling.length, self.room - len(prompt))
        return self.filled(model, prompt + masks, sampling, generator)[len(prompt) :]

    @torch.no_grad()
    def filled(self, model: nn.Module, ids: list[int], sampling, generator) -> list[int]:
        """The same ids with ordinary tokens in place of the mask tokens."""
        tokens = self.framed(torch.tensor(ids, dtype=torch.int64))
        device, back = next(model.parameters()).device, int(self.role == "decoder")

        def logits_at(tokens: Tensor, places: Tensor) -> Tensor:
            real = torch.ones(1, len(tokens), dtype=torch.bool, device=device)
            mask = two_way_mask(real) if back else real
            hidden = model(tokens=tokens[None].to(device), mask=mask)[0]
            return model.heads["tokens"](hidden[places.to(device) - back])

        with evaluating(model):
            found = unmask(
                logits_at, tokens, (tokens == self.mask).nonzero()[:, 0],
                self.tokenizer.ordinary, sampling.temperature, generator, sampling.rounds,
            )  # fmt: skip
        return found[len(self.before) : len(found) - len(self.behind)].tolist()
