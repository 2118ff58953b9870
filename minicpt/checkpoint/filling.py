"""Weights from a file into a model, a piece at a time, so that they are never in memory twice.

``weights.read`` maps a file: its numbers are read from the disk when they are used. What was used
stays in memory until it is forgotten, and is read again if it is used again. So a piece of a tensor
is copied, in the model's number format, and forgotten at once. A model that gets all its weights in
this way needs no random ones before.
"""

import ctypes
import mmap
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from minicpt.common.disk import MEBIBYTE

PIECE = 8 * MEBIBYTE


@torch.no_grad()
def fill(target: Tensor, parts: Sequence[Tensor], mapped: bool = False) -> None:
    """Copies ``parts`` into the rows of ``target``, one below the other.

    mapped  whether the parts lie in mapped files: then what was copied is forgotten
    """
    if not target.dim():
        (part,) = parts
        target.copy_(part)
        return
    for rows, part in zip(target.split([len(each) for each in parts]), parts, strict=True):
        if part.dim() == 2 and part.stride(0) < part.stride(1):
            rows, part = rows.t(), part.t()  # in the order in which the file has it
        count = max(1, PIECE * len(part) // max(1, part.numel() * part.itemsize))
        for begin in range(0, len(part), count):
            piece = part[begin : begin + count]
            rows[begin : begin + count].copy_(piece)
            if mapped:
                forget(piece)


def forget(piece: Tensor) -> None:
    """Gives the memory of a contiguous piece of a mapped file back to the system (Linux).

    Only of a mapped file that was not written to: other memory would lose its content.
    """
    if sys.platform != "linux" or not piece.is_contiguous():
        return
    page = mmap.PAGESIZE
    begin = -(-piece.data_ptr() // page) * page  # whole pages of this piece alone
    end = (piece.data_ptr() + piece.numel() * piece.itemsize) // page * page
    if begin < end:
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)
