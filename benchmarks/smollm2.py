"""How fast does minicpt continue SmolLM2-135M, against transformers, and with LoRA against PEFT?

``throughput.py --smollm2``. A model of SmolLM2's sizes with random weights, float32, AdamW, no
dropout; random tokens, which cost what others do. Theirs is ``LlamaForCausalLM`` with sdpa and
fused AdamW in a plain loop; LoRA has the same rank beside the same four projections on both sides.
Sides, turns, seconds, bound and peak memory are those of ``throughput.py``.
"""

import argparse
import dataclasses
import importlib.util
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch
from material import EQUAL, Case
from throughput_results import aim_cells
from timing import machine, number, peak_memory, table, write_json
from turns import Worker, environment, take_turns
from worker import PLAIN, PRODUCTS

from minicpt.batch import Batch, shift
from minicpt.checkpoint.draft import without_memory
from minicpt.checkpoint.huggingface import export_config
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.models.llama import Llama, LlamaConfig

SIZES = {"vocabulary": 49152, "width": 576, "layers": 30, "num_heads": 9,
         "num_key_value_heads": 3, "feed_forward": 1536, "positions": 8192, "epsilon": 1e-5,
         "rope_theta": 1e5, "dropout": 0.0}  # fmt: skip
PASSAGES, WINDOW, RANK = 4, 256, 8
KINDS = {"full": 0, "LoRA": RANK}
THEIRS = f"sdpa, {PLAIN}"
FASTER, SHARE = 1.2, 0.7  # the aims: tokens a second and peak memory, against theirs


def case(lora: int, layers: int | None) -> Case:
    """A batch of random tokens, and the model; ``layers`` None: all of them."""
    config = LlamaConfig(**SIZES | ({"layers": layers} if layers else {}))
    shape = PASSAGES, WINDOW
    tokens = torch.randint(config.vocabulary, shape, generator=generator("smollm2"))
    inputs = {"tokens": tokens, "mask": torch.ones(shape, dtype=torch.bool)}
    batch = Batch(inputs, {"tokens": torch.stack([shift(row) for row in tokens])})
    foreign = export_config(without_memory(Llama, config))
    fields = dataclasses.asdict(config)
    return Case("causal-lm", "llama", fields, foreign, {EQUAL: [batch]}, lora)


def measure(kind: str, options: argparse.Namespace, words_of, path: str) -> dict:
    """The row of ``kind``. Keys as those of ``throughput.measure``, each of a step."""
    case(KINDS[kind], options.smollm2_layers).save(path)
    around = environment(options.threads)
    with ExitStack() as stack:  # a process each, so that no model of the last row is there
        sides = {
            side: stack.enter_context(Worker(side, words_of(side, options), around))
            for side in ("ours", "theirs")
        }
        for side in sides.values():
            side.ask("case", path)
        chosen = {sides["ours"]: [EQUAL, PRODUCTS], sides["theirs"]: [THEIRS]}
        found = take_turns(chosen, options.rounds)
    ours, theirs, bound = (
        found[key] for key in (("ours", EQUAL), ("theirs", THEIRS), ("ours", PRODUCTS))
    )
    peaks = [None, None]
    if options.memory:
        peaks = [
            peak_memory([*words_of(side, options), path, candidate], around)
            for side, candidate in (("ours", EQUAL), ("theirs", THEIRS))
        ]
    return {
        "kind": kind, "ours_seconds": ours, "theirs_seconds": theirs, "products_seconds": bound,
        "ratio": theirs.wall / ours.wall, "cpu_ratio": theirs.cpu / ours.cpu,
        "matmul_bound": theirs.cpu / bound.cpu, "ours_peak_mib": peaks[0],
        "theirs_peak_mib": peaks[1],
    }  # fmt: skip


def report(rows: list[dict]) -> str:
    headings = ["", "ours s", "theirs s", "ratio", "ours CPU s", "theirs CPU s", "CPU ratio",
                "aim", "bound", "ours MiB", "theirs MiB", "share", "aim"]  # fmt: skip
    lines = []
    for row in rows:
        share = row["ours_peak_mib"] and row["ours_peak_mib"] / row["theirs_peak_mib"]
        lines.append([
            row["kind"], number(row["ours_seconds"][0]), number(row["theirs_seconds"][0]),
            number(row["ratio"]), number(row["ours_seconds"][1]), number(row["theirs_seconds"][1]),
            *aim_cells(row["cpu_ratio"], FASTER), number(row["matmul_bound"]),
            number(row["ours_peak_mib"]), number(row["theirs_peak_mib"]),
            *aim_cells(share, SHARE, most=True),
        ])  # fmt: skip
    return table(headings, lines)


def main(options: argparse.Namespace, words_of) -> int:
    """``throughput.py --smollm2``. Raises InputError where PEFT is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise InputError("--smollm2 needs peft: pip install peft")
    print(__doc__.splitlines()[0])
    print(machine(options.threads))
    layers = options.smollm2_layers or SIZES["layers"]
    print(f"{layers} layers, {PASSAGES} x {WINDOW} tokens; best of {options.rounds} rounds; bound: "
          "CPU seconds of theirs to those of our matrix products alone\n")  # fmt: skip
    rows = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="minicpt-") as folder:
            rows.append(measure(kind, options, words_of, str(Path(folder, "case"))))
        if options.json:
            write_json(options.json, rows)
    print(report(rows))
    return 0
