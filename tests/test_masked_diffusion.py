"""Masked diffusion against answers worked by hand, closed forms, and sums over all draws."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from making import close, draws, losses_of, model_of, objective_of

from minicpt.batch import IGNORE
from minicpt.common.errors import InputError, WorkError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.hiding import hide_some
from minicpt.data.order import Draw
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import Sampling, unmask
from minicpt.loss import target_losses
from minicpt.objectives.masked_diffusion import GOLDEN, LEAST, Leveled
from minicpt.proofs import bounds, faults, suite
from minicpt.proofs.any_order import any_order
from minicpt.training.evaluation import evaluate

BYTES = Tokenizer.train([], 256)
END, CLS, SEP, MASK = 1, 2, 3, 4
A, B, C = 69, 70, 71  # "a", "b", "c"
ROLES = {"encoder": "", "decoder": "gpt2"}
_ = IGNORE


def corpus_of(*texts):
    return Corpus.build([Document(f"{n}", text) for n, text in enumerate(texts)], BYTES)


def passage(text, uniform):
    """The passage of a text, in an epoch with this number u."""
    corpus = corpus_of(text)
    return Leveled(**vars(corpus.passage(0, len(corpus.tokens))), uniform=uniform)



# --- worked by hand --------------------------------------------------------------------------


def test_everything_hidden():
    """u just below 1 at place 0: t is 1 as nearly as makes no difference."""
    whole = passage("abc", 1 - 1e-12)
    batch = objective_of("masked-diffusion", BYTES).batch([whole], draws(1))
    assert batch.inputs["tokens"].tolist() == [[CLS, MASK, MASK, MASK, SEP]]
    assert batch.targets["tokens"].tolist() == [[_, A, B, C, _]]
    assert batch.weights["tokens"].tolist() == [[0, 1, 1, 1, 0]]


def test_a_decoder_keeps_its_shift_and_sees_both_sides():
    whole = passage("abc", 1 - 1e-12)
    objective = objective_of("masked-diffusion", BYTES, "decoder")
    batch = objective.batch([whole, passage("a", 0.0)], [Draw(0, generator(0))] * 2)
    assert batch.inputs["tokens"].tolist() == [[END, MASK, MASK, MASK], [END, A, END, END]]
    assert batch.targets["tokens"].tolist() == [[A, B, C, _], [A, _, _, _]]
    assert batch.weights["tokens"].tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]]
    seen = [[True] * 4] * 4, [[True] * 2 + [False] * 2] * 2 + [[False] * 4] * 2
    assert batch.inputs["mask"].tolist() == list(seen)
    visible = objective.visibility(batch)["tokens"]["tokens"]
    assert visible[0].all() and visible[1].tolist() == [[True] * 2 + [False] * 2] * 4


def test_nothing_hidden_still_counts():
    objective = objective_of("masked-diffusion", BYTES)
    batch = objective.batch([passage("abc", 0.0)], draws(1))  # t = 0.001
    assert batch.inputs["tokens"].tolist() == [[CLS, A, B, C, SEP]]
    assert batch.counts() == {"tokens": 3} and not batch.weights["tokens"].any()


def test_half_hidden():
    """At t = 0.5 all eight patterns come up, each with the weight 2 where the mask token stands."""
    uniform, found = (0.5 - LEAST) / (1 - LEAST), set()
    objective = objective_of("masked-diffusion", BYTES)
    for number in range(100):
        batch = objective.batch([passage("abc", uniform)], [Draw(0, generator("half", number))])
        read, weights = (x["tokens"][0, 1:-1].tolist() for x in (batch.inputs, batch.weights))
        assert [token == MASK for token in read] == [weight > 0 for weight in weights]
        assert [t for t in read if t != MASK] == [
            t for t, now in zip([A, B, C], read, strict=True) if now != MASK
        ]
        assert set(weights) <= {0.0, 2.0}
        found.add(tuple(weights))
    assert len(found) == 8


def test_levels_by_hand():
    """frac(0.5 + 0.618034 place): 0.5, 0.118034, 0.736068, mapped to [0.001, 1]."""
    found = [passage("a", 0.5).level(place) for place in range(3)]
    close(torch.tensor(found).double(), torch.tensor([0.5005, 0.118915966, 0.736331932]), 10)


@pytest.mark.parametrize("count", [7, 100, 1000])
def test_levels_are_spread_evenly(count):
    """The multiples of the golden ratio leave gaps of at most three sizes (Steinhaus), the largest
    below 2 / count. Of independent levels the largest gap is about ln(count) / count."""
    found = sorted((GOLDEN * place) % 1 for place in range(count))
    gaps = [round(b - a, 9) for a, b in itertools.pairwise([*found, found[0] + 1])]
    assert len(set(gaps)) <= 3 and max(gaps) < 2 / count


def test_an_epoch_has_one_number_and_another_epoch_another():
    objective, corpus = objective_of("masked-diffusion", BYTES, window=8), corpus_of("abcd" * 40)
    numbers = {
        key: {each.uniform for each in objective.plan(corpus, *key)}
        for key in [(0, 0), (0, 1), (1, 0)]
    }
    assert all(len(each) == 1 for each in numbers.values())
    assert len(set.union(*numbers.values())) == 3


def test_the_estimator_by_hand():
    """Of three maskable tokens two are hidden, and weigh 3/2 each: three patterns, no other."""
    tokens = torch.tensor([CLS, A, B, C, SEP])
    found = set()
    for number in range(60):
        read, targets, weights = hide_some(tokens, tokens > 4, 2, MASK, generator("some", number))
        assert targets.tolist() == [_, A, B, C, _]
        assert ((weights > 0) == (read == MASK)).all() and weights.unique().tolist() == [0.0, 1.5]
        found.add(tuple(read.tolist()))
    patterns = (A, MASK, MASK), (MASK, B, MASK), (MASK, MASK, C)
    assert found == {(CLS, *pattern, SEP) for pattern in patterns}


# --- the mask token is never predicted ---------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("fused", [True, False])
def test_the_loss_and_its_gradient_are_those_without_the_class(role, fused):
    """Against torch's cross-entropy of the logits from which the column was cut out."""
    objective = objective_of("masked-diffusion", BYTES, role)
    model = model_of(objective, model=ROLES[role]).double().eval()
    batch = objective.batch([passage("abcabcab", 0.6), passage("cab", 0.7)], draws(2))
    found = losses_of(model, objective, fused=fused)(batch)["tokens"]
    logits = model.heads["tokens"](model(**batch.inputs))  # (B, T, V)
    kept = torch.cat([logits[..., :MASK], logits[..., MASK + 1 :]], dim=-1)
    counted = batch.weights["tokens"] > 0
    target = batch.targets["tokens"][counted]
    expected = F.cross_entropy(kept[counted], target - (target > MASK).long(), reduction="none")
    close(found.losses, expected, model, batch)
    total = (expected * batch.weights["tokens"][counted]).sum()
    gradients = [torch.autograd.grad(x, model.tokens.weight, retain_graph=True)[0]
                 for x in (found.total().sum, total)]  # fmt: skip
    close(*gradients, model, batch)
    whole = target_losses(model, batch, fused)["tokens"].losses
    assert (whole > found.losses).all()  # with the class left in, each loss is larger


