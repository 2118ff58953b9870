"""z-loss and label smoothing: by hand, as torch has them, fused and plain, and in a run."""

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from making import batches_of, close, draws, model_of, objective_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import minicpt.fast.loss as fast
from minicpt import checkpoint, objectives
from minicpt.batch import IGNORE, Batch
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.loss import losses_of_head
from minicpt.proofs import faults, suite
from minicpt.proofs.bounds import largest
from minicpt.proofs.subject import subject
from minicpt.runs.assembly import fitting, model_kind, objective_kind
from minicpt.terms import Terms, apart, losses_with_terms
from minicpt.training.evaluation import evaluate
from minicpt.training.preparing import Preparing
from minicpt.training.trainer import Learner, Trainer, Training

BOTH = {"z-loss": 0.3, "label-smoothing": 0.2}
STRENGTHS = [{"z-loss": 0.3}, {"label-smoothing": 0.2}, BOTH]


def pieces(bias, rows=6, classes=7):
    """A head, hidden states and targets in float64."""
    seed = generator("head", int(bias))
    head = torch.nn.Linear(5, classes, bias=bias, dtype=torch.float64)
    for parameter in head.parameters():
        parameter.data.normal_(generator=seed)
    hidden = torch.randn(rows, 5, dtype=torch.float64, generator=seed, requires_grad=True)
    return head, hidden, torch.randint(classes, (rows,), generator=seed)


def oracle(logits, targets, terms):
    """The same with torch's own label smoothing; z-loss from the exponentials, as it is defined."""
    smooth = F.cross_entropy(
        logits, targets, reduction="none", label_smoothing=terms.get("label-smoothing", 0.0)
    )
    return smooth + terms.get("z-loss", 0.0) * logits.exp().sum(dim=1).log() ** 2


@pytest.fixture
def few_logits(monkeypatch):
    """Two rows of seven classes at a time."""
    monkeypatch.setattr(fast, "ROWS", 1)
    monkeypatch.setattr(fast, "LOGITS", 14)


# --- one head


@pytest.mark.parametrize("fused", [True, False])
def test_a_case_worked_out_by_hand(fused):
    """Two classes with logits 0 and ln 3: Z = 4, probabilities 1/4 and 3/4.

    Target 0 costs ln 4. Half of a target of (0.9, 0.1): 0.9 ln 4 + 0.1 ln (4/3), which is ln 4 less
    0.1 ln 3. The z-loss is 0.5 (ln 4)^2.
    """
    head = torch.nn.Linear(2, 2, bias=False, dtype=torch.float64)
    head.weight.data = torch.eye(2, dtype=torch.float64)
    hidden = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
    terms = {"z-loss": 0.5, "label-smoothing": 0.2}
    losses, added = losses_with_terms(head, hidden, torch.tensor([0]), terms, fused)
    square = 0.5 * math.log(4) ** 2
    close(added["z-loss"], torch.tensor([square], dtype=torch.float64), 8)
    close(added["label-smoothing"], torch.tensor([-0.1 * math.log(3)], dtype=torch.float64), 8)
    whole = 0.9 * math.log(4) + 0.1 * math.log(4 / 3) + square
    close(losses, torch.tensor([whole], dtype=torch.float64), 8)


@pytest.mark.parametrize("terms", STRENGTHS, ids=lambda terms: "+".join(terms))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_values_and_gradients_are_those_of_torch(fused, bias, terms, few_logits):
    head, hidden, targets = pieces(bias)
    inputs = [hidden, *head.parameters()]
    factors = torch.rand(6, dtype=torch.float64, generator=generator("factors"))
    for weigh in (torch.ones(6, dtype=torch.float64) / 6, factors):  # a mean; weighted targets
        losses, added = losses_with_terms(head, hidden, targets, terms, fused)
        expected = oracle(head(hidden), targets, terms)
        close(losses, expected, 20)
        plain = F.cross_entropy(head(hidden), targets, reduction="none")
        close(losses - sum(added.values()), plain, 20, size=largest(losses))
        assert not any(each.requires_grad for each in added.values())
        found = torch.autograd.grad((losses * weigh).sum(), inputs)
        right = torch.autograd.grad((expected * weigh).sum(), inputs)
        for mine, other in zip(found, right, strict=True):
            close(mine, other, 40, size=largest(*right))


