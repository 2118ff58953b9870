"""The benchmarks run, compute what they say they compute, and report errors in one line.

Nothing here is timed: that times are positive is all that is asked of them.
"""

import doctest
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from making import close
from torch.utils.flop_counter import FlopCounterMode

FOLDER = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))

import batches  # noqa: E402
import continued_pretraining  # noqa: E402
import machines  # noqa: E402
import single_pass  # noqa: E402
import timing  # noqa: E402
import variants  # noqa: E402

from minicpt.batch import Batch, target_stream  # noqa: E402
from minicpt.common.errors import InputError, WorkError  # noqa: E402
from minicpt.data.documents import Documents  # noqa: E402
from minicpt.data.packing import packed_causal_mask  # noqa: E402
from minicpt.loss import per_token_losses, target_losses  # noqa: E402
from minicpt.models.cache import LayerCache  # noqa: E402

TINY = variants.Sizes(width=8, layers=2, vocabulary=300)
WORDS = "--quick --width 8 --layers 1 --vocabulary 300 --lengths 16 20 --rounds 1".split()
KEYS = set(
    "objective variant length targets operations worst_difference tolerance seconds cpu_seconds"
    " ratio cpu_ratio counted_ratio memory_mib skipped".split()
)
VARIANTS = {
    "causal-lm": {"whole", "prefix", "cached"},
    "masked-lm": {"whole", "target"},
    "next-sentence": {"whole", "target"},
    "reconstruction": {"whole", "prefix", "cached"},
}


@pytest.fixture(autouse=True)
def threads():
    """The script sets the number of torch's threads, for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=list(variants.OBJECTIVES))
def these(request):
    return variants.pieces(request.param, 16, TINY)


class TestVariants:
    @pytest.mark.parametrize("length", [16, 32, 64])
    @pytest.mark.parametrize("name", list(VARIANTS))
    def test_lengths_are_those_asked_for(self, name, length):
        batch = variants.pieces(name, length, TINY).batch
        assert batch.inputs[target_stream(batch)].shape == (1, length)
        assert all(count > 0 for count in batch.counts().values())

    def test_losses_and_gradients_are_those_of_the_single_pass(self, these):
        for name in these.variants():
            assert variants.worst_difference(these, name) <= these.tolerance() < 1e-10

    def test_losses_are_those_of_the_library(self, these):
        double = these.double()
        whole = target_losses(double.model, double.batch)
        expected = {head: each.losses for head, each in whole.items()}
        alone = per_token_losses(double.losses, double.batch, double.visibility)
        for call in double.variants().values():
            for head, losses in call().items():
                assert len(losses) == double.batch.counts()[head]
                for other in (expected, alone):
                    close(losses, other[head], double.model, double.batch)

    def test_a_cache_without_its_gradient_is_found_out(self, monkeypatch):
        these = variants.pieces("causal-lm", 16, TINY)
        add = LayerCache.add

        def detached(self, *new):
            self.kept = None if self.kept is None else self.kept.detach()
            return add(self, *new)

        monkeypatch.setattr(LayerCache, "add", detached)
        with pytest.raises(WorkError, match="cached differs from the single pass .* the gradient"):
            variants.worst_difference(these, "cached")

    def test_the_count_is_that_of_torch(self, these):
        # Written-out attention: the fused kernel of the CPU is unknown to torch's counter.
        for module in these.model.modules():
            if hasattr(module, "fused"):
                module.fused = False
        # Only the forward pass is counted, and backward() needs something to do.
        for name, call in these.variants().items():
            # Without gradients: the fused loss makes its own on the way.
            patching, counting = pytest.MonkeyPatch.context(), FlopCounterMode(display=False)
            with counting as forward, patching as patch, torch.no_grad():
                patch.setattr(torch.Tensor, "backward", lambda loss: None)
                call()
            assert these.operations()[name] == forward.get_total_flops(), name


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Those of one quick run over all objectives."""
    path = tmp_path_factory.mktemp("benchmark") / "rows.json"
    before = torch.get_num_threads()
    assert single_pass.main([*WORDS, "--no-memory", "--json", str(path)]) == 0
    torch.set_num_threads(before)
    return json.loads(path.read_text(encoding="utf-8"))


