"""What an objective offers beside its batches and losses: for evaluations, pictures and readers.

N targets of a passage.
"""

import copy
from collections.abc import Mapping, Sequence

from torch import Generator, Tensor, nn

from minicpt import generation
from minicpt.batch import Batch
from minicpt.data.order import Draw


class Abilities:
    """Defaults that fit most objectives.

    unit     what a passage of its plan is, for readers
    classes  head -> the names of its classes, for a head whose classes are no tokens
    asks     whether it asks heads of the model what the model itself has read. False: parts alone
             answer, so that a base has no predictions to hold on to
    learnt   the parts that learnt beside the model that it is used with; None: not known
    """

    unit: str = "window"
    classes: Mapping[str, Sequence[str]] = {}
    asks: bool = True
    learnt: nn.ModuleDict | None = None

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
