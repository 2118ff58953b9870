"""One pass over the whole sequence and one target at a time: the same numbers and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from making import close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import minicpt.loss as loss_module
import minicpt.models.gpt2 as decoder_module
from minicpt.batch import IGNORE, Batch
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.sources import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import Loss, objective_loss, per_token_losses, target_losses, whole_sequence_loss
from minicpt.models import bert, gpt2, t5
from minicpt.objectives import causal_lm, masked_lm, next_sentence, reconstruction
from minicpt.proofs.bounds import largest

TEXT = (
    "The cat sat on the mat. It was warm there. A bird came by.\n\n"
    "Rain fell at noon, and the cat went home. She slept."
)
SIZES = {"width": 16, "layers": 2, "num_heads": 2, "dropout": 0.0}
CASES = {
    "causal-lm": (causal_lm, causal_lm.Settings(window=24), gpt2),
    "masked-lm": (masked_lm, masked_lm.Settings(window=24, rate=0.3), bert),
    "next-sentence": (next_sentence, next_sentence.Settings(window=48), bert),
    "next-sentence with masked-lm": (
        next_sentence,
        next_sentence.Settings(window=48, masked=True),
        bert,
    ),
    "reconstruction": (reconstruction, reconstruction.Settings(window=32), t5),
}


def case(name):
    """A float64 model, an objective and a batch of passages of different lengths."""
    module, settings, kind = CASES[name]
    tokenizer = Tokenizer.train([TEXT], 280)
    objective = module.Objective(tokenizer, settings)
    documents = [Document(str(i), part) for i, part in enumerate(TEXT.split("\n\n"))]
    plan = objective.plan(Corpus.build(documents, tokenizer), 0, 0)
    passages = plan[:5]
    batch = objective.batch(passages, [generator("test", i) for i in range(len(passages))])
    positions = {} if kind is t5 else {"positions": objective.length}
    torch.manual_seed(0)
    model = kind.Model(kind.Config(vocabulary=tokenizer.size, **positions, **SIZES)).double()
    for parameter in model.parameters():  # larger than at the start, so that every path matters
        parameter.data.mul_(1.4).add_(0.01 * torch.randn_like(parameter))
    return model, objective, batch


def gradients(model, losses):
    model.zero_grad()
    sum(each.total().mean for each in losses.values()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", CASES)
def test_the_whole_sequence_and_one_target_at_a_time_agree(name):
    model, objective, batch = case(name)
    together = target_losses(model, batch)
    alone = per_token_losses(model, batch, objective.visibility(batch))
    assert together.keys() == alone.keys() == batch.targets.keys()
    for head in together:
        assert len(together[head].losses) == batch.counts()[head] > 0
        close(together[head].losses, alone[head].losses, model, batch)
    ours, theirs = gradients(model, together), gradients(model, alone)
    assert ours.keys() == theirs.keys()
    for parameter in ours:
        close(ours[parameter], theirs[parameter], model, batch, size=largest(*ours.values()))


def test_a_mask_that_is_off_by_one_is_seen(monkeypatch):
    model, objective, batch = case("causal-lm")

    def off_by_one(length, device=None):
        return torch.ones(length, length, dtype=torch.bool, device=device).tril(diagonal=1)

    monkeypatch.setattr(decoder_module, "causal_mask", off_by_one)
    together = target_losses(model, batch)["tokens"].losses
    alone = per_token_losses(model, batch, objective.visibility(batch))["tokens"].losses
    assert (together - alone).abs().max() > 1e-3


def test_per_token_logits_have_the_shape_batch_by_classes(monkeypatch):
    model, objective, batch = case("causal-lm")
    shapes = []
    model.heads["tokens"].register_forward_hook(lambda _, __, logits: shapes.append(logits.shape))
    per_token_losses(model, batch, objective.visibility(batch))
    vocabulary = model.config.vocabulary
    assert shapes == [(1, vocabulary)] * batch.counts()["tokens"]


class Table(torch.nn.Module):
    """A model whose logits are written down: position t of row b gives logits[b, t]."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits
        head = torch.nn.Linear(logits.shape[-1], logits.shape[-1], bias=False)
        head.weight = torch.nn.Parameter(
            torch.eye(logits.shape[-1], dtype=logits.dtype), requires_grad=False
        )
        self.heads = torch.nn.ModuleDict({"tokens": head})

    def forward(self, tokens):
        return self.logits


