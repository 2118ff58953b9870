"""What the benchmarks share: the machine, times taken in turns, peak memory, tables and files.

Single timings on a machine with other work to do vary by a factor of two. So things that are to be
compared take turns, each keeps its best time, and tables show ratios beside the times. CPU time
stands beside the time on the clock: other programs change it less. Peak memory is that of a process
of its own. What is compared runs with the same setting of the C library (``--freed-memory``).
Leaves out what is measured: that is each script's business.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

import minicpt
from minicpt.cli.main import complain
from minicpt.common.errors import InputError, WorkError
from minicpt.common.outputs import check_writable as check_writable  # for the scripts
from minicpt.common.outputs import plotting as plotting
from minicpt.training.device import keep_freed_memory

MEBIBYTE = 1 << 20
KEPT, RETURNED = "kept", "returned"  # what becomes of freed memory


def machine(threads: int | None = None) -> str:
    """The processor, the number of cores, the versions and the threads in one line.

    threads  of the processes that are measured; None: torch's in this one
    """
    cores = f"{os.cpu_count()} cores, {platform.system()}"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    versions += f", minicpt {minicpt.__version__}"
    return f"{processor()}, {cores}; {versions}; threads: {threads or torch.get_num_threads()}"


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # only Linux has that file
    return platform.processor() or platform.machine()


# --- time ------------------------------------------------------------------------------------


class Seconds(NamedTuple):
    """On the clock, and of CPU: user and system time of all threads of this process."""

    wall: float
    cpu: float

    @staticmethod
    def now() -> "Seconds":
        return Seconds(time.perf_counter(), time.process_time())

    def since(self, start: "Seconds") -> "Seconds":
        return Seconds(self.wall - start.wall, self.cpu - start.cpu)

    def times(self, factor: float) -> "Seconds":
        return Seconds(factor * self.wall, factor * self.cpu)


def best_of(measured: Iterable[Sequence[float]]) -> Seconds:
    """The least time on the clock and the least CPU time, each by itself.

    >>> best_of([(2.0, 3.0), (1.0, 4.0)])
    Seconds(wall=1.0, cpu=3.0)
    """
    return Seconds(*map(min, zip(*measured, strict=True)))


def total(parts: Iterable[Sequence[float]]) -> Seconds:
    """
    >>> total([(1.0, 2.0), (3.0, 4.0)])
    Seconds(wall=4.0, cpu=6.0)
    """
    return Seconds(*map(sum, zip(*parts, strict=True)))


def differences(times: Sequence[Seconds]) -> list[Seconds]:
    """What lies between each moment and the next."""
    return [end.since(start) for start, end in zip(times, times[1:], strict=False)]


def taking_turns(
    callables: Mapping[str, Callable[[], object]], rounds: int, turn: float = 0.05
) -> dict[str, Seconds]:
    """The best seconds of one call of each, over ``rounds`` rounds in which they take turns.

    What is faster than ``turn`` seconds is called several times in its turn. Its CPU time is the
    mean of these calls, since some systems count CPU time in steps of 10 ms.
    """
    found: dict[str, list[Seconds]] = {name: [] for name in callables}
    for _ in range(rounds):
        for name, call in callables.items():
            calls, busy = [], time.process_time()
            while sum(calls) < turn:
                start = time.perf_counter()
                call()
                calls.append(time.perf_counter() - start)
            cpu = (time.process_time() - busy) / len(calls)
            found[name].append(Seconds(min(calls), cpu))
    return {name: best_of(each) for name, each in found.items()}


def slope(lengths: Sequence[float], values: Sequence[float]) -> float:
    """The exponent e of values ~ lengths^e: least squares of the logarithms; NaN for one length.

    >>> round(slope([16, 32, 64], [5 * 16**2, 5 * 32**2, 5 * 64**2]), 9)
    2.0
    """
    if len(set(lengths)) < 2:
        return math.nan
    across = [math.log(length) for length in lengths]
    up = [math.log(value) for value in values]
    middle, level = sum(across) / len(across), sum(up) / len(up)
    together = sum((x - middle) * (y - level) for x, y in zip(across, up, strict=True))
    return together / sum((x - middle) ** 2 for x in across)


# --- memory ----------------------------------------------------------------------------------


def use_freed_memory(choice: str) -> None:
    """Has this process keep the memory that it frees, or leaves the C library as it is.

    choice  KEPT or RETURNED. Raises InputError where this C library cannot be told to keep it.
    """
    if choice == KEPT and not keep_freed_memory():
        raise InputError("--freed-memory kept needs glibc; use --freed-memory returned")


def freed_memory(choice: str) -> str:
    """What ``use_freed_memory`` has done, for the head of a table."""
    if choice == KEPT:
        return "freed memory: kept (mallopt), on all sides"
    return "freed memory: returned to the system (the C library as it comes), on all sides"


def peak_memory(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """MiB above the level at which ``print_peak`` began, in a new Python that runs ``arguments``.

    environment  of that process; None: as this one's. Raises WorkError when the process fails.
    """
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WorkError(f"the process that measures memory ended with {done.returncode}: {said}")
    return float(done.stdout.split()[-1])


def print_peak(work: Callable[[], object]) -> None:
    """The other side of ``peak_memory``: runs ``work`` and prints by how many MiB memory rose."""
    try:
        # Linux: from here on, the peak counts from what is held now, not from the imports' peak.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass
    level = peak()
    work()
    print(peak() - level)


def peak() -> float:
    """The most memory in MiB that this process has held."""
    try:
        # Not ru_maxrss, which on Linux a new process takes over from the one that started it.
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        raise WorkError("peak memory is unknown on this system: use --no-memory") from None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / MEBIBYTE if sys.platform == "darwin" else most / 1024


# --- options and output ----------------------------------------------------------------------


def add_freed_memory(top: argparse.ArgumentParser, default: str = KEPT) -> None:
    top.add_argument("--freed-memory", choices=(KEPT, RETURNED), default=default,
                     help="on all sides: kept, as `minicpt train` has it, or returned to the "
                     f"system, as the C library comes (default: {default})")  # fmt: skip


def fill_in(options: argparse.Namespace, defaults: Mapping[str, object]) -> None:
    """Sets the options that were not given."""
    for key, value in defaults.items():
        if getattr(options, key) is None:
            setattr(options, key, value)


def check_outputs(options: argparse.Namespace) -> None:
    """InputError where ``--json`` or ``--plot`` could not be written at the end."""
    for path in (options.json, options.plot):
        check_writable(path)
    if options.plot:
        plotting()


def write_outputs(
    options: argparse.Namespace, rows: list[dict], plot: Callable[[str, list[dict]], None]
) -> None:
    """Writes what ``--json`` and ``--plot`` ask for."""
    if options.json:
        write_json(options.json, rows)
    if options.plot:
        plot(options.plot, rows)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned on the right.

    >>> print(table(["length", "ms"], [["16", "1.25"], ["512", "-"]]))
    length    ms
        16  1.25
       512     -
    """
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def number(value: float | None, digits: int = 3) -> str:
    """A number in few digits and without an exponent; a dash for None.

    >>> [number(value) for value in (0.01234, 4.5678, 87.65, 1234.5, None)]
    ['0.0123', '4.57', '87.7', '1234', '-']
    """
    if value is None or math.isnan(value):
        return "-"
    if value == 0:
        return "0"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def write_json(path: str, value: object) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def run(main: Callable[[list[str]], int], words: list[str]) -> int:
    """The exit status of a script's ``main``; errors are one line, as those of ``minicpt`` are."""
    try:
        return main(words)
    except InputError as error:
        return complain(error, 2)
    except WorkError as error:
        return complain(error, 1)
    except KeyboardInterrupt:
        print("minicpt: interrupted", file=sys.stderr)
        return 130
