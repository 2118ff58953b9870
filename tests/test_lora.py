"""Freezing and LoRA: what learns, what stays bitwise, and that the folder holds the merged sum."""

import copy
import gc

import pytest
import torch
import transformers
from making import close, model_of, objective_of, remedy_of
from oracles import TEXT, exact

from minicpt import models
from minicpt.checkpoint import folder as checkpoint
from minicpt.checkpoint import huggingface
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import whole_sequence_loss
from minicpt.proofs.bounds import largest
from minicpt.remedies.lora import LoRA, lora_state
from minicpt.runs.assembly import make_remedies, make_trainer
from minicpt.training.device import Machine
from minicpt.training.resuming import restore, state_of
from minicpt.training.stream import Stream
from minicpt.training.trainer import Trainer, Training

KINDS = {
    "decoder": ("causal-lm", {"window": 16}),
    "encoder": ("masked-lm", {"window": 16}),
    "encoder-decoder": ("reconstruction", {"window": 24}),
}
EVERY = pytest.mark.parametrize("kind", KINDS)
LORA = {"lora": 3, "lora_alpha": 5.0}
# Whose transformers class opens the folder.
CLASSES = {
    "decoder": "GPT2LMHeadModel",
    "encoder": "BertForPreTraining",
    "encoder-decoder": "T5ForConditionalGeneration",
}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([TEXT], 256)


@pytest.fixture(scope="module")
def corpus(tokenizer):
    return Corpus.build([Document("days", TEXT)], tokenizer)


def make(kind, tokenizer, seed=0, dropout=0.0, **sizes):
    name, settings = KINDS[kind]
    objective = objective_of(name, tokenizer, **settings)
    own = {"version": "1.0"} if kind == "encoder-decoder" else {}
    sizes = {"width": 12, "layers": 2, "dropout": dropout} | own | sizes
    return model_of(objective, seed, **sizes), objective


def restrict(model, seed=0, state=None, **settings):
    """Begins the remedy that the settings belong to."""
    name = "lora" if "lora" in settings else "freeze"
    return remedy_of(name, model, None, state=state, seed=seed, **settings)


def learning(model):
    return {name for name, each in model.named_parameters() if each.requires_grad}


def train(model, objective, corpus, steps=3):
    trainer = Trainer(model, objective, corpus, Training(batch_size=2, learning_rate=0.01), steps)
    list(trainer.run())
    return trainer


def batch_of(objective, corpus):
    return objective.batch(*Stream(objective, corpus, 0).passages(0, 2))


# --- freezing


EMBEDDINGS = {
    "decoder": {"tokens.weight", "positions.weight"},
    "encoder": {"tokens.weight", "positions.weight", "segments.weight"},
    "encoder-decoder": {"tokens.weight"},
}


@EVERY
@pytest.mark.parametrize("fused", [True, False])
def test_frozen_embeddings_stay_and_all_the_rest_learns(kind, fused, tokenizer, corpus):
    model, objective = make(kind, tokenizer)
    before = copy.deepcopy(model.state_dict())
    restrict(model, freeze="embeddings")
    assert learning(model) == {n for n, _ in model.named_parameters()} - EMBEDDINGS[kind]
    # The heads are tied: their matrix is the frozen one.
    assert not model.heads["tokens"].weight.requires_grad
    settings = Training(batch_size=2, fused_loss=fused)
    trainer = Trainer(model, objective, corpus, settings, 3)
    list(trainer.run())
    held = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    frozen = EMBEDDINGS[kind] | {n for n in before if ".pair." in n}  # it has no targets here
    assert moved == {n for n, _ in model.named_parameters()} - frozen


LAST = {
    "decoder": ("layers.1.", "norm.", "heads."),
    "encoder": ("layers.1.", "heads."),
    "encoder-decoder": ("decoder.layers.1.", "decoder.norm.", "heads."),
}


@EVERY
def test_the_last_layer_and_what_follows_it(kind, tokenizer):
    model, _ = make(kind, tokenizer)
    restrict(model, train_last=1)
    expected = {n for n, _ in model.named_parameters() if n.startswith(LAST[kind])}
    assert learning(model) == expected and expected


def test_the_layers_of_an_encoder_decoder_count_through_both_stacks(tokenizer):
    model, _ = make("encoder-decoder", tokenizer, version="1.1")
    restrict(model, train_last=3)
    frozen = {n for n, _ in model.named_parameters()} - learning(model)
    assert frozen == {
        n
        for n, _ in model.named_parameters()
        if n.startswith(("tokens", "encoder.position_bias", "encoder.layers.0."))
    }
    assert "heads.tokens.weight" in learning(model)  # version 1.1 has a head of its own
    with pytest.raises(InputError, match="--train-last is 5, but the model has 4 layers"):
        restrict(model, train_last=5)


