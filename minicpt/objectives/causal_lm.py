"""Causal language modelling: each token is predicted from those before it (GPT-2; decoder).

Input ``x[0..T-1]``, the target at ``t`` is ``x[t+1]``. A document is read as

    <begin> a b c d    and predicted as      a b c d <end>

The end-of-text token after a document is a target like any other: a model that does not learn it
never stops. Before it stands the end of the previous document, as in GPT-2's own stream of
documents, or a token of its own (Llama): see ``data/framing.py``. So the first token of a text is
predicted too, and the losses of all targets add up to the loss of the whole text.

With ``pack`` a row of the batch holds several short windows (see ``data/packing.py``). The losses
are the same.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minicpt.batch import IGNORE, Batch, pad, padding, sees_the_past, shift, valid_positions
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus
from minicpt.data.framing import framed, numbered
from minicpt.data.order import Draw, Plan, windows
from minicpt.data.packing import packed, packed_inputs
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.base import Objective


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(128, "the most tokens that the model reads at once", least=2, most=2**20)
    pack: bool = setting(
        False,
        "several short texts in each row, hidden from each other: steps of equal size, faster than"
        " like lengths together (the default) where texts are short",
    )


class CausalLM(Objective):
    roles = ("decoder",)
    whole_text = True
    likelihood = "exact"
    Settings = Settings

    def __init__(self, tokenizer: Tokenizer, settings: Settings | None = None, role=None):
        super().__init__(tokenizer, settings, role)
        self.end = tokenizer.need("end")
        self.unit = "row" if self.settings.pack else "window"

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """Windows of the documents; the first of each leaves room for what stands before it."""
        cuts = windows(corpus, self.length, seed, epoch, lead=1)
        lengths = cuts[:, 1] - cuts[:, 0] + torch.isin(cuts[:, 0], corpus.documents)
        plan = Plan(cuts, corpus.passage, lengths)
        if self.settings.pack:
            plan = packed(plan, self.length, seed, epoch)
        return plan.grouped(seed, epoch)

    def batch(self, passages: Sequence, draws: Sequence[Draw]) -> Batch:
        """Every position has a target, the next token. Nothing is drawn: there is no noise.

        The passages are those of the plan: with ``pack`` each is a Row.
        """
        rows = [each.passages if self.settings.pack else (each,) for each in passages]
        pairs = [[framed(passage, self.tokenizer) for passage in row] for row in rows]
        read = [[tokens for tokens, _ in row] for row in pairs]
        targets = [torch.cat([shift(*pair) for pair in row]) for row in pairs]
        if self.settings.pack:
            inputs = packed_inputs(read, self.end)
        else:
            whole = [tokens for (tokens,) in read]
            inputs = {"tokens": pad(whole, self.end), "mask": padding(whole)}
        return Batch(inputs, {"tokens": pad(targets, IGNORE)})

    def places(self, passage) -> Tensor:
        """As the targets, with the numbers of the tokens in place of the tokens."""
        rows = passage.passages if self.settings.pack else (passage,)
        return torch.cat([shift(*numbered(each)) for each in rows])

    def visibility(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Position t sees the real positions 0..t; with ``pack``, those of its own text."""
        mask = valid_positions(batch.inputs["mask"])  # (B, T)
        seen = sees_the_past(mask)
        if self.settings.pack:
            places = torch.arange(mask.shape[1], device=mask.device)
            starts = places - batch.inputs["positions"]  # (B, T): where the text of each begins
            seen = seen & (starts[:, :, None] <= places)
        return {"tokens": {"tokens": seen}}
