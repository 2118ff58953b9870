"""The probe: a linear classifier on frozen features, the same for every objective.

Losses of different objectives have different units. What their models know can be compared all the
same: a passage's hidden states, averaged over its positions, are its features, and a logistic
regression tells from them which part of the corpus the passage comes from. The encoder and the
decoder give their hidden states, the encoder-decoder those of its encoder. Every model reads the
same passages, undamaged, and its weights stay as they are.

The classifier learns from passages of documents that training may have seen and is tested on those
of held-out documents, so that no document is on both sides. Leaves out fine-tuning.

P passages, D width, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.batch import pad, padding
from minicpt.common.evaluating import evaluating
from minicpt.data.corpus import Passage
from minicpt.data.tokenizer import Tokenizer

PENALTY = 1e-2  # on half the squared weights, features standardised
ITERATIONS = 200
# What stands before and after a text that a model of this role reads.
AROUND = {"encoder": ("cls", "sep"), "decoder": ("end", None), "encoder-decoder": (None, None)}


@dataclass(frozen=True)
class Labelled:
    """Passages with the number of the part that each comes from, and the unit it is counted in.

    parts  the names of the C parts
    """

    passages: Sequence[Passage]
    labels: Tensor  # (P,) int64
    units: Sequence[str]
    parts: Sequence[str]


@torch.no_grad()
def features(
    model: nn.Module, tokenizer: Tokenizer, passages: Sequence[Passage], batch_size: int = 32
) -> Tensor:
    """The hidden states of each passage averaged over its own tokens: (P, D) float32.

    What models of this role read around a text is read, but not averaged.
    """
    before, after = (
        torch.tensor([tokenizer.need(role)] if role else [], dtype=torch.int64)
        for role in AROUND[model.ROLE]
    )
    device = next(model.parameters()).device
    rows = []
    with evaluating(model):
        for begin in range(0, len(passages), batch_size):
            texts = [
                torch.cat([before, each.tokens, after])
                for each in passages[begin : begin + batch_size]
            ]
            mask = padding(texts)  # (B, T)
            inputs = pad(texts, 0).to(device), mask.to(device)
            read = model.encode if hasattr(model, "encode") else model
            hidden = read(*inputs).float().cpu()  # (B, T, D)
            inner = mask.clone()
            inner[:, : len(before)] = False
            if len(after):
                inner[torch.arange(len(texts)), mask.sum(1) - 1] = False
            rows.append((hidden * inner[..., None]).sum(1) / inner.sum(1, keepdim=True))
    return torch.cat(rows)


def classify(training: Tensor, labels: Tensor, tested: Tensor, classes: int) -> Tensor:
    """The class of each tested row (P', D), after logistic regression on (P, D) with (P,).

    Features are standardised by the training rows; full-batch L-BFGS on a convex loss from zero, so
    there is nothing random in it.
    """
    mean, deviation = training.mean(0), training.std(0, correction=0)
    scale = deviation.clamp(min=1e-6 * float(deviation.max()) + 1e-30)
    training, tested = ((each - mean) / scale for each in (training.double(), tested.double()))
    weight = torch.zeros(classes, training.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(training, weight, bias), labels)
        loss = loss + PENALTY / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return F.linear(tested, weight, bias).argmax(1).detach()


def probe(
    model: nn.Module, tokenizer: Tokenizer, training: Labelled, tested: Labelled
) -> list[bool]:
    """Whether each tested passage is put into its own part."""
    given, asked = (features(model, tokenizer, each.passages) for each in (training, tested))
    found = classify(given, training.labels, asked, len(training.parts))
    return (found == tested.labels).tolist()
