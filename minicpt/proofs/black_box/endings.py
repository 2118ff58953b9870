"""Rows that begin with the same tokens give the same outputs there: tried on many kinds of rows.

Every pair of positions is looked at in a few short rows alone. Here rows of many lengths are tried,
batches of several sizes, the ids that models treat specially, and tokens that come more than once
(``kinds``), for a number of seconds. One length is first tried with all kinds. Then the length that
has had the least time is always next. So short rows are tried with all kinds, and long rows with as
many as there is time for.

B batch, T positions, V vocabulary.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minicpt.common.randomness import generator
from minicpt.proofs.black_box.calling import BlackBox
from minicpt.proofs.black_box.kinds import Draw, Kind, kinds
from minicpt.proofs.black_box.probing import is_leak, longest_taken
from minicpt.proofs.leaks import Leak

SECONDS = 30.0  # for all modes together
MOST = 2049  # tokens in a row, where the model has no limit below it
ROUNDS = 2  # how often each kind is tried at each length, with other tokens
CUTS = 64  # in rows longer than those of which every pair was looked at: places of the first change
LOGITS = 1 << 26  # that a batch may have: 512 MiB in float64
ALONE = 64  # changed places that are tried alone, to name the one that leaks


@dataclass
class Tried:
    """What was tried. ``untried``: what was not, in words, with the reason."""

    lengths: list[int] = field(default_factory=list)
    rows: set[int] = field(default_factory=set)
    batches: int = 0
    strongest: float = 0.0
    leak: Leak | None = None
    length: int = 0  # of the rows in which it was found
    where: str = ""
    untried: list[str] = field(default_factory=list)


def about_powers() -> list[int]:
    """The lengths to each side of the powers of two: 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, ..."""
    powers = [2**k for k in range(1, MOST.bit_length()) if 2**k < MOST]
    return sorted({power + step for power in powers for step in (-1, 0, 1)} - {1})


@dataclass
class Rows:
    """The trials of one length, and the seconds that all of them, and the last, took.

    left  the trials to come; None: not begun
    """

    length: int
    left: Iterator[tuple[int, Kind]] | None = None
    spent: float = 0.0
    once: float = 0.0


def try_endings(
    box: BlackBox,
    lengths: Sequence[int] | None,
    rows: Sequence[int],
    ids: Tensor,
    special: dict[int, str],
    limit: float,
    seconds: float,
    first: int,
    paired: int,
    key: str,
) -> Tried:
    """Tries all kinds of rows until one leaks, or the seconds are over.

    lengths  None: about the powers of two, as far as the model goes
    ids      (N,) ordinary tokens
    limit    the relative size up to which an influence is rounding, where that cannot be tested
    first    a length that the model takes: the one that is first tried with all kinds
    paired   rows up to this length need few cuts: their every pair was looked at
    """
    tried, begun = Tried(), time.perf_counter()
    rows = usable_rows(box, rows, first, tried)
    if not rows:
        return tried
    classes = int(ids.max()) + 1
    wanted = {first, *(lengths or about_powers())}
    waiting = [Rows(length) for length in sorted(wanted) if length > 1]
    refused: list[int] = []
    late: list[int] = []
    while waiting and tried.leak is None:
        spent = time.perf_counter() - begun
        if spent > seconds:
            break
        each = next(
            (each for each in waiting if each.length == first and spent < seconds / 2),
            min(waiting, key=lambda each: (each.spent, each.length)),
        )
        if each.left is None:
            longest = max((other for other in tried.lengths), default=0)
            last = next((other.once for other in waiting if other.length == longest), 0.0)
            if longest and last * (each.length / longest) ** 2 > (seconds - spent) / 2:
                late += [other.length for other in waiting if other.left is None]
                waiting = [other for other in waiting if other.left is not None]
                continue
            if why := box.refusal(rows[0], each.length):
                refused.append(each.length)
                waiting.remove(each)
                if lengths is None and longest and gone(refused, each.length, longest):
                    above = min(length for length in refused if length > longest)
                    most = longest_taken(box, rows[0], longest, above)
                    above = most + 1
                    waiting = [other for other in waiting if other.length < above]
                    waiting += [Rows(most)] if most > longest else []
                    tried.untried.append(f"rows of {above} tokens and more ({why})")
                continue
            fitting = [count for count in rows if count * each.length * classes <= LOGITS]
            each.left = trials(fitting or rows[:1], special, each.length, paired)
            tried.lengths.append(each.length)
        try:
            number, kind = next(each.left)
        except StopIteration:
            waiting.remove(each)
            continue
        start = time.perf_counter()
        draws = generator("endings", key, each.length, number)
        pair = kind.pair(Draw(ids, kind.rows, each.length, draws))
        one(box, *(tokens.to(box.device) for tokens in pair), kind, limit, tried)
        each.once = time.perf_counter() - start
        each.spent += each.once
    tried.lengths.sort()
    if tried.leak is None:
        if late := late + [each.length for each in waiting if each.left is None]:
            tried.untried.append(f"rows of {shortened(late)} tokens, for lack of time")
        short = [each.length for each in waiting if each.left is not None]
        if short:
            tried.untried.append(
                f"some kinds of rows of {shortened(short)} tokens, for lack of time"
            )
        if refused and (inside := [n for n in refused if n < max(tried.lengths, default=0)]):
            tried.untried.append(f"rows of {shortened(inside)} tokens, which the model refuses")
    return tried


def trials(
    rows: Sequence[int], special: dict[int, str], length: int, paired: int
) -> Iterator[tuple[int, Kind]]:
    """All kinds, several times, and in long rows more places at which what comes after begins."""
    every = list(kinds(list(rows), special))
    several = every * ROUNDS + (every[:1] * min(CUTS, length - 1) if length > paired else [])
    return iter(list(enumerate(several)))


def usable_rows(box: BlackBox, rows: Sequence[int], length: int, tried: Tried) -> list[int]:
    """The numbers of rows that the model takes."""
    why = {count: box.refusal(count, length) for count in rows}
    if refused := [count for count in rows if why[count]]:
        tried.untried.append(f"batches of {shortened(refused)} rows, which the model refuses")
    return [count for count in rows if not why[count]]


def gone(refused: Sequence[int], length: int, longest: int) -> bool:
    """Whether a power of two and both its neighbours, all longer than the ``longest`` that was
    taken, are refused: the model's limit lies below."""
    return length - 2 > longest and {length - 2, length - 1, length} <= set(refused)


