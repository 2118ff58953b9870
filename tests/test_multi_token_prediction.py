"""Multi-token prediction: the targets of each head by hand, and each head as a causal LM's."""

import copy

import pytest
import torch
import torch.nn.functional as F
from making import close, draws, fake, losses_of, model_of, objective_of
from torch import nn

from minicpt.batch import IGNORE
from minicpt.common.errors import InputError
from minicpt.loss import per_token_losses
from minicpt.objectives.multi_token_prediction import one_further
from minicpt.proofs import faults, suite
from minicpt.proofs.bounds import additions, gap, nats, tolerance
from minicpt.training.evaluation import evaluate

NONE = IGNORE


def made(tokenizer, **settings):
    return objective_of("multi-token-prediction", tokenizer, **{"window": 8, "ahead": 3} | settings)


def targets_of(objective, passages):
    batch = objective.batch(passages, draws(len(passages)))
    return {head: each.tolist() for head, each in batch.targets.items()}


class TestTargets:
    def test_the_case_that_was_worked_by_hand(self):
        """``a b c d e``, k = 2: targets ``c d e . .``"""
        first, last = torch.tensor([[2, 3, 4, 5, NONE]]), torch.tensor([[0, 0, 0, 0, 1]]).bool()
        assert one_further(first, last).tolist() == [[3, 4, 5, NONE, NONE]]

    def test_the_token_behind_a_window_is_a_target(self, byte_tokenizer):
        passage = fake([20]).passage(10, 14)  # 10 11 12 13, then 14
        found = targets_of(made(byte_tokenizer), [passage])
        assert found == {
            "tokens": [[11, 12, 13, 14]],
            "tokens+2": [[12, 13, 14, NONE]],
            "tokens+3": [[13, 14, NONE, NONE]],
        }

    def test_the_end_of_the_text_is_a_target_and_nothing_behind_it_is(self, byte_tokenizer):
        end = byte_tokenizer.need("end")
        corpus = fake([3, 5])
        found = targets_of(made(byte_tokenizer), [corpus.passage(0, 3), corpus.passage(3, 8)])
        assert found["tokens"] == [[0, 1, 2, end, NONE, NONE], [3, 4, 5, 6, 7, end]]
        assert found["tokens+2"] == [[1, 2, end, NONE, NONE, NONE], [4, 5, 6, 7, end, NONE]]
        assert found["tokens+3"] == [[2, end, NONE, NONE, NONE, NONE], [5, 6, 7, end, NONE, NONE]]

    def test_packed_texts_do_not_predict_each_other(self, byte_tokenizer):
        end = byte_tokenizer.need("end")
        objective = made(byte_tokenizer, pack=True)
        rows = objective.plan(fake([3, 3]), 0, 0)
        assert len(rows) == 1
        found = targets_of(objective, rows[:])
        texts = sorted([found["tokens+2"][0][:4], found["tokens+2"][0][4:]])
        assert texts == [[1, 2, end, NONE], [4, 5, end, NONE]]
        texts = sorted([found["tokens+3"][0][:4], found["tokens+3"][0][4:]])
        assert texts == [[2, end, NONE, NONE], [5, end, NONE, NONE]]

    def test_a_text_shorter_than_a_head_looks_ahead_has_no_target_there(self, byte_tokenizer):
        found = targets_of(made(byte_tokenizer, ahead=4), [fake([1]).passage(0, 1)])
        assert found["tokens+3"] == found["tokens+4"] == [[NONE, NONE]]

    def test_more_heads_than_the_window_has_places_are_refused(self, byte_tokenizer):
        with pytest.raises(InputError, match="--ahead 9 is more than --window 8"):
            made(byte_tokenizer, ahead=9)


@pytest.fixture
def pieces(tokenizer, corpus):
    """Objective, model and parts in float64, and a batch with padding."""
    objective = made(tokenizer, window=16)
    with torch.random.fork_rng():
        model = model_of(objective).double().eval()
        torch.manual_seed(3)
        parts = objective.parts(model).double().eval()
    return objective, model, parts, objective.batch(objective.plan(corpus, 0, 0)[:5], draws(5))


