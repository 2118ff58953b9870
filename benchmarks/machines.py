"""Do proofs and tests hold on other machines? One command, run as other machines would run it.

    python benchmarks/machines.py minicpt verify all
    python benchmarks/machines.py minicpt verify --break all
    python benchmarks/machines.py pytest -q tests

Each setting makes the same sums in another order or with other instructions: fewer or more threads,
torch's own kernels without AVX2 and without AVX-512, MKL's products as on an older processor, no
oneDNN. What differs by more than rounding fails (``minicpt.verify.bounds``). The commands run one
after the other, each in a process of its own. The exit status is 1 if one of them failed.

Leaves out GPUs, and libraries other than those that torch was built with.
"""

import os
import subprocess
import sys
import time

from timing import machine, table

SETTINGS: dict[str, dict[str, str]] = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "4 threads": {"OMP_NUM_THREADS": "4"},
    "torch without AVX2": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default"},
    "torch without AVX-512": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2"},
    "MKL as on any processor": {"OMP_NUM_THREADS": "1", "MKL_CBWR": "COMPATIBLE"},
    "MKL without AVX-512": {"OMP_NUM_THREADS": "1", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "no oneDNN": {"OMP_NUM_THREADS": "1", "WITHOUT_ONEDNN": "1"},
}
# oneDNN has no variable that switches it off, so the command runs behind this.
RUN = """
import os, runpy, sys, torch
torch.backends.mkldnn.enabled = "WITHOUT_ONEDNN" not in os.environ
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(words: list[str], setting: dict[str, str]) -> dict:
    """One command under one setting: its status, seconds, and what it said last."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], env=os.environ | setting, capture_output=True,
        text=True, encoding="utf-8",
    )  # fmt: skip
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    failed = [line.strip() for line in lines if "FAILED" in line]
    said = failed[:5] or lines[-1:] or [""]
    return {"status": done.returncode, "seconds": time.perf_counter() - begun, "said": said}


def main(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        print(__doc__)
        return 0 if words in (["-h"], ["--help"]) else 2
    print(f"{machine()}\n{' '.join(words)}\n")
    rows = {}
    for name, setting in SETTINGS.items():
        print(f"{name} …", file=sys.stderr, flush=True)
        rows[name] = run(words, setting)
    cells = [
        [name, "FAILED" if row["status"] else "ok", f"{row['seconds']:.0f}", row["said"][0]]
        for name, row in rows.items()
    ]
    print(table(["setting", "result", "s", "it said"], cells))
    for name, row in rows.items():
        if row["status"]:
            print("\n".join([f"\n{name}:", *row["said"]]))
    return int(any(row["status"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
