"""What an objective does with one passage: what is read, seen and predicted, and each loss.

``as_data`` gathers it: the batch of the one passage, the objective's own declaration of what each
target may see, and each target's loss from one forward pass. ``text`` draws it.

Where that declaration says that a target sees exactly the positions up to its own, the data also
shows why one pass is enough: the model is run on the first prefixes alone, and the losses of those
runs stand above those of the single pass. Nothing here knows an objective by its name.

T positions of the targets' stream.
"""

import copy
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch, seen_by, target_stream, valid_positions
from minicpt.common.evaluating import evaluating
from minicpt.data.order import Draw
from minicpt.loss import TargetLosses
from minicpt.objectives.base import Objective
from minicpt.pictures import characters
from minicpt.pictures.likeliest import likeliest
from minicpt.proofs.bounds import additions, nats, tolerance

TRIANGLE = 12  # prefixes that are run alone
Losses = Callable[[nn.Module, nn.ModuleDict, Batch], Mapping[str, TargetLosses]]
Visibility = Mapping[str, Mapping[str, Tensor]]


@torch.no_grad()
def as_data(
    model: nn.Module,
    objective: Objective,
    passage,
    draw: Draw,
    *,
    parts: nn.ModuleDict | None = None,
    triangle: int = TRIANGLE,
    number: tuple[int, int] | None = None,
    company: Sequence[tuple[object, Draw]] = (),
    losses: Losses | None = None,
    best: int = 0,
) -> dict:
    """What the objective does with a passage, as plain data, ready for JSON.

    passage   an element of the objective's plan, and ``draw`` what belongs to it
    parts     those that learn beside the model; None: untrained ones
    triangle  how many prefixes are run alone, at the most
    number    which passage it is, from 1, and of how many
    company   other passages with their draws, which stand before it in the batch: where one of
              them is longer, the passage is padded
    losses    (model, parts, batch) -> each target's loss by head; None: the objective's own
    best      how many of the likeliest classes are named at each target

    The model is left as it was.

    ``streams``: the positions that are read; ``padding`` where one is no text. ``visibility``: head
    -> stream -> for each of the T positions a string of one character for each position of the
    stream, "1" where it may be seen.
    ``heads``: each head's targets with their losses in nats, and ``uniform``, the loss of a guess
    that holds all classes alike. A target has its ``token``, or the ``name`` of its class if that
    has one; its ``weight`` where the batch weights that head; its ``fate`` ("hidden", "replaced" or
    "kept") where the objective changes what it predicts: what is read instead stands ``ahead``
    positions behind its own, 0 in an encoder and 1 elsewhere; and ``reads``, the token that the
    model reads there for this head, where that is not what the batch holds (after a first pass).
    With ``best`` it has its ``probability``, and the ``likeliest`` classes with theirs.
    ``triangle``: see ``prefix_runs``; None where targets may see something else than what stands up
    to them.
    """
    parts = objective.parts(model) if parts is None else parts
    both = [*company, (passage, draw)]
    batch = objective.batch([each for each, _ in both], [each for _, each in both])
    visibility = objective.visibility(batch)
    device = next(model.parameters()).device
    with evaluating(model), evaluating(parts):
        found = (losses or objective.losses)(model, parts, batch.to(device))
    fates = {head: rows[-1] for head, rows in objective.fates(batch).items()}
    if company:
        batch, visibility, found = last_row(batch, visibility, found)
    ahead = 0 if objective.role == "encoder" else 1
    read, predicted = labels(objective.tokenizer, batch, ahead)
    predicted |= later(objective.tokenizer, objective, batch)
    streams = {"tokens": objective.role}
    if "decoder_tokens" in batch.inputs:
        streams = {"tokens": "encoder", "decoder_tokens": "decoder"}
    causal = [
        head for head in found if batch.counts()[head] and is_causal(batch, visibility[head])
    ]
    likely = {
        head: likeliest(objective, head, each, objective.head_of(head, model, parts), best)
        for head, each in (found.items() if best else ())
    }
    runs = None
    if causal and triangle > 0:
        sees = visibility[causal[0]]
        runs = prefix_runs(model, parts, objective, batch, causal[0], sees, triangle)
    return {
        "summary": summary(objective),
        "unit": objective.unit,
        "number": number and number[0],
        "of": number and number[1],
        "place": passage.place,
        "document": passage.document,
        "start": passage.start,
        "streams": {
            name: {"reader": reader, "positions": positions(batch, name, read[name])}
            for name, reader in streams.items()
        },
        "target_stream": target_stream(batch),
        "ahead": ahead,
        "visibility": {
            head: {
                stream: ["".join("01"[seen] for seen in row) for row in may[0].tolist()]
                for stream, may in sees.items()
            }
            for head, sees in visibility.items()
        },
        "heads": {
            head: totals(each, classes_of(head, objective, model, parts))
            | {
                "head_weight": objective.head_weights.get(head, 1.0),
                "targets": targets(
                    each,
                    predicted.get(head),
                    objective.classes.get(head),
                    fates.get(head),
                    reads_instead(objective.tokenizer, batch, each),
                    likely.get(head),
                    weighted=head in batch.weights,
                ),
            }
            for head, each in found.items()
        },
        "triangle": runs,
    }


