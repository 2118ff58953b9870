"""What acts after the last step alone: interpolation and LiNeS; and how deep a weight lies."""

import copy
import io
import re

import pytest
import torch
from making import close, model_of, objective_of, remedy_of

from minicpt import checkpoint, models, remedies
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.remedies.base import check_together
from minicpt.remedies.depth import levels
from minicpt.runs.assembly import make_remedies, make_trainer
from minicpt.training.resuming import state_of
from minicpt.training.trainer import Training

OBJECTIVES = {"encoder": "masked-lm", "decoder": "causal-lm", "encoder-decoder": "reconstruction"}
EVERY_MODEL = pytest.mark.parametrize("name", models.known())
LAST = {name: kind for name, kind in remedies.known().items() if kind.only_at_end}
EVERY_LAST = pytest.mark.parametrize("name", LAST)


def made(name, tokenizer, **sizes):
    objective = objective_of(OBJECTIVES[models.known()[name].ROLE], tokenizer, window=16)
    return model_of(objective, model=name, **sizes), objective


def moved(model, but=""):
    """A copy whose weights have moved at random, those apart whose name begins with ``but``."""
    result, draws = copy.deepcopy(model), generator("moved")
    for name, each in result.named_parameters():
        noise = 0.1 * torch.randn(each.shape, generator=draws)
        each.data += 0 if but and name.startswith(but) else noise
    return result


def bits(model):
    """Each weight as whole numbers, so that 0.0 and -0.0 differ."""
    return {name: each.detach().view(torch.int32) for name, each in model.named_parameters()}


def same(model, other):
    return all(torch.equal(each, bits(other)[name]) for name, each in bits(model).items())


# --- how deep a weight is


def test_the_levels_of_a_decoder_by_hand(tokenizer):
    found = levels(made("gpt2", tokenizer, layers=2)[0])
    assert found["tokens.weight"] == found["positions.weight"] == 0
    assert found["layers.0.attention.qkv.weight"] == found["layers.0.feed_forward.expand.bias"] == 1
    assert found["layers.1.attention_norm.weight"] == 2 and found["norm.bias"] == 3


def test_the_levels_of_an_encoder_decoder_by_hand(tokenizer):
    found = levels(made("t5", tokenizer, layers=2)[0])
    assert found["tokens.weight"] == found["encoder.position_bias.weight"] == 0
    assert found["encoder.layers.1.feed_forward.contract.weight"] == found["encoder.norm.weight"]
    assert found["encoder.norm.weight"] == 2 and found["decoder.norm.weight"] == 5
    assert found["decoder.layers.0.cross_attention.query.weight"] == 3
    assert found["decoder.layers.1.attention.qkv.weight"] == 4


@EVERY_MODEL
def test_levels_of_every_model_rise_from_embeddings_to_heads(name, tokenizer):
    model, _ = made(name, tokenizer, layers=2)
    found = levels(model)
    assert list(found) == [each for each, _ in model.named_parameters()]
    assert list(found.values()) == sorted(found.values())
    assert found["tokens.weight"] == 0
    tied = model.heads["tokens"].weight is model.tokens.weight
    own = [level for each, level in found.items() if each.startswith("heads.")]
    assert (own or tied) and set(own) <= {max(found.values())}


# --- the weights at the end


@EVERY_MODEL
def test_interpolation_is_the_weighed_mean_of_each_weight(name, tokenizer):
    base, objective = made(name, tokenizer)
    trained = moved(base, but="layers.0.")
    for share in (0.25, 0.8):
        found = copy.deepcopy(trained)
        remedy_of("interpolation", base, objective, interpolation=share).at_end(found)
        triples = zip(found.named_parameters(), base.parameters(), trained.parameters(),
                      strict=True)  # fmt: skip
        for (name, now), then, end in triples:
            close(now, (1 - share) * then.double() + share * end.double(), 4)
            if torch.equal(then, end):  # bitwise, which the sum would not give
                assert torch.equal(now, then), name


@EVERY_MODEL
def test_the_ends_of_a_sweep_are_bitwise_the_base_and_the_trained_model(name, tokenizer):
    base, objective = made(name, tokenizer)
    base.tokens.weight.data[3, 2] = -0.0
    trained = moved(base)
    trained.tokens.weight.data[4, 1] = -0.0
    begun = copy.deepcopy(base)
    found = copy.deepcopy(trained)
    remedy_of("interpolation", base, objective, interpolation=0.0).at_end(found)
    assert same(found, base) and not same(found, trained)
    for remedy in ({"interpolation": 1.0}, {"lines": 1.0}):
        found = copy.deepcopy(trained)
        remedy_of(*remedy, base, objective, **remedy).at_end(found)
        assert same(found, trained)
    assert same(base, begun)


