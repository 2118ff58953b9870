"""One pass over the whole sequence and one target at a time: the same numbers and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from making import close, draws, losses_of, model_of, objective_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import minicpt.fast.loss as fast
import minicpt.loss as loss_module
import minicpt.models.layers as layers
from minicpt.batch import IGNORE, Batch, seen_by
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.sources import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import Loss, objective_loss, per_token_losses, target_losses, whole_sequence_loss
from minicpt.proofs.bounds import largest

TEXT = (
    "The cat sat on the mat. It was warm there. A bird came by.\n\n"
    "Rain fell at noon, and the cat went home. She slept."
)
CASES = {
    "causal-lm": ("causal-lm", {"window": 24}),
    "masked-lm": ("masked-lm", {"window": 24, "rate": 0.3}),
    "next-sentence": ("next-sentence", {"window": 48}),
    "next-sentence with masked-lm": ("next-sentence", {"window": 48, "masked": True}),
    "reconstruction": ("reconstruction", {"window": 32}),
}


def case(name):
    """A float64 model, an objective and a batch of passages of different lengths."""
    kind, settings = CASES[name]
    tokenizer = Tokenizer.train([TEXT], 280)
    objective = objective_of(kind, tokenizer, **settings)
    documents = [Document(str(i), part) for i, part in enumerate(TEXT.split("\n\n"))]
    passages = objective.plan(Corpus.build(documents, tokenizer), 0, 0)[:5]
    batch = objective.batch(passages, draws(len(passages)))
    model = model_of(objective, layers=2).double()
    for parameter in model.parameters():  # larger than at the start, so that every path matters
        parameter.data.mul_(1.4).add_(0.01 * torch.randn_like(parameter))
    return model, objective, batch


def alone_of(model, objective, batch):
    """The losses of a batch, each from a run of the model on what its target may see."""
    return per_token_losses(losses_of(model, objective), batch, objective.visibility(batch))


def gradients(model, *losses):
    """Those of the sum of the means of each head's losses (N,)."""
    model.zero_grad()
    sum(each.mean() for each in losses).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def each_of(losses):
    return [each.losses for each in losses.values()]


@pytest.mark.parametrize("name", CASES)
def test_the_whole_sequence_and_one_target_at_a_time_agree(name):
    model, objective, batch = case(name)
    together = target_losses(model, batch)
    alone = alone_of(model, objective, batch)
    assert together.keys() == alone.keys() == batch.targets.keys()
    for head in together:
        assert len(together[head].losses) == batch.counts()[head] > 0
        close(together[head].losses, alone[head], model, batch)
    ours = gradients(model, *each_of(together))
    theirs = gradients(model, *alone.values())
    assert ours.keys() == theirs.keys()
    for parameter in ours:
        close(ours[parameter], theirs[parameter], model, batch, size=largest(*ours.values()))


def test_a_mask_that_is_off_by_one_is_seen(monkeypatch):
    model, objective, batch = case("causal-lm")

    def off_by_one(length, device=None):
        return torch.ones(length, length, dtype=torch.bool, device=device).tril(diagonal=1)

    monkeypatch.setattr(layers, "causal_mask", off_by_one)
    together = target_losses(model, batch)["tokens"].losses
    alone = alone_of(model, objective, batch)["tokens"]
    assert (together - alone).abs().max() > 1e-3


def test_per_token_logits_have_the_shape_batch_by_classes():
    model, objective, batch = case("causal-lm")
    shapes = []
    model.heads["tokens"].register_forward_hook(lambda _, __, logits: shapes.append(logits.shape))
    losses = losses_of(model, objective, fused=False)
    per_token_losses(losses, batch, objective.visibility(batch))
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
    assert len(alone_of(model, objective, empty)["tokens"]) == 0


def test_a_uniform_guess_costs_the_logarithm_of_the_vocabulary():
    model, objective, batch = case("causal-lm")
    model.heads["tokens"].weight.data.zero_()
    loss = whole_sequence_loss(model, batch)["tokens"]
    close(loss.mean, math.log(model.config.vocabulary), model, batch)


# --- weights and noise -------------------------------------------------------------------------


def weighted(batch, weights):
    """The batch with these weights (B, T) of the head "tokens"."""
    return Batch(batch.inputs, batch.targets, {"tokens": weights})


def test_a_weighted_loss_worked_out_by_hand():
    """Losses log 4 and log 4/3, with the weights 2 and 1/2; a third target of weight 0 counts."""
    logits = torch.tensor([[[0.0, math.log(3)]] * 4], dtype=torch.float64)
    batch = Batch(
        {"tokens": torch.zeros(1, 4, dtype=torch.int64)},
        {"tokens": torch.tensor([[0, IGNORE, 1, 0]])},
        {"tokens": torch.tensor([[2.0, 9.0, 0.5, 0.0]])},
    )
    loss = whole_sequence_loss(Table(logits), batch)["tokens"]
    assert loss.count == 3 == batch.counts()["tokens"]
    close(loss.sum, 2 * math.log(4) + math.log(4 / 3) / 2, 8)
    each = target_losses(Table(logits), batch)["tokens"]
    assert each.positions.tolist() == [0, 2] and each.weights.tolist() == [2.0, 0.5]
    assert each.count == 3