def test_a_loss_worked_out_by_hand():
    # Two classes; logits (0, ln 3) give probabilities 1/4 and 3/4.
    logits = torch.tensor([[[0.0, math.log(3)]] * 3], dtype=torch.float64)
    batch = Batch(
        {"tokens": torch.zeros(1, 3, dtype=torch.int64)},
        {"tokens": torch.tensor([[0, IGNORE, 1]])},
    )
    loss = whole_sequence_loss(Table(logits), batch)["tokens"]
    assert loss.count == 2
    close(loss.sum, math.log(4) + math.log(4 / 3), 8)
    each = target_losses(Table(logits), batch)["tokens"]
    assert each.positions.tolist() == [0, 2] and each.rows.tolist() == [0, 0]


def test_the_sum_over_targets_is_torchs_cross_entropy():
    logits = torch.randn(3, 7, 11, dtype=torch.float64, generator=generator("logits"))
    targets = torch.randint(11, (3, 7), generator=generator("targets"))
    targets[0, 3:] = IGNORE
    batch = Batch({"tokens": torch.zeros(3, 7, dtype=torch.int64)}, {"tokens": targets})
    loss = whole_sequence_loss(Table(logits), batch)["tokens"]
    oracle = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    close(loss.mean, oracle, targets.numel() + 2 * 11)


def test_losses_add_as_sums_and_counts_and_divide_once():
    few, many = Loss(torch.tensor(9.0), 1), Loss(torch.tensor(3.0), 3)
    assert float((few + many).mean) == 3.0
    assert float((few.mean + many.mean) / 2) == 5.0  # what a mean of means would say
    assert float(objective_loss({"tokens": few, "pair": many}, {"tokens": 2, "pair": 6})) == 5.0


def test_a_batch_without_targets_has_loss_zero_and_no_nan():
    model, objective, batch = case("causal-lm")
    empty = Batch(batch.inputs, {"tokens": torch.full_like(batch.targets["tokens"], IGNORE)})
    loss = whole_sequence_loss(model, empty)["tokens"]
    assert loss.count == 0 and loss.mean.item() == 0.0
    loss.mean.backward()
    assert all(p.grad is None or bool((p.grad == 0).all()) for p in model.parameters())
    assert len(per_token_losses(model, empty, objective.visibility(empty))["tokens"].losses) == 0


def test_a_uniform_guess_costs_the_logarithm_of_the_vocabulary():
    model, objective, batch = case("causal-lm")
    model.heads["tokens"].weight.data.zero_()
    loss = whole_sequence_loss(model, batch)["tokens"]
    close(loss.mean, math.log(model.config.vocabulary), model, batch)


# --- the fused form is the plain form ----------------------------------------------------------


@pytest.fixture
def few_logits(monkeypatch):
    """Makes the fused form take several sweeps over a batch as small as those here."""
    monkeypatch.setattr(loss_module, "LOGITS", 700)


@pytest.mark.parametrize("name", CASES)
def test_the_fused_form_is_the_plain_form(name, few_logits):
    model, _, batch = case(name)
    plain, fused = target_losses(model, batch, fused=False), target_losses(model, batch)
    for head in plain:
        close(fused[head].losses, plain[head].losses, model, batch)
        assert torch.equal(fused[head].rows, plain[head].rows)
        assert torch.equal(fused[head].positions, plain[head].positions)
    ours, theirs = gradients(model, fused), gradients(model, plain)
    assert ours.keys() == theirs.keys()
    for parameter in ours:
        close(ours[parameter], theirs[parameter], model, batch, size=largest(*ours.values()))


def random_head(bias):
    draws = generator("head", int(bias))
    head = torch.nn.Linear(5, 7, bias=bias, dtype=torch.float64)
    for parameter in head.parameters():
        parameter.data.normal_(generator=draws)
    hidden = torch.randn(6, 5, dtype=torch.float64, generator=draws, requires_grad=True)
    return head, hidden, torch.randint(7, (6,), generator=draws)


