"""Mistakes that have been made in public code, one by one.

Each test holds the sound piece against a check, then makes the mistake on purpose and shows that
the same check fails: a check that cannot fail proves nothing. The numbers are those of the list of
known mistakes; the tenth (the order of sentinels) is in test_span_corruption.py.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from making import close
from torch import nn

from minicpt.batch import IGNORE, Batch, shift
from minicpt.checkpoint.huggingface import export_state, import_state
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.order import Draw
from minicpt.data.text import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import Loss, per_token_losses, target_losses, whole_sequence_loss
from minicpt.models import layers, t5
from minicpt.models.bert import BERT
from minicpt.models.gpt2 import GPT2
from minicpt.models.layers import attention, causal_mask
from minicpt.models.t5 import T5
from minicpt.objectives import next_sentence
from minicpt.objectives.causal_lm import CausalLM
from minicpt.objectives.masked_lm import MaskedLM
from minicpt.objectives.next_sentence import NextSentence
from minicpt.objectives.reconstruction import Reconstruction
from minicpt.proofs.bounds import additions
from minicpt.training import trainer as training
from minicpt.training.evaluation import evaluate
from minicpt.training.resuming import restore, state_of
from minicpt.training.stream import Stream
from minicpt.training.trainer import Learner, Trainer, Training, train_step

BYTES = Tokenizer.train([], 256)
PAD, END, CLS, SEP, MASK = range(5)
TEXTS = (
    "The cat sat on the mat. It was warm there. A bird came by.",
    "Rain fell at noon. He slept until six.",
    "Go on. No. So be it.",
    "She slept. We ate. All went well.",
)
CORPUS = Corpus.build([Document(str(i), text) for i, text in enumerate(TEXTS)], BYTES)
MODELS = {"decoder": GPT2, "encoder": BERT, "encoder-decoder": T5}
OBJECTIVES = [CausalLM, MaskedLM, NextSentence, Reconstruction]


def make(kind, **changes):
    window = {"window": 40 if kind is NextSentence else 24}
    return kind(BYTES, kind.Settings(**window | changes))


def draws_of(count, name="test"):
    return [Draw(place, generator(name, place)) for place in range(count)]


def batch_of(objective, count=8):
    passages = objective.plan(CORPUS, 0, 0)[:count]
    return objective.batch(passages, draws_of(len(passages)))


def model_of(kind, dropout=0.0, positions=40):
    sizes = {"vocabulary": BYTES.size, "width": 16, "layers": 2, "num_heads": 2, "dropout": dropout}
    sizes |= {} if kind is T5 else {"positions": positions}
    torch.manual_seed(0)
    model = kind(kind.Config(**sizes)).double()
    for parameter in model.parameters():  # larger than at the start, so that every path counts
        parameter.data.mul_(1.4).add_(0.01 * torch.randn_like(parameter))
    return model


def fails(check, *arguments):
    with pytest.raises(AssertionError):
        check(*arguments)


def with_targets(batch, change):
    return Batch(batch.inputs, {name: change(value) for name, value in batch.targets.items()})


def keeps_to_what_it_may_see(model, objective, batch):
    """All targets from one pass, and each alone on what the objective declares: one result."""
    whole = target_losses(model, batch)
    alone = per_token_losses(
        lambda some: target_losses(model, some), batch, objective.visibility(batch)
    )
    for name, each in whole.items():
        assert len(each.losses) > 3
        close(each.losses, alone[name], model, batch)


# --- 1 ---------------------------------------------------------------------------------------


class Successor(nn.Module):
    """Knows that in the alphabet each letter is followed by the next: a perfect model of it."""

    def __init__(self):
        super().__init__()
        head = nn.Linear(BYTES.size, BYTES.size, bias=False)
        nn.init.eye_(head.weight)
        self.heads = nn.ModuleDict({"tokens": head})

    def forward(self, tokens, mask=None):
        return 50.0 * F.one_hot((tokens + 1) % BYTES.size, BYTES.size).float()


def test_1_shifting_twice():
    corpus = Corpus.build([Document("alphabet", "abcdefghijklmnopqrstuvwxyz")], BYTES)
    objective = make(CausalLM, window=9)
    passages = [each for each in objective.plan(corpus, 0, 0) if not (each.first or each.last)]
    batch = objective.batch(passages, draws_of(len(passages)))

    def the_next_letter_is_the_target(batch):
        loss = whole_sequence_loss(Successor(), batch)["tokens"]
        assert loss.count > 8 and loss.mean < 1e-6

    the_next_letter_is_the_target(batch)
    twice = with_targets(batch, lambda rows: torch.stack([shift(row) for row in rows]))
    fails(the_next_letter_is_the_target, twice)
    not_at_all = Batch(batch.inputs, {"tokens": batch.inputs["tokens"]})
    fails(the_next_letter_is_the_target, not_at_all)


# --- 2 ---------------------------------------------------------------------------------------

MASKS = {
    "none": lambda length, device=None: torch.ones(length, length, dtype=torch.bool),
    "one too far": lambda length, device=None: torch.ones(length, length).tril(1).bool(),
    "one too near": lambda length, device=None: torch.ones(length, length).tril(-1).bool(),
    "wrong polarity": lambda length, device=None: ~causal_mask(length),
}


@pytest.mark.parametrize("mistake", MASKS)
@pytest.mark.parametrize("kind", [CausalLM, Reconstruction])
def test_2_a_wrong_causal_mask(kind, mistake, monkeypatch):
    objective = make(kind)
    stream = "tokens" if kind is CausalLM else "decoder_tokens"
    model, batch = model_of(MODELS[objective.role]), batch_of(objective)
    used = []

    def listening(query, key, value, mask, **options):
        used.append(mask)
        return attention(query, key, value, mask, **options)

    for home in (layers, t5):
        monkeypatch.setattr(home, "attention", listening)

    def the_model_looks_where_the_objective_says():
        used.clear()
        model(**batch.inputs)
        declared = objective.visibility(batch)["tokens"][stream]  # (B, S, S)
        real = batch.inputs["mask" if stream == "tokens" else "decoder_mask"]
        shape = declared.shape[1:]
        causal = [mask for mask in used if mask.shape[-2:] == shape]
        assert causal
        for mask in causal[-1:]:
            allowed = mask if mask.dtype == torch.bool else mask > -torch.inf
            allowed = allowed[:, 0].expand_as(declared)
            assert torch.equal(allowed[real], declared[real])

    def nothing_leaks():
        keeps_to_what_it_may_see(model, objective, batch)

    the_model_looks_where_the_objective_says()
    nothing_leaks()
    monkeypatch.setattr(layers, "causal_mask", MASKS[mistake])
    fails(the_model_looks_where_the_objective_says)
    if mistake != "one too near":  # sees less than it may: no leak, but another model
        fails(nothing_leaks)


# --- 3 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_3_pads_as_targets(kind):
    batch = batch_of(make(kind))

    def pads_have_no_target(batch):
        for target in batch.targets.values():
            real = batch.inputs.get("decoder_mask", batch.inputs["mask"])
            assert not real.all() and (target[~real] == IGNORE).all()

    pads_have_no_target(batch)
    fails(pads_have_no_target, with_targets(batch, lambda t: t.masked_fill(t == IGNORE, PAD)))


@pytest.mark.parametrize("kind", [MaskedLM, NextSentence, Reconstruction])
def test_3_attention_to_pads(kind):
    """A text's loss is the same whether or not longer texts stand beside it."""
    objective = make(kind, **({"deletion": 0.0} if kind is Reconstruction else {}))
    passages = objective.plan(CORPUS, 0, 0)[:]
    draws = [draws_of(len(passages)) for _ in range(2)]
    together = objective.batch(passages, draws[0])
    model = model_of(MODELS[objective.role])

    def losses_alone():
        for passage, draw in zip(passages, draws[1], strict=True):
            each = target_losses(model, objective.batch([passage], [draw]))
            yield torch.cat([found.losses for found in each.values()])

    expected = torch.cat(list(losses_alone()))

    def neighbours_do_not_matter(batch):
        (found,) = target_losses(model, batch).values()
        close(found.losses, expected, model, batch)

    neighbours_do_not_matter(together)
    unmasked = {name: value for name, value in together.inputs.items() if name != "mask"}
    fails(neighbours_do_not_matter, Batch(unmasked, together.targets))


