"""What is lost when runs are killed, disks fill up, files rot, and input is hostile?

Every trial is a run of minicpt's own ``main`` in a child process, or the loading of a folder; what
counts as failed stands in the docstring of each test. Random choices are the same in every run,
the moments of kills and signals are not.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

# Before torch and tokenizers are imported: children are forked, and threads are not.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import catalogue  # noqa: E402
import children  # noqa: E402
import fuzzing  # noqa: E402
import hostile  # noqa: E402
import killing  # noqa: E402
import mutations  # noqa: E402
import refusing  # noqa: E402
from timing import check_writable, machine, run, table, write_json  # noqa: E402

from minicpt.common.errors import InputError  # noqa: E402

# Name -> the test, its size, its size in a quick run, and what must not happen.
TESTS = {
    "kill": (killing.kills, 1000, 15, "an unloadable checkpoint, or more than one interval lost"),
    "resume": (killing.resumes, killing.STEPS, 2, "other final weights than without the kill"),
    "mutate": (mutations.mutations, 2000, 60, "loaded with anything changed, or a traceback"),
    "hostile": (hostile.hostile, 99, 12, "executed, or more than 1.5 x the memory"),
    "input": (catalogue.inputs, 99, 7, "not refused in one line within 10 s, or something touched"),
    "fuzz": (fuzzing.fuzz, 1000, 30, "a traceback, a hang over 10 s, or something left behind"),
    "signal": (killing.signals, 200, 11, "no valid checkpoint, or another exit status"),
    "disk": (refusing.disks, 50, 4, "the old checkpoint hurt, litter, or no clear line"),
    "not finite": (refusing.not_finite, 20, 3, "weights changed, or step or passages not named"),
}
SHOWN = 5  # failures of a test


def read_options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small part, within a minute")
    parser.add_argument("--only", nargs="+", metavar="TEST", help=", ".join(TESTS))
    parser.add_argument("--json", metavar="PATH", help="write the rows: test, tried, failed")
    options = parser.parse_args(words)
    for name in options.only or ():
        if name not in TESTS:
            raise InputError(f"no test is called {name!r}; use one of {', '.join(TESTS)}")
    check_writable(options.json)
    if not hasattr(os, "fork"):
        raise InputError("these tests fork processes, which this system cannot: use Linux or macOS")
    return options


def measure(name: str, quick: bool) -> dict:
    """Runs one test in a folder of its own: how many trials, and which failed."""
    test, size, small, _ = TESTS[name]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="minicpt-faults-") as folder:
        found = list(test(Path(folder), small if quick else size))
    failures = [each for each in found if each]
    return {
        "test": name,
        "tried": len(found),
        "failed": len(failures),
        "seconds": round(time.monotonic() - begun),
        "failures": failures,
    }


def main(words: list[str]) -> int:
    options = read_options(words)
    print(__doc__.splitlines()[0])
    print(machine() + "\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        children.warm_up(Path(folder))
    rows = []
    for name in options.only or TESTS:
        row = measure(name, options.quick)
        rows.append(row)
        print(f"{name}: {row['failed']} of {row['tried']} failed", file=sys.stderr, flush=True)
        for each in row["failures"][:SHOWN]:
            print("  " + " ".join(each.split()), file=sys.stderr, flush=True)
    lines = [[r["test"], *map(str, (r["tried"], r["failed"], r["seconds"]))] for r in rows]
    print(table(["test", "tried", "failed", "seconds"], lines) + "\n")
    for row in rows:
        print(f"{row['test']} fails: {TESTS[row['test']][-1]}")
    if options.json:
        write_json(options.json, rows)
    return int(any(row["failed"] for row in rows))


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
