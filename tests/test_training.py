"""The step, the schedule, the stream of passages, and going on exactly where a run stopped."""

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from making import batches_of, close, model_of, objective_of, step_of

from minicpt.batch import IGNORE, Batch
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.sources import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.fast.optimizer import AdamW, clipped_step
from minicpt.loss import losses_of_head, objective_loss, whole_sequence_loss
from minicpt.models.layers import causal_mask_of
from minicpt.objectives.causal_lm import CausalLM
from minicpt.proofs.bounds import additions, largest
from minicpt.training.evaluation import evaluate
from minicpt.training.optimizer import Optimization, learning_rate, make_optimizer
from minicpt.training.resuming import lengthened, restore, state_of
from minicpt.training.stream import Stream
from minicpt.training.trainer import NotFinite, Trainer, Training, train_step

OBJECTIVES = {
    "causal-lm": {"window": 16},
    "masked-lm": {"window": 16},
    "next-sentence": {"window": 32, "masked": True},
    "reconstruction": {"window": 24},
}
EVERY = pytest.mark.parametrize("name", OBJECTIVES)
WORDS = "the cat sat on a mat and saw rain fall by the old house at noon".split()


@pytest.fixture(scope="module")
def documents():
    draws = generator("documents")
    result = []
    for number in range(4):
        picks = torch.randint(len(WORDS), (60,), generator=draws).tolist()
        words = [WORDS[pick] for pick in picks]
        text = " ".join(
            word.capitalize() if i % 6 == 0 else word + "." * (i % 6 == 5)
            for i, word in enumerate(words)
        )
        result.append(Document(f"document {number}", text))
    return result


@pytest.fixture(scope="module")
def tokenizer(documents):
    return Tokenizer.train((each.text for each in documents), 300)


@pytest.fixture(scope="module")
def corpus(documents, tokenizer):
    return Corpus.build(documents, tokenizer)


def make(name, tokenizer, dropout=0.1, seed=0):
    objective = objective_of(name, tokenizer, **OBJECTIVES[name])
    return model_of(objective, seed, dropout=dropout), objective


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


# --- the step


@EVERY
def test_however_a_step_is_split_it_is_one_step(name, tokenizer, corpus):
    results = []
    for sizes in ((7,), (1, 6), (3, 2, 2), (1,) * 7):
        model, objective = make(name, tokenizer, dropout=0.0)
        model.double()
        # With plain gradient descent the weights show the gradient itself, not only its direction.
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        batches = batches_of(objective, corpus, *sizes)
        without = batches[0]
        empty = {head: torch.full_like(t, IGNORE) for head, t in without.targets.items()}
        batches.append(Batch(without.inputs, empty))
        losses, _ = step_of(model, objective, optimizer, batches)
        results.append((losses, weights(model)))
    (first, expected), *others = results
    (whole,) = batches_of(objective, corpus, 7)
    for losses, found in others:
        for head in first:
            assert losses[head].count == first[head].count > 0
            close(losses[head].sum, first[head].sum, model, whole)
        for key in expected:
            close(found[key], expected[key], model, whole, size=largest(*expected.values()))


def test_a_mean_of_means_would_be_another_gradient(tokenizer, corpus):
    """The check above can fail: batches of unequal counts, each divided by its own."""
    model, objective = make("masked-lm", tokenizer, dropout=0.0)
    model.double()
    batches = batches_of(objective, corpus, 1, 6)
    counts = [batch.counts() for batch in batches]
    assert counts[0] != counts[1]
    gradients = []
    for divisors in (counts, [{"tokens": sum(c["tokens"] for c in counts) / 2}] * 2):
        model.zero_grad()
        for batch, divisor in zip(batches, divisors, strict=True):
            loss = whole_sequence_loss(model, batch)["tokens"]
            (loss.sum / divisor["tokens"] / 2).backward()
        gradients.append(model.tokens.weight.grad.clone())
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3