class TestSinglePass:
    def test_every_objective_length_and_variant_has_a_row(self, rows):
        found = {(row["objective"], row["variant"], row["length"]) for row in rows}
        assert len(found) == len(rows)
        for name, expected in VARIANTS.items():
            for length in (16, 20):
                assert {each[1] for each in found if each[::2] == (name, length)} == expected
        assert {row["objective"] for row in rows} == set(variants.OBJECTIVES)

    def test_the_rows_hold_what_is_documented(self, rows):
        assert all(key in single_pass.measure.__doc__ for key in KEYS)
        for row in rows:
            assert set(row) == KEYS
            assert row["memory_mib"] is None
            assert row["targets"] > 0 and row["operations"] > 0 and row["counted_ratio"] > 0
            if row["skipped"] is None:
                assert row["seconds"] > 0 and row["ratio"] > 0
                assert row["cpu_seconds"] > 0 and row["cpu_ratio"] > 0
                assert (row["variant"] == "whole") == (row["worst_difference"] is None)
                assert (row["worst_difference"] or 0.0) <= row["tolerance"]

    def test_what_is_shown(self, capsys):
        words = [*WORDS, "--no-memory", "--objectives", "causal-lm", "masked-lm"]
        assert single_pass.main(words) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(single_pass.__doc__.splitlines()[0] + "\n")
        assert f"torch {torch.__version__}" in shown and "threads: 1" in shown
        assert "counted" in shown and "exponent of length" in shown
        assert "freed memory: returned to the system" in shown
        assert "No prefix and no cache here" in shown and "Generation needs the cache" in shown
        machine = timing.machine()
        assert all(len(line) <= 100 for line in shown.splitlines() if line != machine)

    def test_what_is_left_out_is_said(self, capsys, tmp_path):
        path = tmp_path / "rows.json"
        words = [*WORDS, "--no-memory", "--objectives", "causal-lm", "--budget", "1e-9"]
        assert single_pass.main([*words, "--json", str(path)]) == 0
        shown = capsys.readouterr().out
        rows = json.loads(path.read_text(encoding="utf-8"))
        left_out = {(row["variant"], row["length"]) for row in rows if row["skipped"]}
        assert left_out == {("prefix", 20), ("cached", 20)}
        for variant, length in left_out:
            assert f"- {variant} at {length} was not run: it would take about" in shown

    def test_memory_is_that_of_a_process_of_its_own(self, capsys):
        words = "--one causal-lm whole 64 --width 64 --layers 2 --vocabulary 8192".split()
        gradients = 8192 * 64 * 4 / timing.MEBIBYTE
        logits = 64 * 8192 * 4 / timing.MEBIBYTE
        measured = timing.peak_memory([str(FOLDER / "single_pass.py"), *words])
        assert gradients + logits < measured < 20 * (gradients + logits)

    def test_a_plot(self, tmp_path):
        pytest.importorskip("matplotlib")
        path = tmp_path / "plot.png"
        words = [*WORDS, "--no-memory", "--objectives", "causal-lm", "--plot", str(path)]
        assert single_pass.main(words) == 0
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "words, said",
    [
        ("--json no/such/folder/rows.json", "cannot write 'no/such/folder/rows.json'"),
        ("--lengths 8", "--lengths 8 is too short"),
        ("--width 6", "--width must be a multiple"),
        ("--rounds 0", "--rounds must be at least 1"),
        ("--objectives nonsense", "nonsense"),
        ("--one causal-lm nonsense 16", "--one takes"),
        ("--one masked-lm cached 16", "masked-lm has no variant cached"),
    ],
)
def test_errors_are_one_line(words, said, capsys):
    assert timing.run(single_pass.main, ["--quick", *words.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("minicpt: error: ") and captured.err.count("\n") == 1
    assert said in captured.err


def test_a_missing_matplotlib_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["--quick", "--plot", str(tmp_path / "plot.png")]
    assert timing.run(single_pass.main, words) == 2
    assert "pip install matplotlib" in capsys.readouterr().err


def test_the_exit_status_of_the_script():
    command = [sys.executable, str(FOLDER / "single_pass.py"), "--lengths", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1


def test_a_failed_process_is_a_work_error():
    with pytest.raises(WorkError, match="ended with 3: gone"):
        timing.peak_memory(["-c", "import sys; print('gone', file=sys.stderr); sys.exit(3)"])


def test_the_commands_of_the_readme_are_understood():
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line.startswith("    python benchmarks/single_pass.py")]
    assert len(commands) > 2
    for command in commands:
        single_pass.read_options(shlex.split(command)[2:])


def test_the_examples_of_timing_hold():
    found = doctest.testmod(timing)
    assert found.attempted and not found.failed


def test_turns_are_taken_and_the_best_counts(monkeypatch):
    # A clock by which "a" takes 1, then 3 seconds, and "b" 5, then 4; and one of CPU.
    ticks, busy = iter([0, 1, 1, 6, 6, 9, 9, 13]), iter([0, 2, 2, 4, 4, 5, 5, 8])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(timing.time, "process_time", lambda: next(busy))
    order = []
    best = timing.taking_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b", "a", "b"] and best == {"a": (1, 1), "b": (4, 2)}


def test_cpu_time_is_that_of_a_turns_mean_call(monkeypatch):
    # Three calls of 2, 1 and 2 seconds make a turn of 5; a coarse clock of CPU counts 6 for them.
    ticks, busy = iter([0, 2, 2, 3, 3, 5]), iter([0, 6])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(timing.time, "process_time", lambda: next(busy))
    assert timing.taking_turns({"it": lambda: None}, 1, turn=5) == {"it": (1, 2)}


def test_a_c_library_that_cannot_keep_memory_is_named(monkeypatch):
    monkeypatch.setattr(timing, "keep_freed_memory", lambda: False)
    timing.use_freed_memory(timing.RETURNED)
    with pytest.raises(InputError, match="needs glibc; use --freed-memory returned"):
        timing.use_freed_memory(timing.KEPT)


def test_slopes():
    lengths = [16, 64, 512]
    assert timing.slope(lengths, [3 * length**1.5 for length in lengths]) == pytest.approx(1.5)
    assert math.isnan(timing.slope([16], [1.0]))
    # By hand: logarithms to base 2 are 0, 1, 2 against 0, 0, 3.
    assert timing.slope([1, 2, 4], [1, 1, 8]) == pytest.approx(1.5)


class TestBatches:
    WORDS = "--quick --width 8 --layers 1 --vocabulary 300 --window 96 --steps 1 --rounds 1".split()

    def test_the_rows_and_what_is_shown(self, capsys, tmp_path, monkeypatch):
        read = batches.read

        def less(*given, **more):
            return Documents.of([*read(*given, **more)][:200])

        monkeypatch.setattr(batches, "read", less)
        path = tmp_path / "rows.json"
        assert batches.main([*self.WORDS, "--json", str(path)]) == 0
        rows = json.loads(path.read_text(encoding="utf-8"))
        assert {row["objective"] for row in rows} == set(batches.CASES)
        assert {CASE[0] for CASE in batches.CASES.values()} <= set(variants.OBJECTIVES)
        for row in rows:
            assert 0 <= row["padding"] < 1 and 0 < row["share"] < 1
            assert row["tokens_per_s"] > 0 and row["ratio"] > 0
            assert row["step_cpu_seconds"] > 0 and row["cpu_ratio"] > 0
        padding = {(row["objective"], row["order"]): row["padding"] for row in rows}
        for name, (_, _, order) in batches.CASES.items():
            base = name if (name, "random") in padding else "causal-lm"
            # Pairs fill their window nearly always: of them the order can spare nothing.
            assert padding[name, order] < max(padding[base, "random"], 0.02)
        shown = capsys.readouterr().out
        assert shown.startswith(batches.__doc__.splitlines()[0] + "\n") and "like lengths" in shown
        assert "freed memory: kept (mallopt), on all sides" in shown

    def test_positions_by_hand(self):
        mask = torch.tensor([[True, True, True], [True, False, False]])
        assert batches.positions(Batch({"tokens": mask.long(), "mask": mask}, {})) == (4, 6)
        pattern = packed_causal_mask(torch.tensor([[0, 0, 1, -1]]))
        assert batches.positions(Batch({"mask": pattern, "decoder_mask": mask}, {})) == (7, 10)

    def test_errors_are_one_line(self, capsys):
        assert timing.run(batches.main, ["--quick", "--steps", "0"]) == 2
        assert "--steps must be at least 1" in capsys.readouterr().err


class TestContinuedPretraining:
    SIZES = "--width 8 --window 16 --vocab-size 280 --batch-size 2 --steps 2 --base-steps 1"
    WORDS = ["--quick", *SIZES.split(), "--stages", "weak", "--sweep", "interpolation", "warmup"]

    def test_the_result_and_what_is_shown(self, capsys, tmp_path):
        path = tmp_path / "result.json"
        words = [*self.WORDS, "--no-tune-rates", "--evaluate-passages", "4"]
        words += ["--out", str(tmp_path / "out"), "--json", str(path)]
        assert continued_pretraining.main(words) == 0
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["machine"] == timing.machine()
        curves = {curve["name"]: curve["arms"] for curve in result["weak"]["curves"]}
        assert set(curves) == {"interpolation", "warmup"}
        assert curves["warmup"] == ["warmup=0", "warmup=0.2", "warmup=0.5"]
        shown = capsys.readouterr().out
        assert shown.startswith(continued_pretraining.__doc__.splitlines()[0] + "\n")
        assert timing.machine() in shown and "interpolation 0.25" in shown
        assert "plan      1 base, 5 continuations, 5 changes" in shown
        assert "time      about" in shown

    def test_errors_are_one_line(self, capsys):
        assert timing.run(continued_pretraining.main, ["--sweep", "hope"]) == 2
        assert "nothing called 'hope'" in capsys.readouterr().err


class TestMachines:
    def test_each_setting_acts(self, tmp_path, monkeypatch):
        (tmp_path / "shows.py").write_text(
            "import torch\n"
            "print(torch.get_num_threads(), torch.backends.cpu.get_cpu_capability(),"
            " torch.backends.mkldnn.enabled)\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        own = torch.backends.cpu.get_cpu_capability()
        expected = {
            "2 threads": f"2 {own} True", "torch without AVX2": "1 DEFAULT True",
            "no oneDNN": f"1 {own} False",
        }  # fmt: skip
        for name, shown in expected.items():
            found = machines.run(["shows"], machines.SETTINGS[name])
            assert (found["status"], found["said"]) == (0, [shown])

    def test_a_command_that_fails_somewhere_is_told(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "fails.py").write_text(
            "import sys, torch\n"
            "sys.exit('FAILED: two threads' if torch.get_num_threads() == 2 else 0)\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        some = {name: machines.SETTINGS[name] for name in ("1 thread", "2 threads")}
        monkeypatch.setattr(machines, "SETTINGS", some)
        assert machines.main(["fails"]) == 1
        shown = capsys.readouterr().out
        assert " 1 thread  " in shown and "2 threads:\nFAILED: two threads" in shown
