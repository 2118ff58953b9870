"""What does a real model gain and forget when a laptop continues it, and what does that cost?

SmolLM2 (135M weights, Llama's architecture) is continued with causal-lm on the standard library's
source: all of its weights, or LoRA; alone, or with texts that it wrote itself mixed in
(self-replay). MiniLM (23M, the body of a BERT) is continued with masked-lm: its head is new.
Gained is the fall of the held-out loss on that text, and forgotten its rise on Python's reference,
in bits a byte (MiniLM: in nats a target, since masked-lm does not predict all of the text).

Every training is a command of minicpt as a user types it, in a process of its own, and is printed.
Before them the folders are made from two packages (``real_folders.py``), and each model's loss on
a page must be that of transformers. Peak memory is the resident set, imports included.

What is done stands in ``--out``; the same command goes on after what was interrupted, and a part
whose command has changed runs again. Leaves out larger models, and several seeds: differences of a
hundredth of a bit are within what another seed may change.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from timing import check_writable, fill_in, machine, run, write_json

from minicpt.cli.main import Parser
from minicpt.common.errors import InputError, WorkError
from minicpt.runs.console import tell

FOLDERS = str(Path(__file__).with_name("real_folders.py"))
PROMPT = "def read_lines(path):"
MOST_WINDOW = 512
FULL = {"steps": 100, "window": 256, "passages": 64}
QUICK = {"steps": 3, "window": 32, "passages": 4}
FULL_RATE, LORA_RATE, MASKED_RATE = "5e-5", "1e-3", "5e-4"
TRAININGS = {  # name in tables -> model, objective and flags
    "full": ("smollm2", "causal-lm", ["--learning-rate", FULL_RATE]),
    "full-replay": ("smollm2", "causal-lm", ["--learning-rate", FULL_RATE, "--self-replay", "0.1"]),
    "lora": ("smollm2", "causal-lm", ["--learning-rate", LORA_RATE, "--lora", "8"]),
    "lora-replay": (
        "smollm2", "causal-lm",
        ["--learning-rate", LORA_RATE, "--lora", "8", "--self-replay", "0.1"],
    ),
    "masked": ("minilm", "masked-lm", ["--learning-rate", MASKED_RATE]),
}  # fmt: skip
LABELS = {
    "full": "all weights", "full-replay": "all weights, self-replay 10 %", "lora": "LoRA rank 8",
    "lora-replay": "LoRA rank 8, self-replay 10 %", "masked": "MiniLM, masked-lm",
}  # fmt: skip


# --- parts: what was done is not done again --------------------------------------------------


class Parts:
    """What is done, a file of JSON for each part, in one folder."""

    def __init__(self, folder: Path):
        self.folder = folder / "parts"
        self.found: dict[str, dict] = {}

    def part(self, name: str, words: list[str], made: Path | None = None) -> dict:
        """What the command ``words`` printed as JSON, with its cost: see ``measured``.

        made  what the command makes: it is removed before, and must be there where it was run
        """
        path = self.folder / f"{name}.json"
        if path.exists() and (made is None or made.exists()):
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["command"] == words:
                tell(f"- {name}: done before")
                self.found[name] = kept
                return kept
        tell(f"$ {shown(words)}")
        if made:
            shutil.rmtree(made, ignore_errors=True)
        found = {"command": words} | measured(words)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(f"{path}.part", found)
        os.replace(f"{path}.part", path)
        self.found[name] = found
        return found


def measured(words: list[str]) -> dict:
    """What a new Python printed, and its cost.

    Keys: result (its JSON), seconds (on the clock), cpu_seconds (of all threads), peak_mib. Raises
    InputError or WorkError with its last line, where it fails.
    """
    begun = time.perf_counter()
    with ExitStack() as files:
        output = files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
        errors = files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
        seen = sys.stderr.isatty()  # then bars and messages go there, the last line among them
        process = subprocess.Popen(
            [sys.executable, *words], stdout=output, stderr=None if seen else errors
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        errors.seek(0)
        said = errors.read().strip().splitlines() or ["the command above failed"]
        output.seek(0)
        text = output.read()
    if status:
        last = said[-1].removeprefix("minicpt: ").removeprefix("error: ")
        raise (InputError if os.waitstatus_to_exitcode(status) == 2 else WorkError)(last)
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return {
        "result": json.loads(text),
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / unit,
    }


def shown(words: list[str]) -> str:
    """A command as a user types it."""
    words = ["minicpt", *words[2:]] if words[:2] == ["-m", "minicpt"] else ["python", *words]
    return shlex.join(word for word in words if word != "--json")


# --- commands --------------------------------------------------------------------------------


def training(name: str, options: argparse.Namespace) -> list[str]:
    """The words of one training, a command of minicpt."""
    model, objective, flags = TRAININGS[name]
    out = Path(options.out)
    words = ["-m", "minicpt", "train", objective, "--init", str(out / model)]
    words += ["--corpus", "builtin:code", "--old-corpus", "builtin:docs"]
    words += ["--window", str(options.window), "--batch-size", "4" if model == "smollm2" else "16"]
    words += ["--steps", str(options.steps), *flags]
    words += ["--evaluate-every", str(options.steps)]
    words += ["--evaluate-passages", str(options.passages), "--save-every", "0"]
    words += ["--threads", str(options.threads)] if options.threads else []
    return [*words, "--out", str(out / name), "--json"]


def generating(folder: Path) -> list[str]:
    words = ["-m", "minicpt", "generate", str(folder), PROMPT, "--length", "60"]
    return [*words, "--temperature", "0", "--json"]


def spent(run: Path) -> dict:
    """Where the seconds of a training went, from its ``metrics.jsonl``.

    Keys: step (the median one), evaluations (all), tokens_per_second.
    """
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = sorted(each["seconds"] for each in lines if each["kind"] == "step")
    looks = [each["seconds"] for each in lines if each["kind"] == "evaluation"]
    tokens = sum(each["tokens"] for each in lines if each["kind"] == "step")
    return {
        "step": steps[len(steps) // 2],
        "evaluations": sum(looks),
        "tokens_per_second": tokens / sum(steps),
    }


# --- the report ------------------------------------------------------------------------------


def row(name: str, part: dict, seconds: dict) -> dict:
    """What the tables show of a training. Losses are of the first and the last evaluation.

    Keys: name, unit ("bits/byte" or "nats/target"), new and old (before, after), gained, forgotten,
    seconds, cpu_seconds, peak_mib, and those of ``spent``.
    """
    first, last = part["result"]["evaluations"][0], part["result"]["evaluations"][-1]
    bits = first["held out"]["bits_per_byte"] is not None

    def loss(entry: dict, text: str) -> float:
        return entry[text]["bits_per_byte" if bits else "total"]

    new, old = ([loss(each, text) for each in (first, last)] for text in ("held out", "old text"))
    costs = {key: part[key] for key in ("seconds", "cpu_seconds", "peak_mib")}
    return {
        "name": name, "unit": "bits/byte" if bits else "nats/target", "new": new, "old": old,
        "gained": new[0] - new[1], "forgotten": old[1] - old[0],
    } | costs | seconds  # fmt: skip


def report(rows: list[dict], samples: dict[str, str]) -> str:
    """Tables in Markdown, and the samples."""
    lines = [
        "| continued | new text | gained | old text | forgotten | s/step | min | CPU min | MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        (new, new_after), (old, old_after) = each["new"], each["old"]
        lines.append(
            f"| {LABELS[each['name']]} | {new:.3f} → {new_after:.3f} | {each['gained']:+.3f}"
            f" | {old:.3f} → {old_after:.3f} | {each['forgotten']:+.3f} | {each['step']:.2f}"
            f" | {each['seconds'] / 60:.1f} | {each['cpu_seconds'] / 60:.1f}"
            f" | {each['peak_mib']:,.0f} |"
        )
    for name, text in samples.items():
        lines += ["", f"{name}:", "", *("    " + line for line in text.splitlines())]
    return "\n".join(lines)


def told_of(name: str, found: dict) -> str:
    """One model's agreement with transformers, in a line or two."""
    text = (
        f"{name}: {found['ours']:.6f} nats a target by minicpt, {found['theirs']:.6f} by"
        f" transformers: they differ by {found['difference']:.1e} ({found['targets']} targets)"
    )
    if "sentence" in found:
        right, wrong = (found["sentence"][each] for each in ("right", "wrong"))
        text += (
            f"\n  queries and keys left in GGUF's order: {found['wrong']:.2f} on that page;"
            f" 'The capital of France is': {wrong['loss']:.2f} instead of {right['loss']:.2f},"
            f" continued by {wrong['next']!r} and {right['next']!r}"
        )
    return text


