"""The process in which a learner's code runs: it calls one function, as often as it is asked.

    python -m minicpt.exercises.child FILE FUNCTION SECONDS BYTES

Reads a request a line from its standard input, and answers each with a line on its standard output:
JSON, with tensors as nested lists. The learner's code sees neither: what it prints is kept and sent
along, and what it reads is empty. The only import beside the standard library is torch.
"""

import contextlib
import copy
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LARGEST = 1 << 20  # numbers in a tensor that is sent
PRINTED = 2000  # characters of what is printed that are kept
LINES = 4  # of a traceback


class Late(BaseException):
    """The time is over. No ``except Exception`` of a learner catches it."""


@dataclass(frozen=True)
class Strange:
    """A value that is neither a tensor nor plain data: ``what`` it is, in words."""

    what: str


# --- values as plain data ----------------------------------------------------------------------


def encode(value: Any) -> Any:
    """A value as JSON can hold it.

    >>> encode((torch.tensor([1, 2]), True))
    {'tuple': [{'tensor': [1, 2], 'dtype': 'int64', 'shape': [2]}, True]}
    """
    if isinstance(value, torch.Tensor):
        shape = list(value.shape)
        if value.is_complex():
            return {"strange": f"a tensor of {value.dtype}"}
        if value.numel() > LARGEST:
            return {"strange": f"a tensor of shape {tuple(shape)}, which is far too large"}
        plain = value.detach().cpu().to_dense().resolve_conj()
        return {"tensor": plain.tolist(), "dtype": str(value.dtype)[6:], "shape": shape}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [encode(each) for each in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    return {"strange": f"a value of the type {type(value).__name__}"}


def decode(data: Any) -> Any:
    """The value that ``encode`` was given.

    >>> decode(encode([torch.tensor(0.5), None]))
    [tensor(0.5000), None]
    """
    if not isinstance(data, dict):
        return data
    ((kind, content), *_) = data.items()
    if kind == "tensor":
        return torch.tensor(content, dtype=getattr(torch, data["dtype"])).reshape(data["shape"])
    if kind == "strange":
        return Strange(content)
    return {"tuple": tuple, "list": list}[kind](map(decode, content))


# --- one call ----------------------------------------------------------------------------------


def called(function: Callable, inputs: list) -> tuple[Any, list[int]]:
    """What the function gives, and the numbers of those of its inputs that it has changed."""
    given = copy.deepcopy(inputs)
    value = function(*given)
    changed = [place for place, each in enumerate(inputs) if not same(each, given[place])]
    return value, changed


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def raised(error: BaseException, path: str) -> dict:
    """What went wrong, with the lines of the learner's file alone."""
    kind, text = type(error).__name__, ""
    with contextlib.suppress(BaseException):  # a learner's own exception may not know its text
        text = " ".join(str(error).split("\n")[0].split())[:300]
    lines = [
        {"line": frame.lineno, "in": frame.name, "text": frame.line}
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    if isinstance(error, SyntaxError) and error.filename == path:
        text = error.msg
        lines = [{"line": error.lineno, "in": "", "text": (error.text or "").strip()}]
    short = isinstance(error, MemoryError) or "allocate memory" in text
    what = (
        "late" if isinstance(error, Late)
        else "exit" if isinstance(error, SystemExit)
        else "memory" if short
        else "empty" if isinstance(error, NotImplementedError) and not text
        else "syntax" if isinstance(error, SyntaxError)
        else "raised"
    )  # fmt: skip
    return {"error": what, "kind": kind, "text": text, "lines": lines[:1] + lines[1:][1 - LINES :]}


class Solutions:
    """Keeps a learner from importing the solution by mistake; it is no lock."""

    def find_spec(self, name: str, path=None, target=None) -> None:
        if name.split(".")[0] == "minicpt":
            raise ImportError("minicpt holds the solution; write the function with torch alone")


class Kept:
    """Takes the place of the standard output: keeps the beginning, and forgets the rest."""

    encoding, errors = "utf-8", "strict"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += str(text)[: PRINTED - len(self.text)]
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False

    def taken(self) -> str:
        text, self.text = self.text, ""
        return text


# --- the process -------------------------------------------------------------------------------


@contextlib.contextmanager
def timed(seconds: float):
    """Raises Late in the code inside after so many seconds, where the system has such a clock."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def late(number, frame):
        raise Late

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def limit(size: int) -> None:
    """At most so many bytes more than now, where the system can say so; and no core is dumped."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + size
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass  # then the time alone is limited


def main(path: str, name: str, seconds: float, size: int) -> None:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    sys.stdin = open(os.devnull)
    sys.stdout = sys.stderr = kept = Kept()
    sys.path.append(str(Path(path).parent))  # at the end: it hides no library
    for loaded in [each for each in sys.modules if each.split(".")[0] == "minicpt"]:
        del sys.modules[loaded]
    sys.meta_path.insert(0, Solutions())
    torch.set_num_threads(1)
    limit(size)
    dumps, loads = json.dumps, json.loads

    process = os.getpid()

    def answer(content: dict) -> None:
        if os.getpid() != process:  # a learner's fork has come back here
            os._exit(0)
        answers.write(dumps(content | {"printed": kept.taken()}).encode() + b"\n")
        answers.flush()

    def tried(task: Callable[[], dict]) -> dict:
        try:
            with timed(seconds):
                return task()
        except BaseException as error:
            return raised(error, path)

    def load() -> dict:
        known = {"__name__": "exercise", "__file__": path}
        exec(compile(Path(path).read_bytes(), path, "exec"), known)
        functions[:] = [known[name]] if callable(known.get(name)) else []
        return {} if functions else {"error": "missing", "kind": "", "text": "", "lines": []}

    def call(inputs: list) -> dict:
        value, changed = called(functions[0], inputs)
        return {"value": encode(value), "changed": changed}

    functions: list[Callable] = []
    answer({"ready": True})
    found = tried(load)
    answer(found)
    for line in requests if "error" not in found else ():
        inputs = [decode(each) for each in loads(line)]
        answer(tried(lambda inputs=inputs: call(inputs)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
    os._exit(0)  # no thread of a learner's delays the end
