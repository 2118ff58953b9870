"""What an objective offers beside its batches and losses: for evaluations, pictures and readers.

N targets of a passage.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Generator, Tensor, nn

from minicpt import generation
from minicpt.batch import Batch
from minicpt.data.order import Draw


class Abilities:
    """Defaults that fit most objectives.

    unit         what a passage of its plan is, for readers
    classes      head -> the names of its classes, for a head whose classes are no tokens
    never        head -> the classes that it never predicts: their logits are taken out
    asks         whether it asks heads of the model what the model itself has read. False: parts
                 alone answer, so that a base has no predictions to hold on to
    learnt       the parts that learnt beside the model that it is used with; None: not known
    extra        inputs that its batches hold only for models that take them, as some encoders take
                 segments
    looks_ahead  as a decoder, it lets some positions see what follows them. Other tools read every
                 decoder causally
    sampling     what its ``generate`` takes of ``Sampling`` beside length and temperature
    likelihood   what the losses of its first head say of the text that the targets stand for:
                 "exact"   they add up to -log of its probability, given what stands before it
                 "bound"   the weighted losses of ``likelihood_batch`` are, in the mean over many
                           draws, no less than that
                 "pseudo"  those losses add each token's -log probability, given all the others. It
                           is no likelihood: such probabilities do not belong to one distribution
                 ""        nothing that compares with another objective
    """

    unit: str = "window"
    extra: Sequence[str] = ()
    looks_ahead: bool = False
    sampling: Sequence[str] = ()
    classes: Mapping[str, Sequence[str]] = {}
    never: Mapping[str, Sequence[int]] = {}
    asks: bool = True
    learnt: nn.ModuleDict | None = None
    likelihood: Literal["exact", "bound", "pseudo", ""] = ""

    @property
    def needs_text(self) -> bool:
        """Whether ``generate`` has nothing to do without a text. A decoder may begin one."""
        return self.role != "decoder"

    @property
    def longest(self) -> int:
        """The most tokens of the text in one passage."""
        return self.length

    def with_parts(self, parts: nn.ModuleDict):
        """The same objective, which has these parts at hand when it reads or writes a text."""
        same = copy.copy(self)
        same.learnt = parts
        return same

    def head_of(self, name: str, model: nn.Module, parts: nn.ModuleDict) -> nn.Module:
        """What turns the hidden states of a head's targets into logits: see ``models.Model``.

        By default the model's head of that name, or the part of that name.
        """
        return model.heads[name] if name in model.heads else parts[name]

    def places(self, passage) -> Tensor:
        """With ``whole_text`` or a ``likelihood``: for each position of the targets of a passage
        alone, the number of the corpus' token that is predicted there. -1 where it is none of the
        text: end-of-text, or nothing. (T,) int64; of more numbers the last T count."""
        raise NotImplementedError(f"{type(self).__name__} predicts a text, and must write places")

    def likelihood_batch(self, passages: Sequence, draws: Sequence[Draw]) -> Batch:
        """The batch of some passages by which "bound" and "pseudo" are estimated."""
        raise NotImplementedError(f"{type(self).__name__} must write likelihood_batch")

    def fates(self, batch: Batch) -> dict[str, list[dict[int, str]]]:
        """What became of the tokens that a head predicts, where the model reads them too.

        head -> for each row {position: "hidden", "replaced" or "kept"}
        """
        return {}

    # --- what a trained model does with a text

    def generate(self, model: nn.Module, text: str, sampling, generator: Generator) -> str:
        """A decoder continues the text, an encoder fills its gaps, an encoder-decoder rewrites it.
        """
        return generation.BY_ROLE[self.role].generate(self, model, text, sampling, generator)

    def probe(self, model: nn.Module, passage, sampling, draw: Draw) -> str:
        """The same with held-out text, while the training goes on."""
        return generation.BY_ROLE[self.role].probe(self, model, passage, sampling, draw)