# --- 4 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CausalLM, Reconstruction])
def test_4_the_end_is_a_target_whatever_fills_the_padding(kind):
    same = copy.copy(BYTES)  # as GPT-2, which has no pad token and borrows the end
    same.roles = BYTES.roles | {"pad": END}
    objective = kind(same, kind.Settings(window=24))
    plan = objective.plan(CORPUS, 0, 0)
    batch = objective.batch(plan[:], draws_of(len(plan)))
    ends = len(CORPUS.documents) if kind is CausalLM else len(plan)

    def every_end_is_learned(batch):
        assert int((batch.targets["tokens"] == END).sum()) == ends

    every_end_is_learned(batch)
    told_by_id = with_targets(batch, lambda target: target.masked_fill(target == END, IGNORE))
    fails(every_end_is_learned, told_by_id)


# --- 5 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MaskedLM, NextSentence])
def test_5_masking_special_tokens_and_loss_everywhere(kind):
    changes = {"masked": True} if kind is NextSentence else {}
    objective = make(kind, mask=1.0, random=0.0, **changes)
    batch = batch_of(objective)
    specials = 2 if kind is MaskedLM else 3

    def only_the_chosen_are_touched(inputs, targets):
        for row, target, real in zip(inputs, targets, batch.inputs["mask"], strict=True):
            assert torch.equal(row == MASK, target != IGNORE)
            assert row[0] == CLS and (row == SEP).sum() == specials - 1
            assert (row[~real] == PAD).all()
            length = int(real.sum()) - specials
            assert (target != IGNORE).sum() == max(1, round(0.15 * length))

    inputs, targets = batch.inputs["tokens"], batch.targets["tokens"]
    only_the_chosen_are_touched(inputs, targets)
    original = torch.where(targets == IGNORE, inputs, targets)
    fails(only_the_chosen_are_touched, inputs, original)  # a target everywhere
    for special in (CLS, SEP, PAD):
        wrong = original == special
        fails(only_the_chosen_are_touched, inputs.masked_fill(wrong, MASK),
              torch.where(wrong, special, targets))


