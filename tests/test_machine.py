"""Where and in which precision a model runs: devices, bfloat16, compilation, threads."""

import ctypes
import functools
import io
import json
import subprocess
import sys

import pytest
import torch
from making import close

from minicpt import checkpoint
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.order import Draw
from minicpt.loss import whole_sequence_loss
from minicpt.models import layers
from minicpt.proofs.bounds import tolerance
from minicpt.runs.assembly import make_trainer, model_kind, new_model, objective_kind
from minicpt.training import device
from minicpt.training.device import Machine
from minicpt.training.evaluation import evaluate
from minicpt.training.resuming import state_of
from minicpt.training.trainer import Training

OBJECTIVES = ["causal-lm", "masked-lm", "next-sentence", "reconstruction"]
EVERY = pytest.mark.parametrize("name", OBJECTIVES)
SETTINGS = Training(batch_size=4, micro_batch_size=2, learning_rate=1e-2)
SIXTEEN = Machine(dtype="bfloat16")
SMALL = "--width 16 --layers 1 --num-heads 2 --vocab-size 300 --window 32".split()
SMALL += ["--batch-size", "4", "--steps", "2"]


def make(name, tokenizer, **sizes):
    kind = objective_kind(name)
    objective = kind(tokenizer, kind.Settings(window=32))
    sizes = {"width": 16, "layers": 2, "num_heads": 2} | sizes
    return new_model(model_kind("", kind), objective, sizes, seed=0), objective


def batch_of(objective, corpus):
    plan = objective.plan(corpus, 0, 0)
    places = range(min(4, len(plan)))
    draws = [Draw(place, generator("batch", place)) for place in places]
    return objective.batch([plan[place] for place in places], draws)


# --- devices


@EVERY
@pytest.mark.parametrize("fused", [True, False])
def test_a_forward_pass_makes_no_tensor_on_another_device(name, fused, tokenizer, corpus):
    """On "meta", tensors have shapes and no values, and none may meet one of the CPU."""
    model, objective = make(name, tokenizer, fused=fused)
    model.to("meta")
    batch = batch_of(objective, corpus).to("meta")
    hidden = model(**batch.inputs)
    assert hidden.device.type == "meta"
    for head, target in batch.targets.items():
        assert hidden.shape[:2] == target.shape
        assert model.heads[head](hidden[:, 0]).device.type == "meta"
    del batch.inputs["mask"]  # what a model makes in its place belongs on the device as well
    assert model(**batch.inputs).device.type == "meta"


def test_a_mask_on_the_wrong_device_would_be_found(tokenizer, corpus, monkeypatch):
    model, objective = make("causal-lm", tokenizer)
    batch = batch_of(objective, corpus).to("meta")
    on_the_cpu = functools.partial(layers.causal_mask, device=None)
    monkeypatch.setattr(layers, "causal_mask", lambda length, device: on_the_cpu(length))
    with pytest.raises(RuntimeError, match="device"):
        model.to("meta")(**batch.inputs)


# --- bfloat16


@EVERY
def test_the_loss_in_bfloat16_is_that_of_float32_but_for_rounding(name, tokenizer, corpus):
    model, objective = make(name, tokenizer)
    model.eval()
    batch = batch_of(objective, corpus)
    plain = whole_sequence_loss(model, batch)
    with SIXTEEN.autocast():
        rounded = whole_sequence_loss(model, batch)
    for head, loss in plain.items():
        # bfloat16 has 8 bits: a product is off by at most 2^-8 of itself, and logits here are O(1).
        assert rounded[head].sum.dtype == torch.float32
        assert 0 < (rounded[head].mean - loss.mean).detach().abs() < 2**-8 * 4
        assert rounded[head].count == loss.count


