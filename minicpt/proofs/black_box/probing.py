"""Finding out how a model that is not ours can be called: by calling it.

Which lengths it takes, how many rows, which ids, how many classes, and in which precision it works.

B batch, T positions, V vocabulary.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.proofs.black_box.calling import Guest
from minicpt.proofs.black_box.loading import one_line
from minicpt.proofs.black_box.tracing import Tracer

LENGTHS = (3, 17, 33)  # a chunk or a window of 16 ends inside the longer two
EVEN_LENGTHS = (16, 32)  # for models that read whole chunks only
PAIRED = 3  # rows of a batch of which every pair of positions is looked at
ROWS = (1, 2, 3, 4, 5)
FIRST = 17  # tokens in the rows of which all kinds are tried first
MOST = 128  # tokens in a row of which every pair is looked at
NAMES = ("pad", "bos", "eos", "sep", "cls", "mask", "unk")  # what models have ids for
USUAL = (0, 1, 2)  # and where these stand where nobody says so


@dataclass(frozen=True)
class Trial:
    """What was found out about a model, to try it with.

    samples    the token ids (B, T), one for each length of which every pair is looked at
    lengths    that were asked for; None: to be found out
    known      a length that the model takes, of about FIRST tokens where it can be chosen
    allowed    the ids that tokens are changed to, where every pair is looked at
    ordinary   those that no model treats specially
    special    the ids that models treat specially, and their names in messages
    precision  in words
    notes      what the model would not do
    """

    samples: list[Tensor]
    lengths: list[int] | None
    known: int
    allowed: Tensor
    ordinary: Tensor
    special: dict[int, str]
    dtype: torch.dtype
    precision: str
    notes: list[str]

    def draw(self, length: int) -> Tensor:
        """One row more of ordinary tokens, (1, length)."""
        draws = torch.randint(len(self.ordinary), (1, length), generator=generator("row", length))
        return self.ordinary[draws]


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
    vocabulary = min(classes, tracer.table or classes)
    special = special_ids(guest, vocabulary)
    pads = {id for id, name in special.items() if "pad" in name}
    allowed = without(vocabulary, {0, *pads})
    samples = []
    for length in (each for each in usable if each <= MOST):
        draws = torch.randint(len(allowed), (rows, length), generator=generator(seed, length))
        samples.append(allowed[draws].to(guest.device))
    short = samples or [torch.full((rows, min(usable)), int(allowed[0]), device=guest.device)]
    dtype, precision = choose_precision(guest, short)
    asked = list(lengths) if lengths is not None else None
    ordinary = without(vocabulary, special)
    known = min((len(s[0]) for s in short), key=lambda length: abs(length - FIRST))
    return Trial(samples, asked, known, allowed, ordinary, special, dtype, precision, notes)


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


def special_ids(guest: Guest, vocabulary: int) -> dict[int, str]:
    """The ids that a model may treat in its own way, each with a name.

    0, 1, 2 and the last one; all that it, its modules or their configurations call ``…token_id`` or
    ``pad_id`` and the like; the ``padding_idx`` of its embeddings.
    """
    found = {id: f"id {id}" for id in (*USUAL, vocabulary - 1)}
    parts = [part for module in guest.modules for part in module.modules()]
    for part in [guest.model, *parts]:
        configs = [getattr(part, name, None) for name in ("config", "generation_config")]
        for holder in [part, *configs]:
            values = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
            for name, value in values.items():
                if names_an_id(str(name)):
                    for id in value if isinstance(value, list | tuple) else [value]:
                        if type(id) is int and 0 <= id < vocabulary:
                            found[id] = f"id {id} ({name})"
    return {id: name for id, name in found.items() if 0 <= id < vocabulary}


def names_an_id(name: str) -> bool:
    """
    >>> [names_an_id(name) for name in ("pad_token_id", "eos_id", "mask", "padding_idx", "width")]
    [True, True, True, True, False]
    """
    whole = {"padding_idx", *NAMES, *(f"{each}_{end}" for each in NAMES for end in ("id", "token"))}
    return name in whole or name.endswith(("token_id", "token_index", "token_ids"))


def without(vocabulary: int, ids: Container[int]) -> Tensor:
    """All ids but these: some models take the pad id, or 0, for "nothing stands here"."""
    kept = torch.tensor([i for i in range(vocabulary) if i not in ids])
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