@pytest.mark.parametrize("fused", [True, False])
def test_a_class_that_is_taken_out_gets_no_share(fused, few_logits):
    """With a bias of -inf, as an objective takes a class out: the loss over the other classes."""
    head, hidden, _ = pieces(bias=True)
    targets = torch.tensor([0, 1, 2, 4, 5, 6])
    kept = [0, 1, 2, 4, 5, 6]
    head.bias.data[3] = -math.inf
    losses, _ = losses_with_terms(head, hidden, targets, BOTH, fused)
    expected = oracle(head(hidden)[:, kept], torch.arange(6), BOTH)
    close(losses, expected, 20)
    inputs = [hidden, head.weight]
    found = torch.autograd.grad(losses.mean(), inputs)
    right = torch.autograd.grad(expected.mean(), inputs)
    for mine, other in zip(found, right, strict=True):
        close(mine, other, 40, size=largest(*right))


@pytest.mark.parametrize("bias", [True, False])
def test_under_autocast_values_are_float32_and_equal(bias):
    head, hidden, targets = pieces(bias)
    head, hidden = head.float(), hidden.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        fused, added = losses_with_terms(head, hidden, targets, BOTH)
        plain, others = losses_with_terms(head, hidden, targets, BOTH, fused=False)
    for mine, other in [(fused, plain), *((added[name], others[name]) for name in BOTH)]:
        assert mine.dtype == other.dtype == torch.float32
        close(mine, other, 40, size=largest(plain))
    inputs = [hidden, *head.parameters()]
    ours, theirs = (torch.autograd.grad(each.sum(), inputs) for each in (fused, plain))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-2, atol=5e-2)  # bfloat16: 8 bits


def test_one_sweep_gives_loss_terms_and_gradients(monkeypatch):
    swept, sweep = [], fast.sweep
    monkeypatch.setattr(fast, "sweep", lambda *a: swept.append(a) or sweep(*a))
    head, hidden, targets = pieces(bias=True)
    losses_with_terms(head, hidden, targets, BOTH)[0].mean().backward()
    assert len(swept) == 1 and all(each.grad is not None for each in (hidden, *head.parameters()))


def test_no_tensor_of_all_logits_is_ever_made(monkeypatch):
    monkeypatch.setattr(fast, "ROWS", 1)
    monkeypatch.setattr(fast, "LOGITS", 1 << 16)
    head, hidden = torch.nn.Linear(8, 1024), torch.randn(2048, 8, requires_grad=True)

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            found = [each.numel() for each in tree_leaves(result) if torch.is_tensor(each)]
            self.numbers = max([self.numbers, *found])
            return result

    with Largest() as most:
        targets = torch.zeros(2048, dtype=torch.int64)
        losses_with_terms(head, hidden, targets, BOTH)[0].mean().backward()
    assert fast.LOGITS / 2 < most.numbers <= fast.LOGITS  # of two million


# --- batches and objectives


def every_role() -> list:
    """Each objective that is found, with each role that it can train."""
    return [
        pytest.param(name, role, id=f"{name}, {role}")
        for name, kind in objectives.known().items()
        for role in dict.fromkeys(model.ROLE for model in fitting(kind).values())
    ]


