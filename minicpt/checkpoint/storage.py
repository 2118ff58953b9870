"""Where torch.distributed.checkpoint (DCP) writes and reads, for ``sharded``.

DCP plans: which process writes which rows of which tensor, which rows a process needs, and it tells
every process when one of them fails. Its own files hold pickles, so the files are ours: each
process writes its rows as plain numbers, one behind the other, and the first process writes as JSON
what lies where. Reading is from tensors: those that lie in mapped files, or any others.

Apart from ``sharded``, since loading DCP takes half a second, and one process needs none of it.
"""

import ctypes
import dataclasses
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import Metadata
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from minicpt.checkpoint.containers import DTYPES
from minicpt.checkpoint.filling import fill

KINDS = {dtype: name for name, dtype in DTYPES.items()}


def done(value: Any) -> Future:
    future = Future()
    future.set_result(value)
    return future


class Writer(StorageWriter):
    """Writes the numbers of each process to a file of its own, and ``index`` at the end."""

    def __init__(self, folder: Path, index: str, file: str):
        self.folder, self.index, self.file = folder, index, file

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return [
            dataclasses.replace(plan, storage_data=self.file.format(rank))
            for rank, plan in enumerate(plans)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future:
        found = [(item, planner.resolve_data(item).detach()) for item in plan.items]
        found = [(item, tensor) for item, tensor in found if tensor.numel()]
        # The widest numbers first: so each lies where its type may lie in memory, without gaps.
        found.sort(key=lambda each: -each[1].itemsize)
        results = []
        if found:
            with open(self.folder / plan.storage_data, "wb") as file:
                for item, tensor in found:
                    place = [plan.storage_data, file.tell(), len(tensor) if tensor.dim() else 1]
                    tensor = tensor.cpu().contiguous()
                    file.write((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))
                    results.append(WriteResult(item.index, tensor.nbytes, place))
                file.flush()
                os.fsync(file.fileno())
        return done(results)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        chunks: dict[str, list] = {}
        for each in sorted(itertools.chain(*results), key=lambda each: each.index.offset):
            chunks.setdefault(each.index.fqn, []).append(each.storage_data)
        lines = []
        for name, entry in sorted(metadata.state_dict_metadata.items()):
            if any(chunk.sizes[1:] != entry.size[1:] for chunk in entry.chunks):
                raise ValueError(f"{name} is cut into other pieces than rows")
            kind, shape = KINDS[entry.properties.dtype], list(entry.size)
            content = {"dtype": kind, "shape": shape, "chunks": chunks[name]}
            lines.append(f"{json.dumps(name)}: {json.dumps(content)}")
        text = '{"tensors": {\n' + ",\n".join(lines) + "\n}}\n"
        (self.folder / self.index).write_text(text, encoding="utf-8")

    def reset(self, checkpoint_id=None) -> None:
        pass

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id) -> bool:
        return True


class Reader(StorageReader):
    """Reads from tensors in ``Pieces``, by name."""

    def __init__(self, sources: Mapping[str, Any]):
        self.parts, tensors = {}, {}
        for name, source in sources.items():
            dims, chunks, place = len(source.shape), [], 0
            for part in source.parts:
                offset = torch.Size([place, *[0] * (dims - 1)][:dims])
                chunks.append(ChunkStorageMetadata(offset, part.shape))
                self.parts[MetadataIndex(name, offset)] = part, source.mapped
                place += len(part) if dims else 1
            kind = TensorProperties(dtype=source.dtype)
            tensors[name] = TensorStorageMetadata(kind, source.shape, chunks)
        self.metadata = Metadata(tensors)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self.metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future:
        for item in plan.items:
            part, mapped = self.parts[item.storage_index]
            cut = zip(item.storage_offsets, item.lengths, strict=True)
            for dim, (begin, length) in enumerate(cut):
                part = part.narrow(dim, begin, length)
            target = planner.resolve_tensor(item).detach()
            fill(target, [part], mapped)
            planner.commit_tensor(item, target)
        return done(None)

    def reset(self, checkpoint_id=None) -> None:
        pass

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id) -> bool:
        return True
