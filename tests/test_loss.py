"""One pass over the whole sequence and one target at a time: the same numbers and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

import minicpt.models.decoder as decoder_module
from minicpt.batch import IGNORE, Batch
from minicpt.data.corpus import Corpus
from minicpt.data.sources import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import (
    Loss,
    objective_loss,
    per_token_losses,
    target_losses,
    whole_sequence_loss,
)
from minicpt.models import decoder, encoder, encoder_decoder
from minicpt.objectives import causal_lm, masked_lm, next_sentence, reconstruction
from minicpt.randomness import generator

TEXT = (
    "The cat sat on the mat. It was warm there. A bird came by.\n\n"
    "Rain fell at noon, and the cat went home. She slept."
)
SIZES = {"width": 16, "layers": 2, "heads": 2, "dropout": 0.0}
CASES = {
    "causal-lm": (causal_lm, causal_lm.Settings(window=24), decoder),
    "masked-lm": (masked_lm, masked_lm.Settings(window=24, rate=0.3), encoder),
    "next-sentence": (next_sentence, next_sentence.Settings(window=48), encoder),
    "next-sentence with masked-lm": (
        next_sentence,
        next_sentence.Settings(window=48, masked=True),
        encoder,
    ),
    "reconstruction": (reconstruction, reconstruction.Settings(window=32), encoder_decoder),
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
    positions = {} if kind is encoder_decoder else {"positions": objective.length}
    torch.manual_seed(0)
    model = kind.Model(kind.Config(vocabulary=tokenizer.size, **positions, **SIZES)).double()
    for parameter in model.parameters():  # larger than at the start, so that every path matters
        parameter.data.mul_(2).add_(0.01 * torch.randn_like(parameter))
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
        torch.testing.assert_close(
            together[head].losses, alone[head].losses, rtol=0, atol=1e-12
        )
    ours, theirs = gradients(model, together), gradients(model, alone)
    assert ours.keys() == theirs.keys()
    for parameter in ours:
        torch.testing.assert_close(ours[parameter], theirs[parameter], rtol=0, atol=1e-10)


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
        self.heads = torch.nn.ModuleDict({"tokens": torch.nn.Identity()})

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
    assert float(loss.sum) == pytest.approx(math.log(4) + math.log(4 / 3), abs=1e-12)
    each = target_losses(Table(logits), batch)["tokens"]
    assert each.positions.tolist() == [0, 2] and each.rows.tolist() == [0, 0]


def test_the_sum_over_targets_is_torchs_cross_entropy():
    logits = torch.randn(3, 7, 11, dtype=torch.float64, generator=generator("logits"))
    targets = torch.randint(11, (3, 7), generator=generator("targets"))
    targets[0, 3:] = IGNORE
    batch = Batch({"tokens": torch.zeros(3, 7, dtype=torch.int64)}, {"tokens": targets})
    loss = whole_sequence_loss(Table(logits), batch)["tokens"]
    oracle = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    assert float(loss.mean) == pytest.approx(float(oracle), abs=1e-12)


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
    assert loss.mean.item() == pytest.approx(math.log(model.config.vocabulary), abs=1e-12)