@pytest.mark.parametrize("bias", [True, False])
def test_the_fused_gradient_is_that_of_finite_differences(bias, monkeypatch):
    monkeypatch.setattr(loss_module, "LOGITS", 14)  # two rows at a time
    head, hidden, targets = random_head(bias)
    parameters = list(head.parameters())

    def losses(hidden, *_):  # a loss each: gradcheck gives every one a factor of its own
        return loss_module.head_losses(head, hidden, targets)

    assert torch.autograd.gradcheck(losses, (hidden, *parameters))
    mean = lambda *inputs: losses(*inputs).mean()  # noqa: E731
    assert torch.autograd.gradcheck(mean, (hidden, *parameters))


def test_a_second_derivative_is_that_of_finite_differences_or_is_refused():
    """The mean sends back constant factors, the square of the mean factors that carry a graph."""
    head, hidden, targets = random_head(bias=True)
    inputs = (hidden, *head.parameters())

    def total(fused, power):
        return lambda h, *_: loss_module.head_losses(head, h, targets, fused).mean() ** power

    for power in (1, 2):
        assert torch.autograd.gradgradcheck(total(False, power), inputs)
        with pytest.raises(InputError, match="create_graph=True.*fused=False.*--no-fused-loss"):
            torch.autograd.grad(total(True, power)(*inputs), inputs, create_graph=True)
        with pytest.raises(InputError, match="second derivative"):
            torch.autograd.functional.hessian(total(True, power), hidden)
    once = torch.autograd.grad(total(True, 1)(*inputs), inputs)  # a first derivative is as before
    assert all(each.abs().max() > 0 for each in once)


def test_a_frozen_projection_costs_no_gradient(monkeypatch):
    swept = []
    sweep = loss_module.sweep
    monkeypatch.setattr(loss_module, "sweep", lambda *a: swept.append(sweep(*a)) or swept[-1])
    head, hidden, targets = random_head(bias=True)
    loss_module.head_losses(head, hidden, targets).sum().backward()
    expected = hidden.grad.clone(), head.bias.grad.clone()
    hidden.grad = head.bias.grad = head.weight.grad = None
    head.weight.requires_grad_(False)
    loss_module.head_losses(head, hidden, targets).sum().backward()
    assert swept[0][2] is not None and swept[1][2] is None and head.weight.grad is None
    assert torch.equal(hidden.grad, expected[0]) and torch.equal(head.bias.grad, expected[1])


def test_the_fused_form_repeats_bitwise_and_may_be_asked_twice(few_logits):
    model, _, batch = case("causal-lm")
    first, again = (gradients(model, target_losses(model, batch)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    total = whole_sequence_loss(model, batch)["tokens"].mean
    weight = model.heads["tokens"].weight
    once, twice = (torch.autograd.grad(total, weight, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, twice)


def test_large_logits_give_no_infinity():
    logits = torch.tensor([[[0.0, 2e4, -2e4]]], dtype=torch.float32)
    batch = Batch({"tokens": torch.zeros(1, 1, dtype=torch.int64)}, {"tokens": torch.tensor([[0]])})
    assert float(whole_sequence_loss(Table(logits), batch)["tokens"].sum) == 2e4


@pytest.mark.parametrize("gradient", [True, False])
def test_no_tensor_of_all_logits_is_ever_made(gradient):
    head = torch.nn.Linear(8, 4096)
    hidden = torch.randn(8192, 8, requires_grad=gradient)
    targets = torch.zeros(8192, dtype=torch.int64)

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            for each in tree_leaves(result):
                if isinstance(each, torch.Tensor):
                    self.numbers = max(self.numbers, each.numel())
            return result

    with Largest() as largest, torch.set_grad_enabled(gradient):
        total = loss_module.head_losses(head, hidden, targets).sum()
        if gradient:
            total.backward()
    assert loss_module.LOGITS / 2 < largest.numbers <= loss_module.LOGITS  # of 33.5 million


@pytest.mark.parametrize("bias", [True, False])
def test_under_autocast_the_sum_stays_float32(bias):
    head, hidden, targets = random_head(bias)
    head, hidden = head.float(), hidden.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        fused = loss_module.head_losses(head, hidden, targets)
        plain = loss_module.head_losses(head, hidden, targets, fused=False)
    assert fused.dtype == plain.dtype == torch.float32
    close(fused, plain, 5 + 7 + 2)  # the same bfloat16 logits; sums of 7 classes in float32
    ours, theirs = (
        torch.autograd.grad(each.sum(), [hidden, *head.parameters()]) for each in (fused, plain)
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-2, atol=2e-2)  # bfloat16: 8 bits
