"""The kinds of rows on which a model that is not ours is tried.

Some leaks open only for certain rows: where the padding id stands, where a token comes twice, in
batches of four. Each kind gives two batches. Up to the first place where a row differs between the
two, its outputs must be the same.

B batch, T positions.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

SHARE = 4  # one in so many tokens becomes a special one where they are strewn


@dataclass(frozen=True)
class Kind:
    """One kind of rows: ``pair(draw)`` gives tokens (B, T) and the tokens that they become."""

    name: str
    rows: int
    pair: Callable[["Draw"], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Draw:
    """Random rows. ``ids`` (N,): the ordinary tokens; ``cut``: where what comes after begins."""

    ids: Tensor
    rows: int
    length: int
    random: Generator

    @property
    def cut(self) -> int:
        """1 to T-1; the first and the last of these as often as all others together."""
        which = self.number(4)
        return (1, self.length - 1)[which] if which < 2 else 1 + self.number(self.length - 1)

    def number(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.random))

    def ordinary(self) -> Tensor:
        size = (self.rows, self.length)
        return self.ids[torch.randint(len(self.ids), size, generator=self.random)]

    def unlike(self) -> Tensor:
        """Rows in which no token comes twice, as far as there are enough of them."""
        order = [torch.randperm(len(self.ids), generator=self.random) for _ in range(self.rows)]
        return self.ids[torch.stack(order)[:, torch.arange(self.length) % len(self.ids)]]

    def two(self) -> tuple[int, int]:
        first = self.number(len(self.ids))
        other = (first + 1 + self.number(len(self.ids) - 1)) % len(self.ids)
        return int(self.ids[first]), int(self.ids[other])

    def strewn(self, tokens: Tensor, id: int) -> Tensor:
        """The tokens with ``id`` among them, once in each row at least."""
        chosen = torch.randint(SHARE, tokens.shape, generator=self.random) == 0
        chosen[:, self.number(tokens.shape[1])] = True
        return tokens.masked_fill(chosen, id)


def kinds(rows: list[int], special: Mapping[int, str]) -> Iterator[Kind]:
    """Every kind once; those that are not about the number of rows take turns with it.

    special  id -> its name in messages
    """
    for count in rows:
        yield Kind("ordinary tokens", count, ordinary)
        if count > 1:
            yield Kind("another row", count, another_row)
            yield Kind("rows that are alike", count, alike)
    others = [
        ("a token that comes twice", twice),
        ("the same tokens again", again),
        ("two tokens alone", two_alone),
        ("equal tokens", equal),
        ("equal tokens and others after them", equal_then_others),
    ]
    for id, name in special.items():
        others += [
            (f"{name} once", lambda draw, id=id: once(draw, id)),
            (f"{name} among the others", lambda draw, id=id: among(draw, id)),
            (f"{name} to the end", lambda draw, id=id: to_the_end(draw, id)),
        ]
    for place, (name, pair) in enumerate(others):
        yield Kind(name, rows[place % len(rows)], pair)


def join(begin: Tensor, cut: int, end: Tensor) -> Tensor:
    return torch.cat([begin[:, :cut], end[:, cut:]], dim=1)


def ordinary(draw: Draw) -> tuple[Tensor, Tensor]:
    tokens = draw.ordinary()
    return tokens, join(tokens, draw.cut, draw.ordinary())


def another_row(draw: Draw) -> tuple[Tensor, Tensor]:
    tokens, other = draw.ordinary(), draw.ordinary()
    kept = torch.arange(draw.rows) != draw.number(draw.rows)
    return tokens, torch.where(kept[:, None], tokens, other)


def alike(draw: Draw) -> tuple[Tensor, Tensor]:
    tokens, other = another_row(draw)
    changed = (tokens != other).any(dim=1, keepdim=True)
    same = tokens[:1].expand_as(tokens).contiguous()
    return same, torch.where(changed, other, same)


def twice(draw: Draw) -> tuple[Tensor, Tensor]:
    tokens, cut = draw.unlike(), draw.cut
    here = cut if draw.number(2) else cut + draw.number(draw.length - cut)
    before = cut - 1 if here == cut else draw.number(cut)
    other = tokens.clone()
    other[:, here] = tokens[:, before]
    return tokens, other


def again(draw: Draw) -> tuple[Tensor, Tensor]:
    tokens, cut = draw.unlike(), draw.cut
    return tokens, tokens[:, torch.arange(draw.length) % cut]


def two_alone(draw: Draw) -> tuple[Tensor, Tensor]:
    one, other = draw.two()
    coins = torch.randint(2, (draw.rows, draw.length), generator=draw.random).bool()
    tokens = torch.where(coins, one, other)
    return tokens, join(tokens, draw.cut, one + other - tokens)


def equal(draw: Draw) -> tuple[Tensor, Tensor]:
    one, other = draw.two()
    tokens = torch.full((draw.rows, draw.length), one)
    return tokens, join(tokens, draw.cut, torch.full_like(tokens, other))


def equal_then_others(draw: Draw) -> tuple[Tensor, Tensor]:
    tokens = torch.full((draw.rows, draw.length), draw.two()[0])
    return tokens, join(tokens, draw.cut, draw.ordinary())


def once(draw: Draw, id: int) -> tuple[Tensor, Tensor]:
    tokens, cut = draw.ordinary(), draw.cut
    other = tokens.clone()
    other[:, cut + draw.number(draw.length - cut)] = id
    return tokens, other


def among(draw: Draw, id: int) -> tuple[Tensor, Tensor]:
    """Before the cut; and after it, in other places for one than for the other."""
    cut = draw.cut
    begin = draw.strewn(draw.ordinary()[:, :cut], id)
    ends = [draw.strewn(draw.ordinary()[:, cut:], id) for _ in range(2)]
    one, other = (torch.cat([begin, end], dim=1) for end in ends)
    return one, other


def to_the_end(draw: Draw, id: int) -> tuple[Tensor, Tensor]:
    tokens = draw.ordinary()
    return tokens, join(tokens, draw.cut, torch.full_like(tokens, id))