def test_steps_are_those_of_a_plain_loop_with_torchs_own_parts(tokenizer, corpus):
    settings = Training(learning_rate=1e-3, batch_size=4, max_grad_norm=0.5, micro_batch_size=2)
    ours, objective = make("causal-lm", tokenizer, dropout=0.0)
    theirs, _ = make("causal-lm", tokenizer, dropout=0.0)
    ours.double(), theirs.double()
    trainer = Trainer(ours, objective, corpus, settings, steps=6)
    decay = [p for p in theirs.parameters() if p.dim() > 1]
    rest = [p for p in theirs.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        betas=(0.9, 0.99),
    )
    for number, step in enumerate(trainer.run()):
        passages, noise = Stream(objective, corpus, 0).passages(4 * number, 4)
        batch = objective.batch(passages, noise)
        logits = theirs.heads["tokens"](theirs(**batch.inputs))
        targets = batch.targets["tokens"].flatten()
        loss = F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = step.learning_rate
        optimizer.step()
        # Each step goes through the model once more.
        operations = (number + 1) * additions(ours, batch)
        close(step.losses["tokens"].mean, loss, operations)
    size = largest(*theirs.parameters())
    for key, value in weights(theirs).items():
        close(weights(ours)[key], value, operations, size=size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("most", [0.0, 0.5, 1e9], ids=["never", "shortened", "short enough"])
def test_a_clipped_step_is_that_of_torchs_clipping_and_adamw(dtype, most):
    sides = [
        [torch.nn.Parameter(torch.ones(n, 3, dtype=dtype)) for n in (2, 4, 1)] for _ in range(2)
    ]
    ours, theirs = AdamW(sides[0], fused=True), torch.optim.AdamW(sides[1], fused=True)
    for step in range(3):
        for number in range(2):  # the last parameter has no gradient
            draws = generator("gradient", step, number)
            found = torch.randn(sides[0][number].shape, generator=draws).to(dtype)
            for side in sides:
                side[number].grad = found.clone()
        gradients = [each.grad for each in sides[0][:2]]
        clipped_step(ours, torch.nn.utils.get_total_norm(gradients), most)
        torch.nn.utils.clip_grad_norm_(sides[1], most or math.inf)
        theirs.step()
        for mine, other in zip(*sides, strict=True):
            torch.testing.assert_close(mine, other)
            torch.testing.assert_close(mine.grad, other.grad)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_the_first_step_does_not_wait_for_the_compiler():
    """torch's own optimizer imports it, which takes as long as half of torch."""
    code = """
import sys, torch
from minicpt.training.optimizer import Optimization, make_optimizer
from minicpt.fast.optimizer import clipped_step
model = torch.nn.Linear(2, 2)
optimizer = make_optimizer(model, Optimization(learning_rate=1e-3))
optimizer.zero_grad()
model(torch.ones(1, 2)).sum().backward()
clipped_step(optimizer, torch.ones(()), 1.0)
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_step_without_targets_changes_nothing(tokenizer, corpus):
    model, objective = make("causal-lm", tokenizer)
    optimizer = make_optimizer(model, Optimization(learning_rate=1e-3, weight_decay=0.5))
    (batch,) = batches_of(objective, corpus, 3)
    before = weights(model)
    empty = Batch(batch.inputs, {"tokens": torch.full_like(batch.targets["tokens"], IGNORE)})
    losses, _ = step_of(model, objective, optimizer, [empty, empty], 1.0)
    assert losses["tokens"].count == 0
    assert all(torch.equal(before[key], value) for key, value in weights(model).items())
    step_of(model, objective, optimizer, [batch], 1.0)  # and one with targets does change it
    assert not torch.equal(before["tokens.weight"], weights(model)["tokens.weight"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stops_before_the_weights_change(tokenizer, corpus, value):
    model, objective = make("causal-lm", tokenizer)
    trainer = Trainer(model, objective, corpus, Training(batch_size=2), steps=3)
    trainer.advance()
    model.norm.bias.data[0] = value
    before = weights(model)
    with pytest.raises(NotFinite, match=r"step 2 .*document \d, token \d+"):
        trainer.advance()
    for key, found in weights(model).items():
        assert torch.equal(found, before[key]) or key == "norm.bias"
    assert trainer.step == 1


def test_a_gradient_that_is_not_finite_stops_too(tokenizer, corpus):
    model, objective = make("causal-lm", tokenizer)
    optimizer = make_optimizer(model, Optimization(learning_rate=1e-3))
    before = weights(model)
    model.tokens.weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NotFinite, match="gradient"):
        step_of(model, objective, optimizer, batches_of(objective, corpus, 2), 1.0)
    assert all(torch.equal(before[key], value) for key, value in weights(model).items())


def test_two_heads_add_their_means(tokenizer, corpus):
    model, objective = make("next-sentence", tokenizer, dropout=0.0)
    (batch,) = batches_of(objective, corpus, 6)
    losses = whole_sequence_loss(model, batch)
    total = objective_loss(losses, batch.counts())
    hidden = model(**batch.inputs)
    expected = sum(
        F.cross_entropy(
            model.heads[head](hidden.flatten(0, 1)), target.flatten(), ignore_index=IGNORE
        )
        for head, target in batch.targets.items()
    )
    assert set(losses) == {"pair", "tokens"} and losses["pair"].count == 6
    torch.testing.assert_close(total, expected)


# --- optimizer and schedule


def test_only_matrices_decay_and_tied_weights_come_once(tokenizer):
    model, _ = make("causal-lm", tokenizer)
    optimizer = make_optimizer(model, Optimization(learning_rate=1e-3, weight_decay=0.3))
    decayed, spared = optimizer.param_groups
    assert decayed["weight_decay"] == 0.3 and spared["weight_decay"] == 0.0
    assert all(p.dim() == 2 for p in decayed["params"])
    assert all(p.dim() == 1 for p in spared["params"])
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(ids) == len(set(ids)) == len(list(model.parameters()))


def test_schedules_worked_out_by_hand():
    settings = {"learning_rate": 1.0, "warmup": 0.2, "min_lr_ratio": 0.1}
    steps = 11  # warm-up over 2 steps; the last rate at step 10
    rates = {
        name: [learning_rate(i, steps, Optimization(**settings, schedule=name)) for i in range(11)]
        for name in ("cosine", "linear", "constant")
    }
    for found in rates.values():
        assert found[:3] == [0.5, 1.0, 1.0]
    assert rates["cosine"][6] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert rates["linear"][6] == pytest.approx(0.55)
    assert rates["cosine"][10] == pytest.approx(0.1) == pytest.approx(rates["linear"][10])
    assert rates["constant"][10] == 1.0


def rates(steps, **settings):
    settings = Optimization(learning_rate=1.0, **settings)
    return [learning_rate(step, steps, settings) for step in range(steps)]


def test_warm_up_stable_and_decay_worked_out_by_hand():
    """Two steps rise, four stay, and the last four fall linearly to the end."""
    stable = {"schedule": "warmup-stable-decay", "warmup": 0.2, "decay": 0.4, "min_lr_ratio": 0.2}
    expected = [0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]
    assert rates(10, **stable) == pytest.approx(expected)
    assert rates(10, **stable | {"decay": 0.0}) == [0.5] + [1.0] * 9
    with pytest.raises(ValueError, match="exceed 1 together"):
        Optimization(schedule="warmup-stable-decay", warmup=0.7, decay=0.4)


@pytest.mark.parametrize("schedule", ["constant", "warmup-stable-decay"])
def test_continued_without_a_warm_up_the_rate_goes_on(schedule):
    """What a checkpoint of the stable part is continued with: from the first step, the highest."""
    assert rates(10, schedule=schedule, warmup=0.0)[:8] == [1.0] * 8


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_continued_run_warms_up_again_and_decays_again(schedule):
    found = rates(20, schedule=schedule, warmup=0.2, min_lr_ratio=0.0)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0] and found[-1] == pytest.approx(0)
    assert all(now > then for now, then in zip(found[4:], found[5:], strict=False))


def test_a_run_is_made_longer_where_its_rates_stay_what_they_were():
    def longer(step, new, **settings):
        settings = Optimization(learning_rate=1.0, warmup=0.2, **settings)
        changed = lengthened(step, 10, new, settings)
        for each in range(step):
            assert learning_rate(each, 10, settings) == learning_rate(each, new, changed)
        return changed

    assert round(longer(10, 1000, schedule="constant").warmup * 1000) == 2
    stable = {"schedule": "warmup-stable-decay", "decay": 0.5}
    longer(5, 30, **stable)  # the first 5 of 10 have not fallen
    longer(3, 6, **stable)  # nor have the first 3 of 6: shorter is possible, too
    longer(2, 30, schedule="cosine")  # still warming up
    for step, new, settings in ((6, 30, stable), (5, 6, stable), (5, 30, {"schedule": "linear"})):
        with pytest.raises(ValueError, match=f"--steps {new} does not fit"):
            longer(step, new, **settings)


# --- the stream of passages


@EVERY
def test_the_stream_is_a_pure_function_of_the_position(name, tokenizer, corpus):
    _, objective = make(name, tokenizer)
    stream = Stream(objective, corpus, seed=3)
    length = stream.epoch_length(0)
    in_order = [p.place for p in stream.passages(0, 2 * length + 5)[0]]
    fresh = Stream(objective, corpus, seed=3)
    assert [p.place for p in fresh.passages(length - 2, 4)[0]] == in_order[length - 2 : length + 2]
    assert [p.place for p in fresh.passages(1, 3)[0]] == in_order[1:4]
    # Epochs differ in order, and so does the noise of a passage.
    assert in_order[:length] != in_order[length : 2 * length]
    draws = [
        torch.rand((), generator=each.generator).item()
        for each in fresh.passages(0, 2 * length)[1]
    ]
    assert len(set(draws)) == 2 * length


@EVERY
def test_a_stream_and_evaluations_plan_each_epoch_once(name, tokenizer, documents, monkeypatch):
    model, objective = make(name, tokenizer)
    corpus, other = (Corpus.build(some, tokenizer) for some in (documents, documents[:2]))
    asked, plan = [], objective.plan

    def counting(corpus, seed, epoch):
        asked.append((len(corpus.documents), seed, epoch))
        return plan(corpus, seed, epoch)

    monkeypatch.setattr(objective, "plan", counting)
    stream = Stream(objective, corpus, seed=3)
    length = stream.epoch_length(0)
    for position in range(0, 2 * length + 3, 3):
        stream.passages(position, 3)
        if position % 2:
            evaluate(model, objective, other, 2)
    assert sorted(asked) == [(2, 0, 0), *((4, 3, epoch) for epoch in range(3))]


# --- going on


@EVERY
def test_a_run_that_stopped_goes_on_bitwise(name, tokenizer, corpus):
    settings = Training(batch_size=5, micro_batch_size=3, seed=1, learning_rate=1e-2)
    steps = 12
    whole, objective = make(name, tokenizer)
    trainer = Trainer(whole, objective, corpus, settings, steps)
    assert steps * 5 > trainer.stream.epoch_length(0), "the run must cross an epoch"
    states = {}
    for step in trainer.run():
        # What is kept must survive what comes after it, as on a disk.
        states[step.number] = [
            {key: value.clone() for key, value in whole.state_dict().items()},
            torch.load(_saved(state_of(trainer)), weights_only=True),
        ]
    for stop in (1, 5, 11):
        torch.manual_seed(99)  # another process has another random state
        again, objective = make(name, tokenizer, seed=7)
        resumed = Trainer(again, objective, corpus, settings, steps)
        again.load_state_dict(states[stop][0])
        restore(resumed, states[stop][1])
        assert [step.number for step in resumed.run()] == list(range(stop + 1, steps + 1))
        for key, value in weights(whole).items():
            assert torch.equal(weights(again)[key], value), (stop, key)


def _saved(state):
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_dropout_and_evaluation_do_not_disturb_each_other(tokenizer, corpus):
    runs = []
    for looking in (False, True):
        model, objective = make("masked-lm", tokenizer)
        trainer = Trainer(model, objective, corpus, Training(batch_size=4), steps=4)
        for _ in trainer.run():
            if looking:
                evaluate(model, objective, corpus)
                assert model.training
        runs.append(weights(model))
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


# --- dropout and micro-batches


def trained(name, tokenizer, corpus, disturb=False, dropout=0.3, **settings):
    """The weights after four steps; ``disturb``: between them somebody uses torch's generator."""
    model, objective = make(name, tokenizer, dropout)
    model.double()
    settings = Training(**{"batch_size": 6, "learning_rate": 1e-2} | settings)
    trainer = Trainer(model, objective, corpus, settings, steps=4)
    for _ in trainer.run():
        if disturb:
            torch.manual_seed(99)
            torch.rand(7)
    return weights(model)


@pytest.mark.parametrize("size", [0, 2, 4])
def test_the_same_split_gives_the_same_weights_whatever_happened_before(size, tokenizer, corpus):
    """Dropout is seeded by (step, micro-batch), so torch's generator decides nothing."""
    before = trained("masked-lm", tokenizer, corpus, micro_batch_size=size)
    again = trained("masked-lm", tokenizer, corpus, disturb=True, micro_batch_size=size)
    assert all(torch.equal(before[key], value) for key, value in again.items())
    other = trained("masked-lm", tokenizer, corpus, micro_batch_size=size, seed=1)
    assert not torch.equal(before["tokens.weight"], other["tokens.weight"])


def test_each_micro_batch_and_each_step_draws_dropout_of_its_own(tokenizer, corpus, monkeypatch):
    seeds = []
    model, objective = make("causal-lm", tokenizer)
    settings = Training(batch_size=4, micro_batch_size=2)
    trainer = Trainer(model, objective, corpus, settings, steps=3)
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    list(trainer.run())
    assert len(seeds) == len(set(seeds)) == 3 * 2


@EVERY
def test_however_a_step_is_cut_into_micro_batches_it_has_one_gradient(name, tokenizer, corpus):
    model, objective = make(name, tokenizer)
    (batch,) = batches_of(objective, corpus, 6)
    operations = 4 * additions(model, batch)  # each step goes through the model once more
    whole, *others = (
        trained(name, tokenizer, corpus, dropout=0.0, micro_batch_size=size, epsilon=1e-2)
        for size in (0, 1, 4, 6, 100)
    )
    for found in others:
        for key, value in whole.items():
            close(found[key], value, operations, size=largest(*whole.values()))


# --- an objective with a part


class Deep(CausalLM):
    """Causal LM, and the same targets once more from behind one more layer."""

    heads = ("tokens",)
    head_weights = {"deep": 0.5}

    def batch(self, passages, draws):
        batch = super().batch(passages, draws)
        target = batch.targets["tokens"]
        heavy = (torch.arange(target.shape[1]) % 2).float().expand(target.shape)
        return Batch(batch.inputs, {"tokens": target, "deep": target}, {"deep": heavy})

    def visibility(self, batch):
        (seen,) = super().visibility(batch).values()
        return {"tokens": seen, "deep": seen}

    def parts(self, model):
        return torch.nn.ModuleDict({"layer": model.block()})

    def losses(self, model, parts, batch, fused=True):
        hidden = model(**batch.inputs)
        mask = causal_mask_of(batch.inputs["tokens"], batch.inputs["mask"])
        deeper = parts["layer"](hidden, mask)
        head = model.heads["tokens"]
        return {
            "tokens": losses_of_head("tokens", hidden, head, batch, fused),
            "deep": losses_of_head("deep", deeper, head, batch, fused),
        }


def deep_trainer(tokenizer, corpus, steps=6, **settings):
    objective = Deep(tokenizer, Deep.Settings(window=16))
    settings = Training(**{"batch_size": 4, "learning_rate": 1e-2} | settings)
    return Trainer(model_of(objective, dropout=0.1), objective, corpus, settings, steps)


def test_a_part_learns_with_the_model(tokenizer, corpus):
    trainer = deep_trainer(tokenizer, corpus)
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in trainer.parts.parameters()} <= held
    assert {id(p) for p in trainer.learner.parameters()} == held
    before = weights(trainer.parts)
    step = trainer.advance()
    assert step.losses.keys() == {"tokens", "deep"}
    assert step.losses["tokens"].count == step.losses["deep"].count  # those of weight 0 included
    after = weights(trainer.parts)
    assert not all(torch.equal(before[key], after[key]) for key in before)
    assert not any(name.startswith("layer.") for name in trainer.model.state_dict())