def test_lines_scales_each_level_by_hand(tokenizer):
    """X + (1 - X) l / 3 in a model of two layers: 0.4, 0.6, 0.8, 1."""
    base, objective = made("gpt2", tokenizer, layers=2)
    trained = moved(base)
    found = copy.deepcopy(trained)
    remedy_of("lines", base, objective, lines=0.4).at_end(found)
    own, then, end = (dict(each.named_parameters()) for each in (found, base, trained))
    expected = {
        "tokens.weight": 0.4,
        "positions.weight": 0.4,
        "layers.0.attention.qkv.weight": 0.6,
        "layers.1.feed_forward.contract.bias": 0.8,
    }
    for name, factor in expected.items():
        close(own[name], then[name].double() + factor * (end[name] - then[name]).double(), 4)
    assert torch.equal(own["norm.weight"], end["norm.weight"])
    assert found.heads["tokens"].weight is found.tokens.weight
    remedy_of("lines", base, objective, lines=0.0).at_end(trained)
    assert torch.equal(trained.tokens.weight, base.tokens.weight)


# --- in a run


def run_of(remedy, tokenizer, corpus, state=None, weights=None, steps=4):
    model, objective = made("gpt2", tokenizer, dropout=0.1)
    if weights:
        model.load_state_dict(weights)
    settings = Training(batch_size=3, learning_rate=1e-2)
    chosen = make_remedies(remedy, "decoder", objective)
    return make_trainer(model, objective, corpus, settings, steps, chosen=chosen, state=state)


@EVERY_LAST
def test_one_training_serves_all_strengths(name, tokenizer, corpus):
    """Before the end nothing differs; what it makes of the model, it makes of a copy later on."""
    plain = run_of({}, tokenizer, corpus)
    base = copy.deepcopy(plain.model)
    list(plain.run())
    for strength in (0.3, 0.7):
        trainer = run_of({name: {name: strength}}, tokenizer, corpus)
        for _ in range(3):
            trainer.advance()
        state, weights = io.BytesIO(), copy.deepcopy(trainer.model.state_dict())
        torch.save(state_of(trainer), state)
        trainer.advance()
        later = copy.deepcopy(plain.model)
        remedy_of(name, base, plain.objective, **{name: strength}).at_end(later)
        assert same(trainer.model, later) and not same(later, plain.model)
        state.seek(0)  # a run that goes on in another process gets the same base back
        state = torch.load(state, weights_only=True)
        again = run_of({name: {name: strength}}, tokenizer, corpus, state, weights)
        again.advance()
        assert same(again.model, later)


@EVERY_LAST
def test_what_it_does_not_fit_is_refused(name):
    with pytest.raises(InputError, match=f"--{name} and --lora exclude each other: LoRA leaves"):
        check_together({each: remedies.known()[each] for each in (name, "lora")}, "decoder")
    for value in (-0.1, 1.1):
        with pytest.raises(InputError, match=f"--{name} must be at"):
            LAST[name].Settings(**{name: value})
    assert LAST[name].asked(LAST[name].Settings(**{name: 0.0}))


def test_the_last_evaluation_is_of_the_weights_that_are_saved(tmp_path, capsys):
    """At 0 the base comes back: nothing gained. The run cannot be made longer after its end."""
    text = "".join(f"On day {n} the owl saw {n + 3} boats. It rained.\n\n" for n in range(80))
    (tmp_path / "text.txt").write_text(text)
    small = "--width 16 --layers 1 --num-heads 2 --vocab-size 280 --window 24".split()
    words = ["--corpus", str(tmp_path / "text.txt"), "--blocks", "--batch-size", "4"]
    words += ["--steps", "2", "--evaluate-passages", "8", "--learning-rate", "1e-2"]
    out, base = str(tmp_path / "out"), str(tmp_path / "base")
    assert main(["train", "causal-lm", *words, *small, "--out", base]) == 0
    words += ["--schedule", "constant", "--evaluate-every", "1", "--interpolation", "0"]
    assert main(["train", "causal-lm", "--init", base, *words, "--out", out]) == 0
    record = checkpoint.load(out).record
    before, middle, last = (each["held out"]["total"] for each in record["evaluations"])
    assert middle != before and last == before
    assert same(checkpoint.load(out).model, checkpoint.load(base).model)
    assert re.search(r"remedies +interpolation 0\n", capsys.readouterr().out)
    assert main(["resume", out, "--steps", "4"]) == 2
    assert re.fullmatch(
        "minicpt: error: --steps cannot go on from the end of a run with --interpolation, .*\n",
        capsys.readouterr().err,
    )