# --- 6 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_6_the_collator_changes_what_it_is_given(kind):
    objective = make(kind)

    def the_passages_stay(collate):
        passages = objective.plan(CORPUS, 0, 0)[:4]
        before = copy.deepcopy(passages)
        collate(passages, draws_of(4))
        assert [repr(each) for each in passages] == [repr(each) for each in before]

    def in_place(passages, draws):
        batch = objective.batch(passages, draws)
        for passage in passages:
            side = passage.first if kind is NextSentence else passage
            side.tokens[:1] = MASK
        return batch

    the_passages_stay(objective.batch)
    fails(the_passages_stay, in_place)


# --- 7 ---------------------------------------------------------------------------------------


def mean_of_means_step(learner, optimizer, batches, max_grad_norm):
    """The mistake: each micro-batch's own mean, divided by the number of micro-batches."""
    optimizer.zero_grad()
    for batch in batches:
        losses = whole_sequence_loss(learner.model, batch)
        (sum(loss.mean for loss in losses.values()) / len(batches)).backward()
    optimizer.step()


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_7_mean_of_means_in_a_step(kind):
    """Five passages in one batch, in twos with a partial last one, or one by one: one gradient."""
    objective = make(kind, **({"masked": True} if kind is NextSentence else {}))
    passages = objective.plan(CORPUS, 0, 0)[:5]
    model = model_of(MODELS[objective.role])
    whole_batch = objective.batch(passages, draws_of(5))

    def weights_after(step, size):
        model = model_of(MODELS[objective.role])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        draws = draws_of(5)
        batches = [
            objective.batch(passages[i : i + size], draws[i : i + size]) for i in range(0, 5, size)
        ]
        step(Learner(model, objective), optimizer, batches, 0)
        return nn.utils.parameters_to_vector(model.parameters())

    def splitting_does_not_matter(step):
        whole = weights_after(step, 5)
        for size in (1, 2, 3):
            close(weights_after(step, size), whole, model, whole_batch)

    splitting_does_not_matter(train_step)
    fails(splitting_does_not_matter, mean_of_means_step)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_7_mean_of_means_in_an_evaluation(kind):
    objective = make(kind)
    model = model_of(MODELS[objective.role])
    plan = objective.plan(CORPUS, 0, 0)
    draws = [Draw(i, generator("evaluation", 0, i)) for i in range(len(plan))]
    losses = [
        target_losses(model, objective.batch([passage], [draw])).popitem()[1].losses
        for passage, draw in zip(plan, draws, strict=True)
    ]
    expected = torch.cat(losses).mean().item()
    operations = additions(model, objective.batch([plan[0]], draws[:1]), len(plan))

    def is_the_mean_over_targets(value):
        close(value, expected, operations)

    for size in (1, 3, 4, 100):
        is_the_mean_over_targets(evaluate(model, objective, CORPUS, batch_size=size).total)
    if len({len(each) for each in losses}) > 1:
        of_means = sum(each.mean().item() for each in losses) / len(losses)
        fails(is_the_mean_over_targets, of_means)