def train(name, tokenizer, corpus, machine, steps=6, stop=None):
    """The trainer after all steps; with ``stop``, by way of a saved state and another trainer."""
    model, objective = make(name, tokenizer)
    trainer = make_trainer(model, objective, corpus, SETTINGS, steps, machine)
    while trainer.step < (stop or steps):
        trainer.advance()
    if stop:
        file = io.BytesIO()
        torch.save([model.state_dict(), state_of(trainer)], file)
        file.seek(0)
        weights, state = torch.load(file, weights_only=True)
        model, objective = make(name, tokenizer)
        model.load_state_dict(weights)
        torch.manual_seed(5)  # another process
        trainer = make_trainer(
            model, objective, corpus, SETTINGS, steps, machine, state=state
        )
        list(trainer.run())
    return trainer


@EVERY
def test_training_in_bfloat16_repeats_and_resumes_bitwise(name, tokenizer, corpus):
    whole = train(name, tokenizer, corpus, SIXTEEN)
    for other in (
        train(name, tokenizer, corpus, SIXTEEN),
        train(name, tokenizer, corpus, SIXTEEN, stop=2),
    ):
        for key, value in whole.model.state_dict().items():
            assert torch.equal(value, other.model.state_dict()[key]), key
    plain = train(name, tokenizer, corpus, Machine()).model.state_dict()
    assert any(not torch.equal(plain[key], v) for key, v in whole.model.state_dict().items())
    # Only products are rounded: what is kept from step to step is in float32.
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in whole.model.parameters()
               if p.grad is not None)  # fmt: skip
    moments = [v for each in whole.optimizer.state.values() for v in each.values()]
    assert moments and all(value.dtype == torch.float32 for value in moments)


def test_training_in_bfloat16_learns(tokenizer, corpus):
    model, objective = make("causal-lm", tokenizer, dropout=0.0)
    trainer = make_trainer(model, objective, corpus, SETTINGS, 60, SIXTEEN)
    losses = [float(step.losses["tokens"].mean) for step in trainer.run()]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_bfloat16_without_hardware_is_said(monkeypatch):
    said = []
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    SIXTEEN.prepare(said.append)
    assert len(said) == 1 and "emulated" in said[0]
    Machine().prepare(said.append)
    assert len(said) == 1


def recorded(run):
    newest = checkpoint.steps(run)[-1] / checkpoint.RECORD
    return json.loads(newest.read_text())["config"]["machine"]["dtype"]


@pytest.mark.parametrize("amx, avx", [(True, False), (False, True), (False, False)])
def test_auto_is_decided_by_the_instructions_and_recorded(amx, avx, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    expected = "bfloat16" if amx or avx else "float32"
    text, out = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("".join(f"Sentence {n} of the text.\n" for n in range(300)))
    words = ["train", "causal-lm", "--corpus", str(text), "--out", str(out), *SMALL]
    assert main([*words, "--schedule", "constant", "--warmup", "0", "--dtype", "auto"]) == 0
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "auto" in line]
    assert expected in said and "instructions" in said
    assert recorded(out) == expected
    # Elsewhere it goes on in the format that was chosen, whatever is there.
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: not amx)
    assert main(["resume", str(out), "--steps", "3"]) == 0
    assert "auto" not in capsys.readouterr().err
    assert recorded(out) == expected
    with Machine(dtype="auto").autocast():
        sixteen = not amx or avx
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == (
            torch.bfloat16 if sixteen else torch.float32
        )


# --- compilation


def test_only_training_steps_are_compiled_and_names_stay(tokenizer, corpus, monkeypatch):
    calls = []

    class Wrapper(torch.nn.Module):
        def __init__(self, learner):
            super().__init__()
            self.learner = learner

        def forward(self, batch, first):
            calls.append(1)
            return self.learner(batch, first=first)

    def stand_in(learner, dynamic):
        assert dynamic, "lengths differ from batch to batch"
        return Wrapper(learner)

    monkeypatch.setattr(torch, "compile", stand_in)
    plain = train("masked-lm", tokenizer, corpus, Machine()).model
    trainer = train("masked-lm", tokenizer, corpus, Machine(compile=True), stop=2)
    assert len(calls) == 6 * 2
    found = trainer.model.state_dict()
    assert list(found) == list(plain.state_dict())
    assert all(torch.equal(found[name], value) for name, value in plain.state_dict().items())
    evaluate(trainer.model, trainer.objective, corpus)
    assert len(calls) == 6 * 2