@pytest.mark.parametrize("name, role", every_role())
def test_the_terms_reach_every_head_of_every_objective(name, role):
    """Fused and plain alike, whatever passes the objective makes of a batch."""
    kind = objective_kind(name)
    model = next(each for each in fitting(kind).values() if each.ROLE == role)
    piece = subject(name, name, kind, model)
    batch = piece.batch(piece.passages(3))
    learner, batch = piece.learner(), dataclasses.replace(batch, terms=BOTH)
    fused, plain = (
        piece.objective.losses(learner.model, learner.parts, batch, form) for form in (True, False)
    )
    assert fused.keys() == plain.keys() == batch.targets.keys()
    for head, each in fused.items():
        assert each.terms.keys() == plain[head].terms.keys() == BOTH.keys()
        close(each.losses, plain[head].losses, learner, batch)
        for term in BOTH:
            size = largest(each.losses)
            close(each.terms[term], plain[head].terms[term], learner, batch, size=size)
        assert (each.terms["z-loss"] > 0).all()


@pytest.mark.parametrize("fused", [True, False])
def test_weights_multiply_the_terms_too(fused):
    """A target of weight 0 has neither loss nor term, and counts."""
    head, hidden, targets = pieces(bias=True)
    weights = torch.tensor([[2.0, 0.0, 0.5, 1.0, 0.0, 3.0]], dtype=torch.float64)
    batch = Batch({}, {"tokens": targets[None]}, {"tokens": weights}, terms=BOTH)
    found = losses_of_head("tokens", hidden[None], head, batch, fused)
    expected = oracle(head(hidden), targets, BOTH) * weights[0]
    assert len(found.losses) == 4 and found.total().count == 6
    close(found.total().sum, expected.sum(), 20)
    shown = apart({"tokens": found})
    total = sum(shown[name]["tokens"].sum for name in ("", *BOTH))
    close(total, expected.sum(), 20)
    plain = (F.cross_entropy(head(hidden), targets, reduction="none") * weights[0]).sum()
    close(shown[""]["tokens"].sum, plain, 40, size=largest(expected.sum()))
    inputs = [hidden, *head.parameters()]
    ours = torch.autograd.grad(shown[""]["tokens"].mean, inputs)
    theirs = torch.autograd.grad(expected.sum() / 6, inputs)
    for mine, other in zip(ours, theirs, strict=True):
        close(mine, other, 40, size=largest(*theirs))


def test_a_batch_without_targets_has_no_term_and_no_nan():
    head, hidden, targets = pieces(bias=True)
    batch = Batch({}, {"tokens": torch.full_like(targets[None], IGNORE)}, terms=BOTH)
    shown = apart({"tokens": losses_of_head("tokens", hidden[None], head, batch)})
    assert all(float(loss["tokens"].detach().mean) == 0 for loss in shown.values())
    shown[""]["tokens"].mean.backward()
    assert not hidden.grad.any()


def test_a_batch_keeps_its_terms_on_another_device():
    batch = Batch({}, {"tokens": torch.zeros(1, 1).long()}, terms=BOTH)
    assert batch.to("meta").terms == BOTH


def test_terms_of_nothing_are_none_and_bounds_hold():
    assert Terms().strengths() == {}
    assert Terms(z_loss=1e-4, label_smoothing=0.1).strengths() == {
        "z-loss": 1e-4, "label-smoothing": 0.1,
    }  # fmt: skip
    for wrong in ({"z_loss": -1.0}, {"label_smoothing": 1.0}, {"z_loss": math.inf}):
        with pytest.raises(InputError, match="--" + next(iter(wrong)).replace("_", "-")):
            Terms(**wrong)


# --- training


def test_a_step_minimises_the_terms_and_shows_them_apart(tokenizer, corpus):
    """The gradient is torch's, of the whole; the loss that is shown is that without the terms."""
    objective = objective_of("causal-lm", tokenizer, window=16)
    (batch,) = batches_of(objective, corpus, 4)
    model = model_of(objective).double()
    learner = Learner(model, objective)
    found = learner(dataclasses.replace(batch, terms=BOTH))
    assert found.keys() == {"", *BOTH}
    asked = batch.targets["tokens"] != IGNORE
    logits = model.heads["tokens"](model(**batch.inputs)[asked])
    targets = batch.targets["tokens"][asked]
    close(found[""]["tokens"].mean, F.cross_entropy(logits, targets), model, batch)
    expected = oracle(logits, targets, BOTH).mean()
    close(sum(each["tokens"].mean for each in found.values()), expected, model, batch)
    weights = list(model.parameters())
    ours = torch.autograd.grad(sum(each["tokens"].mean for each in found.values()), weights)
    theirs = torch.autograd.grad(expected, weights)
    for mine, other in zip(ours, theirs, strict=True):
        close(mine, other, model, batch, size=largest(*theirs))


