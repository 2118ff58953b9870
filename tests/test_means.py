"""EMA and averaging: means of the weights that a run has had."""

import copy
import io

import pytest
import torch
from making import close, remedy_of
from test_ends import made, run_of, same

from minicpt import remedies
from minicpt.common.errors import InputError
from minicpt.remedies.base import check_together
from minicpt.training.resuming import state_of

MEANS = {"ema": {"ema": 0.75}, "averaging": {"averaging": 3, "averaging_every": 2}}
EVERY_MEAN = pytest.mark.parametrize("name", MEANS)


def weights_of(trainer):
    """Each step's weights in float64, the base's first."""
    found = [copy.deepcopy(trainer.model).double()]
    for _ in range(trainer.steps):
        trainer.advance()
        found.append(copy.deepcopy(trainer.model).double())
    return [dict(each.named_parameters()) for each in found]


def test_the_mean_of_weights_that_rise_by_one_is_worked_out_by_hand(tokenizer):
    """Base 0, then 1, 2, 3: with X = 1/2 the mean is 1/2, 5/4, 17/8. The last two: 5/2."""
    cases = [({"ema": 0.5}, 17 / 8), ({"averaging": 2, "averaging_every": 1}, 2.5)]
    for settings, expected in cases:
        model, objective = made("gpt2", tokenizer)
        for each in model.parameters():
            each.data.zero_()
        remedy = remedy_of(next(iter(settings)), model, objective, **settings)
        for _ in range(3):
            for each in model.parameters():
                each.data += 1
            remedy.after_step(model)
        remedy.at_end(model)
        assert all(torch.equal(x, torch.full_like(x, expected)) for x in model.parameters())


@EVERY_MEAN
def test_the_end_is_the_mean_of_the_weights_that_the_run_had(name, tokenizer, corpus):
    """Of 7 steps averaging takes 4, 6 and 7; of EMA step n counts 0.25 * 0.75^(7 - n)."""
    plain = weights_of(run_of({}, tokenizer, corpus, steps=7))
    trainer = run_of({name: MEANS[name]}, tokenizer, corpus, steps=7)
    list(trainer.run())
    for each, value in trainer.model.named_parameters():
        if name == "averaging":
            expected = (plain[4][each] + plain[6][each] + plain[7][each]) / 3
        else:
            parts = (0.25 * 0.75 ** (7 - n) * plain[n][each] for n in range(1, 8))
            expected = 0.75**7 * plain[0][each] + sum(parts)
        close(value, expected, 32)


@EVERY_MEAN
def test_a_run_that_goes_on_ends_with_the_same_bits(name, tokenizer, corpus):
    whole = run_of({name: MEANS[name]}, tokenizer, corpus, steps=7)
    list(whole.run())
    for done in (1, 5):
        first = run_of({name: MEANS[name]}, tokenizer, corpus, steps=7)
        for _ in range(done):
            first.advance()
        state = io.BytesIO()
        torch.save(state_of(first), state)
        state.seek(0)
        state = torch.load(state, weights_only=True)
        weights = copy.deepcopy(first.model.state_dict())
        again = run_of({name: MEANS[name]}, tokenizer, corpus, state, weights, steps=7)
        list(again.run())
        assert same(again.model, whole.model)


def test_a_short_run_is_averaged_over_what_it_has(tokenizer, corpus):
    plain = weights_of(run_of({}, tokenizer, corpus, steps=1))
    trainer = run_of({"averaging": {"averaging": 4}}, tokenizer, corpus, steps=1)
    trainer.advance()
    for each, value in trainer.model.named_parameters():
        assert torch.equal(value.double(), plain[1][each])


@EVERY_MEAN
def test_what_it_does_not_fit_is_refused(name):
    kinds = remedies.known()
    for other in ("lora", next(each for each in MEANS if each != name)):
        with pytest.raises(InputError, match=f"--{name} and --{other} |--{other} and --{name} "):
            check_together({each: kinds[each] for each in (name, other)}, "decoder")