def test_a_part_begins_as_the_seed_says(tokenizer, corpus):
    random = torch.get_rng_state()
    parts = [weights(deep_trainer(tokenizer, corpus, seed=seed).parts) for seed in (0, 0, 1)]
    torch.set_rng_state(random)
    for key, value in parts[0].items():
        assert torch.equal(value, parts[1][key])
    key = "layer.attention.qkv.weight"
    assert not torch.equal(parts[0][key], parts[2][key])


def test_a_run_with_a_part_goes_on_bitwise(tokenizer, corpus):
    whole = deep_trainer(tokenizer, corpus)
    for step in whole.run():
        if step.number == 3:
            kept = {key: value.clone() for key, value in whole.model.state_dict().items()}
            state = torch.load(_saved(state_of(whole)), weights_only=True)
    assert state["parts"].keys() == whole.parts.state_dict().keys()
    again = deep_trainer(tokenizer, corpus)
    again.model.load_state_dict(kept)
    restore(again, state)
    list(again.run())
    for one, other in ((whole.model, again.model), (whole.parts, again.parts)):
        for key, value in weights(one).items():
            assert torch.equal(weights(other)[key], value), key
    with pytest.raises(ValueError, match="does not fit"):
        restore(deep_trainer(tokenizer, corpus), state | {"parts": {}})


