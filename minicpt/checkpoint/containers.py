"""What a weights file claims to hold, found out before anything large is allocated for it.

    zip          torch's format: stored members, and a pickle that may name a few globals only
    old          torch's format before 1.6: a row of pickles with the numbers behind them
    safetensors  a JSON header of names, shapes and places, and the numbers behind it

A file that claims more than it holds is refused here; whether its shapes are those of a config is
for ``pretrained`` to say. No pickle is run: its instructions are listed. torch then reads the file
with ``weights_only=True``, which runs no code either.
"""

import json
import math
import os
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from minicpt.common.disk import MEBIBYTE

OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number with which the old format begins
MOST_MEMBERS = 1 << 16
MOST_PICKLE = 16 * MEBIBYTE
MOST_INSTRUCTIONS = 1 << 20  # of a pickle; about 30 describe a tensor
MOST_HEADER = 4 * MEBIBYTE
KINDS = "Double Float Half BFloat16 Long Int Short Char Byte Bool".split()
GLOBALS = {f"torch {kind}Storage" for kind in KINDS} | {
    "collections OrderedDict",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
}
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def check_torch(path: Path) -> bool:
    """Raises ValueError unless the file is one of torch's that holds what it claims.

    True for the zip format: it can be read without its numbers, onto torch's meta device.
    """
    with open(path, "rb") as file:
        begin = file.read(len(OLD))
        file.seek(0)
        if begin == OLD:
            # Number, version, system, content, storages: torch checks the sizes of the last.
            for _ in range(5):
                _check_pickle(file, MOST_INSTRUCTIONS)
            return False
        if not begin.startswith(b"PK\3\4"):
            raise ValueError("it is not a file of torch.save")
        listed = _check_directory(file)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_members(members, listed, os.path.getsize(path))
        for each in members:
            if each.filename.endswith(".pkl"):
                with archive.open(each) as file:
                    _check_pickle(file, min(MOST_INSTRUCTIONS, 10_000 + 100 * listed))
    return True


def _check_directory(file: BinaryIO) -> int:
    """How many members a zip says it lists, before they are listed: each costs memory."""
    end = file.seek(-22, os.SEEK_END)
    signature, *_, members, size, _, comment = struct.unpack("<4s4H2LH", file.read())
    if signature != b"PK\5\6" or comment:
        raise ValueError("it is cut off, or not a file of torch.save")
    file.seek(max(0, end - 20))
    if file.read(4) == b"PK\6\7":
        place = struct.unpack("<4xQ4x", file.read(16))[0]
        file.seek(place)
        members, size = struct.unpack("<32x2Q8x", file.read(56))
    if members > MOST_MEMBERS or size > MOST_PICKLE:
        raise ValueError(f"it lists {members:,} members in {size:,} bytes")
    return members


def _check_members(members: list[zipfile.ZipInfo], listed: int, size: int) -> None:
    """torch.save stores its members as they are; anything else could grow when it is read."""
    names = [each.filename for each in members]
    if len(names) != listed:
        raise ValueError(f"it says that it lists {listed:,} members, and lists {len(names):,}")
    if len(set(names)) < len(names):
        raise ValueError("two of its members have one name")
    for each in members:
        if each.compress_type != zipfile.ZIP_STORED or each.file_size != each.compress_size:
            raise ValueError(f"{each.filename[:60]!r} in it is compressed; torch.save stores")
        if each.filename.endswith(".pkl") and each.file_size > MOST_PICKLE:
            raise ValueError(f"{each.filename[:60]!r} in it has {each.file_size:,} bytes")
    if sum(each.file_size for each in members) > size:
        raise ValueError("its members claim more bytes than the file has")


def _check_pickle(file: BinaryIO, most: int) -> None:
    """Lists a pickle's instructions, without running them, for what no tensor needs."""
    for number, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if number > most:
            raise ValueError(f"its pickle has more than {most:,} instructions")
        if instruction.name == "GLOBAL" and argument not in GLOBALS:
            raise ValueError(f"it asks for {argument[:60]!r}, which no weights need")
        if instruction.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
            raise ValueError(f"its pickle has an instruction {instruction.name}")


def safetensors_header(path: Path) -> dict[str, Tensor]:
    """Name -> an empty tensor of that shape, on the meta device.

    Raises ValueError unless the numbers of all tensors fill the rest of the file, without gaps
    and without overlaps.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_HEADER, size - 8):
            raise ValueError(f"its header claims {length:,} bytes")
        header = json.loads(file.read(length), object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    header.pop("__metadata__", None)
    described, parts = {}, []
    for name, entry in header.items():
        try:
            dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
            begin, end = entry["data_offsets"]
            if not all(type(number) is int and number >= 0 for number in [*shape, begin, end]):
                raise ValueError
            if math.prod(shape) * dtype.itemsize != end - begin:
                raise ValueError
            described[name] = torch.empty(shape, dtype=dtype, device="meta")
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError):
            raise ValueError(f"its header describes {name[:60]!r} wrongly") from None
        parts.append((begin, end))
    place = 0
    for begin, end in sorted(parts):
        if begin != place:
            raise ValueError("its tensors overlap, or leave gaps")
        place = end
    if place != size - 8 - length:
        raise ValueError("its tensors do not fill it: it is cut off, or has too much")
    return described


def _once(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header names something twice")
    return found
