"""What keeps a model near its base: the terms against closed forms, and what fits what."""

import copy
import dataclasses
import io
import math
import re
import sys

import pytest
import torch
import torch.nn.functional as F
from making import batches_of, close, model_of, objective_of, remedy_of, step_of
from torch import nn

import minicpt.fast.loss as fast
import minicpt.loss as loss_module
from minicpt import remedies
from minicpt.batch import IGNORE, Batch
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.models.gpt2 import GPT2, GPT2Config
from minicpt.proofs.bounds import additions, largest, tolerance
from minicpt.remedies import base as remedies_base
from minicpt.remedies import ewc, kl
from minicpt.remedies.base import Remedy, check_together, details
from minicpt.training.resuming import restore, state_of
from minicpt.training.trainer import NotFinite, Trainer, Training

ALL = remedies.known()
# Those that add a term to the loss.
FOUND = [
    name
    for name, kind in ALL.items()
    if kind.on_targets is not Remedy.on_targets or kind.on_weights is not Remedy.on_weights
]
EVERY = pytest.mark.parametrize("name", FOUND)
CASES = {
    "decoder": ("causal-lm", {"window": 16}),
    "encoder": ("masked-lm", {"window": 16}),
    "encoder with two heads": ("next-sentence", {"window": 32, "masked": True}),
    "encoder-decoder": ("reconstruction", {"window": 24}),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES)


def make(case, tokenizer, dropout=0.0, seed=0):
    name, settings = CASES[case]
    objective = objective_of(name, tokenizer, **settings)
    return model_of(objective, seed, dropout=dropout).double(), objective


def term_of(name, model, objective, corpus, strength=1.0):
    """The remedy with the model as its base, and a Fisher diagonal that is not zero."""
    own = {"ewc_passages": 1} if name == "ewc" else {}
    term = remedy_of(
        name, model, objective, corpus, **{name.replace("-", "_"): strength}, **own
    )
    if name == "ewc":
        for each in term.fisher.parameters():
            each.data.fill_(0.5)
    return term


def moved(model, size=0.1):
    """A copy of the model whose every weight has been moved at random."""
    result, draws = copy.deepcopy(model), generator("moved")
    for parameter in result.parameters():
        noise = torch.randn(parameter.shape, dtype=parameter.dtype, generator=draws)
        parameter.data += size * noise
    return result


def value_of(term, model, objective, batch):
    """What a step adds to its loss for a batch."""
    found = objective.losses(model, objective.parts(model), batch)
    value = sum(loss.mean for loss in term.on_targets(model, found).values())
    on_weights = term.on_weights(model)
    return value if on_weights is None else value + on_weights


def gradients(value, model):
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    pairs = zip(found, model.parameters(), strict=True)
    return [torch.zeros_like(p) if g is None else g for g, p in pairs]


# --- what every term keeps to


@EVERY
@EVERY_CASE
def test_zero_in_value_and_gradient_at_the_base(name, case, tokenizer, corpus):
    model, objective = make(case, tokenizer, dropout=0.0)
    term = term_of(name, model, objective, corpus)
    (batch,) = batches_of(objective, corpus, 5)
    value = value_of(term, model.train(), objective, batch)
    # Of a divergence rounding is left: what is added are probabilities and logarithms of about 1.
    least = tolerance(additions(model, batch))
    assert abs(float(value.detach())) <= least
    assert largest(*gradients(value, model)) <= least
    away = moved(model)
    value = value_of(term, away, objective, batch)
    assert float(value.detach()) > 1e-6, "the check above can fail"
    assert any(float(each.abs().max()) > 1e-6 for each in gradients(value, away))


@pytest.mark.parametrize("name", ALL)
def test_settings_and_source(name):
    """Each setting has a help text; those of two remedies have different names."""
    fields = dataclasses.fields(ALL[name].Settings)
    assert all(field.metadata.get("help") for field in fields)
    others = [kind for other, kind in ALL.items() if other != name]
    names = {field.name for kind in others for field in dataclasses.fields(kind.Settings)}
    assert not names & {field.name for field in fields}
    assert not ALL[name].asked(ALL[name].Settings())
    if name in FOUND:
        assert "arXiv" in sys.modules[ALL[name].__module__].__doc__
        with pytest.raises(ValueError, match=f"--{name} must be at least 0"):
            ALL[name].Settings(**{name.replace("-", "_"): -1.0})