@pytest.mark.parametrize("role", ROLES)
def test_a_zeroed_head_costs_ln_of_the_others_at_every_draw_of_the_estimator(role):
    objective = objective_of("masked-diffusion", BYTES, role, window=8)
    model = model_of(objective, model=ROLES[role])
    for parameter in model.heads.parameters():
        torch.nn.init.zeros_(parameter)
    corpus = corpus_of("abcdefghij", "aé")
    found = evaluate(model, objective, corpus, draws=3)
    each, size = math.log(BYTES.size - 1), 13  # bytes, and as many tokens
    allowed = bounds.tolerance(BYTES.size + size, torch.float32)
    assert found.total == pytest.approx(each, rel=allowed)
    assert found.common["kind"] == "bound" and found.text_bytes == size
    assert found.bits_per_byte == pytest.approx(each / math.log(2), rel=allowed)
    assert found.common["standard_error"] < allowed * each


# --- the bound and the estimators --------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_the_bound_is_the_mean_over_all_orders(role):
    """Written out anew: 7 subsets with 1 / (l C(3, l)) = 1/3, 1/6, 1/3 against the 6 orders."""
    objective = objective_of("masked-diffusion", BYTES, role)
    model = model_of(objective, model=ROLES[role]).double().eval()
    text, back = [A, C, B], int(role == "decoder")

    def losses(hidden):
        """Of each hidden token of the text, when these are hidden."""
        ids = [MASK if place in hidden else token for place, token in enumerate(text)]
        ids = [END, *ids] if back else [CLS, *ids, SEP]
        size = len(ids)
        mask = torch.ones(1, *([size] * (1 + back)), dtype=torch.bool)
        logits = model.heads["tokens"](model(tokens=torch.tensor([ids]), mask=mask)[0])
        logits[:, MASK] = -math.inf
        of = logits.log_softmax(-1)
        return {place: -float(of[place + 1 - back, text[place]].detach()) for place in hidden}

    every = [set(x) for size in (1, 2, 3) for x in itertools.combinations(range(3), size)]
    share = {1: 1 / 3, 2: 1 / 6, 3: 1 / 3}
    by_subsets = sum(share[len(x)] * sum(losses(x).values()) for x in every)
    orders = [
        sum(losses(set(order[step:]))[order[step]] for step in range(3))
        for order in itertools.permutations(range(3))
    ]
    size = sum(sum(parameter.shape) for parameter in model.parameters())
    close(by_subsets, sum(orders) / 6, size)
    # And the estimator's own batches give the same, each as likely as its subset.
    total, seen = 0.0, {}
    for number in range(300):
        draw = Draw(0, generator("orders", number))
        batch = objective.likelihood_batch([passage("acb", 0.5)], [draw])
        seen[tuple(batch.weights["tokens"][0].tolist())] = batch
    for weights, batch in seen.items():
        chance = 1 / (3 * math.comb(3, sum(weight > 0 for weight in weights)))
        total += chance * float(losses_of(model, objective)(batch)["tokens"].total().sum.detach())
    assert len(seen) == 7
    assert total == pytest.approx(by_subsets, rel=bounds.tolerance(10, torch.float32))  # weights


