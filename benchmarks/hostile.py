"""Files made to harm whoever loads them, for ``faults.py``: none runs code or takes much memory."""

import io
import json
import os
import pickle
import shutil
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import safetensors.torch
import timing
import torch
from children import SHARDED, as_torchrun, run, train, write_text

from minicpt import checkpoint
from minicpt.checkpoint.sharded import INDEX, STATE
from minicpt.common.errors import InputError

MOST = 1.5  # times the memory of a sound load
HUGE = 10**12
WEIGHTS, SAFE = "pytorch_model.bin", "model.safetensors"


class Code:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, target: Path):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def hostile(folder: Path, tries: int) -> Iterator[str | None]:
    """Each file in its turn, in a process of its own, next to a sound load."""
    text = write_text(folder / "text.txt")
    out = folder / "run"
    outcome = run(train("causal-lm", text, out, 1), folder)
    if outcome.status:
        yield outcome.error
        return
    outcome = run(train("causal-lm", text, folder / "spread", 1, *SHARDED), folder, as_torchrun)
    if outcome.status:
        yield outcome.error
        return
    base = folder / "base"
    shutil.copytree(checkpoint.find(out)[0], base)
    for name in ("manifest.json", "training.json", "state.pt"):
        (base / name).unlink()
    of_ours = {"ours": checkpoint.find(out)[0], "shards": checkpoint.find(folder / "spread")[0]}
    target = folder / "executed"
    sound = memory(base, folder)[0]
    found = list(files(target, torch.load(base / WEIGHTS, weights_only=True)))
    found += shards(target, of_ours["shards"])
    for name, write in found[:: max(1, len(found) // tries)][:tries]:
        trial = folder / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        ours = of_ours.get(name.partition(":")[0])
        shutil.copytree(ours or base, trial)
        write(trial)
        if ours:
            (trial / "manifest.json").unlink()
            checkpoint.write_manifest(trial)
        peak, outcome = memory(trial, folder)
        problem = None
        if target.exists():
            problem = "executed"
        elif not outcome.clean or outcome.status not in (0, 2):
            problem = f"status {outcome.status}: {outcome.error[-300:]}"
        elif outcome.status == 0 and "may load" not in name:
            problem = "it loaded"
        elif peak > MOST * sound:
            problem = f"{peak:.0f} MiB, and a sound load {sound:.0f}"
        yield problem and f"{name}: {problem}"


def memory(folder: Path, where: Path):
    """The peak in MiB of a process that loads a folder, and how it ended."""

    def load():
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            pass  # only Linux counts anew
        try:
            loaded = checkpoint.load(folder)
            if loaded.record:
                loaded.state()
            status = 0
        except InputError as error:
            print(f"minicpt: error: {error}", file=sys.stderr)
            status = 2
        (where / "peak").write_text(str(timing.peak()))
        raise SystemExit(status)

    (where / "peak").write_text("nan")
    outcome = run([], where, load)
    return float((where / "peak").read_text()), outcome


def files(target: Path, state: dict) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """A name and what writes the file into a folder that was sound before."""

    def put(name: str, data: bytes):
        return lambda folder: (folder / name).write_bytes(data)

    def saved(content, name: str = WEIGHTS, **options):
        return lambda folder: torch.save(content, folder / name, **options)

    code = Code(target)
    old = {"_use_new_zipfile_serialization": False}
    for protocol in range(5):
        yield f"a pickle with code, protocol {protocol}", put(WEIGHTS, pickle.dumps(code, protocol))
    yield "code among the weights", saved(state | {"a": code})
    yield "code among the weights, old format", saved(state | {"a": code}, **old)
    yield "code as a name", saved(state | {("a", code): 1})
    yield "ours: code in the state", saved({"step": code}, "state.pt")
    yield "ours: code in the state, old format", saved({"step": code}, "state.pt", **old)
    yield "code in a safetensors file", put(SAFE, pickle.dumps(code))
    for name in ("training_args.bin", "rng_state.pth", "optimizer.pt"):
        yield f"code in {name} beside it; may load", saved(code, name)
    yield "a module that would be imported; may load", put("torch.py", b"import os; os.abort()")

    whole = io.BytesIO()
    torch.save(state, whole)
    yield "members that inflate", repacked(whole, compress=True)
    yield "a bomb among the members", repacked(whole, extra=("archive/data/99", bytes(1 << 28)))
    yield "a bomb as its pickle", repacked(whole, replace=bytes(1 << 28))
    yield "a pickle of 20 MB", repacked(whole, replace=b"N" * (20 << 20) + b".", compress=False)
    yield "a member twice", repacked(whole, twice=True)
    count = patched(whole.getvalue(), 9999)
    yield "a wrong count beside the right one; may load", put(WEIGHTS, count)
    yield "a million members", many_members
    for call, argument in (
        ("builtins\nbytearray", HUGE),
        ("builtins\nbytearray", 10**9),
        ("torch\nTensor", HUGE),
        ("collections\nCounter", 3),
        ("builtins\nset", 3),
        ("os\nsystem", 3),
        ("torch\nload", 3),
    ):
        data = b"\x80\x02c" + call.encode() + b"\n(L" + str(argument).encode() + b"L\ntR."
        yield f"a call of {call.replace(chr(10), '.')}({argument})", repacked(whole, replace=data)
    yield "lists in lists", repacked(whole, replace=b"\x80\x02" + b"]" * 10**6 + b".")
    laughs = b"\x80\x02}N" + b"2\x86" * 60 + b"Ns."  # {((((N, N), (N, N)), …): None}
    yield "a name that doubles sixty times", repacked(whole, replace=laughs)

    grown = torch.empty(1).expand(1 << 20, 1 << 20)
    name = next(iter(state))
    yield "a tensor that claims terabytes", saved(state | {name: grown})
    yield "a tensor that claims terabytes, old format", saved(state | {name: grown}, **old)
    yield "terabytes, as the config says", terabytes(state)
    yield "a tensor without numbers", saved(state | {name: torch.empty(9, device="meta")})
    yield "a sparse tensor", saved(state | {name: torch.eye(3).to_sparse()})
    yield "whole numbers", saved({key: value.long() for key, value in state.items()})
    yield "a deep name", saved(state | {"x" * 10**6: torch.ones(1)})

    sound = safetensors.torch.save({key: value.clone() for key, value in state.items()})
    length = int.from_bytes(sound[:8], "little")
    header, numbers = json.loads(sound[8 : 8 + length]), sound[8 + length :]

    def safe(changes: dict, numbers: bytes = numbers):
        text = json.dumps(header | changes).encode()
        return put(SAFE, struct.pack("<Q", len(text)) + text + numbers)

    for claim in (2**63, 10**8, length + 1):
        yield f"a header of {claim} bytes", put(SAFE, struct.pack("<Q", claim) + sound[8:])
    first = next(key for key in header if key != "__metadata__")
    entry = header[first]
    for what, change in (
        ("offsets outside", {"data_offsets": [0, HUGE]}),
        ("offsets backwards", {"data_offsets": [9, 1]}),
        ("a negative offset", {"data_offsets": [-4, 0]}),
        ("an overlap", {"data_offsets": [4, entry["data_offsets"][1] + 4]}),
        ("a shape of terabytes", {"shape": [HUGE]}),
        ("a shape beyond any", {"shape": [2**62, 2**62]}),
        ("an unknown type", {"dtype": "F7"}),
    ):
        yield f"safetensors with {what}", safe({first: entry | change})
    text = json.dumps(header).encode()
    twice = text[:-1] + b"," + json.dumps({first: entry}).encode()[1:]
    yield "a name twice", put(SAFE, struct.pack("<Q", len(twice)) + twice + numbers)

    yield (
        "an index that leaves the folder",
        put(SAFE + ".index.json", json.dumps({"weight_map": {"a": "../../etc/passwd"}}).encode()),
    )
    for name in ("config.json", "tokenizer.json", WEIGHTS):
        yield f"a pipe as {name}", lambda folder, name=name: pipe(folder / name)
        yield f"a device as {name}", lambda folder, name=name: link(folder / name, "/dev/zero")
    yield "a config of a gigabyte", lambda folder: os.truncate(folder / "config.json", 1 << 30)
    yield "a config of brackets", put("config.json", b"[" * 10**6)
    yield "ours: a record of brackets", put("training.json", b'{"a":' * 10**5)
    yield "weights of a terabyte of holes", lambda folder: os.truncate(folder / WEIGHTS, 1 << 40)
    for key in ("n_embd", "n_layer", "vocab_size", "n_positions", "n_inner"):
        yield f"a config with a huge {key}", changed_config(key)


def shards(target: Path, sound: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """As ``files``, for a folder that several processes write."""
    content = json.loads((sound / INDEX).read_text())["tensors"]
    name = "model.tokens.weight"
    (file, begin, rows), *_ = content[name]["chunks"]

    def index(change: dict):
        text = json.dumps({"tensors": content | {name: content[name] | change}})
        return lambda folder: (folder / INDEX).write_text(text)

    for what, change in (
        ("a shape of terabytes", {"shape": [HUGE, 8], "chunks": [[file, begin, HUGE]]}),
        ("a shape beyond any", {"shape": [2**62, 2**62]}),
        ("rows outside", {"chunks": [[file, HUGE, rows]]}),
        ("rows of others", {"chunks": [[file, begin + 4, rows]]}),
        ("a file outside", {"chunks": [["../../../../etc/passwd", 0, rows]]}),
        ("an unknown type", {"dtype": "F7"}),
    ):
        yield f"shards: {what}", index(change)
    twice = json.dumps({"tensors": content | {"a": content[name]}})
    yield "shards: a tensor twice", lambda folder: (folder / INDEX).write_text(twice)
    code = pickle.dumps(Code(target))
    yield "shards: code as numbers", lambda folder: (folder / file).write_bytes(code)
    for each in (INDEX, STATE):
        yield (
            f"shards: {each} of brackets",
            (lambda folder, each=each: (folder / each).write_bytes(b'{"a":' * 10**5)),
        )
        yield (
            f"shards: {each} of a gigabyte",
            (lambda folder, each=each: os.truncate(folder / each, 1 << 30)),
        )
    deep = "[" * 900 + "]" * 900
    yield "shards: a deep state", lambda folder: (folder / STATE).write_text(f'{{"a": {deep}}}')
    again = json.dumps({"a": [{"": "tensor", "of": name}] * 10**5})
    yield (
        "shards: a tensor 100,000 times; may load",
        (lambda folder: (folder / STATE).write_text(again)),
    )


def repacked(
    source: io.BytesIO, replace: bytes = b"", compress=None, extra=None, twice: bool = False
) -> Callable[[Path], None]:
    """torch's zip with another pickle, compressed, or with more in it."""

    def write(folder: Path) -> None:
        squeeze = len(replace) > 10**7 or bool(extra) if compress is None else compress
        method = zipfile.ZIP_DEFLATED if squeeze else zipfile.ZIP_STORED
        with (
            zipfile.ZipFile(source) as old,
            zipfile.ZipFile(folder / WEIGHTS, "w", method) as new,
        ):
            for each in old.namelist():
                data = replace if replace and each.endswith("data.pkl") else old.read(each)
                new.writestr(each, data)
                if twice:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        new.writestr(each, data)
            if extra:
                new.writestr(*extra)

    return write


def patched(data: bytes, members: int) -> bytes:
    """A zip whose end claims so many members."""
    end = bytearray(data[-22:])
    struct.pack_into("<2H", end, 8, members, members)
    return data[:-22] + bytes(end)


def many_members(folder: Path) -> None:
    with zipfile.ZipFile(folder / WEIGHTS, "w") as archive:
        for number in range(100_000):
            archive.writestr(f"a/{number}", b"")


def terabytes(state: dict) -> Callable[[Path], None]:
    """A tensor of one number repeated, and a config that wants it so."""

    def write(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        width = config["n_embd"]
        config["vocab_size"] = HUGE // width
        (folder / "config.json").write_text(json.dumps(config))
        grown = torch.empty(1).expand(config["vocab_size"], width)
        torch.save(state | {"transformer.wte.weight": grown}, folder / WEIGHTS)

    return write


def changed_config(key: str, value: int = 1 << 16) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {key: value}))

    return write


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)
