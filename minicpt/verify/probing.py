"""Finding out how a model that is not ours can be called: by calling it.

Which lengths it takes, how many rows, which ids, how many classes, and in which precision it works.

B batch, T positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minicpt.errors import InputError
from minicpt.randomness import generator
from minicpt.verify.guest import Guest
from minicpt.verify.loading import one_line
from minicpt.verify.tracing import Tracer

LENGTHS = (3, 17, 33)  # a chunk or a window of 16 ends inside the longer two
EVEN_LENGTHS = (16, 32)  # for models that read whole chunks only
ROWS = 3


@dataclass(frozen=True)
class Trial:
    """What was found out about a model, to try it with.

    samples    the token ids (B, T), one for each length
    allowed    the ids that tokens are changed to
    precision  in words
    notes      what the model would not do
    """

    samples: list[Tensor]
    allowed: Tensor
    dtype: torch.dtype
    precision: str
    notes: list[str]


def probe(guest: Guest, lengths: Sequence[int] | None, rows: int, seed: int) -> Trial:
    """Which lengths, ids and precision the model takes, by calling it."""
    guest.set_mode(False)
    notes, tries = [], [(lengths, rows)]
    if lengths is None:
        tries = [(LENGTHS, rows), (EVEN_LENGTHS, rows), (LENGTHS, 1), (EVEN_LENGTHS, 1)]
    for asked, rows in tries:
        usable, refused = [], {}
        for length in asked:
            try:
                tokens = torch.ones(rows, length, dtype=torch.int64, device=guest.device)
                with torch.no_grad(), Tracer({"tokens": tokens}) as tracer:
                    classes = guest.logits(tokens).shape[-1]
                usable.append(length)
            except InputError:
                raise
            except Exception as error:
                refused[length] = one_line(error)
        if usable:
            break
    if not usable or (lengths is not None and refused):
        length, why = next(iter(refused.items()))
        raise InputError(f"the model refuses {rows} rows of {length} token ids: {why}")
    if refused:
        notes.append(f"it refuses rows of {'/'.join(map(str, refused))} tokens")
        if max(usable) < min(refused):
            usable += longest_accepted(guest, rows, max(usable), min(refused))
    if rows == 1:
        notes.append("one row at a time: whether rows see each other was not checked")
    if classes < 2:
        raise InputError("the model knows a single token: there is nothing to predict")
    allowed = usable_ids(guest, min(classes, tracer.table or classes))
    samples = []
    for length in usable:
        draws = torch.randint(len(allowed), (rows, length), generator=generator(seed, length))
        samples.append(allowed[draws].to(guest.device))
    dtype, precision = choose_precision(guest, samples)
    return Trial(samples, allowed, dtype, precision, notes)


def longest_accepted(guest: Guest, rows: int, taken: int, refused: int) -> list[int]:
    """The longest length that is taken below one that is refused, by bisection; [] if known."""
    shortest = taken
    while refused - taken > 1:
        length = (taken + refused) // 2
        try:
            with torch.no_grad():
                guest.logits(torch.ones(rows, length, dtype=torch.int64, device=guest.device))
            taken = length
        except Exception:
            refused = length
    return [taken] if taken > shortest else []


def usable_ids(guest: Guest, vocabulary: int) -> Tensor:
    """All ids but 0 and the pad id, which some models take for "nothing stands here"."""
    pad = getattr(getattr(guest.model, "config", None), "pad_token_id", None)
    kept = torch.tensor([i for i in range(vocabulary) if i not in (0, pad)])
    return kept if len(kept) > 1 else torch.arange(vocabulary)


def choose_precision(guest: Guest, samples: Sequence[Tensor]) -> tuple[torch.dtype, str]:
    """float64 where the model works in it, else float32, else what it came in."""
    own = next((p.dtype for p in guest.parameters if p.is_floating_point()), torch.float32)
    double, single = torch.float64, torch.float32
    why = ""
    for weights, made in ((double, double), (double, single), (single, single), (own, single)):
        try:
            guest.set_precision(weights, made)
            with torch.no_grad():
                dtype = {guest.logits(tokens).dtype for tokens in samples}.pop()
        except Exception as error:
            why = why or f" (float64 fails: {one_line(error)})"
            continue
        name = str(weights).removeprefix("torch.")
        if not guest.modules:
            return dtype, f"{str(dtype).removeprefix('torch.')}, its own"
        if dtype != weights:
            return dtype, f"{name}, its logits in {str(dtype).removeprefix('torch.')}"
        return dtype, name + why
    raise InputError(f"the model does not run{why}")
