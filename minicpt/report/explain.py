"""What an objective does with one passage: what is read, seen and predicted, and each loss.

``as_data`` gathers it: the batch of the one passage, the objective's own declaration of what each
target may see, and each target's loss from one forward pass. ``explain_text`` draws it.

Where that declaration says that a target sees exactly the positions up to its own, the report also
shows why one pass is enough: the model is run on every prefix alone, and the losses of all those
runs stand above those of the single pass. Nothing here knows an objective by its name.

T positions of the targets' stream.
"""

import copy
import math
import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from minicpt.batch import Batch
from minicpt.generation import evaluating
from minicpt.loss import TargetLosses, only, target_losses, target_stream
from minicpt.report.explain_text import as_text

TRIANGLE = 12  # the most positions for which every prefix is run


def explain(
    model: nn.Module,
    objective,
    passage,
    generator: torch.Generator,
    width: int,
    *,
    triangle: int = TRIANGLE,
    ascii: bool = False,
    color: bool = False,
) -> str:
    """The report on one passage of the objective's plan, as text: see ``as_data``, ``as_text``."""
    data = as_data(model, objective, passage, generator, triangle=triangle)
    return as_text(data, width, ascii=ascii, color=color)


@torch.no_grad()
def as_data(
    model: nn.Module,
    objective,
    passage,
    generator: torch.Generator,
    *,
    triangle: int = TRIANGLE,
) -> dict:
    """The report as plain data, ready for JSON. The model is left as it was.

    passage    an element of the objective's plan
    generator  draws the passage's noise
    triangle   the most positions for which every prefix is run

    ``streams``: the positions that are read. ``visibility``: head -> stream -> for each of the T
    positions a string of one character for each position of the stream, "1" where it may be seen.
    ``heads``: each head's targets with their losses in nats, and ``uniform``, the loss of a guess
    that holds all classes alike. ``triangle``: see ``prefix_runs``;
    None where a target sees less or more than what stands up to it, or the passage is longer.
    """
    batch = objective.batch([passage], [generator])
    visibility = objective.visibility(batch)
    device = next(model.parameters()).device
    with evaluating(model):
        found = target_losses(model, batch.to(device))
    token = objective.tokenizer.token
    module = sys.modules[type(objective).__module__]
    streams = {"tokens": objective.architecture}
    if "decoder_tokens" in batch.inputs:
        streams = {"tokens": "encoder", "decoder_tokens": "decoder"}
    causal = [name for name in found if found[name].total().count]
    causal = [name for name in causal if is_causal(batch, visibility[name])]
    runs = causal and batch.targets[causal[0]].shape[1] <= triangle
    return {
        "summary": (module.__doc__ or type(objective).__name__).strip().splitlines()[0],
        "place": passage.place,
        "streams": {
            name: {"reader": reader, "positions": positions(batch, name, token)}
            for name, reader in streams.items()
        },
        "target_stream": target_stream(batch),
        "visibility": {
            head: {
                stream: ["".join("01"[seen] for seen in row) for row in may[0].tolist()]
                for stream, may in sees.items()
            }
            for head, sees in visibility.items()
        },
        "heads": {
            head: head_data(
                each, len(model.heads[head].weight), token if head == "tokens" else None
            )
            for head, each in found.items()
        },
        "causal": bool(causal),
        "triangle": prefix_runs(model, batch, causal[0], visibility[causal[0]]) if runs else None,
    }


def head_data(each: TargetLosses, classes: int, token) -> dict:
    """One head's targets and losses; ``token`` names a class where the classes are tokens."""
    total = each.total()
    rows = zip(each.positions.tolist(), each.targets.tolist(), each.losses.tolist(), strict=True)
    return {
        "classes": classes,
        "uniform": math.log(classes),
        "sum": float(total.sum),
        "count": total.count,
        "mean": float(total.mean),
        "targets": [
            {"position": position, "class": chosen, "loss": loss}
            | ({"token": token(chosen)} if token else {})
            for position, chosen, loss in rows
        ],
    }


def positions(batch: Batch, stream: str, token) -> list[dict]:
    """What is read at each position of a stream, and its segment where there are any."""
    found = [{"id": index, "token": token(index)} for index in batch.inputs[stream][0].tolist()]
    if stream == "tokens" and "segments" in batch.inputs:
        for each, segment in zip(found, batch.inputs["segments"][0].tolist(), strict=True):
            each["segment"] = segment
    return found


def is_causal(batch: Batch, sees: Mapping[str, Tensor]) -> bool:
    """Whether each position of the one row sees 0..itself, and all of every other stream."""
    rows = {stream: may[0] for stream, may in sees.items()}
    own = rows.pop(target_stream(batch))
    square = own.shape[0] == own.shape[1]
    return square and torch.equal(own, torch.ones_like(own).tril()) and all(
        bool(may.all()) for may in rows.values()
    )


def prefix_runs(model: nn.Module, batch: Batch, head: str, sees: Mapping[str, Tensor]) -> dict:
    """The losses of the model run on each prefix alone, beside those of the one pass over all.

    In float64, on a copy of the model, so that what is left between the two is rounding alone.

    ``alone[t][u]``, u <= t: the loss at position u when only positions 0..t are read.
    ``together[u]``: the same from the one pass. None where a position has no target.
    ``differences[u]``: the largest between column u of ``alone`` and ``together[u]``.
    """
    model = copy.deepcopy(model).to("cpu", torch.float64).eval()
    target = batch.targets[head]  # (1, T)

    def losses(inputs: dict[str, Tensor], kept: Tensor) -> list[float | None]:
        each = target_losses(model, Batch(inputs, {head: kept}))[head]
        places = dict(zip(each.positions.tolist(), each.losses.tolist(), strict=True))
        return [places.get(place) for place in range(kept.shape[1])]

    together = losses(batch.inputs, target)
    alone = []
    for position in range(target.shape[1]):
        seen = {stream: may[0, position] for stream, may in sees.items()}
        kept = target[:, seen[target_stream(batch)]]
        alone.append(losses(only(batch.inputs, 0, seen), kept))
    differences = [
        None if whole is None else max(abs(row[place] - whole) for row in alone[place:])
        for place, whole in enumerate(together)
    ]
    return {"head": head, "alone": alone, "together": together, "differences": differences}