@pytest.mark.parametrize("name", ALL)
def test_a_measured_remedy_is_asked_for_and_has_a_label(name):
    kind = ALL[name]
    if kind.measured is not None:
        settings = kind.Settings(**kind.measured)
        assert kind.asked(settings) and name.split("-")[0] in kind.label(settings)


@EVERY
def test_the_weight_multiplies_the_term(name, tokenizer, corpus):
    model, objective = make("decoder", tokenizer)
    (batch,) = batches_of(objective, corpus, 3)
    once, thrice = (
        float(value_of(term_of(name, model, objective, corpus, strength), moved(model), objective,
                       batch).detach())
        for strength in (1.0, 3.0)
    )
    close(thrice, 3 * once, model, batch)


@EVERY
@EVERY_CASE
def test_however_a_step_is_split_it_has_one_gradient(name, case, tokenizer, corpus):
    """A term on the weights counts once a step; one on the targets has the whole step's count."""
    results = []
    for sizes in ((8,), (3, 5), (2, 1, 4, 1)):
        base, objective = make(case, tokenizer)
        model = moved(base)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        batches = batches_of(objective, corpus, *sizes)
        term = term_of(name, base, objective, corpus, 2.0)
        losses, terms = step_of(model, objective, optimizer, batches, chosen=[term])
        value = sum(each.mean for each in terms[name].values())
        results.append((value, list(model.parameters())))
        assert set(losses) == set(batches[0].targets) and set(terms) == {name}
    (first, expected), *others = results
    assert float(first) > 0
    for value, found in others:
        close(value, first, model, batches_of(objective, corpus, 8)[0])
        size = largest(*expected)  # of the weights, which take the gradient up
        for one, other in zip(found, expected, strict=True):
            close(one, other, model, batches_of(objective, corpus, 8)[0], size=size)


@EVERY
def test_a_steps_gradient_is_that_of_loss_and_term_together(name, tokenizer, corpus):
    """And the loss is reported without the term."""
    base, objective = make("encoder with two heads", tokenizer)
    model = moved(base)
    (batch,) = batches_of(objective, corpus, 4)
    term = term_of(name, base, objective, corpus, 0.7)
    alone = loss_module.whole_sequence_loss(model, batch)
    total = loss_module.objective_loss(alone, batch.counts())
    total = total + value_of(term, model, objective, batch)
    expected = gradients(total, model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    found, terms = step_of(model, objective, optimizer, [batch], chosen=[term])
    for then, now, gradient in zip(before, model.parameters(), expected, strict=True):
        close(then - now.detach(), gradient, model, batch, size=largest(*before, *expected))
    for head, loss in alone.items():
        close(found[head].sum, loss.sum, model, batch)
    added = sum(float(each.mean) for each in (*found.values(), *terms[name].values()))
    close(added, total, model, batch)


@EVERY
def test_base_and_random_state_are_left_alone(name, tokenizer, corpus):
    """With a weight of almost nothing, steps with dropout are those without the term."""
    ends = []
    for names in ((), (name,)):
        model, objective = make("decoder", tokenizer, dropout=0.3)
        random = torch.get_rng_state()
        terms = [term_of(each, model, objective, corpus, 1e-300) for each in names]
        assert torch.equal(random, torch.get_rng_state())
        settings = Training(batch_size=3, learning_rate=1e-2, seed=4)
        trainer = Trainer(model, objective, corpus, settings, 4, remedies=terms)
        list(trainer.run())
        begin, _ = make("decoder", tokenizer, dropout=0.3)
        for base in (term.base for term in terms):
            assert not base.training and all(p.grad is None for p in base.parameters())
            for one, other in zip(base.parameters(), begin.parameters(), strict=True):
                assert torch.equal(one, other)
        torch.rand(1)
        ends.append((list(model.parameters()), torch.get_rng_state()))
    assert torch.equal(ends[0][1], ends[1][1])
    assert all(torch.equal(one, other) for one, other in zip(ends[0][0], ends[1][0], strict=True))


@EVERY
def test_a_step_without_targets_changes_nothing(name, tokenizer, corpus):
    base, objective = make("decoder", tokenizer)
    model = moved(base)
    before = copy.deepcopy(model.state_dict())
    (batch,) = batches_of(objective, corpus, 3)
    empty = Batch(batch.inputs, {"tokens": torch.full_like(batch.targets["tokens"], IGNORE)})
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
    term = term_of(name, base, objective, corpus)
    losses, _ = step_of(model, objective, optimizer, [empty, empty], 1.0, [term])
    assert set(losses) == {"tokens"} and losses["tokens"].count == 0
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@EVERY
def test_a_term_that_is_not_finite_stops_before_the_weights_change(name, tokenizer, corpus):
    base, objective = make("decoder", tokenizer)
    model = moved(base)
    term = term_of(name, base, objective, corpus)
    next(term.base.parameters()).data.fill_(float("nan"))
    trainer = Trainer(model, objective, corpus, Training(batch_size=2), 3, remedies=[term])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NotFinite, match=f"step 1 .* the {name} term is nan"):
        trainer.advance()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_all_terms_together_go_on_bitwise(tokenizer, corpus):
    settings = Training(batch_size=5, micro_batch_size=2, seed=1, learning_rate=1e-2)

    def begin(seed, state=None):
        model, objective = make("encoder", tokenizer, dropout=0.1, seed=seed)
        terms = [
            remedy_of(name, model, objective, corpus, state and state["remedies"][name],
                      **{name: 0.5})
            for name in FOUND
        ]
        return Trainer(model, objective, corpus, settings, 6, remedies=terms)

    trainer = begin(seed=0)
    for step in trainer.run():
        assert set(step.terms) == set(FOUND) and set(step.losses) == {"tokens"}
        assert (step.number > 1) == all(value > 0 for value in step.terms.values())
        if step.number == 3:
            weights, file = copy.deepcopy(trainer.model.state_dict()), io.BytesIO()
            torch.save(state_of(trainer), file)
    file.seek(0)
    # In another process the model that is loaded is no longer the base.
    state = torch.load(file, weights_only=True)
    resumed = begin(seed=7, state=state)
    resumed.model.load_state_dict(weights)
    restore(resumed, state)
    *_, last = resumed.run()
    assert last.terms == step.terms
    for key, value in trainer.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value)


