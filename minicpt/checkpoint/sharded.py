"""Checkpoints whose weights are spread over processes (FSDP2), each of which writes what it holds.

    shards.json         what lies where: each tensor's type and shape, and of its rows, in order,
                        file, first byte and number
    shard-00000.bin, …  the numbers alone, little-endian; one file of each process that wrote some
    state.json          what resuming needs; a tensor stands in it by its name in shards.json

They stand in a checkpoint's folder in place of pytorch_model.bin and state.pt, and the names of the
weights are our own. torch.distributed.checkpoint (DCP) plans who writes and reads what. Any number
of processes reads them, sharded or not; a single one needs no DCP. There is no pickle anywhere, and
the files are mapped: a number is read from the disk where it goes to its place.
"""

import copy
import math
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minicpt.checkpoint import huggingface
from minicpt.checkpoint.containers import DTYPES
from minicpt.checkpoint.draft import Undrawn, without_memory
from minicpt.checkpoint.pieces import Pieces, is_sharded, put
from minicpt.common.disk import (
    MEBIBYTE,
    fresh,
    hidden,
    put_in_place,
    read_json,
    refusals,
    remove,
    write_json,
)
from minicpt.common.errors import InputError, WorkError
from minicpt.common.merging import Beside, merged_weights
from minicpt.training.distributed import current

INDEX, STATE, SHARD = "shards.json", "state.json", "shard-{:05d}.bin"
NAME_OF_SHARD = re.compile(r"shard-\d{5,}\.bin")
MOST_INDEX = 64 * MEBIBYTE


# --- writing: every process of the run calls it ------------------------------------------------


def save(folder: Path, model: nn.Module, state: dict, finish: Callable[[Path], None]) -> None:
    """Writes a checkpoint at ``folder``, in place of one that is there.

    finish  writes the other files into the temporary folder, last the manifest; by the first
            process, when all have written their numbers

    Raises WorkError in every process when the disk refuses one; then what was there is whole.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[tuple, str] = {}

    def keep(tensor: Tensor, name: str) -> str:
        """The name under which a tensor is written: one for all that are the same."""
        name = names.setdefault(place_of(tensor), name)
        tensors[name] = tensor
        return name

    for name, each in merged_weights(model, merged_in_shards):
        keep(each.detach(), f"model.{name}")
    skeleton = taken_apart(state, "state", keep)
    temporary = hidden(folder, "tmp")

    def complete() -> None:
        write_json(temporary / STATE, skeleton)
        finish(temporary)
        put_in_place(temporary, folder)

    try:
        agreed(folder, lambda: fresh(temporary), alone=True)
        agreed(folder, lambda: write(temporary, tensors))
        agreed(folder, complete, alone=True)
    finally:
        if current().is_first:
            remove(temporary)


def agreed(folder: Path, action: Callable[[], None], alone: bool = False) -> None:
    """Does something in every process, or in the first alone; where one fails, all raise."""
    world, error = current(), None
    if not alone or world.is_first:
        try:
            with refusals(folder):
                action()
        except Exception as found:
            error = found
    told = world.gathered(error and (str(error) or type(error).__name__))
    if error:
        raise error
    if problems := [each for each in told if each]:
        raise WorkError(problems[0])


def write(folder: Path, tensors: dict[str, Tensor]) -> None:
    """The numbers of all processes, and the index of them. Raises what one of them met."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    from minicpt.checkpoint.storage import Writer

    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one process alone is no group
            checkpoint.save(tensors, storage_writer=Writer(folder, INDEX, SHARD), planner=planner)
    except CheckpointException as error:  # no Exception, and it tells every process of all
        number, (reason, _) = next(iter(error.failures.items()))
        if not isinstance(reason, OSError):
            raise reason from None
        raise OSError(reason.errno, f"{reason.strerror or reason} (process {number})") from None


def merged_in_shards(module: Beside) -> Tensor:
    """``merged``, of which each process keeps its own rows: the whole is there for a moment."""
    if not is_sharded(module):
        return module.merged()
    from torch.distributed.tensor import distribute_tensor

    whole = copy.copy(module)
    whole._parameters = {
        name: each.full_tensor() if is_sharded(each) else each
        for name, each in module.named_parameters(recurse=False)
    }
    weight = module.weight
    return distribute_tensor(whole.merged().detach(), weight.device_mesh, weight.placements)


def taken_apart(value: Any, name: str, keep: Callable[[Tensor, str], str]) -> Any:
    """A value as JSON: in the place of a tensor stands the name under which ``keep`` puts it.

    What JSON does not have, tensors, tuples and keys that are no texts, is an object with a key "".

    >>> taken_apart({"a": (1, torch.ones(2))}, "x", lambda tensor, name: name)
    {'a': {'': 'tuple', 'of': [1, {'': 'tensor', 'of': 'x.a.1'}]}}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return {"": "tensor", "of": keep(value, name)}
    if isinstance(value, Mapping):
        found = [(key, taken_apart(each, f"{name}.{key}", keep)) for key, each in value.items()]
        if all(isinstance(key, str) and key for key in value):
            return dict(found)
        return {"": "dict", "of": found}
    if isinstance(value, list | tuple):
        found = [taken_apart(each, f"{name}.{i}", keep) for i, each in enumerate(value)]
        return found if isinstance(value, list) else {"": "tuple", "of": found}
    raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold")


def place_of(tensor: Tensor) -> tuple:
    """Where a tensor's own numbers lie: the same for two that are one."""
    own = tensor.to_local() if is_sharded(tensor) else tensor
    layout = own.storage_offset(), own.stride(), tensor.shape, tensor.dtype
    return own.untyped_storage()._cdata, *layout