# --- 8 ---------------------------------------------------------------------------------------

SAME = [Document("a", "Aa bb. Cc dd. Ee ff."), Document("b", "Gg hh. Cc dd. Aa bb.")]
REPEATING = Corpus.build(SAME, BYTES)


def test_8_a_wrong_next_sentence_that_is_the_right_one(monkeypatch):
    def wrong_ones_are_wrong():
        found = 0
        for epoch in range(40):
            objective = make(NextSentence)
            for pair in objective.plan(REPEATING, 0, epoch):
                if pair.label == 1:
                    first, second = (
                        BYTES.decode(side.tokens.tolist()).strip()
                        for side in (pair.first, pair.second)
                    )
                    found += 1
                    for document in SAME:
                        assert f"{first} {second}" not in document.text
        assert found > 20

    wrong_ones_are_wrong()
    monkeypatch.setattr(next_sentence.Pairing, "words_of", lambda self, sentence: object())
    fails(wrong_ones_are_wrong)  # only addresses are compared


def test_8_class_zero_is_swallowed_and_labels_are_turned_round():
    objective = make(NextSentence, window=128)
    plan = objective.plan(CORPUS, 0, 0)
    batch = objective.batch(plan[:], draws_of(len(plan)))
    target = batch.targets["pair"][:, 0]

    def class_zero_follows(target):
        for pair, label in zip(plan, target.tolist(), strict=True):
            follows = pair.first.following == int(pair.second.tokens[0]) and any(
                BYTES.decode(torch.cat([pair.first.tokens, pair.second.tokens]).tolist()).strip()
                in text
                for text in TEXTS
            )
            assert label == (0 if follows else 1)

    class_zero_follows(target)
    assert {0, 1} == set(target.tolist())
    fails(class_zero_follows, 1 - target)

    model = model_of(BERT, positions=128)
    total = whole_sequence_loss(model, batch)["pair"].detach()

    def all_pairs_count(loss):
        assert loss.count == len(plan)
        close(loss.sum, expected, model, batch)

    logits = model.heads["pair"](model(**batch.inputs)[:, 0])
    expected = float(-logits.log_softmax(-1)[torch.arange(len(plan)), target].sum().detach())
    all_pairs_count(total)
    swallowed = F.cross_entropy(logits, target, ignore_index=0, reduction="sum").detach()
    fails(all_pairs_count, Loss(swallowed, int((target != 0).sum())))


# --- 9 ---------------------------------------------------------------------------------------


def test_9_decoder_input_and_target():
    objective = make(Reconstruction)
    plan = objective.plan(CORPUS, 0, 0)
    batch = objective.batch(plan[:], draws_of(len(plan)))

    def the_target_is_one_ahead(inputs, targets):
        for passage, read, target in zip(plan, inputs, targets, strict=True):
            length, tokens = len(passage.tokens), passage.tokens.tolist()
            assert read[: length + 1].tolist() == [PAD, *tokens]
            assert target[: length + 1].tolist() == [*tokens, END]
            assert (target[length + 1 :] == IGNORE).all()

    inputs, targets = batch.inputs["decoder_tokens"], batch.targets["tokens"]
    the_target_is_one_ahead(inputs, targets)
    as_input = targets.masked_fill(targets == IGNORE, PAD)
    fails(the_target_is_one_ahead, as_input, targets)  # the decoder reads what it must say
    start = torch.full_like(inputs[:, :1], PAD)
    fails(the_target_is_one_ahead, torch.cat([start, inputs[:, :-1]], 1), targets)  # two starts
    first_dropped = targets.clone()
    first_dropped[:, 0] = IGNORE
    fails(the_target_is_one_ahead, inputs, first_dropped)


# --- 11 --------------------------------------------------------------------------------------


