"""What an objective offers beside its batches and losses: for evaluations, pictures and readers.

N targets of a passage.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Generator, Tensor, nn

from minicpt import generation
from minicpt.batch import Batch
from minicpt.data.order import Draw


class Abilities:
    """Defaults that fit most objectives.

    unit        what a passage of its plan is, for readers
    classes     head -> the names of its classes, for a head whose classes are no tokens
    never       head -> the classes that it never predicts: their logits are taken out
    sampling    what its ``generate`` takes of ``Sampling`` beside length and temperature
    likelihood  what the losses of its first head say of the text that the targets stand for:
                "exact"   they add up to -log of its probability, given what stands before it
                "bound"   the weighted losses of ``likelihood_batch`` are, in the mean over many
                          draws, no less than that
                "pseudo"  those losses add each token's -log probability, given all the others. This
                          is no likelihood: such probabilities do not belong to one distribution
                ""        nothing that compares with another objective
    """

    unit: str = "window"
    classes: Mapping[str, Sequence[str]] = {}
    never: Mapping[str, Sequence[int]] = {}
    sampling: Sequence[str] = ()
    likelihood: Literal["exact", "bound", "pseudo", ""] = ""

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