@pytest.mark.parametrize("name, role", [("masked-diffusion", r) for r in ROLES] + [
    ("masked-lm", "encoder")
])  # fmt: skip
def test_the_estimate_lies_within_its_standard_error(name, role):
    """Against the exact mean over all draws, and the error against its exact value."""
    objective = objective_of(name, BYTES, role, window=8)
    model = model_of(objective, model=ROLES[role])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)  # so that losses differ
    corpus, count = corpus_of("abca", "bcd", "dd"), 200
    found = evaluate(model, objective, corpus, draws=count)
    mean = variance = 0.0
    for each in objective.plan(corpus, 0, 0):
        costs = exact_costs(objective, model, each)
        expected = sum(share * cost for share, cost in costs)
        mean += expected
        variance += sum(share * (cost - expected) ** 2 for share, cost in costs)
    error = math.sqrt(variance / count)
    assert abs(found.text_nats - mean) < 4 * error
    assert 0.8 < found.nats_error / error < 1.25  # 200 draws know it to about 5 %
    assert found.common["standard_error"] == found.bits(found.nats_error)
    once = evaluate(model, objective, corpus, draws=1)
    assert once.common["standard_error"] is None and once.common["draws"] == 1


def exact_costs(objective, model, each):
    """(probability, cost) of every set of tokens that the estimator may hide of a passage."""
    size = len(each.tokens)
    sizes = [1] if objective.likelihood == "pseudo" else range(1, size + 1)
    template = objective.likelihood_batch([each], draws(1))
    places = (template.targets["tokens"][0] != IGNORE).nonzero()[:, 0]
    ahead = int(objective.role == "decoder")
    whole = template.targets["tokens"][0, places]
    costs = []
    for count in sizes:
        for chosen in itertools.combinations(range(size), count):
            tokens = template.inputs["tokens"].clone()
            tokens[0, places + ahead] = whole
            tokens[0, places[list(chosen)] + ahead] = MASK
            with torch.no_grad():
                logits = model.heads["tokens"](model(**template.inputs | {"tokens": tokens})[0])
            if objective.likelihood == "bound":
                logits[:, MASK] = -math.inf
            nats = F.cross_entropy(logits[places], whole, reduction="none")[list(chosen)].sum()
            share = 1 / (len(sizes) * math.comb(size, count))
            costs.append((share, float(nats) * size / count))
    close(sum(share for share, _ in costs), 1.0, len(costs))
    return costs


# --- proofs and faults -------------------------------------------------------------------------

CAUGHT_BY = {
    "divided-by-the-hidden": {"batch rules", "zeroed head"},
    "mask-token-predicted": {"zeroed head", "any order"},
    "one-level-for-a-batch": {"padding and order", "batch rules"},
    "estimator-without-weights": {"any order"},
}


@pytest.fixture(scope="module")
def subjects():
    return suite.subjects(["masked-diffusion"])


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_each_fault_is_caught_by_the_proof_that_is_meant_to(name, subjects):
    assert faults.known()[name].mistake == 19
    failed = suite.catch(faults.known()[name], subjects[0])
    assert CAUGHT_BY[name] <= {proof.name for proof in failed}


