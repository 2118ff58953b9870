"""What an objective does with one passage: what is read, seen and predicted, and each loss.

``as_data`` gathers it: the batch of the one passage, the objective's own declaration of what each
target may see, and each target's loss from one forward pass. ``explain_text`` draws it.

Where that declaration says that a target sees exactly the positions up to its own, the report also
shows why one pass is enough: the model is run on the first prefixes alone, and the losses of those
runs stand above those of the single pass. Nothing here knows an objective by its name.

T positions of the targets' stream.
"""

import copy
import math
import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch
from minicpt.generation import evaluating
from minicpt.loss import TargetLosses, only, target_losses, target_stream
from minicpt.report.explain_text import as_text
from minicpt.verify.bounds import additions, nats, tolerance

TRIANGLE = 12  # prefixes that are run alone


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
    triangle   how many prefixes are run alone, at the most

    ``streams``: the positions that are read. ``visibility``: head -> stream -> for each of the T
    positions a string of one character for each position of the stream, "1" where it may be seen.
    ``heads``: each head's targets with their losses in nats, and ``uniform``, the loss of a guess
    that holds all classes alike. ``triangle``: see ``prefix_runs``; None where targets may see
    something else than what stands up to them.
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
    causal = [
        head for head in found if batch.counts()[head] and is_causal(batch, visibility[head])
    ]
    runs = None
    if causal and triangle > 0:
        runs = prefix_runs(model, batch, causal[0], visibility[causal[0]], triangle)
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
        "triangle": runs,
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


def prefix_runs(
    model: nn.Module, batch: Batch, head: str, sees: Mapping[str, Tensor], count: int
) -> dict:
    """The losses of the model run on prefixes alone, beside those of the one pass over all.

    In float64, on a copy of the model, so that what is left between the two is rounding alone.

    ``positions``: those of the first ``count`` targets. ``alone[i][j]``, j <= i: the loss of target
    j when nothing is read but the prefix that ends with target i. ``together[j]``: the same from
    the one pass. ``differences[j]``: the largest between the two. ``tolerance``: what rounding
    may make of them. All in nats.
    """
    model = copy.deepcopy(model).to("cpu", torch.float64).eval()
    target = batch.targets[head]  # (1, T)

    def losses(inputs: dict[str, Tensor], kept: Tensor) -> list[float]:
        return target_losses(model, Batch(inputs, {head: kept}))[head].losses.tolist()[:count]

    places = (target[0] != IGNORE).nonzero()[:count, 0].tolist()
    together = losses(batch.inputs, target)
    alone = []
    for place in places:
        seen = {stream: may[0, place] for stream, may in sees.items()}
        alone.append(losses(only(batch.inputs, 0, seen), target[:, seen[target_stream(batch)]]))
    differences = [
        max(abs(row[place] - whole) for row in alone[place:])
        for place, whole in enumerate(together)
    ]
    return {
        "head": head,
        "positions": places,
        "tolerance": tolerance(additions(model, batch)) * nats(torch.tensor(together)),
        "alone": alone,
        "together": together,
        "differences": differences,
    }
