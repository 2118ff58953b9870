"""The base class of an objective: what the model reads, and which positions have a target.

A new objective is one new file in this folder: a class that derives from ``Objective``. It says
``roles`` and writes ``batch``. All the rest has a default. A minimal one, which copies its text:

    class Copy(Objective):
        roles = ("encoder",)
        Settings = Settings                      # a frozen dataclass with the field ``window``

        def batch(self, passages, draws):
            rows = [passage.tokens for passage in passages]
            return Batch({"tokens": pad(rows, self.pad), "mask": padding(rows)},
                         {"tokens": pad(rows, IGNORE)})

The contract, which tests/test_contract.py holds every objective to:

* A passage's order and draws are a pure function of (seed, epoch, place in the plan).
* Each passage becomes a row of its own, and no row depends on its neighbours.
* Nothing that is handed over is changed in place: no corpus, no passage, no tensor.
* Padding is told by the mask, never by a token's id, and has no target.
* ``visibility`` says for each target what it may see, and is written without the model's masks.

B batch, T positions of the targets' stream, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from minicpt.batch import Batch, sees_everything, sees_the_past, target_stream, valid_positions
from minicpt.common.settings import Checked
from minicpt.data.corpus import Corpus
from minicpt.data.order import Draw, Plan, windows
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import TargetLosses, target_losses
from minicpt.objectives.abilities import Abilities


class Objective(Abilities, ABC):
    """What a model reads and must predict.

    roles         the roles of models that it can train; the first is the default
    heads         the heads of the model that it needs
    whole_text    the targets of its first head are all of the text: bits per byte mean something
    Settings      a frozen dataclass; each field made by ``setting`` becomes a flag. ``window`` is
                  the most positions that the model reads at once
    head_weights  what each head's mean counts in the sum that is minimised; 1 where not named
    reserved      special tokens that it needs. A tokenizer that is trained here keeps ids for them

    What is read, drawn or written of a trained model stands in ``Abilities``.
    """

    roles: ClassVar[tuple[str, ...]]
    heads: ClassVar[tuple[str, ...]] = ("tokens",)
    whole_text: ClassVar[bool] = False
    head_weights: Mapping[str, float] = {}
    reserved: ClassVar[tuple[str, ...]] = ()
    Settings: ClassVar[type[Checked]]

    def __init__(
        self, tokenizer: Tokenizer, settings: Checked | None = None, role: str | None = None
    ):
        self.tokenizer = tokenizer
        self.settings = settings or self.Settings()
        self.role = role or self.roles[0]

    @property
    def length(self) -> int:
        """The most positions that the model reads at once."""
        return self.settings.window

    @abstractmethod
    def batch(self, passages: Sequence, draws: Sequence[Draw]) -> Batch:
        """The batch of some passages of the plan, with one draw for each."""

    def plan(self, corpus: Corpus, seed: int, epoch: int) -> Plan:
        """The epoch's passages in their order. By default windows of the documents."""
        return Plan(windows(corpus, self.length, seed, epoch), corpus.passage).grouped(seed, epoch)

    def visibility(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """head -> input stream -> (B, T, length of the stream) bool: what each target may see.

        By default a decoder's target sees what stands up to its own position, an encoder's sees the
        whole text, and an encoder-decoder's sees the whole text and the written part up to itself.
        """
        own = valid_positions(batch.inputs[target_stream(batch).replace("tokens", "mask")])
        if self.role == "encoder":
            seen = {"tokens": sees_everything(own, own.shape[1])}
        elif self.role == "decoder":
            seen = {"tokens": sees_the_past(own)}
        else:
            read = sees_everything(batch.inputs["mask"], own.shape[1])
            seen = {"tokens": read, "decoder_tokens": sees_the_past(own)}
        return {head: seen for head in batch.targets}

    def parts(self, model: nn.Module) -> nn.ModuleDict:
        """Modules that learn beside the model and are saved with it. By default none."""
        return nn.ModuleDict()

    def losses(
        self, model: nn.Module, parts: nn.ModuleDict, batch: Batch, fused: bool = True
    ) -> dict[str, TargetLosses]:
        """The losses of a batch by head. By default those of one forward pass of the model."""
        return target_losses(model, batch, fused, self.never)