def test_head_weights_count_in_the_step_and_in_the_evaluation(tokenizer, corpus):
    """With plain gradient descent: a head of weight 1/2 has half of its gradient."""
    trainer = deep_trainer(tokenizer, corpus)
    model, objective, parts = trainer.model.double().eval(), trainer.objective, trainer.parts
    parts.double().eval()
    (batch,) = batches_of(objective, corpus, 4)
    losses = {name: each.total() for name, each in objective.losses(model, parts, batch).items()}
    expected = losses["tokens"].mean + losses["deep"].mean / 2
    total = objective_loss(losses, batch.counts(), objective.head_weights)
    close(total, expected, model, batch)
    found = evaluate(model, objective, corpus, parts=parts)
    means = [float(found.losses[name].mean) for name in ("tokens", "deep")]
    assert found.total == pytest.approx(means[0] + means[1] / 2, rel=1e-12)
    gradient = torch.autograd.grad(expected, list(parts.parameters()))
    before = [each.detach().clone() for each in parts.parameters()]
    optimizer = torch.optim.SGD([*model.parameters(), *parts.parameters()], lr=1.0)
    trainer.learner.eval()
    train_step(trainer.learner, optimizer, [batch], head_weights=objective.head_weights)
    for then, now, slope in zip(before, parts.parameters(), gradient, strict=True):
        close(then - now.detach(), slope, model, batch, size=largest(*before, *gradient))