@pytest.mark.parametrize("fused", [True, False])
def test_a_target_of_weight_zero_costs_no_logits(fused):
    model, _, batch = case("causal-lm")
    targets = batch.targets["tokens"]
    weights = (torch.arange(targets.numel()).view(targets.shape) % 3).double()  # a third are 0
    rows = []
    head = model.heads["tokens"]
    real = head.transform
    head.transform = lambda hidden: rows.append(len(hidden)) or real(hidden)
    loss = target_losses(model, weighted(batch, weights), fused)["tokens"].total()
    asked = targets != IGNORE
    assert rows == [int((asked & (weights > 0)).sum())]
    assert loss.count == int(asked.sum()) > rows[0]


def test_weights_multiply_losses_and_gradients():
    model, objective, batch = case("causal-lm")
    weights = torch.rand(batch.targets["tokens"].shape, generator=generator("weights"))
    weights[:, 1] = 0.0
    heavy = weighted(batch, weights)
    plain = target_losses(model, batch)["tokens"]
    factors = weights[plain.rows, plain.positions].double()
    found, expected = target_losses(model, heavy)["tokens"].total(), plain.losses * factors
    close(found.sum, expected.sum(), model, batch)
    assert found.count == plain.count
    ours, theirs = gradients(model, found.sum), gradients(model, expected.sum())
    for name in theirs:
        close(ours[name], theirs[name], model, batch, size=largest(*theirs.values()))
    # One target at a time: the same targets in the same order, those of weight 0 left out.
    alone = alone_of(model, objective, heavy)["tokens"]
    close(alone, target_losses(model, heavy)["tokens"].losses, model, batch)


def test_what_one_target_sees_cuts_weights_and_noise():
    """Noise of the decoder's positions is cut as the decoder's tokens are."""
    tokens = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 0]])
    decoder = torch.tensor([[0, 5, 6], [0, 9, 10]])
    noise = {"words": torch.arange(8.0).view(2, 4)}
    noise["decoder_words"] = torch.arange(12.0).view(2, 3, 2)
    batch = Batch(
        {"tokens": tokens, "decoder_tokens": decoder},
        {"tokens": decoder + 20},
        {"tokens": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "other": torch.ones(2, 3)},
        noise,
    )
    real = torch.tensor([True, True, True, False]).expand(2, 3, 4)
    past = torch.ones(3, 3).tril().bool().expand(2, 3, 3)
    found = seen_by(batch, "tokens", 1, 1, {"tokens": real, "decoder_tokens": past})
    assert found.inputs["tokens"].tolist() == [[9, 10, 11]]
    assert found.inputs["decoder_tokens"].tolist() == [[0, 9]]
    assert found.targets["tokens"].tolist() == [[IGNORE, 29]]
    assert found.weights.keys() == {"tokens"} and found.weights["tokens"].tolist() == [[4.0, 5.0]]
    assert found.noise["words"].tolist() == [[4.0, 5.0, 6.0]]
    assert found.noise["decoder_words"].tolist() == [[[6.0, 7.0], [8.0, 9.0]]]


def test_head_weights_multiply_the_mean_of_their_head():
    losses = {"tokens": Loss(torch.tensor(6.0), 3), "pair": Loss(torch.tensor(8.0), 2)}
    counts = {"tokens": 3, "pair": 2}
    assert float(objective_loss(losses, counts)) == 2.0 + 4.0
    assert float(objective_loss(losses, counts, {"pair": 0.25})) == 2.0 + 1.0
    assert float(objective_loss(losses, counts, {"pair": 50.0, "tokens": 0.5})) == 1.0 + 200.0


# --- the fused form is the plain form ----------------------------------------------------------


@pytest.fixture
def few_logits(monkeypatch):
    """Makes the fused form take several sweeps over a batch as small as those here."""
    monkeypatch.setattr(fast, "ROWS", 1)
    monkeypatch.setattr(fast, "LOGITS", 700)


@pytest.mark.parametrize("name", CASES)
def test_the_fused_form_is_the_plain_form(name, few_logits):
    model, _, batch = case(name)
    plain, fused = target_losses(model, batch, fused=False), target_losses(model, batch)
    for head in plain:
        close(fused[head].losses, plain[head].losses, model, batch)
        assert torch.equal(fused[head].rows, plain[head].rows)
        assert torch.equal(fused[head].positions, plain[head].positions)
    ours, theirs = gradients(model, *each_of(fused)), gradients(model, *each_of(plain))
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
    monkeypatch.setattr(fast, "ROWS", 1)
    monkeypatch.setattr(fast, "LOGITS", 14)  # two rows at a time
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
    sweep = fast.sweep
    monkeypatch.setattr(fast, "sweep", lambda *a: swept.append(sweep(*a)) or swept[-1])
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
    first, again = (
        gradients(model, *each_of(target_losses(model, batch))) for _ in range(2)
    )
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
    assert fast.LOGITS / 2 <= largest.numbers <= fast.LOGITS  # of 33.5 million


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
