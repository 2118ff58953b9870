"""Finding out what a model that is not ours takes, and how it rounds: by calling it.

First: which lengths it takes, how many rows, which ids, how many classes, and in which precision
it works. Then: whether an influence that was measured is a leak or rounding, for models whose
arithmetic we do not know.

In a sound model a hidden token often has exactly no influence. But a Fourier transform, or tokens
that are grouped by expert, let it move other numbers in their last digits. How many digits depends
on the model: some compute in float32 whatever their weights are. The rules:

1. An influence of more than a thousandth of the output is a leak.
2. A smaller one is tested. All parameters are moved by a thousandth of themselves, and it is
   measured again. The influence of a leak is a smooth function of the weights, and is nearly the
   same again. Rounding is not.
3. An influence below some dozens of roundings of float64 is rounding. In a Fourier transform the
   roundings are those of its own precision: its constants are rounded too, and their error comes
   back as a leak does.
4. Where no parameters can be reached, the tolerance is a few times the noise of the model: how far
   its logits move when the same tokens come in other company, or at the start of longer rows.

Two kinds of sound models may be refused, because their rounding comes back too: a Fourier transform
by matrices of one's own in float32, and a difference of large numbers, such as the total less what
comes later.

B batch, T positions, V vocabulary.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.proofs.black_box.calling import BlackBox
from minicpt.proofs.black_box.loading import one_line
from minicpt.proofs.tracing import Tracer

LENGTHS = (3, 17, 33)  # a chunk or a window of 16 ends inside the longer two
EVEN_LENGTHS = (16, 32)  # for models that read whole chunks only
PAIRED = 3  # rows of a batch of which every pair of positions is looked at
ROWS = (1, 2, 3, 4, 5)
FIRST = 17  # tokens in the rows of which all kinds are tried first
MOST = 128  # tokens in a row of which every pair is looked at
CEILING = 1e-3  # relative; no rounding is as large
LARGEST = 1e-5  # relative; the largest tolerance taken from noise, lest it swallow a leak
ALIKE, TRIES = 0.8, 3  # cosine between two measurements, and of how many tries most decide
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


def probe(box: BlackBox, lengths: Sequence[int] | None, rows: int, seed: int) -> Trial:
    """Which lengths, ids and precision the model takes, by calling it."""
    box.set_mode(False)
    notes, tries = [], [(lengths, rows)]
    if lengths is None:
        tries = [(LENGTHS, rows), (EVEN_LENGTHS, rows), (LENGTHS, 1), (EVEN_LENGTHS, 1)]
    for asked, rows in tries:
        usable, refused = [], {}
        for length in asked:
            try:
                tokens = torch.ones(rows, length, dtype=torch.int64, device=box.device)
                with torch.no_grad(), Tracer({"tokens": tokens}) as tracer:
                    classes = box.logits(tokens).shape[-1]
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
            longest = longest_taken(box, rows, max(usable), min(refused))
            usable += [longest] if longest > max(usable) else []
    if rows == 1:
        notes.append("one row at a time: whether rows see each other was not checked")
    if classes < 2:
        raise InputError("the model knows a single token: there is nothing to predict")
    vocabulary = min(classes, tracer.table or classes)
    special = special_ids(box, vocabulary)
    pads = {id for id, name in special.items() if "pad" in name}
    allowed = without(vocabulary, {0, *pads})
    samples = []
    for length in (each for each in usable if each <= MOST):
        draws = torch.randint(len(allowed), (rows, length), generator=generator(seed, length))
        samples.append(allowed[draws].to(box.device))
    short = samples or [torch.full((rows, min(usable)), int(allowed[0]), device=box.device)]
    dtype, precision = choose_precision(box, short)
    asked = list(lengths) if lengths is not None else None
    ordinary = without(vocabulary, special)
    known = min((len(s[0]) for s in short), key=lambda length: abs(length - FIRST))
    return Trial(samples, asked, known, allowed, ordinary, special, dtype, precision, notes)


def longest_taken(box: BlackBox, rows: int, taken: int, refused: int) -> int:
    """The longest length that is taken below one that is refused, by bisection."""
    while refused - taken > 1:
        length = (taken + refused) // 2
        taken, refused = (taken, length) if box.refusal(rows, length) else (length, refused)
    return taken


def special_ids(box: BlackBox, vocabulary: int) -> dict[int, str]:
    """The ids that a model may treat in its own way, each with a name.

    0, 1, 2 and the last one; all that it, its modules or their configurations call ``…token_id`` or
    ``pad_id`` and the like; the ``padding_idx`` of its embeddings.
    """
    found = {id: f"id {id}" for id in (*USUAL, vocabulary - 1)}
    parts = [part for module in box.modules for part in module.modules()]
    for part in [box.model, *parts]:
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


def choose_precision(box: BlackBox, samples: Sequence[Tensor]) -> tuple[torch.dtype, str]:
    """float64 where the model works in it, else float32, else what it came in."""
    own = next((p.dtype for p in box.parameters if p.is_floating_point()), torch.float32)
    double, single = torch.float64, torch.float32
    why = ""
    for weights, made in ((double, double), (double, single), (single, single), (own, single)):
        try:
            box.set_precision(weights, made)
            with torch.no_grad():
                dtype = {box.logits(tokens).dtype for tokens in samples}.pop()
        except Exception as error:
            why = why or f" (float64 fails: {one_line(error)})"
            continue
        name = str(weights).removeprefix("torch.")
        if not box.modules:
            return dtype, f"{str(dtype).removeprefix('torch.')}, its own"
        if dtype != weights:
            return dtype, f"{name}, its logits in {str(dtype).removeprefix('torch.')}"
        return dtype, name + why
    raise InputError(f"the model does not run{why}")


# --- a leak, or rounding -------------------------------------------------------------------------


@torch.no_grad()
def noise(box: BlackBox, samples: Sequence[Tensor]) -> float:
    """How far the same tokens' logits move, relative to the largest, with what should not matter.

    samples  (B, T) int64 each, of different lengths T. Each is run alone, in the other order, with
             copies of itself, and cut to the lengths of the shorter ones.
    """
    worst = 0.0
    for tokens in samples:
        whole = box.logits(tokens)
        scale = torch.where(whole.isfinite(), whole, 0.0).abs().max().clamp(min=1e-300)
        others = [(whole.flip(0), tokens.flip(0)), (whole[:1], tokens[:1])]
        others.append((whole[:1].expand(len(tokens), -1, -1), tokens[:1].expand_as(tokens)))
        shorter = {each.shape[1] for each in samples if each.shape[1] < tokens.shape[1]}
        others += [(whole[:, :length], tokens[:, :length]) for length in sorted(shorter)]
        for expected, changed in others:
            try:
                found = box.logits(changed.contiguous())
            except Exception:  # a company that the model refuses shows no noise
                continue
            moved = torch.where(found == expected, 0.0, (found - expected).abs()).max()
            worst = max(worst, float((moved / scale).nan_to_num(0.0)))
    return worst


def tolerance(noise: float, dtype: torch.dtype) -> float:
    """The largest relative influence that passes for rounding where it cannot be put to the test.

    >>> tolerance(4e-7, torch.float64), tolerance(0.5, torch.float64)
    (1.6e-06, 1e-05)
    """
    return min(max(4 * noise, 64 * torch.finfo(dtype).eps), LARGEST)


def least(box: BlackBox) -> float:
    """The smallest relative influence that is looked at, for the model that was just run."""
    least_of_all = 64 * torch.finfo(torch.float64).eps  # a transform by matrices of one's own
    return max(16 * box.coarsest, least_of_all) if box.fourier else least_of_all


def returns(box: BlackBox, first: Tensor, again: Callable[[], Tensor]) -> bool:
    """Whether a measured influence comes back when the parameters are moved a little.

    first, again()  the influence as a vector, before and after
    """
    votes = 0
    for key in range(TRIES):
        with box.jittered(key):
            second = again()
        one, other = (each / each.abs().max().clamp(min=1e-300) for each in (first, second))
        votes += float(F.cosine_similarity(one, other, dim=0)) > ALIKE
    return votes > TRIES // 2


def can_test(box: BlackBox) -> bool:
    return any(each.is_floating_point() and bool(each.any()) for each in box.parameters)


def is_leak(
    box: BlackBox, size: float, limit: float, first: Callable[[], Tensor]
) -> bool:
    """Tells a leak from rounding.

    size   of the influence, relative to the output
    limit  up to which it is rounding where that cannot be put to the test
    first  measures the influence as a vector, as often as it is called
    """
    if not size <= CEILING:
        return True
    if size < least(box):
        return False
    if not can_test(box):
        return size > limit
    return returns(box, first(), first)
