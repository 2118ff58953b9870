"""Replaced-token detection: labels and divisor by hand and against transformers' ELECTRA."""

import copy
import math

import pytest
import torch
from making import close, draws, losses_of, model_of, objective_of, remedy_of
from torch import nn

from minicpt.batch import IGNORE, Batch
from minicpt.common.errors import InputError
from minicpt.common.parts import take_over
from minicpt.common.randomness import generator
from minicpt.generation import Sampling
from minicpt.loss import per_token_losses
from minicpt.objectives.replaced_token_detection import sample
from minicpt.proofs import faults, suite
from minicpt.proofs.bounds import additions, gap, nats, tolerance
from minicpt.runs.assembly import make_remedies
from minicpt.training.trainer import Learner, train_step

NAME = "replaced-token-detection"


@pytest.fixture
def pieces(tokenizer, corpus):
    """Objective, model and parts in float64, and a batch with padding."""
    objective = objective_of(NAME, tokenizer, window=24)
    with torch.random.fork_rng():
        model = model_of(objective).double().eval()
        torch.manual_seed(3)
        parts = objective.parts(model).double().eval()
    return objective, model, parts, objective.batch(objective.plan(corpus, 0, 0)[:5], draws(5))


def by_hand(model, tokens, chosen, given, mask_id):
    """The batch of one row, and a model whose generator always gives ``given``, id by place.

    The uniform numbers are such that the token at each chosen place is drawn from a head whose only
    likely tokens are those: place j has the j-th share of [0, 1).
    """
    inputs = torch.tensor([tokens])
    targets = torch.full_like(inputs, IGNORE)
    targets[0, chosen] = inputs[0, chosen]
    noise = torch.zeros(inputs.shape)
    order = sorted(set(given))
    noise[0, chosen] = torch.tensor([(order.index(each) + 0.5) / len(order) for each in given])
    read = inputs.clone()
    read[0, chosen] = mask_id
    with torch.no_grad():
        model.heads["tokens"].weight.zero_()
        model.heads["tokens"].bias.fill_(-1e4)
        model.heads["tokens"].bias[order] = 0.0
    batch = {"tokens": read, "mask": torch.ones_like(read, dtype=torch.bool)}
    return Batch(batch, {"tokens": targets, "original": inputs}, noise={"sample": noise})


class TestLabels:
    def test_the_case_that_was_worked_by_hand(self, pieces, tokenizer):
        """``5 6 7 8``, masked {1, 3}, samples 6 and 9: replaced ``0 0 0 1``, divisor 4."""
        objective, model, parts, _ = pieces
        batch = by_hand(model, [5, 6, 7, 8], [1, 3], [6, 9], tokenizer.need("mask"))
        found = objective.losses(model, parts, batch)
        assert found["original"].inputs["tokens"].tolist() == [[5, 6, 7, 9]]
        assert found["original"].targets.tolist() == [0, 0, 0, 1]
        assert found["original"].total().count == 4
        assert found["tokens"].targets.tolist() == [6, 8] and found["tokens"].count == 2

    def test_labels_and_divisor_are_those_of_transformers(self, pieces):
        """Its loss of the same logits: one logit there is the difference of two here."""
        transformers = pytest.importorskip("transformers")
        objective, model, parts, batch = pieces
        found = objective.losses(model, parts, batch)["original"]
        config = transformers.ElectraConfig(
            vocab_size=objective.tokenizer.size, embedding_size=8, hidden_size=8,
            num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        )  # fmt: skip
        electra = transformers.ElectraForPreTraining(config).double().eval()
        hidden = model(**found.inputs)
        two = parts["original"](hidden)  # (B, T, 2)
        electra.discriminator_predictions.forward = lambda hidden: two[..., 1] - two[..., 0]
        mask = batch.inputs["mask"]
        labels = (found.inputs["tokens"] != batch.targets["original"]).long()
        expected = electra(
            input_ids=found.inputs["tokens"], attention_mask=mask.long(), labels=labels
        ).loss
        assert found.count == int(mask.sum()) > int((batch.targets["tokens"] != IGNORE).sum())
        close(found.total().mean, expected, nn.ModuleList([model, parts]), batch)

    def test_a_token_that_is_drawn_is_read_and_nothing_else_changes(self, pieces):
        objective, model, parts, batch = pieces
        found = objective.losses(model, parts, batch)["original"]
        chosen = batch.targets["tokens"] != IGNORE
        read = found.inputs["tokens"]
        assert torch.equal(read[~chosen], batch.inputs["tokens"][~chosen])
        assert bool((read[chosen] != batch.inputs["tokens"][chosen]).any())


class TestBatch:
    def test_numbers_are_drawn_where_a_token_is_chosen(self, pieces):
        _, _, _, batch = pieces
        chosen = batch.targets["tokens"] != IGNORE
        assert torch.equal(batch.noise["sample"] > 0, chosen)
        read, belongs = batch.inputs["tokens"], batch.targets["original"]
        assert torch.equal(belongs != IGNORE, batch.inputs["mask"])
        assert torch.equal(belongs[chosen], batch.targets["tokens"][chosen])
        plain = batch.inputs["mask"] & ~chosen
        assert torch.equal(belongs[plain], read[plain])

    def test_of_the_chosen_85_percent_are_hidden_and_the_rest_stays(self, tokenizer, corpus):
        objective = objective_of(NAME, tokenizer, window=24, rate=1.0)
        passages = objective.plan(corpus, 0, 0)[:]
        kept = total = 0
        for turn in range(40):
            batch = objective.batch(passages, draws(len(passages), "share", turn))
            chosen = batch.targets["tokens"] != IGNORE
            read, target = batch.inputs["tokens"][chosen], batch.targets["tokens"][chosen]
            stays = read == target
            assert bool(((read == tokenizer.need("mask")) | stays).all())
            kept, total = kept + int(stays.sum()), total + len(read)
        assert abs(kept - 0.15 * total) < 4 * math.sqrt(total * 0.15 * 0.85)  # standard deviations