def test_a_heavy_z_loss_keeps_log_z_near_zero(tokenizer, corpus):
    objective = objective_of("causal-lm", tokenizer, window=16)
    (batch,) = batches_of(objective, corpus, 4)
    sizes = {}
    for weight in (0.0, 1.0):
        trainer = Trainer(
            model_of(objective), objective, corpus, Training(batch_size=4, learning_rate=1e-2), 30,
            prepare=Preparing(Terms(z_loss=weight).strengths()),
        )  # fmt: skip
        for _ in trainer.run():
            pass
        with torch.no_grad():
            logits = trainer.model.heads["tokens"](trainer.model(**batch.inputs))
        sizes[weight] = float(logits.logsumexp(dim=-1).abs().mean())
    assert sizes[1.0] < 0.7 * sizes[0.0]


def test_an_evaluation_is_plain(tokenizer, corpus):
    """The evaluation between the steps of a run with terms is that of a run without."""
    objective = objective_of("causal-lm", tokenizer, window=16)
    model = model_of(objective)
    prepare = Preparing(BOTH)
    trainer = Trainer(model, objective, corpus, Training(batch_size=4), 1, prepare=prepare)
    step = trainer.advance()
    assert step.terms.keys() == BOTH.keys() and step.terms["z-loss"] > 0
    passages = objective.plan(corpus, 0, 0)[:]
    batch = objective.batch(passages, draws(len(passages)))  # nothing is drawn
    with torch.no_grad():
        logits = model.heads["tokens"](model(**batch.inputs))
    plain = F.cross_entropy(logits.flatten(0, 1), batch.targets["tokens"].flatten())
    found = evaluate(model, objective, corpus).losses["tokens"].mean
    close(found, plain, model, batch, size=largest(found))


SMALL = "--width 16 --layers 1 --num-heads 2 --vocab-size 300 --window 32".split()


def test_a_run_shows_its_terms_and_resumes_bitwise(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"On day {number} the cat saw boats." for number in range(100)))
    words = ["train", "causal-lm", "--corpus", str(text), "--steps", "4", "--save-every", "2"]
    words += ["--batch-size", "4", "--evaluate-passages", "4", *SMALL]
    words += ["--z-loss", "0.01", "--label-smoothing", "0.1", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "terms     z-loss 0.01, label-smoothing 0.1" in out
    assert all(", z-loss 0.3" in line for line in out.splitlines() if "| training" in line)
    record = checkpoint.load(tmp_path / "run").record
    assert record["config"]["terms"] == {"z_loss": 0.01, "label_smoothing": 0.1}
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    last = [line for line in map(json.loads, lines) if line["kind"] == "step"][-1]
    assert last["terms"].keys() == {"z-loss", "label-smoothing"}
    assert last["losses"]["tokens"] < 6  # ln 305 is 5.72: the terms are not in it
    weights = (tmp_path / "run" / "step-00000004" / "pytorch_model.bin").read_bytes()
    (tmp_path / "half").mkdir()
    (tmp_path / "run" / "step-00000002").rename(tmp_path / "half" / "step-00000002")
    assert main(["resume", str(tmp_path / "half")]) == 0
    assert (tmp_path / "half" / "step-00000004" / "pytorch_model.bin").read_bytes() == weights


def test_smoothing_in_an_evaluation_is_caught_by_the_proof_of_terms():
    fault = faults.known()["smoothed-evaluation"]
    kind = objective_kind(fault.objective)
    sound = subject(fault.subject, fault.objective, kind, model_kind("", kind))
    assert [proof.name for proof in suite.catch(fault, sound)] == ["terms"]