class Longer(nn.Module):
    """The model with one more layer on top, called as the model is."""

    def __init__(self, model, layer):
        super().__init__()
        self.model, self.layer = model, layer

    def forward(self, tokens, mask):
        hidden = self.model(tokens, mask)
        places = torch.arange(tokens.shape[1])
        seen = (places[None, :] <= places[:, None]) & mask[:, None]
        return self.layer(hidden, seen[:, None])


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_each_head_is_a_causal_lm_whose_targets_were_shifted_by_hand(pieces, ahead):
    """The mean and all gradients, against cross-entropy of all logits with ignore_index."""
    objective, model, parts, batch = pieces
    head = f"tokens+{ahead}" if ahead > 1 else "tokens"
    shifted = torch.full_like(batch.inputs["tokens"], IGNORE)
    first = batch.targets["tokens"]
    for row in range(len(first)):
        text = first[row][first[row] != IGNORE].tolist()
        for place in range(len(text) - ahead + 1):
            shifted[row, place] = text[place + ahead - 1]
    own_model, own_layer = copy.deepcopy((model, parts[head] if ahead > 1 else None))
    own = Longer(own_model, own_layer) if own_layer else own_model
    logits = own_model.heads["tokens"](own(batch.inputs["tokens"], batch.inputs["mask"]))
    expected = F.cross_entropy(logits.flatten(0, 1), shifted.flatten(), ignore_index=IGNORE)
    found = losses_of(model, objective, parts)(batch)[head].total()
    assert found.count == int((shifted != IGNORE).sum())
    close(found.mean, expected, nn.ModuleList([model, parts]), batch)
    expected.backward()
    found.mean.backward()
    pairs = [(model, own_model)] + ([(parts[head], own_layer)] if own_layer else [])
    for module, other in pairs:
        for one, another in zip(module.parameters(), other.parameters(), strict=True):
            close(one.grad, another.grad, nn.ModuleList([model, parts]), batch, size=1.0)


@pytest.mark.parametrize("pack", [False, True])
def test_one_pass_is_one_target_at_a_time(tokenizer, corpus, pack):
    objective = made(tokenizer, window=16, pack=pack)
    model = model_of(objective).double().eval()
    parts = objective.parts(model).double().eval()
    batch = objective.batch(objective.plan(corpus, 0, 0)[:3], draws(3))
    losses = losses_of(model, objective, parts)
    together = losses(batch)
    alone = per_token_losses(losses, batch, objective.visibility(batch))
    allowed = tolerance(additions(nn.ModuleList([model, parts]), batch))
    for head, each in together.items():
        assert len(each.losses) and gap(each.losses, alone[head], nats(alone[head])) <= allowed


def test_what_is_minimised_is_the_mean_of_the_heads(pieces, corpus):
    objective, model, parts, _ = pieces
    found = evaluate(model, objective, corpus, parts=parts)
    means = [float(loss.mean) for loss in found.losses.values()]
    assert list(found.losses) == ["tokens", "tokens+2", "tokens+3"]
    assert found.total == pytest.approx(sum(means) / 3)
    plain = evaluate(model, objective_of("causal-lm", objective.tokenizer, window=16), corpus)
    assert found.bits_per_byte == pytest.approx(plain.bits_per_byte)


def test_the_first_head_is_untouched_by_the_layers_of_the_others(pieces):
    objective, model, parts, batch = pieces
    before = losses_of(model, objective, parts)(batch)
    with torch.no_grad():
        for parameter in parts.parameters():
            parameter.add_(1.0)
    after = losses_of(model, objective, parts)(batch)
    assert torch.equal(before["tokens"].losses, after["tokens"].losses)
    assert not torch.equal(before["tokens+2"].losses, after["tokens+2"].losses)


# fault -> the proof that is meant to catch it, and what that one calls itself
MEANT = {
    "later-layers-see-all": ("causality", "causality by derivatives, head tokens+2"),
    "rolled-across-the-end": ("batch rules", "batch rules"),
    "padding-is-ahead": ("padding", "padding and order"),
    "next-text-is-ahead": ("batch rules", "batch rules"),
}


@pytest.fixture(scope="module")
def subjects():
    return {each.name: each for each in suite.subjects(["multi-token-prediction"])}


@pytest.mark.parametrize("name", MEANT)
def test_each_mistake_is_caught_by_the_proof_that_is_meant_to(name, subjects):
    fault, (check, proof) = faults.known()[name], MEANT[name]
    found = suite.known()[check](fault.make(subjects[fault.subject]))
    found = found if isinstance(found, list) else [found]
    assert proof in [each.name for each in found if not each.passed]
