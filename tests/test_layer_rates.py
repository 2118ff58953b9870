"""Rates by layer and unfreezing from the top: groups of the optimizer, against groups by hand."""

import copy
import io

import pytest
import torch
from test_ends import EVERY_MODEL, bits, made, run_of, same

from minicpt.common.errors import InputError
from minicpt.remedies.base import Rate
from minicpt.remedies.depth import levels_above
from minicpt.remedies.layer_rates import Settings as LayerRates
from minicpt.remedies.unfreezing import Settings as Unfreezing
from minicpt.runs.assembly import make_remedies, make_trainer
from minicpt.training.resuming import state_of
from minicpt.training.trainer import Training

BOTH = {"layer-rates": {"layer_rates": 0.5}, "unfreezing": {"unfreezing": 2}}


def trainer_of(chosen, tokenizer, corpus, name="gpt2", steps=6, **settings):
    model, objective = made(name, tokenizer, layers=2)
    chosen = make_remedies(chosen, "decoder", objective)
    settings = Training(batch_size=3, learning_rate=1e-2, **settings)
    return make_trainer(model, objective, corpus, settings, steps, chosen=chosen)


def rates_of(trainer):
    names = {id(each): name for name, each in trainer.model.named_parameters()}
    return {
        names[id(each)]: Rate(group["factor"], group["begins"])
        for group in trainer.optimizer.param_groups
        for each in group["params"]
    }


def test_factors_and_beginnings_by_hand(tokenizer, corpus):
    found = rates_of(trainer_of(BOTH, tokenizer, corpus))
    assert found["norm.bias"] == Rate(1.0, 0)
    assert found["layers.1.attention.qkv.weight"] == Rate(0.5, 2)
    assert found["layers.0.feed_forward.expand.bias"] == Rate(0.25, 4)
    assert found["tokens.weight"] == found["positions.weight"] == Rate(0.125, 6)


@pytest.mark.parametrize("other", [{"freeze": {"freeze": "embeddings"}}, {"lora": {"lora": 2}}])
def test_only_levels_that_learn_are_counted(other, tokenizer, corpus):
    trainer = trainer_of(BOTH | other, tokenizer, corpus)
    found = rates_of(trainer)
    expected = {n for n, each in trainer.model.named_parameters() if each.requires_grad}
    assert found.keys() == expected
    top = 0 if "lora" in other else 1
    for name, rate in found.items():
        if name.startswith("layers."):
            above = top + 1 - int(name.split(".")[1])
            assert rate == Rate(0.5**above, 2 * above)
    trainer.advance()


@EVERY_MODEL
def test_the_highest_level_of_every_model_has_the_full_rate(name, tokenizer):
    model, _ = made(name, tokenizer, layers=2)
    found = levels_above(model)
    assert set(found.values()) == set(range(max(found.values()) + 1))
    assert found["tokens.weight"] == max(found.values())


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_steps_are_those_of_groups_by_hand(name, tokenizer, corpus):
    """In float64, each weight is a group of its own, and what waits has no gradient."""
    model, objective = made(name, tokenizer, layers=2)
    plain, above = copy.deepcopy(model.double()), levels_above(model)
    settings = Training(
        batch_size=3, learning_rate=1e-2, schedule="constant", warmup=0.0, max_grad_norm=0.0
    )
    chosen = make_remedies(BOTH, objective.roles[0], objective)
    trainer = make_trainer(model, objective, corpus, settings, 5, chosen=chosen)
    groups = [
        {"params": [each], "lr": 1e-2 * 0.5 ** above[n], "weight_decay": 0.1 * (each.dim() > 1)}
        for n, each in plain.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    for step in range(5):
        batch = trainer.batch(range(3 * step, 3 * step + 3))
        optimizer.zero_grad()
        found = objective.losses(plain, objective.parts(plain), batch)["tokens"]
        (found.losses.sum() / found.count).backward()
        for n, each in plain.named_parameters():
            if step < 2 * above[n]:
                each.grad = None
        optimizer.step()
        trainer.advance()
    for n, each in plain.named_parameters():
        torch.testing.assert_close(model.get_parameter(n), each, rtol=1e-9, atol=1e-9)


def test_what_waits_keeps_its_bits_and_gets_no_moments(tokenizer, corpus):
    """Nor does it count in the norm, which is clipped to very little here."""
    chosen = {"unfreezing": {"unfreezing": 2}}
    trainer = trainer_of(chosen, tokenizer, corpus, max_grad_norm=1e-3, weight_decay=1.0)
    base, above = bits(copy.deepcopy(trainer.model)), levels_above(trainer.model)
    for done in range(1, 7):
        trainer.advance()
        squares = 0.0
        for name, each in trainer.model.named_parameters():
            learns = above[name] <= (done - 1) // 2
            assert torch.equal(each.detach().view(torch.int32), base[name]) != learns
            assert (each in trainer.optimizer.state) == learns == (each.grad is not None)
            if done == 1 and learns:  # the first moment is (1 - beta1) times what was clipped
                squares += trainer.optimizer.state[each]["exp_avg"].div(0.1).square().sum()
        if done == 1:
            assert float(squares**0.5) == pytest.approx(1e-3, rel=1e-3)


def test_equal_rates_give_the_bits_of_a_run_without(tokenizer, corpus):
    plain = trainer_of({}, tokenizer, corpus)
    equal = trainer_of({"layer-rates": {"layer_rates": 1.0}}, tokenizer, corpus)
    assert len(plain.optimizer.param_groups) == 2
    assert not {"factor", "begins"} & plain.optimizer.param_groups[0].keys()
    for trainer in (plain, equal):
        list(trainer.run())
    assert same(plain.model, equal.model)


def test_a_run_that_goes_on_in_the_middle_ends_with_the_same_bits(tokenizer, corpus):
    whole = run_of(BOTH, tokenizer, corpus, steps=6)
    list(whole.run())
    for done in (1, 3):
        first = run_of(BOTH, tokenizer, corpus, steps=6)
        for _ in range(done):
            first.advance()
        state = io.BytesIO()
        torch.save(state_of(first), state)
        state.seek(0)
        state = torch.load(state, weights_only=True)
        weights = copy.deepcopy(first.model.state_dict())
        again = run_of(BOTH, tokenizer, corpus, state, weights, steps=6)
        list(again.run())
        assert same(again.model, whole.model)
    other = BOTH | {"layer-rates": {"layer_rates": 0.25}}
    with pytest.raises(InputError, match="the optimizer's settings are not those of the run"):
        run_of(other, tokenizer, corpus, state, weights, steps=6)


def test_values_that_mean_nothing_are_refused():
    for value in (0.0, -0.5, 1.5):
        with pytest.raises(InputError, match="--layer-rates must be"):
            LayerRates(layer_rates=value)
    with pytest.raises(InputError, match="--unfreezing must be at least 0"):
        Unfreezing(unfreezing=-1)