def test_a_frozen_weight_costs_no_gradient_and_the_others_are_the_same(tokenizer, corpus):
    gradients = []
    for settings in ({}, {"freeze": "embeddings"}):
        model, objective = make("encoder", tokenizer)
        restrict(model.double(), **settings)
        whole_sequence_loss(model, batch_of(objective, corpus))["tokens"].mean.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    everything, some = gradients
    size = largest(*(each for each in everything.values() if each is not None))
    assert everything["tokens.weight"] is not None and some["tokens.weight"] is None
    for name in some:
        if some[name] is not None:
            close(some[name], everything[name], model, batch_of(objective, corpus), size=size)


# --- LoRA


@EVERY
def test_lora_starts_from_the_base_and_trains_its_factors_alone(kind, tokenizer, corpus):
    base, objective = make(kind, tokenizer)
    model = copy.deepcopy(base)
    restrict(model, **LORA)
    inputs = batch_of(objective, corpus).inputs
    with torch.no_grad():  # what needs a gradient decides which kernel torch takes for T5
        assert torch.equal(model(**inputs), base(**inputs))
    assert all(name.endswith((".A", ".B")) for name in learning(model))
    # Worked out: for each projection (12, 12) two factors (3, 12); 4 of them in an attention, and
    # 6 attentions in a T5 of two layers each.
    attentions = 6 if kind == "encoder-decoder" else 2
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == (
        attentions * 4 * 2 * 3 * 12
    )
    train(model, objective, corpus)
    old, new = dict(base.named_parameters()), dict(model.named_parameters())
    for name, value in old.items():
        assert torch.equal(new[name], value), name
    assert (model(**inputs) - base(**inputs)).abs().max() > 1e-3


@EVERY
def test_merged_weights_are_the_base_and_the_product(kind, tokenizer, corpus):
    base, objective = make(kind, tokenizer)
    base.double()
    model = copy.deepcopy(base)
    restrict(model, **LORA)
    train(model, objective, corpus)
    merged = copy.deepcopy(base)
    huggingface.import_state(merged, huggingface.export_state(model))
    state, changed = lora_state(model), 0
    for name, old in base.named_parameters():
        found, place = merged.get_parameter(name), name.removesuffix(".weight")
        if f"{place}.A" not in state:
            assert torch.equal(found.float(), old.float()), name
            continue
        product = []  # query, key and value each with factors of their own
        for a, b in zip(state[f"{place}.A"], state[f"{place}.B"], strict=True):
            product.append(b.numpy() @ a.numpy())
        expected = old.detach() + 5.0 / 3 * torch.cat([torch.tensor(each) for each in product])
        close(found, expected, 3 + 1, size=largest(old) + largest(found))  # a product of rank 3
        changed += 1
    assert changed == (2 * 2 + 2 * 5 if kind == "encoder-decoder" else 4)
    inputs = batch_of(objective, corpus).inputs
    model.eval(), merged.eval()
    logits = [each.heads["tokens"](each(**inputs)) for each in (model, merged)]
    close(*logits, model, inputs)


@EVERY
def test_the_folder_opens_in_transformers_with_the_merged_weights(
    kind, tokenizer, corpus, tmp_path, monkeypatch
):
    model, objective = make(kind, tokenizer)
    restrict(model, **LORA)
    train(model, objective, corpus)
    checkpoint.save(tmp_path / "step-1", model, tokenizer, {"fused": True}, {})
    opened = getattr(transformers, CLASSES[kind]).from_pretrained(tmp_path / "step-1")
    exact(monkeypatch)
    model.double().eval(), opened.double().eval()
    inputs = batch_of(objective, corpus).inputs
    theirs = {"input_ids": inputs["tokens"][:1]}
    ours = {"tokens": inputs["tokens"][:1]}
    if kind == "encoder-decoder":
        theirs["decoder_input_ids"] = ours["decoder_tokens"] = inputs["decoder_tokens"][:1]
    found = opened(**theirs)
    found = found.prediction_logits if kind == "encoder" else found.logits
    expected = model.heads["tokens"](model(**ours).flatten(0, 1)).view_as(found)
    close(found.to(torch.float32), expected, model, ours)  # the folder holds the sum in float32