def last_row(batch: Batch, visibility: Visibility, found: Mapping[str, TargetLosses]) -> tuple:
    """The last row alone of a batch, of what its targets may see, and of their losses."""
    parts = (batch.inputs, batch.targets, batch.weights, batch.noise)
    row = Batch(*({name: each[-1:] for name, each in part.items()} for part in parts), batch.terms)
    sees = {
        head: {stream: each[-1:] for stream, each in streams.items()}
        for head, streams in visibility.items()
    }
    names = ("losses", "targets", "rows", "positions", "weights", "hidden")
    own = {}
    for head, each in found.items():
        kept = each.rows == len(batch.targets[head]) - 1
        own[head] = replace(
            each,
            **{name: getattr(each, name)[kept] for name in names},
            count=row.counts()[head],
            inputs={name: value[-1:] for name, value in each.inputs.items()},
        )
    return row, sees, own


def summary(objective: Objective) -> str:
    """The first line of the objective's file."""
    kind = type(objective)
    return (sys.modules[kind.__module__].__doc__ or kind.__name__).strip().splitlines()[0]


def labels(
    tokenizer, batch: Batch, ahead: int
) -> tuple[dict[str, list[str]], dict[str, dict[int, str]]]:
    """stream -> how each token that is read is shown; head -> the same of its targets, by position.

    A part of a character is shown by the character, which only the tokens beside it tell. So each
    row is put together as the text has it, with each target where it stands: ``ahead`` positions
    behind the one that predicts it. What is read there instead is shown by itself.
    """
    rows = {
        stream: batch.inputs[stream][0].tolist()
        for stream in ("tokens", "decoder_tokens")
        if stream in batch.inputs
    }
    read = {stream: characters.tokens(tokenizer, row) for stream, row in rows.items()}
    predicted = {}
    if "tokens" in batch.targets:
        own = target_stream(batch)
        row, target = rows[own], batch.targets["tokens"][0].tolist()
        chosen = {place: index for place, index in enumerate(target) if index != IGNORE}
        whole = dict(enumerate(row)) | {place + ahead: each for place, each in chosen.items()}
        text = characters.tokens(tokenizer, list(whole.values()))
        predicted["tokens"] = {place: text[place + ahead] for place in chosen}
        read[own] = [
            text[at] if whole[at] == id else tokenizer.token(id) for at, id in enumerate(row)
        ]
    return read, predicted


def later(tokenizer, objective: Objective, batch: Batch) -> dict[str, dict[int, str]]:
    """The targets of the other heads that predict tokens, as ``labels`` gives those of the first.
    """
    found = {}
    for head, target in batch.targets.items():
        if head != "tokens" and head not in objective.classes:
            places = (target[0] != IGNORE).nonzero()[:, 0]
            shown = characters.tokens(tokenizer, target[0, places].tolist())
            found[head] = dict(zip(places.tolist(), shown, strict=True))
    return found