def test_a_target_of_weight_zero_counts_in_an_evaluation(tokenizer, corpus):
    trainer = deep_trainer(tokenizer, corpus)
    model, parts = trainer.model.double(), trainer.parts.double()
    random = torch.get_rng_state()
    found = evaluate(model, trainer.objective, corpus, parts=parts)
    assert found.losses["deep"].count == found.losses["tokens"].count
    other = evaluate(model, trainer.objective, corpus, batch_size=3, parts=parts)
    every = additions(model, batches_of(trainer.objective, corpus, 1)[0], len(corpus.tokens))
    close(other.losses["deep"].sum, found.losses["deep"].sum, every)
    new = evaluate(model.float(), trainer.objective, corpus, passages=2)  # with parts of its own
    assert new.losses.keys() == found.losses.keys()
    assert torch.equal(random, torch.get_rng_state())


# --- evaluation


@EVERY
def test_an_evaluation_does_not_depend_on_the_batch_size(name, tokenizer, corpus):
    model, objective = make(name, tokenizer)
    model.double()
    random = torch.get_rng_state()
    one, many = (evaluate(model, objective, corpus, batch_size=size) for size in (1, 7))
    for head, loss in one.losses.items():
        assert loss.count == many.losses[head].count > 0
        every = additions(model, batches_of(objective, corpus, 1)[0], len(corpus.tokens))
        close(loss.sum, many.losses[head].sum, every)
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("name", ["causal-lm", "reconstruction"])
def test_bits_per_byte_of_a_uniform_guess(name, tokenizer, corpus, documents):
    """Every token costs log2 V bits, and the targets stand for every byte of the text once."""
    model, objective = make(name, tokenizer)
    model.double()
    torch.nn.init.zeros_(model.heads["tokens"].weight)
    result = evaluate(model, objective, corpus)
    size = sum(len(each.text.encode()) for each in documents)
    assert result.text_bytes == size
    bits = len(corpus.tokens) * math.log2(tokenizer.size) / size
    close(result.bits_per_byte, bits, tokenizer.size + len(corpus.tokens))
    ends = len(documents) if name == "causal-lm" else len(objective.plan(corpus, 0, 0))
    assert result.losses["tokens"].count == len(corpus.tokens) + ends
    close(result.total, math.log(tokenizer.size), tokenizer.size + len(corpus.tokens))


@pytest.mark.parametrize("name", ["masked-lm", "next-sentence"])
def test_no_bits_per_byte_where_not_all_of_the_text_is_predicted(name, tokenizer, corpus):
    model, objective = make(name, tokenizer)
    assert evaluate(model, objective, corpus, passages=3).bits_per_byte is None
