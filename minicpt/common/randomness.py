"""Random numbers as pure functions of a key.

The order of passages and every random choice of an objective are drawn from a generator made
for that one purpose from ``(what for, seed, epoch, place)``. So two runs agree, a run that was
interrupted goes on with the same draws, and a passage's noise does not depend on its neighbours.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator whose state is a pure function of the key.

    >>> first, again = generator("noise", 0, 1), generator("noise", 0, 1)
    >>> torch.equal(torch.rand(4, generator=first), torch.rand(4, generator=again))
    True
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    # manual_seed takes any 64-bit value; 63 bits keep it clear of the sign.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@contextlib.contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Within it, torch's own CPU generator is a pure function of the key; then it is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(*key).initial_seed())
        yield