def reads_instead(tokenizer, batch: Batch, each: TargetLosses) -> dict[int, str]:
    """The tokens that the model reads for a head in place of those of the batch, by position."""
    own = target_stream(batch)
    if own not in each.inputs:
        return {}
    now, then = each.inputs[own][0].tolist(), batch.inputs[own][0].tolist()
    return {at: tokenizer.token(id) for at, id in enumerate(now) if id != then[at]}


def classes_of(head: str, objective: Objective, model: nn.Module, parts: nn.ModuleDict) -> int:
    """The number of classes that a head may predict."""
    return len(objective.head_of(head, model, parts).weight) - len(objective.never.get(head, ()))


def totals(each: TargetLosses, classes: int) -> dict:
    """One head's losses together."""
    total = each.total()
    return {
        "classes": classes,
        "uniform": math.log(classes),
        "sum": float(total.sum),
        "count": total.count,
        "mean": float(total.mean),
    }


def targets(
    each: TargetLosses,
    tokens: Mapping[int, str] | None,
    names: Sequence[str] | None,
    fates: Mapping[int, str] | None,
    reads: Mapping[int, str],
    likely: Sequence[dict] | None = None,
    weighted: bool = False,
) -> list[dict]:
    """One head's targets, and by position what they are called, what became of them, and what is
    read there instead."""
    rows = zip(
        each.positions.tolist(),
        each.targets.tolist(),
        each.losses.tolist(),
        each.weights.tolist(),
        strict=True,
    )
    return [
        {"position": position, "class": chosen, "loss": loss}
        | ({"weight": weight} if weighted else {})
        | ({"token": tokens[position]} if tokens else {})
        | ({"name": names[chosen]} if names else {})
        | ({"fate": fates[position]} if fates else {})
        | ({"reads": reads[position]} if position in reads else {})
        | (likely[place] if likely else {})
        for place, (position, chosen, loss, weight) in enumerate(rows)
    ]


def positions(batch: Batch, stream: str, read: Sequence[str]) -> list[dict]:
    """What is read at each position of a stream, its segment where there are any, and whether it
    is padding."""
    ids = batch.inputs[stream][0].tolist()
    real = valid_positions(batch.inputs[stream.replace("tokens", "mask")])[0].tolist()
    found = [
        {"id": id, "token": token} | ({} if valid else {"padding": True})
        for id, token, valid in zip(ids, read, real, strict=True)
    ]
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
    model: nn.Module,
    parts: nn.ModuleDict,
    objective: Objective,
    batch: Batch,
    head: str,
    sees: Mapping[str, Tensor],
    count: int,
) -> dict:
    """The losses of the model run on prefixes alone, beside those of the one pass over all.

    In float64, on a copy of the model, so that what is left between the two is rounding alone.

    ``positions``: those of the first ``count`` targets. ``alone[i][j]``, j <= i: the loss of target
    j when nothing is read but the prefix that ends with target i. ``together[j]``: the same from
    the one pass. ``differences[j]``: the largest between the two. ``tolerance``: what rounding
    may make of them. All in nats.
    """
    model, parts = copy.deepcopy((model, parts))  # together: a part may hold a layer of the model
    both = nn.ModuleList([model, parts]).to("cpu", torch.float64).eval()
    asked = batch.targets[head]  # (1, T)
    whole = objective.losses(model, parts, replace(batch, targets={head: asked}))[head]
    places, together = whole.positions.tolist()[:count], whole.losses.tolist()[:count]
    alone = []
    for place in places:
        prefix = seen_by(batch, head, 0, place, sees)
        prefix = replace(prefix, targets={head: asked[:, : place + 1]})
        alone.append(objective.losses(model, parts, prefix)[head].losses.tolist())
    differences = [
        max(abs(row[place] - whole) for row in alone[place:])
        for place, whole in enumerate(together)
    ]
    return {
        "head": head,
        "positions": places,
        "tolerance": tolerance(additions(both, batch)) * nats(torch.tensor(together)),
        "alone": alone,
        "together": together,
        "differences": differences,
    }