# --- what fits together


@pytest.mark.parametrize(
    "names, role, why",
    [
        ("lora l2", "decoder", "--l2 and --lora exclude each other: LoRA leaves"),
        ("lora ewc", "encoder", "--ewc and --lora exclude each other: LoRA leaves"),
        ("lora freeze", "decoder", "both decide which weights learn; give one of them"),
        ("replay self-replay", "decoder", "both decide what is mixed into the text"),
        ("self-replay", "encoder", "--self-replay fits decoder models, and this one is an encoder"),
        ("self-replay", "encoder-decoder", "this one is an encoder-decoder"),
    ],
)
def test_what_does_not_fit_is_refused_by_what_the_remedies_declare(names, role, why):
    for some in (names.split(), names.split()[::-1]):
        with pytest.raises(InputError, match=re.escape(why)) as error:
            check_together({name: ALL[name] for name in some}, role)
        assert "\n" not in str(error.value)
        assert all(f"--{name}" in str(error.value) for name in some)


def test_what_fits_is_not_refused():
    for names in ("lora kl replay", "freeze l2 ewc kl self-replay", "l2"):
        check_together({name: ALL[name] for name in names.split()}, "decoder")
    check_together({name: ALL[name] for name in ("kl", "replay", "lora")}, "encoder-decoder")
    check_together({}, "encoder")


def test_a_new_remedy_is_refused_by_its_own_words():
    """Nothing but the declarations decides, so they may come from any file."""

    class Average(Remedy):
        claims = ("which weights learn",)
        roles = ("encoder",)

    check_together({"average": Average, "kl": ALL["kl"]}, "encoder")
    with pytest.raises(InputError, match="--average and --lora both decide which weights learn"):
        check_together({"average": Average, "lora": ALL["lora"]}, "encoder")
    with pytest.raises(InputError, match="--average fits encoder models, .* this one is a decoder"):
        check_together({"average": Average}, "decoder")


def test_a_detail_without_its_remedy_is_refused():
    with pytest.raises(InputError, match="--lora-alpha belongs to --lora, which is not given"):
        details(ALL["lora"], {"lora_alpha": 2.0})
    with pytest.raises(InputError, match="--ewc-passages belongs to --ewc"):
        details(ALL["ewc"], {"ewc_passages": 3})
    with pytest.raises(InputError, match="--self-replay-tokens belongs to --self-replay"):
        details(ALL["self-replay"], {"self_replay_tokens": 3})
    details(ALL["lora"], {"lora": 2, "lora_alpha": 2.0})
    details(ALL["freeze"], {"train_last": 1})
    details(ALL["kl"], {})