def test_11_documents_packed_together():
    """Two documents in one row: with the pattern as a mask each is as if alone; resetting the
    positions alone does not do it."""
    model = model_of(GPT2)
    one, other = torch.tensor([BYTES.encode("abcde"), BYTES.encode("vwxyz")])
    packed, positions = torch.cat([one, other])[None], torch.arange(5).repeat(2)[None]
    document = torch.tensor([0] * 5 + [1] * 5)
    pattern = (document[:, None] == document[None, :]) & causal_mask(10)

    def the_second_is_as_if_alone(**inputs):
        hidden = model(tokens=packed, **inputs)[0, 5:]
        close(hidden, model(tokens=other[None])[0], model, packed)

    the_second_is_as_if_alone(mask=pattern[None], positions=positions)
    with pytest.raises(AssertionError):
        the_second_is_as_if_alone(positions=positions)
    with pytest.raises(AssertionError):
        the_second_is_as_if_alone(mask=pattern[None])


@pytest.mark.parametrize("kind", [CausalLM, MaskedLM, Reconstruction])
def test_11_no_window_holds_two_documents(kind):
    def one_document_each(rows):
        for start, stop in rows:
            assert not any(start < boundary < stop for boundary in CORPUS.documents.tolist())

    one_document_each(make(kind).plan(CORPUS, 0, 1).rows.tolist())
    length = len(CORPUS.tokens)
    fails(one_document_each, [(i, min(i + 24, length)) for i in range(0, length, 24)])


# --- 12 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [GPT2, BERT])
def test_12_left_padding(kind):
    model = model_of(kind)
    tokens = torch.tensor([BYTES.encode("abcde")])
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.int64), tokens], 1)
    mask = torch.tensor([[False] * 3 + [True] * 5])

    def as_without_padding(**inputs):
        hidden = model(tokens=padded, mask=mask, **inputs)[:, 3:]
        close(hidden, model(tokens=tokens), model, padded)

    as_without_padding(positions=(mask.long().cumsum(1) - 1).clamp(min=0))
    with pytest.raises(AssertionError):
        as_without_padding()


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_12_objectives_pad_on_the_right(kind):
    def real_ones_come_first(mask):
        assert not mask.all() and (mask[:, 1:] <= mask[:, :-1]).all()

    mask = batch_of(make(kind)).inputs["mask"]
    real_ones_come_first(mask)
    fails(real_ones_come_first, mask.flip(1))


# --- 13 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False])
def test_13_a_row_that_may_look_at_nothing(fused):
    query, key, value = (
        torch.randn(1, 1, 3, 4, generator=generator(i)).requires_grad_() for i in range(3)
    )
    mask = torch.tensor([[True, False, False], [False] * 3, [True, True, False]])

    def the_row_is_zero(mixed):
        gradients = torch.autograd.grad(mixed.sum(), (query, value))
        assert (mixed[0, 0, 1] == 0).all() and (gradients[0][0, 0, 1] == 0).all()
        assert all(each.isfinite().all() for each in (mixed, *gradients))

    the_row_is_zero(attention(query, key, value, mask, fused=fused))
    scores = (query @ key.transpose(-2, -1)).masked_fill(~mask, -torch.inf)
    fails(the_row_is_zero, scores.softmax(-1) @ value)


def test_13_a_step_without_targets():
    objective = make(MaskedLM)
    batch = batch_of(objective)
    nothing = with_targets(batch, lambda target: torch.full_like(target, IGNORE))

    def changes_nothing(step):
        model = model_of(BERT)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
        train_step(Learner(model, objective), optimizer, [batch], 1.0)  # so that there is momentum
        weights, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
        losses = step(Learner(model, objective), optimizer)[""]
        assert losses["tokens"].count == 0 and losses["tokens"].mean == 0
        for name, value in model.state_dict().items():
            assert torch.equal(value, weights[name]), name
        for place, entry in optimizer.state_dict()["state"].items():
            assert all(torch.equal(value, state[place][key]) for key, value in entry.items())

    def naive(learner, optimizer):
        optimizer.zero_grad(set_to_none=False)
        losses = whole_sequence_loss(learner.model, nothing)
        losses["tokens"].mean.backward()
        optimizer.step()
        return {"": losses}

    changes_nothing(lambda *pair: train_step(*pair, [nothing, nothing], 1.0))
    fails(changes_nothing, naive)
    assert F.cross_entropy(torch.zeros(2, 5), torch.tensor([IGNORE] * 2)).isnan(), "torch's mean"


