"""Checkpoint folders with random faults, for ``faults.py``: none may load with anything changed."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

from children import (
    OBJECTIVES,
    SHARDED,
    as_torchrun,
    contents,
    run,
    same,
    train,
    write_text,
)

from minicpt import checkpoint
from minicpt.common.errors import InputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(folder: Path, other: Path, draws: Random) -> None:
    path = folder / draws.choice(names(folder))
    if path.is_file() and (data := bytearray(path.read_bytes())):
        for _ in range(draws.choice((1, 1, 1, 2, 16))):
            data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        path.write_bytes(data)


def cut(folder: Path, other: Path, draws: Random) -> None:
    path = folder / draws.choice(names(folder))
    if path.is_file():
        data = path.read_bytes()
        path.write_bytes(data[: draws.randrange(len(data) or 1)])


def lengthen(folder: Path, other: Path, draws: Random) -> None:
    with open(folder / draws.choice(names(folder)), "ab") as file:
        file.write(draws.randbytes(draws.randrange(1, 100)))


def erase(folder: Path, other: Path, draws: Random) -> None:
    """A block of zeros, as a disk leaves it that lost power."""
    path = folder / draws.choice(names(folder))
    if path.is_file() and (data := bytearray(path.read_bytes())):
        begin = draws.randrange(len(data))
        end = min(len(data), begin + 512)
        data[begin:end] = bytes(end - begin)
        path.write_bytes(data)


def swap(folder: Path, other: Path, draws: Random) -> None:
    """Two files change places."""
    one, two = (folder / name for name in draws.sample(names(folder), 2))
    if one.is_file() and two.is_file():
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)


def exchange(folder: Path, other: Path, draws: Random) -> None:
    """A file of another checkpoint, of the same run or of another one."""
    name = draws.choice(names(other))
    shutil.copy(other / name, folder / name)


def lose(folder: Path, other: Path, draws: Random) -> None:
    (folder / draws.choice(names(folder))).unlink(missing_ok=True)


def add(folder: Path, other: Path, draws: Random) -> None:
    """A file that loading could take notice of."""
    name = draws.choice(("special_tokens_map.json", "model.safetensors", "vocab.json", "x.bin"))
    content = {"special_tokens_map.json": b'{"mask_token": "[SEP]"}'}
    (folder / name).write_bytes(content.get(name, (other / "config.json").read_bytes()))


def unlist(folder: Path, other: Path, draws: Random) -> None:
    """No manifest, and a flipped bit that it would have shown."""
    (folder / "manifest.json").unlink(missing_ok=True)
    flip(folder, other, draws)


KINDS = (flip, flip, flip, flip, cut, lengthen, erase, swap, exchange, lose, add, unlist)


def mutations(folder: Path, tries: int) -> Iterator[str | None]:
    """Loads what was mutated, by itself or as the newest of its run."""
    draws = random.Random(3)
    text = write_text(folder / "text.txt")
    sound = {}
    kinds = [(objective, [], None) for objective in OBJECTIVES]
    for objective, more, prepare in [*kinds, (OBJECTIVES[0], SHARDED, as_torchrun)]:
        out = folder / " ".join([objective, *more]) / "run"
        shutil.rmtree(out.parent, ignore_errors=True)
        outcome = run(train(objective, text, out, 2, "--save-every", "1", *more), folder, prepare)
        if outcome.status:
            yield outcome.error
            return
        sound |= {path: contents(path) for path in checkpoint.steps(out)}
    for _ in range(tries):
        target, other = draws.sample(list(sound), 2)
        run_of_it = folder / "mutated"
        shutil.rmtree(run_of_it, ignore_errors=True)
        shutil.copytree(target.parent, run_of_it)
        names = []
        for kind in draws.choices(KINDS, k=draws.choice((1, 1, 2))):
            kind(run_of_it / target.name, other, draws)
            names.append(kind.__name__)
        path = run_of_it / target.name if draws.random() < 0.5 else run_of_it
        yield judge(path, target, sound, " and ".join(names))


def judge(path: Path, target: Path, sound: dict, what: str) -> str | None:
    try:
        found = contents(path)
        step = found.pop("name")
    except InputError as error:
        whole = path.name == "mutated"  # the other checkpoint of the run is untouched
        return f"{what}: no older one was taken: {error}" if whole else None
    except Exception as error:
        return f"{what}: {type(error).__name__}: {error}"
    expected = sound[target.parent / step]
    changed = [key for key in found if not same(expected[key], found[key])]
    return f"{what}: {step} loaded with other {', '.join(changed)}" if changed else None