def test_the_roles_are_those_of_the_models():
    from minicpt import models

    assert {kind.ROLE for kind in models.known().values()} <= set(remedies_base.ROLES)


# --- L2


def test_l2_is_half_the_squared_distance_with_tied_weights_once():
    base = GPT2(GPT2Config(vocabulary=7, positions=4, width=4, layers=1, num_heads=1)).double()
    model = copy.deepcopy(base)
    model.tokens.weight.data[2, 1] += 3.0  # also the head's
    model.norm.bias.data[0] -= 4.0
    value = remedy_of("l2", base, None, l2=0.1).on_weights(model)
    additions = sum(each.numel() for each in model.parameters())
    close(value, 0.1 / 2 * (9 + 16), additions)
    value.backward()
    close(model.tokens.weight.grad[2, 1], 0.3, additions)
    close(model.norm.bias.grad[0], -0.4, additions)
    assert int((model.tokens.weight.grad != 0).sum()) == 1


@pytest.mark.parametrize("name", ["l2", "ewc"])
def test_weights_that_are_not_trained_do_not_count(name, tokenizer, corpus):
    base, objective = make("decoder", tokenizer)
    model, term = moved(base), term_of(name, base, objective, corpus)
    whole = float(term.on_weights(model).detach())
    model.tokens.requires_grad_(False)
    part = float(term.on_weights(model).detach())
    factor = 1.0 if name == "l2" else 0.5
    apart = float((model.tokens.weight - base.tokens.weight).detach().square().sum())
    close(whole - part, factor * apart / 2, sum(each.numel() for each in model.parameters()),
          size=whole)


# --- EWC


