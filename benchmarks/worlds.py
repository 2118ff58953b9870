"""Runs of several processes for ``processes.py``: started, broken in one process, looked at."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from minicpt import checkpoint

HERE = Path(__file__).parent
SMALL = (
    "--width 16 --layers 2 --num-heads 2 --vocab-size 256 --window 16 --batch-size 8"
    " --micro-batch-size 1 --evaluate-passages 8"
).split()
HANG = 30.0  # seconds after a fault
PATIENCE = 300.0  # seconds for what comes before it
QUIET = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR"}


# --- starting --------------------------------------------------------------------------------


def ranks(count: int, *words: object) -> list[str]:
    """The standard output of ``ranks.py WORDS`` in so many processes, without torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    common |= {"MASTER_ADDR": "127.0.0.1"} | QUIET
    children = []
    for rank in range(count):
        place = common | {"RANK": rank, "LOCAL_RANK": rank}
        children.append(
            subprocess.Popen(
                [sys.executable, str(HERE / "ranks.py"), *map(str, words)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=os.environ | {name: str(value) for name, value in place.items()},
            )
        )  # fmt: skip
    told = [each.communicate(timeout=2 * PATIENCE) for each in children]
    if any(each.returncode for each in children):
        raise RuntimeError("".join(errors[-2000:] for _, errors in told))
    return [out for out, _ in told]


def command(count: int, *words: object) -> str:
    """The standard output of ``minicpt WORDS`` in so many processes."""
    return ranks(count, "fault", "none", *words)[0]


def torchrun(count: int, *words: object) -> subprocess.Popen:
    place = ["--nproc-per-node", str(count), "--local-addr", "127.0.0.1"]
    place += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    script = [str(HERE / "ranks.py"), *map(str, words)]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *place, *script],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | QUIET,
    )  # fmt: skip


def write_text(folder: Path) -> Path:
    path = folder / "text.txt"
    draws = random.Random(0)
    words = "the cat sat on a mat and saw birds over old harbour towns while rain fell".split()
    lines = (" ".join(draws.choices(words, k=9)) + f" {n}." for n in range(400))
    path.write_text("\n".join(lines))
    return path


def train(text: Path, out: Path, steps: int, *words: object) -> list:
    return ["train", "causal-lm", "--corpus", text, *SMALL, "--out", out, "--steps", steps, *words]


# --- faults ----------------------------------------------------------------------------------


def broken(out: Path, text: Path, kind: str, act, shard: str) -> tuple[float, str]:
    """Seconds from the fault to the end, and what was wrong with it; "": nothing."""
    words = train(text, out, 10**6, "--save-every", 5, "--shard", shard, "--evaluate-every", 10**6)
    main = torchrun(2, "fault", kind, *words)
    begun = time.monotonic()
    while not checkpoint.steps(out) and main.poll() is None:
        time.sleep(0.02)
        if time.monotonic() - begun > PATIENCE:
            main.kill()
            return 0.0, "it did not begin"
    children = children_of(main)
    time.sleep(random.random())
    if act:
        act(main, children, out)
    else:
        while main.poll() is None and all(map(alive, children)):
            if time.monotonic() - begun > PATIENCE:
                break
            time.sleep(0.02)
    fault_at = time.monotonic()
    known = checkpoint.steps(out)[-1:]
    try:
        told, _ = main.communicate(timeout=HANG)
    except subprocess.TimeoutExpired:
        for each in filter(alive, children):
            os.kill(each, signal.SIGUSR1)  # says where it stands
        time.sleep(1)
        for each in filter(alive, (*children, main.pid)):
            os.kill(each, signal.SIGKILL)
        return HANG, "it hung: " + main.communicate()[0][-3000:]
    seconds = time.monotonic() - fault_at
    lines = [re.sub(r"^\[rank\d+\]: ", "", line) for line in told.splitlines()]
    said = [line for line in lines if line.startswith(("minicpt: ", "RuntimeError: "))]
    if len(said) != 1:
        return seconds, f"{len(said)} messages: {said}"
    for each in checkpoint.steps(out):
        checkpoint.verify(each)
    last = checkpoint.steps(out)[-1:]
    lost = not last or known and last[0].name < known[0].name
    return seconds, f"lost: {last} after {known}" if lost else ""


def children_of(main: subprocess.Popen) -> list[int]:
    """The processes of the run, by rank."""
    found = {}
    for task in Path(f"/proc/{main.pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            values = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {int(each[5:]): child for each in values if each.startswith(b"RANK=")}
    return [found[rank] for rank in sorted(found)]


def alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def kill_any(main, children, out) -> None:
    os.kill(random.choice(children), signal.SIGKILL)


def kill_while_saving(main, children, out) -> None:
    end = time.monotonic() + PATIENCE
    while not list(out.glob(".step-*")) and time.monotonic() < end:
        time.sleep(0.0005)
    os.kill(children[0], signal.SIGKILL)


def terminate(main, children, out) -> None:
    main.send_signal(signal.SIGTERM)


FAULTS: dict[str, tuple[str, Callable | None]] = {
    "a process is killed": ("none", kill_any),
    "process 0 is killed while saving": ("none", kill_while_saving),
    "a process's disk is full": ("disk", None),
    "an exception in a process": ("exception", None),
    "SIGTERM to torchrun": ("none", terminate),
}