def shortened(numbers: Sequence[int]) -> str:
    """
    >>> shortened([3]), shortened([5, 3, 4]), shortened([1, 2, 3, 4, 5])
    ('3', '3, 4, 5', '1 to 5')
    """
    numbers = sorted(numbers)
    return ", ".join(map(str, numbers)) if len(numbers) < 5 else f"{numbers[0]} to {numbers[-1]}"


# --- one trial -------------------------------------------------------------------------------


def one(
    box: BlackBox, tokens: Tensor, other: Tensor, kind: Kind, limit: float, tried: Tried
) -> None:
    """Runs both batches; what must be the same and is not goes into ``tried``."""
    tried.rows.add(kind.rows)
    tried.batches += 1
    size, row, position = strongest(box, tokens, other)
    tried.strongest = max(tried.strongest, size)
    if is_leak(box, size, limit, lambda: differences(box, tokens, other)[row].flatten()):
        place = alone(box, tokens, other, row, position, size)
        tried.leak, tried.length = Leak(row, position, "tokens", *place, size), tokens.shape[1]
        tried.where = f"in rows of {tokens.shape[1]}, {kind.rows} at a time; tried: {kind.name}"


@torch.no_grad()
def differences(box: BlackBox, tokens: Tensor, other: Tensor) -> list[Tensor]:
    """For each row what its outputs before the first change moved by, in units of their size.

    A list of (positions, V); NaN that stays NaN did not move.
    """
    before, after = box.logits(tokens), box.logits(other)
    changed = (tokens != other).cpu()
    length = tokens.shape[1]
    result = []
    for row in range(len(tokens)):
        first = int(changed[row].int().argmax()) if bool(changed[row].any()) else length
        one, two = (each[row, :first].double().cpu() for each in (before, after))
        same = (one == two) | (one.isnan() & two.isnan())
        unit = torch.where(one.isfinite(), one, 0.0).abs().amax(-1, keepdim=True)
        moved = torch.where(same, 0.0, two - one) / torch.where(unit > 0, unit, 1.0)
        result.append(moved.nan_to_num(torch.inf))
    return result


def strongest(box: BlackBox, tokens: Tensor, other: Tensor) -> tuple[float, int, int]:
    """The largest relative difference, its row and its position."""
    best = (0.0, 0, 0)
    for row, moved in enumerate(differences(box, tokens, other)):
        if moved.numel():
            size, position = moved.abs().amax(-1).max(0)
            best = max(best, (float(size), row, int(position)))
    return best


def alone(
    box: BlackBox, tokens: Tensor, other: Tensor, row: int, position: int, size: float
) -> tuple[int, int | None]:
    """The row and the position of a change that moves the output by itself; None: none does."""
    for place in (tokens != other).nonzero()[:ALONE].tolist():
        single = tokens.clone()
        single[tuple(place)] = other[tuple(place)]
        moved = differences(box, tokens, single)[row]
        if position < len(moved) and not float(moved[position].abs().max()) < size / 100:
            return place[0], place[1]
    return row, None