# --- reading: any process, alone or not --------------------------------------------------------


def read_model(folder: Path, config: dict[str, Any], **changes) -> nn.Module:
    """The model of a config.json with the weights of a folder, whole.

    Raises InputError, and allocates nothing before, unless the names and shapes are the config's.
    """
    kind, ours = huggingface.read_config(config, **changes)
    found = listed(folder)
    found = {name[6:]: each for name, each in found.items() if name.startswith("model.")}
    huggingface.check_layers(ours, len(found))
    wanted = {name: each.shape for name, each in without_memory(kind, ours).named_parameters()}
    huggingface.refuse("missing", wanted.keys() - found.keys())
    huggingface.refuse("left over", found.keys() - wanted.keys())
    misshapen = [
        f"{name} {tuple(found[name].shape)} of {found[name].dtype} instead of {tuple(shape)}"
        for name, shape in wanted.items()
        if found[name].shape != shape or not found[name].dtype.is_floating_point
    ]
    huggingface.refuse("misshapen", misshapen)
    with torch.random.fork_rng(devices=[]), Undrawn():
        model = kind(ours)
    put(dict(model.named_parameters()), found)
    return model


def read_state(folder: Path) -> dict:
    """What was saved as the state. The optimizer's tensors are ``Pieces``, the others whole."""
    found, content = listed(folder), read_json(folder / STATE, MOST_INDEX)
    joined: dict[str, Tensor] = {}

    def whole(name: str) -> Tensor:
        if name not in joined:
            joined[name] = found[name].joined()
        return joined[name]

    try:
        return {
            key: put_together(value, found.__getitem__ if key == "optimizer" else whole)
            for key, value in content.items()
        }
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:100]
        raise InputError(f"{folder / STATE} is not what minicpt writes ({reason})") from None


def put_together(value: Any, tensor: Callable[[str], Any]) -> Any:
    """The other side of ``taken_apart``; ``tensor`` gives what belongs to a name.

    >>> put_together({"a": {"": "tuple", "of": [1, {"": "tensor", "of": "x.a.1"}]}}, str.upper)
    {'a': (1, 'X.A.1')}
    """
    if isinstance(value, list):
        return [put_together(each, tensor) for each in value]
    if not isinstance(value, dict):
        return value
    kind, of = value.get(""), value.get("of")
    if kind is None:
        return {key: put_together(each, tensor) for key, each in value.items()}
    if kind == "tensor":
        return tensor(of)
    if kind == "tuple":
        return tuple(put_together(each, tensor) for each in of)
    if kind == "dict":
        return {key: put_together(each, tensor) for key, each in of}
    raise ValueError(f"no {kind!r} is known")


def listed(folder: Path) -> dict[str, Pieces]:
    """The tensors of a folder by name: shapes, and numbers that stay in their files until used.

    Raises InputError unless the rows of the tensors fill the files, each byte once.
    """
    sizes = {
        path.name: path.stat().st_size
        for path in folder.iterdir()
        if NAME_OF_SHARD.fullmatch(path.name) and path.is_file()
    }
    spans: dict[str, list[tuple[int, int]]] = {name: [] for name in sizes}
    tensors = read_json(folder / INDEX, MOST_INDEX).get("tensors")
    try:
        entries = {name: entry_of(entry, sizes, spans) for name, entry in tensors.items()}
        for file, taken in spans.items():
            place = 0
            for begin, end in sorted(taken):
                if begin != place:
                    raise ValueError(f"tensors overlap in {file}, or leave gaps")
                place = end
            if place != sizes[file]:
                raise ValueError(f"the tensors do not fill {file}")
        mapped = {
            file: torch.from_file(str(folder / file), shared=False, size=size, dtype=torch.uint8)
            for file, size in sizes.items()
        }
        return {name: pieces(*entry, mapped) for name, entry in entries.items()}
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{folder / INDEX} does not describe the files beside it ({reason}); use another"
            " checkpoint"
        ) from None


def entry_of(
    entry: Any, sizes: Mapping[str, int], spans: Mapping[str, list]
) -> tuple[list[int], torch.dtype, list[tuple[str, int, int]]]:
    """Shape, type and chunks (file, first byte, last byte + 1) of a tensor, which join ``spans``.

    Raises ValueError, LookupError or TypeError for what is not in the files.
    """
    shape, kind, chunks = entry["shape"], DTYPES[entry["dtype"]], []
    if not all(type(size) is int and size > 0 for size in shape) or len(shape) > 8:
        raise ValueError(f"a shape {str(shape)[:40]}")
    row = math.prod(shape[1:]) * kind.itemsize
    left = shape[0] if shape else 1
    for file, begin, rows in entry["chunks"]:
        if not (type(begin) is type(rows) is int and begin >= 0 < rows <= left):
            raise ValueError(f"a chunk of {str(rows)[:20]} rows at byte {str(begin)[:20]}")
        if begin + rows * row > sizes[file]:
            raise ValueError(f"a chunk outside {file}")
        left -= rows
        chunks.append((file, begin, begin + rows * row))
        spans[file].append(chunks[-1][1:])
    if left:
        raise ValueError(f"{left} rows of a tensor are nowhere")
    return shape, kind, chunks


def pieces(
    shape: list[int], kind: torch.dtype, chunks: list, mapped: Mapping[str, Tensor]
) -> Pieces:
    rows = [-1, *shape[1:]] if shape else []
    parts = [mapped[file][begin:end].view(kind).view(rows) for file, begin, end in chunks]
    return Pieces(torch.Size(shape), kind, parts)
