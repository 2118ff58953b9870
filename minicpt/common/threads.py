"""How many threads torch computes with, where what it computes is small."""

import contextlib
import os
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """For models so small that a second thread costs more than it brings. Who sets OMP_NUM_THREADS
    has as many as that says."""
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