def test_samples_have_the_probabilities_of_the_logits():
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    count = 20_000
    numbers = torch.rand(count, generator=generator("samples"))
    drawn = sample(probabilities.log().expand(count, -1), numbers)
    for place, share in enumerate(probabilities.tolist()):
        apart = abs(int((drawn == place).sum()) - count * share)
        assert apart <= 4 * math.sqrt(count * share * (1 - share))  # standard deviations
    assert sample(torch.zeros(2, 3), torch.tensor([0.0, 1 - 2**-24])).tolist() == [0, 2]
    assert sample(torch.zeros(0, 3), torch.zeros(0)).tolist() == []


def test_one_pass_is_one_target_at_a_time(pieces):
    objective, model, parts, batch = pieces
    losses = losses_of(model, objective, parts)
    together, alone = losses(batch), per_token_losses(losses, batch, objective.visibility(batch))
    allowed = tolerance(additions(nn.ModuleList([model, parts]), batch))
    for head, each in together.items():
        assert len(each.losses) and gap(each.losses, alone[head], nats(alone[head])) <= allowed


class TestWhoLearns:
    def test_nothing_of_the_models_loss_reaches_the_generator(self, pieces):
        objective, model, parts, batch = pieces
        objective.losses(model, parts, batch)["original"].total().sum.backward()
        assert all(each.grad is None for each in parts["generator"].parameters())
        assert all(each.grad is None for each in model.heads["tokens"].dense.parameters())
        assert all(bool(each.grad.any()) for each in parts["original"].parameters())
        assert bool(model.layers[0].attention.qkv.weight.grad.any())
        assert bool(model.tokens.weight.grad.any())  # shared by both

    def test_nothing_of_the_generators_loss_reaches_the_models_layers(self, pieces):
        objective, model, parts, batch = pieces
        objective.losses(model, parts, batch)["tokens"].total().sum.backward()
        assert all(each.grad is None for each in model.layers.parameters())
        assert bool(parts["generator"].narrow.weight.grad.any())
        assert bool(model.tokens.weight.grad.any())

    def test_a_step_weighs_the_model_50_times(self, pieces):
        objective, model, parts, batch = pieces
        assert objective.head_weights.get("tokens", 1.0) == 1.0
        assert objective.head_weights["original"] == 50.0
        found = objective.losses(model, parts, batch)
        total = found["tokens"].total().mean + 50 * found["original"].total().mean
        both = nn.ModuleList([model, parts])
        expected = torch.autograd.grad(total, list(both.parameters()), allow_unused=True)
        learner = Learner(copy.deepcopy(model), objective)
        learner.parts = copy.deepcopy(parts)
        learner.eval()
        step = torch.optim.SGD(learner.parameters(), lr=1.0)
        train_step(learner, step, [batch], head_weights=objective.head_weights)
        for before, after, gradient in zip(
            both.parameters(), learner.parameters(), expected, strict=True
        ):
            moved = before if gradient is None else before - gradient
            close(after, moved, both, batch, size=100.0)


class TestUse:
    def test_what_is_judged_needs_the_parts(self, pieces):
        objective, model, parts, _ = pieces
        with pytest.raises(InputError, match="train it with replaced-token-detection"):
            objective.generate(model, "The cat sat.", Sampling(), generator("a"))
        with torch.no_grad():
            parts["original"].weight.zero_()
            parts["original"].bias.copy_(torch.tensor([0.0, 1.0]))
        told = objective.with_parts(parts).generate(model, "Go on", Sampling(), generator("a"))
        assert told.count("[") == len(objective.tokenizer.encode("Go on"))

    def test_kl_is_refused_since_no_head_of_the_base_is_asked(self, pieces):
        objective, model, parts, batch = pieces
        with pytest.raises(InputError, match="--kl cannot be used here"):
            make_remedies({"kl": {"kl": 1.0}}, "encoder", objective)
        assert make_remedies({"l2": {"l2": 1.0}}, "encoder", objective)
        remedy = remedy_of("kl", model, objective, kl=1.0)
        assert remedy.on_targets(model, objective.losses(model, parts, batch)) == {}

    def test_parts_are_taken_over_as_far_as_they_fit(self, tokenizer, pieces):
        objective, model, parts, _ = pieces
        again = objective.parts(model)
        assert take_over(again, parts.state_dict()) == []
        assert all(
            torch.equal(one, other.float())
            for one, other in zip(again.parameters(), parts.parameters(), strict=True)
        )
        wider = objective_of(NAME, tokenizer, window=24, generator_width=0.5).parts(model)
        assert take_over(wider, parts.state_dict()) == ["generator"]
        assert take_over(again, {}) == ["generator", "original"]


MEANT = ("generator-learns-from-the-model", "generator-deceives", "lucky-is-replaced",
         "chosen-alone-are-judged", "model-reads-masks")  # fmt: skip


@pytest.fixture(scope="module")
def sound():
    (found,) = suite.subjects([NAME])
    return found


@pytest.mark.parametrize("name", MEANT)
def test_each_mistake_is_caught_by_the_rule(name, sound):
    proof = suite.known()["batch rules"](faults.known()[name].make(sound))
    assert not proof.passed and proof.message