@pytest.mark.parametrize("settings", [LORA, {"train_last": 1}], ids=["lora", "last"])
def test_a_run_that_stopped_goes_on_bitwise(settings, tokenizer, corpus, tmp_path):
    def start(model, objective, seed, state=None):
        remedy = restrict(model, seed, state, **settings)
        return Trainer(model, objective, corpus, Training(batch_size=2), 6, remedies=[remedy])

    whole, folder = start(*make("decoder", tokenizer, dropout=0.1), 0), tmp_path / "step-2"
    for step in whole.run():
        if step.number == 2:
            checkpoint.save(folder, whole.model, tokenizer, {"fused": True}, state_of(whole))
    base = checkpoint.load(folder, dropout=0.1)
    state = base.state()
    again = start(base.model, whole.objective, 9, *state["remedies"].values())
    restore(again, state)
    list(again.run())
    expected, found = whole.model.state_dict(), again.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@EVERY
def test_kl_needs_no_copy_of_the_base_and_finds_the_same(kind, tokenizer, corpus, monkeypatch):
    def run():
        model, objective = make(kind, tokenizer, dropout=0.1)
        settings = Training(batch_size=2, learning_rate=0.01)
        chosen = make_remedies({"lora": LORA, "kl": {"kl": 0.7}}, model.ROLE, objective)
        trainer = make_trainer(model, objective, corpus, settings, 3, chosen=chosen)
        terms = [step.terms["kl"] for step in trainer.run()]
        return trainer, terms

    def copies():
        """Tensors that hold the base's token table."""
        table, shape = trainer.model.tokens.weight, trainer.model.tokens.weight.shape
        tensors = (each for each in gc.get_objects() if issubclass(type(each), torch.Tensor))
        same = (each for each in tensors if each.shape == shape and torch.equal(each, table))
        return len({each.data_ptr() for each in same})

    trainer, terms = run()
    assert copies() == 1 and state_of(trainer)["remedies"]["kl"] == {}
    monkeypatch.setattr(LoRA, "base_within", None)
    trainer, expected = run()
    assert copies() == 2, "the check above can fail"
    assert terms == expected and terms[-1] > 1e-6


def test_the_base_is_read_without_what_stands_beside_it(tokenizer, corpus):
    base, objective = make("decoder", tokenizer, dropout=0.1)
    inputs = batch_of(objective, corpus).inputs
    expected = copy.deepcopy(base).eval()(**inputs)
    chosen = make_remedies({"lora": LORA, "kl": {"kl": 0.7}}, base.ROLE, objective)
    settings = Training(batch_size=2, learning_rate=0.01)
    trainer = make_trainer(base, objective, corpus, settings, 3, chosen=chosen)
    list(trainer.run())
    found = chosen[1].base(**inputs)
    assert torch.equal(found, expected) and not found.requires_grad
    assert base.training and all(each.training for each in base.modules())
    assert not torch.equal(base.eval()(**inputs), expected)


@pytest.mark.parametrize("name", models.known())
def test_in_bfloat16_it_learns_nearly_the_same(name, tokenizer, corpus):
    kind = models.known()[name].ROLE
    objective = objective_of(KINDS[kind][0], tokenizer, **KINDS[kind][1])
    losses = {}
    for dtype in ("float32", "bfloat16"):
        model = model_of(objective, model=name, width=12, layers=2)
        chosen = make_remedies({"lora": LORA}, model.ROLE, objective)
        settings, machine = Training(batch_size=2, learning_rate=0.01), Machine(dtype=dtype)
        trainer = make_trainer(model, objective, corpus, settings, 4, machine, chosen)
        losses[dtype] = [float(step.losses["tokens"].mean) for step in trainer.run()]
        learnt = [each for each in model.parameters() if each.requires_grad]
        assert all(each.dtype == each.grad.dtype == torch.float32 for each in learnt)
    # 8 bits: a product is off by 2^-8 of itself at most, and the logits are O(1).
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=2**-8 * 4)
    assert losses["bfloat16"] != losses["float32"]


def test_a_rank_that_is_too_large_is_refused(tokenizer):
    model, _ = make("decoder", tokenizer)
    with pytest.raises(InputError, match="--lora 13 is more than the 12"):
        restrict(model, lora=13)


def test_a_state_of_another_model_is_refused(tokenizer):
    small, large = (make("decoder", tokenizer, layers=layers)[0] for layers in (1, 2))
    restrict(small, **LORA)
    with pytest.raises(ValueError, match="LoRA's factors are not those of the run"):
        restrict(large, state=lora_state(small), **LORA)


def test_the_random_factor_is_a_function_of_the_seed(tokenizer):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(int(generator("anything", len(states)).initial_seed()) % 1000)
        model = copy.deepcopy(make("decoder", tokenizer)[0])
        restrict(model, seed, **LORA)
        states.append(lora_state(model))
    name = "layers.0.attention.qkv.A"
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])
