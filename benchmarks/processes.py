"""Do several processes keep the promises of one, and what do they cost?

    python benchmarks/processes.py [--quick] [--only PART …] [--json PATH]

A row is a promise, how it was tried, and what was found. All runs on this machine, with gloo and a
thread for each process. Leaves out several machines and GPUs: nothing is promised bitwise there.

The cost on more machines is worked out from what is measured here. A step of W processes sends, by
each process,

    DDP    2 (W - 1)/W · 4 P bytes       FSDP2    3 (W - 1)/W · 4 P bytes

(P weights in float32; FSDP2 gathers the weights twice and spreads the gradients once), and about
60 W bytes of counts and losses. With B bytes a second and t seconds of computing it takes at most
t + sent / B: exchange and computing overlap in part.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from timing import machine, run, table, write_json
from worlds import FAULTS, QUIET, broken, command, ranks, train, write_text

from minicpt import checkpoint
from minicpt.common.errors import InputError
from minicpt.common.outputs import check_writable
from minicpt.proofs import suite
from minicpt.proofs.processes import ROUNDS, SHARDS, Job, pool
from minicpt.training.distributed import deal
from minicpt.training.stream import Stream

RANKS = Path(__file__).with_name("ranks.py")
BANDWIDTH = 1.25e9  # bytes a second: 10 Gbit/s
Row = tuple[str, str, str, bool]  # promise, how, figure, whether it holds


# --- the same numbers ------------------------------------------------------------------------


def batches(folder: Path, quick: bool) -> Iterator[Row]:
    """Each passage and its noise, dealt out to W processes, against the batches of one."""
    wrong = count = 0
    for subject in suite.subjects():
        for size in (1, 2, 3):
            stream = Stream(subject.objective, subject.corpus, 0)
            for step in range(2 if quick else 5):
                places = range(step * 7, step * 7 + 7)
                alone = [stream.passages(x.start, len(x)) for x in deal(places, size)]
                expected = [subject.objective.batch(*each) for each in alone]
                for processes in (1, 2, 3, 4):
                    shares = [deal(places, size, rank, processes) for rank in range(processes)]
                    rounds = [x for each in zip(*shares, strict=True) for x in each if x]
                    found = [
                        subject.objective.batch(*stream.passages(x.start, len(x))) for x in rounds
                    ]
                    pairs = zip(found, expected, strict=True)
                    wrong += not all(same(*pair) for pair in pairs)
                    wrong += [place for each in rounds for place in each] != list(places)
                    count += 1
    yield "same batches", f"{count} steps, W = 1 to 4", f"{count - wrong} equal", not wrong


def same(one, other) -> bool:
    parts = "inputs", "targets", "weights", "noise"
    pairs = [(getattr(one, part), getattr(other, part)) for part in parts]
    return all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs
    )


def gradient(folder: Path, quick: bool) -> Iterator[Row]:
    """A step of W processes against that of one, relative to what rounding may do."""
    names = ("causal-lm", "masked-lm", "reconstruction") if quick else ()
    subjects = suite.subjects(names)
    for dtype in ("float64", "float32"):
        for shard, title in SHARDS.items():
            worst, allowed, wrong, count = 0.0, 1.0, [], 0
            for processes in (2,) if quick else (1, 2, 3, 4):
                jobs = [Job(x.name, x.kind, "", shard, dtype, ROUNDS) for x in subjects]
                found, error = pool(processes).run(jobs)
                wrong += [error] * bool(error)
                for each in found:
                    count += 2 * len(ROUNDS)
                    if each["worst"] / each["tolerance"] >= worst / allowed:
                        worst, allowed = each["worst"], each["tolerance"]
                    if each["loss"] or not each["worst"] <= each["tolerance"]:
                        wrong.append(each["subject"])
            figure = f"{worst:.1e} <= {allowed:.1e}" + f"; wrong: {wrong}" * bool(wrong)
            yield f"same gradient, {title}", f"{count} steps, {dtype}", figure, not wrong


def repeated(folder: Path, quick: bool) -> Iterator[Row]:
    """The same run twice."""
    text = write_text(folder)
    for shard, title in SHARDS.items():
        for number in (1, 2):
            command(2, *train(text, folder / f"{shard}-{number}", 6, "--shard", shard))
        one, other = (digest(1, folder / f"{shard}-{number}") for number in (1, 2))
        good = one == other
        yield f"same run, {title}", "twice, W = 2", "bitwise" if good else "differs", good


def digest(count: int, folder: Path, shard: str = "none") -> dict:
    if count == 1 and shard == "none":
        words = [sys.executable, str(RANKS), "digest", str(folder), shard]
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ | QUIET)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return json.loads(done.stdout)
    return json.loads(ranks(count, "digest", folder, shard)[0])


def resume(folder: Path, quick: bool) -> Iterator[Row]:
    """Stopped and gone on with: in the same world, and in others."""
    text = write_text(folder)
    for shard, title in SHARDS.items():
        whole = folder / f"whole-{shard}"
        words = ("--save-every", 3, "--keep", 9, "--shard", shard)
        command(2, *train(text, whole, 6, *words))
        begun = folder / f"begun-{shard}"
        shutil.copytree(whole / "step-00000003", begun / "step-00000003")
        command(2, "resume", begun, "--shard", shard)
        good = digest(1, whole) == digest(1, begun)
        figure = "bitwise" if good else "differs"
        yield f"resume, {title}", "W = 2, after 3 of 6 steps", figure, good
    for begin, other in (("none", "weights"), ("weights", "none")):
        out, good, sharing = folder / f"chain-{begin}", 0, begin
        chain = (2, 1, 2) if quick else (4, 2, 1, 3)
        words = ("--save-every", 2, "--keep", 9, "--shard", begin)
        command(chain[0], *train(text, out, 2 * len(chain), *words))
        for place, count in enumerate(chain[1:], 1):
            sharing = other if sharing == begin else begin
            step = out / f"step-{2 * place:08d}"
            shared = sharing if count > 1 else "none"
            expected, found = digest(1, step), digest(count, step, shared)
            good += expected == found
            for later in checkpoint.steps(out)[place:]:
                shutil.rmtree(later)
            if count > 1:
                command(count, "resume", out, "--shard", sharing)
            else:
                command(1, "resume", out)
        way = " → ".join(map(str, chain)) + f", {SHARDS[begin]} ↔ {SHARDS[other]}"
        figure = f"{good} of {len(chain) - 1} bitwise at load, same passages next"
        yield "resume elsewhere", way, figure, good == len(chain) - 1


def evaluation(folder: Path, quick: bool) -> Iterator[Row]:
    """One checkpoint evaluated by W processes."""
    text = write_text(folder)
    command(1, *train(text, folder / "run", 2))
    words = ("evaluate", folder / "run", "--batch-size", 3, "--threads", 1, "--json")
    found = [command(count, *words) for count in ((1, 2) if quick else (1, 2, 3, 4))]
    equal = len(set(found)) == 1
    yield "same evaluation", f"W = 1 to {len(found)}", "equal" if equal else "differs", equal


def faults(folder: Path, quick: bool) -> Iterator[Row]:
    """A fault in one process: all end, nothing that was saved is lost, and one line says why."""
    text = write_text(folder)
    for name, (kind, act) in FAULTS.items():
        wrong, longest = [], 0.0
        tries = 1 if quick else 20
        for number in range(tries):
            shard = list(SHARDS)[number % 2]
            seconds, problem = broken(folder / f"{name}-{number}", text, kind, act, shard)
            longest = max(longest, seconds)
            wrong += [problem] * bool(problem)
        figure = f"{len(wrong)} wrong, at most {longest:.0f} s" + f": {wrong[:2]}" * bool(wrong)
        yield f"fault: {name}", f"{tries} tries, W = 2", figure, not wrong


# --- memory and cost -------------------------------------------------------------------------


def memory(folder: Path, quick: bool) -> Iterator[Row]:
    """What each process holds after two steps."""
    sizes = (128, 2) if quick else (512, 8)
    alone = json.loads(ranks(1, "memory", "none", *sizes)[0])[0]
    total = sum(alone[name] for name in ("weights", "gradients", "moments"))
    for count in (2,) if quick else (2, 4):
        every = json.loads(ranks(count, "memory", "weights", *sizes)[0])
        held = [sum(x[name] for name in ("weights", "gradients", "moments")) for x in every]
        share, high = max(held) / total, max(each["highest"] for each in every) >> 20
        figure = f"{max(held) >> 20} of {total >> 20} MiB, {share:.3f}; highest level {high} MiB"
        figure += f" against {alone['highest'] >> 20}"
        yield "memory, FSDP2", f"W = {count}, largest share", figure, share < 1.1 / count


def cost(folder: Path, quick: bool) -> Iterator[Row]:
    """Speed against a plain DDP loop around transformers, and bytes sent."""
    sizes = (64, 2, 1024) if quick else (256, 4, 8192)
    turns = 2 if quick else 8
    for count in (1, 2):
        found = json.loads(ranks(count, "cost", turns, *sizes)[0])
        every, weights = found["processes"], found["weights"]
        ratios = [
            b[0] / a[0]
            for a, b in zip(every[0]["minicpt"], every[0]["plain DDP"], strict=True)
        ]
        best = {name: min(each[0] for each in turns) for name, turns in every[0].items()}
        cpu = {name: median(x[1] for x in each) for name, each in every[0].items()}
        sent = {name: median(x[2] for x in each) for name, each in every[0].items()}
        figure = (
            f"{16 * 128 / best['minicpt']:,.0f} tokens/s, {median(ratios):.2f} times plain DDP"
            f" (best against best {best['plain DDP'] / best['minicpt']:.2f}, CPU seconds"
            f" {cpu['plain DDP'] / cpu['minicpt']:.2f}); {sent['minicpt'] / 1e6:.1f} MB sent a"
            f" step, plain {sent['plain DDP'] / 1e6:.1f}"
        )
        yield "cost", f"W = {count}, {weights / 1e6:.1f} M weights", figure, median(ratios) >= 1
        if count == 1:
            alone = best["minicpt"]
    for count in (2, 10, 100, 1000):
        bytes_ = 2 * (count - 1) / count * 4 * weights + 60 * count
        share = alone / (alone + bytes_ / BANDWIDTH)
        figure = f"{bytes_ / 1e6:.1f} MB; at least {share:.0%} of {count} times the speed"
        yield "on paper, DDP", f"W = {count}, 16 rows each, 10 Gbit/s", figure, True


PARTS = {
    "batches": batches,
    "gradient": gradient,
    "repeated": repeated,
    "resume": resume,
    "evaluation": evaluation,
    "faults": faults,
    "memory": memory,
    "cost": cost,
}


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small part of each")
    parser.add_argument("--only", nargs="+", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", metavar="PATH", help="write the rows")
    options = parser.parse_args(words)
    for name in options.only or ():
        if name not in PARTS:
            raise InputError(f"no part is called {name!r}; use one of {', '.join(PARTS)}")
    check_writable(options.json)
    print(__doc__.splitlines()[0] + "\n" + machine(1) + "\n", flush=True)
    rows: list[Row] = []
    for name in options.only or PARTS:
        with tempfile.TemporaryDirectory(prefix="minicpt-processes-") as folder:
            for row in PARTS[name](Path(folder), options.quick):
                print(": ".join(row[:3]), file=sys.stderr, flush=True)
                rows.append(row)
    cells = [[*row[:3], "holds" if row[3] else "FAILS"] for row in rows]
    print(table(["promise", "how", "figure", ""], cells))
    if options.json:
        names = ("promise", "how", "figure", "holds")
        write_json(options.json, [dict(zip(names, row, strict=True)) for row in rows])
    return int(not all(row[3] for row in rows))


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
