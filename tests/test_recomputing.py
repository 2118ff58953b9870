"""--checkpoint-activations: layers are computed twice, and every number stays what it was."""

import pytest
import torch
from making import batches_of, model_of, objective_of

from minicpt import models
from minicpt.models.recomputing import recompute_layers
from minicpt.runs.assembly import make_remedies, make_trainer
from minicpt.training.device import Machine
from minicpt.training.trainer import Training

OBJECTIVES = {"decoder": "causal-lm", "encoder": "masked-lm", "encoder-decoder": "reconstruction"}
EVERY = pytest.mark.parametrize("name", models.known())
SETTINGS = Training(batch_size=4, micro_batch_size=2)


def trained(name, tokenizer, corpus, again, remedies=None, **machine):
    """The trainer after a step, with dropout; how often each layer was computed is in ``calls``."""
    objective = objective_of(OBJECTIVES[models.known()[name].ROLE], tokenizer, window=24)
    model = model_of(objective, model=name, layers=2, dropout=0.2)
    model.calls = calls = []
    for each, layer in model.named_modules():
        if each.rpartition(".")[0].endswith("layers"):
            layer.register_forward_hook(lambda *_, each=each: calls.append(each))
            norm = next(m for m in layer.modules() if "Norm" in type(m).__name__)
            norm.register_forward_hook(lambda *_, each=each: calls.append(f"inside {each}"))
    chosen = make_remedies(remedies or {}, model.ROLE, objective)
    machine = Machine(checkpoint_activations=again, **machine)
    trainer = make_trainer(model, objective, corpus, SETTINGS, 2, machine, chosen)
    trainer.advance()
    return trainer


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_are_bitwise_the_same(name, dtype, tokenizer, corpus):
    plain, twice = (
        trained(name, tokenizer, corpus, again, dtype=dtype) for again in (False, True)
    )
    found = dict(twice.model.named_parameters())
    for key, parameter in plain.model.named_parameters():
        other = found[key].grad
        assert (other is None) == (parameter.grad is None), key
        assert other is None or torch.equal(other, parameter.grad), key
    # Once, and all but the call itself twice.
    outer, inner = ([c for c in twice.model.calls if c.startswith("inside") == i] for i in (0, 1))
    assert len(inner) == 2 * len(outer) > 0
    assert len(plain.model.calls) == 2 * len(outer)


@EVERY
def test_adapters_and_the_base_beside_them_get_the_same(name, tokenizer, corpus):
    remedies = {"lora": {"lora": 2}, "kl": {"kl": 1.0}}
    plain, twice = (
        trained(name, tokenizer, corpus, again, remedies) for again in (False, True)
    )
    expected, found = plain.model.state_dict(), twice.model.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert expected.keys() == found.keys()


def test_less_is_kept_for_the_backward_pass(tokenizer, corpus):
    objective = objective_of("causal-lm", tokenizer, window=24)
    (batch,) = batches_of(objective, corpus, 4)
    kept = []
    for again in (False, True):
        model = model_of(objective, layers=4)
        if again:
            recompute_layers(model)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each, sizes=sizes: sizes.append(each.numel()) or each, lambda each: each
        ):
            model(**batch.inputs).sum().backward()
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 4


DECODERS = [name for name, kind in models.known().items() if kind.ROLE == "decoder"]


@pytest.mark.parametrize("name", DECODERS)
def test_a_cache_is_filled_once(name, tokenizer, corpus):
    objective = objective_of("causal-lm", tokenizer, window=24)
    model = model_of(objective, model=name, layers=2).train()
    (batch,) = batches_of(objective, corpus, 2)
    tokens = batch.inputs["tokens"][:, :6]

    def gradient():
        model.zero_grad()
        cache = model.cache(len(tokens), 6)
        sum(model.step(tokens[:, at : at + 1], cache).square().sum() for at in range(6)).backward()
        return model.tokens.weight.grad.clone()

    expected = gradient()
    recompute_layers(model)
    assert torch.equal(gradient(), expected)