class Softmax(nn.Module):
    """Softmax regression: the hidden state of a token is its row of a fixed table."""

    def __init__(self, table, weight):
        super().__init__()
        self.register_buffer("table", table)
        head = nn.Linear(table.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
        head.weight.data.copy_(weight)
        self.heads = nn.ModuleDict({"tokens": head})

    def forward(self, tokens, mask):
        return self.table[tokens]


class Plain:
    """As an objective: the losses of a forward pass, and no parts."""

    def parts(self, model):
        return nn.ModuleDict()

    def losses(self, model, parts, batch):
        return loss_module.target_losses(model, batch)


def softmax_case():
    draws = generator("softmax")
    table = torch.randn(4, 3, dtype=torch.float64, generator=draws)
    weight = torch.randn(5, 3, dtype=torch.float64, generator=draws)
    passages = [([0, 2], [1, IGNORE]), ([1, 3], [4, 0]), ([2, 2], [IGNORE, 3])]
    batches = [
        Batch(
            {"tokens": torch.tensor([tokens]), "mask": torch.ones(1, 2, dtype=torch.bool)},
            {"tokens": torch.tensor([targets])},
        )
        for tokens, targets in passages
    ]
    return Softmax(table, weight), passages, batches


def test_the_fisher_diagonal_is_the_mean_of_squared_scores_by_hand(monkeypatch):
    """The score of a target y at hidden state x is (e_y - p) xᵀ; a passage's is their sum."""
    model, passages, batches = softmax_case()
    asked = []
    old = lambda situation, count: asked.append(count) or batches  # noqa: E731
    monkeypatch.setattr(ewc, "old_batches", old)
    term = remedy_of("ewc", model, Plain(), ewc=2.0, ewc_passages=3)
    assert asked == [3]
    table, weight = model.table, model.heads["tokens"].weight.detach()
    scores = []
    for tokens, targets in passages:
        score = torch.zeros(5, 3, dtype=torch.float64)
        for token, target in zip(tokens, targets, strict=True):
            if target != IGNORE:
                odds = (weight @ table[token]).exp()
                residual = -odds / odds.sum()
                residual[target] += 1
                score += torch.outer(residual, table[token])
        scores.append(score)
    expected = (scores[0] ** 2 + scores[1] ** 2 + scores[2] ** 2) / 3
    (found,) = term.fisher.parameters()
    close(found, expected, 3 * (5 + 3) * len(scores))  # products over 3 and 5, of 3 passages
    # What a batch's mean gradient would give is another thing, and much less.
    mean = (scores[0] + scores[1] + scores[2]) / 3
    assert float((mean**2).sum()) < 0.7 * float(expected.sum())
    # The term itself: ewc / 2 times the sum of F (w - w0)².
    model.heads["tokens"].weight.data[4, 1] += 3.0
    value = term.on_weights(model)
    close(value, 9.0 * expected[4, 1], 3 * (5 + 3) * len(scores), size=9 * largest(expected))
    value.backward()
    gradient = model.heads["tokens"].weight.grad
    close(gradient[4, 1], 6.0 * expected[4, 1], 3 * (5 + 3) * len(scores),
          size=6 * largest(expected))


@EVERY_CASE
def test_the_fisher_diagonal_of_each_architecture_by_a_plain_loop(
    case, tokenizer, corpus, monkeypatch
):
    """Also of tied weights, of heads without a target, and of a model that is left training."""
    model, objective = make(case, tokenizer, dropout=0.5)
    model.train()
    batches = batches_of(objective, corpus, 1, 1, 1, 1)
    monkeypatch.setattr(ewc, "old_batches", lambda situation, count: batches)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    term = remedy_of("ewc", model, objective, ewc=1.0)
    assert torch.equal(random, torch.get_rng_state()) and model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    for kept in (term.base, term.fisher):
        assert not any(each.requires_grad for each in kept.parameters())
    plain = copy.deepcopy(model).eval()
    expected = [torch.zeros_like(p) for p in plain.parameters()]
    for batch in batches:
        plain.zero_grad(set_to_none=False)
        hidden = plain(**batch.inputs).flatten(0, 1)
        for head, target in batch.targets.items():
            F.cross_entropy(
                plain.heads[head](hidden), target.flatten(), ignore_index=IGNORE, reduction="sum"
            ).backward(retain_graph=True)
        for total, parameter in zip(expected, plain.parameters(), strict=True):
            if parameter.grad is not None:
                total += parameter.grad**2 / len(batches)
    for found, wanted in zip(term.fisher.parameters(), expected, strict=True):
        # A square doubles the relative error, and four passages are added.
        close(found, wanted, 2 * additions(model, batches[0]) + 4, size=largest(*expected))


@EVERY_CASE
def test_old_text_is_read_passage_by_passage(case, tokenizer, corpus):
    """Spread over the plan, each as a batch of its own, with draws that are a function of the seed.
    """
    model, objective = make(case, tokenizer)
    situation = remedies_base.Situation(model, objective, 3, old_text=lambda names: corpus)
    first, again = (list(ewc.old_batches(situation, 4)) for _ in range(2))
    assert len(first) == 4
    for one, other in zip(first, again, strict=True):
        assert len(one.inputs["tokens"]) == 1
        assert torch.equal(one.inputs["tokens"], other.inputs["tokens"])
    everything = list(ewc.old_batches(situation, 10**6))
    assert len(everything) == len(objective.plan(corpus, 3, 0))


# --- KL


@EVERY_CASE
def test_kl_is_that_of_the_full_logits(case, tokenizer, corpus, monkeypatch):
    monkeypatch.setattr(fast, "ROWS", 1)
    monkeypatch.setattr(fast, "LOGITS", 700)  # several sweeps over a small batch
    base, objective = make(case, tokenizer)
    model = moved(base)
    (batch,) = batches_of(objective, corpus, 5)
    term = remedy_of("kl", base, objective, kl=1.0)
    found = term.on_targets(model, loss_module.target_losses(model, batch))
    assert {name: loss.count for name, loss in found.items()} == batch.counts()
    hidden, hidden_base = model(**batch.inputs), base.eval()(**batch.inputs).detach()
    expected = 0.0
    for name, target in batch.targets.items():
        where = target != IGNORE
        logits = model.heads[name](hidden[where])
        logits_base = base.heads[name](hidden_base[where]).detach()
        plain = F.kl_div(
            logits.log_softmax(1), logits_base.log_softmax(1), log_target=True, reduction="sum"
        )
        close(found[name].sum, plain, model, batch, size=found[name].count)  # logs of about 1
        expected = expected + plain / int(where.sum())
    value = sum(loss.mean for loss in found.values())
    pairs = zip(gradients(value, model), gradients(expected, model), strict=True)
    for ours, theirs in pairs:
        close(ours, theirs, model, batch, size=1.0)  # what is added are probabilities


@pytest.mark.parametrize("bias", [True, False])
def test_kls_gradient_is_that_of_finite_differences(bias, monkeypatch):
    monkeypatch.setattr(fast, "ROWS", 1)
    monkeypatch.setattr(fast, "LOGITS", 14)  # two rows at a time
    draws = generator("kl head")
    head, base = (nn.Linear(5, 7, bias=bias, dtype=torch.float64) for _ in range(2))
    for parameter in (*head.parameters(), *base.parameters()):
        parameter.data.normal_(generator=draws)
    hidden, expected = (torch.randn(6, 5, dtype=torch.float64, generator=draws) for _ in range(2))
    hidden.requires_grad_()

    def losses(hidden, *_):  # a loss each: gradcheck gives every one a factor of its own
        return kl.divergences(head, hidden, base, expected)

    assert torch.autograd.gradcheck(losses, (hidden, *head.parameters()))
    assert (losses(hidden) > 0).all()
    with pytest.raises(InputError, match="KL term .*no second derivative"):
        torch.autograd.grad(losses(hidden).sum(), hidden, create_graph=True)


def test_kl_of_two_classes_by_hand():
    """From (1/2, 1/2) to (3/4, 1/4): log(2/3)/2 + log(2)/2, whatever the targets are."""
    base = Softmax(torch.ones(1, 1).double(), torch.zeros(2, 1).double())
    model = copy.deepcopy(base)
    model.heads["tokens"].weight.data[0] = math.log(3)
    term = remedy_of("kl", base, None, kl=2.0)
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    inputs = {"tokens": tokens, "mask": tokens == 0}
    batch = Batch(inputs, {"tokens": torch.tensor([[1, IGNORE, 0]])})
    loss = term.on_targets(model, loss_module.target_losses(model, batch))["tokens"]
    expected = math.log(2 / 3) + math.log(2)  # 2 * 2 targets * half of this / 2
    assert loss.count == 2
    close(loss.mean, expected, 16, size=1.0)  # two classes: logs of about 1 that cancel


def test_kl_weighs_its_targets_as_the_loss_does(tokenizer, corpus):
    """A target of weight 0 counts and adds nothing; a head that the base lacks is left out."""
    base, objective = make("decoder", tokenizer)
    model = moved(base)
    (batch,) = batches_of(objective, corpus, 4)
    weights = torch.rand(batch.targets["tokens"].shape, generator=generator("kl weights"))
    weights[:, 1] = 0.0
    heavy = Batch(batch.inputs, batch.targets, {"tokens": weights})
    term = remedy_of("kl", base, objective, kl=1.0)
    plain = loss_module.target_losses(model, batch)["tokens"]
    each = kl.divergences(
        model.heads["tokens"], plain.hidden, base.heads["tokens"],
        base(**batch.inputs)[plain.rows, plain.positions],
    )
    found = loss_module.target_losses(model, heavy)
    expected = (each * weights[plain.rows, plain.positions]).sum()
    loss = term.on_targets(model, found)["tokens"]
    close(loss.sum, expected, model, batch, size=loss.count)
    assert loss.count == plain.count
    assert not term.on_targets(model, {"deep": found["tokens"]})


def test_kl_makes_no_tensor_of_all_logits():
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    head, base = nn.Linear(8, 4096), nn.Linear(8, 4096).requires_grad_(False)
    hidden = torch.randn(8192, 8, requires_grad=True)

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            sizes = [each.numel() for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
            self.numbers = max([self.numbers, *sizes])
            return result

    with Largest() as largest:
        kl.divergences(head, hidden, base, hidden.detach()).sum().backward()
    assert fast.LOGITS / 2 < largest.numbers <= fast.LOGITS  # of 33.5 million


@EVERY
def test_in_bfloat16_the_terms_stay_near_those_of_float32(name, tokenizer, corpus):
    base, objective = make("encoder", tokenizer)
    base, away = base.float(), moved(base.float())
    (batch,) = batches_of(objective, corpus, 4)
    term = term_of(name, base, objective, corpus)
    plain = float(value_of(term, away, objective, batch).detach())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = value_of(term, away, objective, batch)
        at_base = value_of(term, base, objective, batch)
    assert rounded.dtype == torch.float32
    assert float(rounded.detach()) == pytest.approx(plain, rel=0.1)
    assert float(at_base.detach()) == pytest.approx(0.0, abs=1e-6)