def test_quick_proofs_hold_on_both_roles(subjects):
    assert [each.objective.role for each in subjects] == ["encoder", "decoder"]
    for each in subjects:
        found = {proof.name: proof for proof in suite.prove(each, trains=False)}
        unchecked = {name for name, proof in found.items() if proof.passed is None}
        assert unchecked == ({"teacher forcing"} if each.objective.role == "decoder" else set())
        assert not [proof for proof in found.values() if proof.passed is False]
        assert found["any order"].worst <= found["any order"].tolerance


def test_the_proof_over_all_orders_says_nothing_of_other_objectives():
    assert any_order(suite.subjects(["causal-lm"])[0]) == []


# --- writing -----------------------------------------------------------------------------------


def test_unmasking_keeps_the_surest_first_and_reads_what_it_wrote():
    """Three gaps, two rounds: the two surest in the first, then the last, which sees them."""
    seen = []

    def logits_at(tokens, places):
        seen.append((tokens.tolist(), places.tolist()))
        table = {1: [0.0, 5.0, 0.0], 2: [0.0, 0.0, 1.0], 3: [9.0, 0.0, 0.0]}
        return torch.tensor([table[place] for place in places.tolist()])

    tokens, gaps, allowed = torch.tensor([7, 4, 4, 4]), torch.tensor([1, 2, 3]), torch.arange(3)
    found = unmask(logits_at, tokens, gaps, allowed, 0.0, generator(0), rounds=2)
    assert found.tolist() == [7, 1, 2, 0] and tokens.tolist() == [7, 4, 4, 4]
    assert seen == [([7, 4, 4, 4], [1, 2, 3]), ([7, 1, 4, 0], [2])]


@pytest.mark.parametrize("gaps, rounds, passes", [(5, 2, [5, 2]), (3, 9, [3, 2, 1]), (0, 4, [])])
def test_each_round_fills_about_as_many(gaps, rounds, passes):
    asked = []

    def logits_at(tokens, places):
        asked.append(len(places))
        return torch.zeros(len(places), 6)

    start = torch.full((6,), 4)
    found = unmask(logits_at, start, torch.arange(gaps), torch.arange(3), 1.0, generator(0), rounds)
    assert asked == passes and (found[:gaps] < 3).all() and (found[gaps:] == 4).all()


def test_numbers_that_are_not_finite_are_told():
    with pytest.raises(WorkError, match="not finite"):
        unmask(lambda tokens, places: torch.full((1, 6), math.nan), torch.tensor([4]),
               torch.tensor([0]), torch.arange(3), 1.0, generator(0))  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_generate_fills_or_writes_on(role):
    objective = objective_of("masked-diffusion", BYTES, role, window=32)
    model = model_of(objective, model=ROLES[role])
    sampling = Sampling(length=5, rounds=2)
    one, other = (objective.generate(model, "ab", sampling, generator(1)) for _ in range(2))
    assert one == other and one.startswith("ab")
    filled = objective.generate(model, "a [MASK] b", sampling, generator(1))
    assert filled.startswith("a") and filled.endswith("b") and "[" in filled
    assert "[MASK]" not in filled + one
    ids = objective.filled(model, [A, MASK, MASK], sampling, generator(2))
    assert ids[0] == A and not set(ids) & set(BYTES.special)
    with pytest.raises(InputError, match="shorten it"):
        objective.generate(model, "a" * 40, sampling, generator(1))


@pytest.mark.parametrize("role", ROLES)
def test_the_likeliest_filling_is_that_of_the_model(role):
    """One gap, temperature 0: the argmax of the model's own logits among ordinary tokens."""
    objective = objective_of("masked-diffusion", BYTES, role)
    model = model_of(objective, model=ROLES[role], seed=3).eval()
    found = objective.filled(model, [A, MASK, C], Sampling(temperature=0.0), generator(0))
    batch = objective.likelihood_batch([passage("aac", 0.0)], draws(1))
    tokens = torch.tensor([[END, A, MASK, C] if role == "decoder" else [CLS, A, MASK, C, SEP]])
    with torch.no_grad():
        logits = model.heads["tokens"](model(**batch.inputs | {"tokens": tokens})[0])
    at = 1 if role == "decoder" else 2
    expected = BYTES.ordinary[logits[at, BYTES.ordinary].argmax()]
    assert found == [A, int(expected), C]


# --- tokenizers --------------------------------------------------------------------------------


def test_a_tokenizer_without_a_mask_token_is_refused_with_what_adds_it(monkeypatch):
    bare = copy.copy(BYTES)
    bare.roles = {role: id for role, id in BYTES.roles.items() if role != "mask"}
    monkeypatch.setattr(bare, "special_id", lambda *names: None)
    with pytest.raises(InputError, match=r"lacks 1 of the 1 .* masked-diffusion .*--add-tokens"):
        objective_of("masked-diffusion", bare)
