"""What a run needs is counted, what there is is read, and a run that cannot fit is refused."""

import weakref

import pytest
import torch
from making import model_of, objective_of

from minicpt.common import memory
from minicpt.common.errors import InputError
from minicpt.runs import needs as module
from minicpt.runs.assembly import make_remedies, make_trainer
from minicpt.runs.needs import Needs, check_needs, needs
from minicpt.training.device import Machine
from minicpt.training.trainer import Training


def trainer_of(tokenizer, corpus, remedies=None, micro=0, **machine):
    objective = objective_of("causal-lm", tokenizer, window=24)
    model = model_of(objective, layers=4)
    chosen = make_remedies(remedies or {}, model.ROLE, objective)
    settings = Training(batch_size=4, micro_batch_size=micro)
    return make_trainer(model, objective, corpus, settings, 2, Machine(**machine), chosen)


def test_weights_gradients_and_moments_are_counted(tokenizer, corpus):
    trainer = trainer_of(tokenizer, corpus)
    bytes = 4 * sum(each.numel() for each in trainer.model.parameters())
    found = needs(trainer)
    assert (found.weights, found.gradients, found.moments) == (bytes, bytes, 2 * bytes)
    assert needs(trainer_of(tokenizer, corpus, {"l2": {"l2": 1.0}})).weights == 2 * bytes
    adapted = needs(trainer_of(tokenizer, corpus, {"lora": {"lora": 2}, "kl": {"kl": 1.0}}))
    factors = 4 * 4 * (4 * 2 * 16 + 2 * 4 * 16)  # of 4 layers: A (3+1, 2, 16), B (3+1, 16, 2)
    assert adapted.weights == bytes + factors
    assert (adapted.gradients, adapted.moments) == (factors, 2 * factors)


def test_activations_grow_with_the_micro_batch_and_shrink_when_recomputed(tokenizer, corpus):
    whole, half = (needs(trainer_of(tokenizer, corpus, micro=m)).activations for m in (4, 2))
    assert whole == pytest.approx(2 * half, rel=0.1)
    again = needs(trainer_of(tokenizer, corpus, checkpoint_activations=True)).activations
    assert again < whole


def test_looking_keeps_nothing(tokenizer, corpus):
    trainer, results = trainer_of(tokenizer, corpus), []
    norm = trainer.model.norm
    norm.register_forward_hook(lambda module, given, result: results.append(weakref.ref(result)))
    needs(trainer)
    assert results and all(each() is None for each in results)


def test_looking_changes_nothing(tokenizer, corpus):
    torch.manual_seed(3)
    plain, looked = (trainer_of(tokenizer, corpus, checkpoint_activations=True) for _ in "ab")
    before = torch.get_rng_state()
    needs(looked)
    assert torch.equal(torch.get_rng_state(), before)
    plain.advance(), looked.advance()
    state, found = plain.model.state_dict(), looked.model.state_dict()
    assert all(torch.equal(state[name], found[name]) for name in state)


def test_the_line_and_the_refusal(tokenizer, corpus, monkeypatch):
    trainer = trainer_of(tokenizer, corpus)
    assert check_needs(trainer) == ""  # too small for a line
    monkeypatch.setattr(module, "SMALL", 0)
    gib = 1 << 30
    found = Needs(gib // 2, gib // 2, gib, gib * 4 // 5, gib // 10)
    monkeypatch.setattr(module, "needs", lambda trainer: found)
    monkeypatch.setattr(module, "resident", lambda: gib)
    monkeypatch.setattr(module, "free_memory", lambda: 20 * gib)
    line = "needs about 2.9 GiB (weights 0.5, gradients 0.5, moments 1.0, activations 0.8, rest 0.1"
    line += ")"
    assert check_needs(trainer) == line + "; 21.0 GiB are free for it"
    monkeypatch.setattr(module, "free_memory", lambda: None)
    assert check_needs(trainer) == line
    monkeypatch.setattr(module, "machine_memory", lambda: int(2.4 * gib))
    assert check_needs(trainer) == line  # not clearly more
    monkeypatch.setattr(module, "machine_memory", lambda: 2 * gib)
    with pytest.raises(InputError, match="2.9 GiB.*this machine has 2.0; use --checkpoint"):
        check_needs(trainer)


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_control_group_counts(version, tmp_path, monkeypatch):
    """Both versions' files, as Linux' documentation describes them."""
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    folder = tmp_path / "memory"
    line = "4:memory:/box\n0::/\n"
    if version == 2:
        names, folder, line = ("memory.max", "memory.current"), tmp_path, "0::/box\n"
    (folder / "box").mkdir(parents=True)
    for name, value in zip(names, (5 << 30, 2 << 30), strict=True):
        (folder / "box" / name).write_text(f"{value}\n")
    own = tmp_path / "cgroup"
    own.write_text(line)
    real = memory.Path
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(
        memory, "Path", lambda path: own if path == "/proc/self/cgroup" else real(path)
    )
    assert memory.control_groups() == [(5 << 30, 2 << 30)]
    assert memory.machine_memory() <= 5 << 30
    if version == 2:
        (folder / "box" / names[0]).write_text("max\n")
        assert memory.control_groups() == []
