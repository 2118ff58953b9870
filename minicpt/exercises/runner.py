"""A learner's function as a function of ours: each call runs in the learner's own process.

So the proofs can use it in the place of one of ours, and whatever it does (it loops without end,
exits, takes all memory, changes torch) happens elsewhere. What comes back is plain data: see
``child``.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minicpt
from minicpt.common.errors import WorkError
from minicpt.exercises.child import decode, encode

SECONDS = 10.0  # for a call
MEMORY = 2 << 30  # bytes that the learner's code may take beside torch
START = 120.0  # seconds for importing torch on a machine that is busy
GRACE = 3.0  # seconds more, after which the process is ended from outside


@dataclass(frozen=True)
class Answer:
    """What a function gave.

    value    a tensor, plain data or ``child.Strange``, or a tuple or list of these
    changed  the numbers of those of its inputs that it has changed
    """

    value: Any
    changed: tuple[int, ...] = ()


class Failed(Exception):
    """A learner's code gave no answer.

    kind   "empty" (nothing is written yet), "missing" (no such function), "raised", "late", "exit",
           "syntax", "memory" or "died"
    text   what to tell the learner, a line
    lines  those of the learner's file that led there, as text
    """

    def __init__(self, kind: str, text: str, lines: tuple[str, ...] = ()):
        super().__init__(text)
        self.kind, self.text, self.lines = kind, text, lines


class Child:
    """The process of one file: call it with the function's inputs for an ``Answer``, or Failed.

    printed  what the learner's code has printed so far, cut
    """

    def __init__(self, file: Path, function: str, seconds: float = SECONDS, memory: int = MEMORY):
        self.function, self.seconds, self.printed = function, seconds, ""
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        paths = [str(Path(minicpt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        settings = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
        words = ["-m", "minicpt.exercises.child", str(file.resolve()), function]
        self.process = subprocess.Popen(
            [sys.executable, *words, str(seconds), str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder.name,  # empty, so that no file of the learner's hides a library
            env=os.environ | settings,
            start_new_session=True,
        )
        self.lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(b"")

    def __enter__(self) -> "Child":
        try:
            if "ready" not in self.answer(START):
                raise WorkError("the process for the learner's code did not start")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.end()
        with contextlib.suppress(OSError):  # of a request that nobody read
            self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()

    def end(self) -> None:
        """Ends the process, and those that it has started."""
        if hasattr(os, "killpg"):
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
                return
            except ProcessLookupError:
                pass
        self.process.kill()

    def load(self) -> None:
        """Waits until the file is read. Raises Failed where that went wrong."""
        self.checked(self.answer(self.seconds + GRACE))

    def __call__(self, *inputs) -> Answer:
        request = json.dumps([encode(each) for each in inputs]).encode() + b"\n"
        try:
            self.process.stdin.write(request)
            self.process.stdin.flush()
        except OSError:
            raise self.dead() from None
        found = self.checked(self.answer(self.seconds + GRACE))
        return Answer(decode(found["value"]), tuple(found["changed"]))

    def answer(self, seconds: float) -> dict:
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            self.end()
            raise Failed("late", self.late()) from None
        if not line:
            raise self.dead()
        found = json.loads(line)
        self.printed += found.pop("printed", "")
        return found

    def late(self) -> str:
        return f"was still running after {self.seconds:g} s; is there a loop that never ends?"

    def dead(self) -> Failed:
        status = self.process.wait()
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return Failed("died", f"ended the whole process ({how})")

    def checked(self, found: dict) -> dict:
        if "error" not in found:
            return found
        kind, error = found["error"], f"{found['kind']}: {found['text']}".rstrip(": ")
        texts = {
            "empty": "is not written yet",
            "missing": f"has no function `{self.function}`",
            "late": self.late(),
            "exit": "called sys.exit, or exit; give the result back with return",
            "memory": "asked for more memory than there is for it",
            "syntax": f"is no valid Python: {found['text']}",
            "raised": f"raises {error}",
        }
        lines = tuple(
            f"line {each['line']}" + (f", in {each['in']}" if each["in"].isidentifier() else "")
            + f": {each['text']}"
            for each in found["lines"]
        )  # fmt: skip
        raise Failed(kind, texts[kind], lines)