def test_one_graph_serves_all_lengths(tokenizer, corpus):
    """Traced as for compilation, and then run as it is: that takes no compiler."""
    model, objective = make("causal-lm", tokenizer, dropout=0.0, layers=1)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(model, dynamic=True, fullgraph=True, backend=backend)
    batch = batch_of(objective, corpus)
    for cut in (4, 3, 2):
        inputs = {name: value[:cut, : 5 * cut].clone() for name, value in batch.inputs.items()}
        close(compiled(**inputs), model(**inputs), model, inputs)
    assert len(graphs) == 1
    torch.compiler.reset()


def test_what_compilation_lacks_is_said_in_one_line(monkeypatch):
    def compile(function):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand a page more")

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(InputError, match=r"^--compile .*No working C\+\+ .*--no-compile$"):
        Machine(compile=True).prepare(print)


# --- the command line


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "days.txt"
    path.write_text("".join(f"On day {day} it rained on the boats. " for day in range(300)))
    return str(path)


def test_a_missing_device_is_refused_before_the_text_is_read(text, tmp_path, capsys):
    out = str(tmp_path / "run")
    for words in (
        ["train", "causal-lm", "--corpus", "no-such-file"],
        ["evaluate", "no-such-folder"],
        ["generate", "no-such-folder"],
    ):
        assert main([*words, "--device", "nowhere"]) == 2
        assert capsys.readouterr().err.startswith("minicpt: error: --device nowhere ")
    assert main(["train", "causal-lm", "--corpus", text, *SMALL, "--out", out]) == 0
    assert main(["resume", out, "--device", "nowhere"]) == 2
    error = capsys.readouterr().err
    assert "--device was cpu and is nowhere" in error and "or --device cpu" in error


def test_a_run_keeps_its_machine(text, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    words = ["train", "causal-lm", "--corpus", text, *SMALL, "--dtype", "bfloat16"]
    assert main([*words, "--out", str(out)]) == 0
    record = checkpoint.load(out).record
    assert record["config"]["machine"] == {
        "device": "cpu", "dtype": "bfloat16", "compile": False, "threads": None, "shard": "none",
        "checkpoint_activations": False,
    }  # fmt: skip
    results = []
    for more in ([], ["--dtype", "bfloat16"]):
        capsys.readouterr()
        assert main(["evaluate", str(out), "--json", *more]) == 0
        results.append(json.loads(capsys.readouterr().out)["held out"]["total"])
    last = record["evaluations"][-1]["held out"]
    same = tolerance(sum(last["targets"].values()), torch.float32)  # what is added is float32
    assert results[1] == pytest.approx(last["total"], rel=same) and results[0] != results[1]
    own, asked = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: own + 1)
    assert main(["resume", str(out), "--dtype", "float32"]) == 0
    error = capsys.readouterr().err
    assert asked == [own] and f"torch would take {own + 1}" in error
    assert "--dtype was bfloat16 and is float32" in error


FAULTS = """
import resource, torch
from minicpt.training import device
assert {asked} is False or device.keep_freed_memory() is True
for _ in range(20):  # until the heap is large enough
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_of_five_tensors(asked: bool) -> int:
    """The pages that the system hands out for five tensors of 64 MiB, one after the other."""
    # 64 MiB: glibc gives tensors that are smaller than 32 MiB back only at times.
    code = FAULTS.format(asked=asked)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_used_again():
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("only glibc can be asked to keep freed memory")
    returned = pages_of_five_tensors(asked=False)
    if returned < 5:
        pytest.skip("no page is counted: this system does not count, or has another allocator")
    # Each tensor is a new mapping, of at least a page of whatever size; kept, none is.
    assert pages_of_five_tensors(asked=True) < returned / 5


def test_other_c_libraries_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: object())
    assert device.keep_freed_memory() is False