# --- the command line ------------------------------------------------------------------------


def read_options(words: list[str]) -> argparse.Namespace:
    top = Parser(prog="real.py", description=__doc__.splitlines()[0])
    top.add_argument("--quick", action="store_true", help="few steps of short passages")
    top.add_argument("--prepare", action="store_true",
                     help="make and check the models' folders, and train nothing")  # fmt: skip
    top.add_argument("--only", nargs="+", metavar="NAME", choices=TRAININGS,
                     default=list(TRAININGS),
                     help=f"these trainings alone: {', '.join(TRAININGS)}")  # fmt: skip
    top.add_argument("--out", default="runs/real", metavar="DIR",
                     help="the models, the runs and what is done (default: runs/real)")  # fmt: skip
    top.add_argument("--json", metavar="PATH", help="write all that was measured")
    for key, text in {
        "steps": "of each training", "window": "tokens of a passage",
        "passages": "held-out ones of each evaluation",
    }.items():  # fmt: skip
        top.add_argument(f"--{key}", type=int, metavar="N",
                         help=f"{text} (default: {FULL[key]}; quick: {QUICK[key]})")  # fmt: skip
    top.add_argument("--threads", type=int, metavar="N", help="of torch (default: its choice)")
    options = top.parse_args(words)
    fill_in(options, QUICK if options.quick else FULL)
    for key in FULL:
        least = 8 if key == "window" else 1
        if getattr(options, key) < least:
            raise InputError(f"--{key} must be at least {least}, but is {getattr(options, key)}")
    if options.window > MOST_WINDOW:
        raise InputError(f"--window must be at most {MOST_WINDOW}, as far as MiniLM reads")
    return options