def test_13_a_micro_batch_without_targets_beside_one_with():
    """The step is that of the targets there are."""
    objective = make(MaskedLM)
    batch = batch_of(objective)
    nothing = with_targets(batch, lambda target: torch.full_like(target, IGNORE))
    results = []
    for batches in ([batch], [nothing, batch], [batch, nothing]):
        model = model_of(BERT)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train_step(Learner(model, objective), optimizer, batches, 0)
        results.append(nn.utils.parameters_to_vector(model.parameters()))
    for each in results[1:]:
        close(each, results[0], model, batch)


def test_13_a_head_without_targets_beside_one_with():
    """It adds nothing to the step, and does not stop it."""
    objective = make(NextSentence, masked=True)
    batch = batch_of(objective)
    without = torch.full_like(batch.targets["tokens"], IGNORE)
    results = []
    for targets in ({"pair": batch.targets["pair"]}, batch.targets | {"tokens": without}):
        model = model_of(BERT)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train_step(Learner(model, objective), optimizer, [Batch(batch.inputs, targets)], 0)
        results.append(nn.utils.parameters_to_vector(model.parameters()))
    close(results[1], results[0], model, batch)


# --- 14 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_14_dropout_left_on(kind):
    objective = make(kind)
    model, batch = model_of(MODELS[objective.role], dropout=0.1), batch_of(objective)
    keeps_to_what_it_may_see(model.eval(), objective, batch)
    fails(keeps_to_what_it_may_see, model.train(), objective, batch)

    def evaluation_is_the_same_again(evaluate):
        assert evaluate() == evaluate()

    evaluation_is_the_same_again(lambda: evaluate(model, objective, CORPUS).total)
    assert model.training, "handed back as it was"
    fails(evaluation_is_the_same_again,
          lambda: float(whole_sequence_loss(model, batch).popitem()[1].sum.detach()))


def test_14_a_bidirectional_model_passed_off_as_causal():
    objective = make(CausalLM)
    batch = batch_of(objective)
    keeps_to_what_it_may_see(model_of(GPT2), objective, batch)
    fails(keeps_to_what_it_may_see, model_of(BERT), objective, batch)


# --- 15 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [GPT2, BERT])
def test_15_tied_weights(kind):
    def saved_once(state):
        values = [value for value in state.values() if value.dim() == 2]
        for place, one in enumerate(values):
            assert not any(one.shape == two.shape and torch.equal(one, two)
                           for two in values[:place])

    def tied(model):
        model.tokens.weight.data[7, 0] += 1  # a step on the one is a step on the other
        assert torch.equal(model.heads["tokens"].weight, model.tokens.weight)
        names = [name for name, _ in model.named_parameters()]
        assert names.count("tokens.weight") == 1 and "heads.tokens.weight" not in names

    def same_function(model):
        tokens = torch.tensor([BYTES.encode("abc")])
        assert torch.equal(model.heads["tokens"](model(tokens)[0]), expected)

    model = model_of(kind)
    tokens = torch.tensor([BYTES.encode("abc")])
    expected = model.heads["tokens"](model(tokens)[0]).detach()
    state = export_state(model)
    saved_once(state)
    fails(saved_once, model.state_dict())  # torch's own names a tied weight twice

    loaded = kind(model.config).double()
    fails(same_function, loaded)
    assert import_state(loaded, state) == []
    same_function(loaded)
    tied(loaded)

    untied = kind(model.config).double()
    import_state(untied, state)
    untied.heads["tokens"].weight = nn.Parameter(untied.heads["tokens"].weight.detach().clone())
    same_function(untied)  # nothing to see until the first step
    fails(tied, untied)


# --- 16 --------------------------------------------------------------------------------------


