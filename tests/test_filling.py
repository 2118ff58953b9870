"""Weights go from a file into a model a piece at a time: the same numbers, in memory once."""

import mmap
import sys
from collections import Counter

import pytest
import safetensors.torch
import torch
from oracles import TEXT
from torch.utils._python_dispatch import TorchDispatchMode

from minicpt import checkpoint
from minicpt.checkpoint import filling, huggingface, weights
from minicpt.checkpoint.draft import Undrawn
from minicpt.common.randomness import generator
from minicpt.data.tokenizer import Tokenizer
from minicpt.models.gpt2 import GPT2, GPT2Config

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc")


def write(path, state):
    """A file of weights, in the format that its name says."""
    (safetensors.torch.save_file if path.suffix == ".safetensors" else torch.save)(state, path)


def resident():
    """Bytes of this process that lie in memory."""
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("Rss"))


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_pieces_are_the_whole(name, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "PIECE", 5000)  # no multiple of a row, nor of a page
    draws = generator("pieces")
    state = {
        "matrix": torch.randn(301, 37, generator=draws).to(dtype),
        "transposed": torch.randn(37, 120, generator=draws).to(dtype),
        "vector": torch.randn(4000, generator=draws).to(dtype),
        "number": torch.randn((), generator=draws).to(dtype),
    }
    write(tmp_path / name, state)
    found = weights.read(tmp_path / name)
    below = torch.empty(301 + 120, 37)
    filling.fill(below, [found["matrix"], found["transposed"].t()], mapped=True)
    expected = torch.cat([state["matrix"], state["transposed"].t()]).float()
    assert torch.equal(below, expected)
    vector = torch.empty(4000)
    filling.fill(vector, [found["vector"]], mapped=True)
    assert torch.equal(vector, state["vector"].float())
    # What was forgotten is read again from the file.
    assert all(torch.equal(found[each], state[each]) for each in state)


@LINUX
@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_a_mapped_file_is_not_held_beside_the_weights(name, tmp_path):
    rows, width = 32, 1 << 18  # 32 MiB
    write(tmp_path / name, {"matrix": torch.ones(rows, width)})
    rises = {}
    for mapped in (True, False):
        before = resident()
        found = weights.read(tmp_path / name)
        fresh = mmap.mmap(-1, 4 * rows * width)  # memory that no other test has used before
        target = torch.frombuffer(fresh, dtype=torch.float32).view(rows, width)
        filling.fill(target, [found["matrix"]], mapped)
        rises[mapped] = (resident() - before) / (4 * rows * width)
        del found, target, fresh
    assert 0.9 < rises[True] < 1.1, rises
    assert rises[False] > 1.9, "the check above can fail"


def test_a_model_with_all_its_weights_is_not_drawn_before(tmp_path):
    tokenizer = Tokenizer.train([TEXT], 256)
    torch.manual_seed(1)
    model = GPT2(GPT2Config(vocabulary=tokenizer.size, width=8, layers=2, num_heads=2))
    checkpoint.save(tmp_path / "step-1", model, tokenizer, {"fused": True}, {})
    drawn = Counter()

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            drawn[function.overloadpacket.__name__] += 1
            return function(*args, **(kwargs or {}))

    with Recorder():
        loaded = checkpoint.load(tmp_path / "step-1").model
    assert not {"normal_", "uniform_"} & drawn.keys() and drawn["copy_"] >= 28
    state, found = model.state_dict(), loaded.state_dict()
    assert state.keys() == found.keys() and all(torch.equal(state[n], found[n]) for n in state)
    assert loaded.heads["tokens"].weight is loaded.tokens.weight  # still tied


def test_what_is_absent_is_drawn_as_if_the_whole_model_were():
    kind = huggingface.models.known()["bert"]
    sizes = kind.Config(vocabulary=300, width=8, layers=1, num_heads=2)
    torch.manual_seed(7)
    whole = kind(sizes)
    state = huggingface.export_state(whole)
    fewer = {name: each + 1 for name, each in state.items() if "seq_relationship" not in name}
    loaded, notes = huggingface.load(huggingface.export_config(whole), fewer, seed=7)
    assert len(notes) == 1 and "pair" in notes[0]
    assert torch.equal(loaded.heads["pair"].weight, whole.heads["pair"].weight)
    assert torch.equal(loaded.tokens.weight, whole.tokens.weight + 1)


def test_numbers_left_in_memory_do_not_hang_a_truncated_draw():
    """It draws anew until all lie within its bounds; undrawn they never would."""
    weight = torch.full((3, 3), 9.0)
    with Undrawn():
        torch.nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04)
    assert not weight.any()
