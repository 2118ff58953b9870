"""What a model holds likely at each target: the target's probability, and the classes above it.

N targets of a head, D width, V classes of the head.
"""

from torch import nn

from minicpt.loss import TargetLosses
from minicpt.objectives.base import Objective
from minicpt.possible import without


def likeliest(
    objective: Objective, head: str, each: TargetLosses, module: nn.Module, count: int
) -> list[dict]:
    """For each of the N targets its ``probability``, and the ``likeliest`` classes with theirs.

    module  the head, from hidden states to logits: ``objective.head_of``
    count   classes that are named, at most
    """
    logits = without(module, objective.never.get(head, ()))(each.hidden)  # (N, V)
    probabilities = logits.double().softmax(dim=-1)
    own = probabilities.gather(1, each.targets[:, None])[:, 0]  # (N,)
    values, classes = probabilities.topk(min(count, probabilities.shape[1]))
    names = objective.classes.get(head)
    return [
        {
            "probability": mine,
            "likeliest": [
                {"token": names[best] if names else objective.tokenizer.token(best),
                 "probability": value}
                for best, value in zip(row, found, strict=True)
            ],
        }
        for mine, row, found in zip(
            own.tolist(), classes.tolist(), values.tolist(), strict=True
        )
    ]  # fmt: skip


def percent(share: float) -> str:
    """
    >>> percent(0.5), percent(0.00042), percent(3e-7)
    ('50.0%', '0.04%', '3e-05%')
    """
    value = 100 * share
    return (f"{value:.1f}" if value >= 0.1 else f"{value:.1g}") + "%"