def main(words: list[str]) -> int:
    options = read_options(words)
    check_writable(options.json)
    out, models = Path(options.out), dict.fromkeys(TRAININGS[each][0] for each in options.only)
    parts = Parts(out)
    tell(__doc__.splitlines()[0])
    tell(f"{machine(options.threads)}\n")
    for name in models:
        folder = out / name
        parts.part(f"prepare-{name}", [FOLDERS, "prepare", name, str(folder)], folder)
        checked = parts.part(f"agreement-{name}", [FOLDERS, "agreement", name, str(folder)])
        tell(told_of(name, checked["result"]))
    rows, samples = [], {}
    for name in [] if options.prepare else options.only:
        part = parts.part(name, training(name, options), out / name)
        rows.append(row(name, part, spent(out / name)))
        if TRAININGS[name][0] == "smollm2":
            for title, folder in {"before": out / "smollm2", LABELS[name]: out / name}.items():
                written = parts.part(f"sample-{folder.name}", generating(folder))
                samples[title] = written["result"]["result"]
    if rows:
        sizes = f"{options.steps} steps of 4 passages (MiniLM: 16) of up to {options.window} tokens"
        tell(f"\n{sizes}; losses in bits a byte, of masked-lm in nats a target\n")
        tell(report(rows, samples))
    if options.json:
        write_json(options.json, {"machine": machine(options.threads), "rows": rows} | parts.found)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
