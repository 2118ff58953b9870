"""What an objective offers beside its batches and losses: for evaluations, pictures and readers.

N targets of a passage.
"""

from collections.abc import Mapping, Sequence

from torch import Generator, Tensor, nn

from minicpt import generation
from minicpt.batch import Batch
from minicpt.data.order import Draw


class Abilities:
    """Defaults that fit most objectives.

    unit         what a passage of its plan is, for readers
    classes      head -> the names of its classes, for a head whose classes are no tokens
    looks_ahead  as a decoder, it lets some positions see what follows them. Other tools read every
                 decoder causally
    sampling     what its ``generate`` takes of ``Sampling`` beside length and temperature
    """

    unit: str = "window"
    looks_ahead: bool = False
    sampling: Sequence[str] = ()
    classes: Mapping[str, Sequence[str]] = {}

    @property
    def longest(self) -> int:
        """The most tokens of the text in one passage."""
        return self.length

    def places(self, passage) -> Tensor:
        """With ``whole_text``: the number of the corpus' token that each target of a passage stands
        for, in the order of the positions; -1 for end-of-text. (N,) int64."""
        raise NotImplementedError(f"{type(self).__name__} has whole_text, and must write places")

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