class Recording:
    """An objective that remembers which passages it was asked for, and what the model read."""

    def __init__(self, objective):
        self.objective, self.seen = objective, []

    def __getattr__(self, name):
        return getattr(self.objective, name)

    def batch(self, passages, draws):
        batch = self.objective.batch(passages, draws)
        rows = [row[real].tolist() for row, real in
                zip(batch.inputs["tokens"], batch.inputs["mask"], strict=True)]
        self.seen += list(zip([passage.place for passage in passages], rows, strict=True))
        return batch


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_16_resuming(kind, monkeypatch):
    """Six steps in one go, or three, a new process, and three more: the same data, noise, dropout
    and weights."""
    settings = Training(batch_size=3, learning_rate=0.01)

    def trainer():
        objective = Recording(make(kind))
        model = model_of(MODELS[objective.role], dropout=0.1)
        return Trainer(model, objective, CORPUS, settings, 6)

    def goes_on_as_if_never_stopped(change):
        straight = trainer()
        for _ in straight.run():
            pass
        first = trainer()
        for _ in range(3):
            first.advance()
        weights, state = copy.deepcopy((first.model.state_dict(), state_of(first)))
        second = trainer()
        second.model.load_state_dict(weights)
        restore(second, state | change)
        for _ in second.run():
            pass
        assert first.objective.seen + second.objective.seen == straight.objective.seen
        for name, value in second.model.state_dict().items():
            assert torch.equal(value, straight.model.state_dict()[name]), name

    goes_on_as_if_never_stopped({})
    fails(goes_on_as_if_never_stopped, {"step": 0})  # repeats
    fails(goes_on_as_if_never_stopped, {"step": 4})  # skips
    # Dropout that goes on in torch's generator, instead of beginning anew with each step's seed.
    monkeypatch.setattr(training, "train_step", lambda *a: train_step(*a[:5], None, *a[6:]))
    fails(goes_on_as_if_never_stopped, {})


def test_16_every_passage_once_an_epoch():
    objective = make(MaskedLM)
    stream = Stream(objective, CORPUS, seed=0)
    length = stream.epoch_length(0)

    def once(passages):
        places = [passage.place for passage in passages]
        assert sorted(places) == sorted(each.place for each in objective.plan(CORPUS, 0, 0))

    once(stream.passages(0, length)[0])
    once([stream.passages(place, 1)[0][0] for place in range(length)])
    fails(once, stream.passages(1, length)[0])
    fails(once, stream.passages(0, length - 1)[0])


def test_16_fresh_noise_for_each_place_and_epoch_whoever_draws_it():
    """The same text, masked in each epoch and at each place by other draws; and two processes
    that share the places see what one would."""
    document = Document("one", "a text that fits into one window")
    corpus = Corpus.build([document, document, document], BYTES)
    objective = make(MaskedLM, window=64)

    def read(passages, draws):
        batch = objective.batch(passages, draws)
        return [tuple(row) for row in batch.inputs["tokens"].tolist()]

    def noise_is_fresh(rows):
        assert len(set(rows)) == len(rows)

    passages, draws = Stream(objective, corpus, seed=0).passages(0, 12)
    rows = read(passages, draws)
    noise_is_fresh(rows)
    fails(noise_is_fresh, read(passages, [Draw(0, generator("noise", 0)) for _ in passages]))
    same_each_epoch = [Draw(place % 3, generator("noise", 0, place % 3)) for place in range(12)]
    fails(noise_is_fresh, read(passages, same_each_epoch))

    shares = [Stream(objective, corpus, seed=0) for _ in range(2)]
    shared = [read(*shares[place // 2 % 2].passages(place, 2)) for place in range(0, 12, 2)]
    assert sum(shared, []) == rows
    assert read(*Stream(objective, corpus, seed=1).passages(0, 12)) != rows


# --- 24 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [False, True])
def test_24_the_space_before_a_word_tells_the_class(order, monkeypatch):
    """With a byte-level tokenizer the first word of a document has no space before it."""
    texts = [" ".join(f"Text {number} says {place}." for place in range(6)) for number in range(30)]
    corpus = Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], BYTES)
    objective = make(NextSentence, window=64, order=order)
    pairs = objective.plan(corpus, 0, 0)[:]
    noise = draws_of(len(pairs))

    def nothing_but_words_is_read(change=lambda pair: pair):
        for pair, draw in zip(map(change, pairs), noise, strict=True):
            read = objective.batch([pair], [draw]).inputs["tokens"][0].tolist()
            sides = BYTES.decode(read[1 : read.index(SEP)]), BYTES.decode(read[read.index(SEP) :])
            assert all(side == side.strip() for side in sides)

    nothing_but_words_is_read()
    monkeypatch.setattr(next_sentence, "alone", lambda runs, tokenizer: list(runs))
    fails(nothing_but_words_is_read)
