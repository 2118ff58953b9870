"""Who may see whom, declared, against what our three models do; and models made to break it."""

import copy

import pytest
import torch
from making import close

import minicpt.models.layers
from minicpt.batch import IGNORE, Batch, sees_everything, sees_the_past
from minicpt.common.randomness import generator
from minicpt.data.order import Draw
from minicpt.models.bert import BERT
from minicpt.models.gpt2 import GPT2
from minicpt.models.layers import causal_mask
from minicpt.models.t5 import T5
from minicpt.objectives.causal_lm import CausalLM
from minicpt.objectives.masked_lm import MaskedLM
from minicpt.objectives.next_sentence import NextSentence
from minicpt.objectives.reconstruction import Reconstruction
from minicpt.proofs.causality import prove_causality
from minicpt.proofs.influence import Influence, by_changes, by_derivatives, hidden_from
from minicpt.proofs.leaks import worst_leak

V, B, T = 11, 3, 10
SIZES = {"vocabulary": V, "width": 8, "layers": 2, "num_heads": 2}
MASK = torch.arange(T) < torch.tensor([T, 6, 1])[:, None]  # (B, T)


def built(kind, **changes):
    torch.manual_seed(2)
    positions = {} if kind is T5 else {"positions": 40}
    return kind(kind.Config(**SIZES | positions | changes)).train()


def ids(*shape):
    return torch.randint(V, shape or (B, T), generator=generator("ids"))


def targets(mask):
    return torch.where(mask, 1, IGNORE)


def passed(model, batch, visible, head="tokens"):
    proofs = prove_causality(model, batch, {head: visible})
    assert [proof.numbers["tolerance"] for proof in proofs] == [0, 0]
    for proof in proofs:
        if proof.passed:
            assert proof.numbers["worst"] == 0 and proof.numbers["place"] is None
    return [proof.passed for proof in proofs]


# --- each pattern ----------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False])
def test_a_decoder_sees_what_stands_before_and_no_padding(fused):
    batch = Batch({"tokens": ids(), "mask": MASK}, {"tokens": targets(MASK)})
    model = built(GPT2, fused=fused)
    before = copy.deepcopy(model.state_dict())
    assert passed(model, batch, {"tokens": sees_the_past(MASK)}) == [True, True]
    assert model.training and model.tokens.weight.dtype == torch.float32
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_padding_on_the_left_with_positions_that_start_at_the_text():
    mask = MASK.flip(1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    batch = Batch(
        {"tokens": ids(), "mask": mask, "positions": positions}, {"tokens": targets(mask)}
    )
    assert passed(built(GPT2), batch, {"tokens": sees_the_past(mask)}) == [True, True]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_encoder_decoder_sees_the_whole_source_and_what_it_has_written(version):
    source = torch.arange(7) < torch.tensor([4, 7, 1])[:, None]
    batch = Batch(
        {"tokens": ids(B, 7), "mask": source, "decoder_tokens": ids(), "decoder_mask": MASK},
        {"tokens": targets(MASK)},
    )
    visible = {"tokens": sees_everything(source, T), "decoder_tokens": sees_the_past(MASK)}
    model = built(T5, version=version)
    assert passed(model, batch, visible) == [True, True]
    # Less than it sees is a leak, in either stream.
    for stream in visible:
        fewer = {**visible, stream: visible[stream].clone()}
        fewer[stream][0, T - 1, 1] = False
        proofs = prove_causality(model, batch, {"tokens": fewer})
        assert [proof.passed for proof in proofs] == [False, False]
        for proof in proofs:
            assert f"leak from position 1 of {stream} to position {T - 1} (row 0)" in proof.message


@pytest.mark.parametrize("head", ["tokens", "pair"])
def test_an_encoder_sees_everything_real(head):
    real = torch.zeros_like(MASK).index_fill(1, torch.tensor([0]), True) if head == "pair" else MASK
    batch = Batch({"tokens": ids(), "mask": MASK}, {head: targets(real)})
    assert passed(built(BERT), batch, {"tokens": sees_everything(MASK, T)}, head) == [True, True]


def prefix_pattern(lengths):
    """(B, T, T): a prefix is read in both directions, the rest causally."""
    prefix = torch.arange(T)[None, None] < torch.tensor(lengths)[:, None, None]
    return prefix.expand(-1, T, -1) | torch.ones(T, T).tril().bool()


def test_a_prefix_is_read_in_both_directions():
    pattern = prefix_pattern([4, 1, T])
    batch = Batch({"tokens": ids(), "mask": pattern}, {"tokens": targets(torch.ones_like(MASK))})
    assert passed(built(GPT2), batch, {"tokens": pattern}) == [True, True]
    causal = {"tokens": sees_the_past(torch.ones_like(MASK))}
    assert passed(built(GPT2), batch, causal) == [False, False]


def test_packed_documents_do_not_see_each_other():
    document = torch.tensor([[0] * 4 + [1] * 6, [0] * 10, [0, 1] + [2] * 8])
    pattern = (document[:, :, None] == document[:, None]) & torch.ones(T, T).tril().bool()
    positions = pattern.sum(-1) - 1  # start again with each document
    inputs = {"tokens": ids(), "mask": pattern, "positions": positions}
    batch = Batch(inputs, {"tokens": targets(torch.ones_like(MASK))})
    assert positions[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    assert passed(built(GPT2), batch, {"tokens": pattern}) == [True, True]
    # Starting the positions again, alone, keeps nothing apart.
    together = Batch({**inputs, "mask": torch.ones_like(MASK)}, batch.targets)
    for proof in prove_causality(built(GPT2), together, {"tokens": {"tokens": pattern}}):
        place = proof.numbers["place"]
        assert not proof.passed
        assert document[place["to row"], place["from"]] != document[place["to row"], place["to"]]


# --- what the objectives declare -------------------------------------------------------------

PIECES = {
    "causal-lm": (CausalLM, GPT2),
    "masked-lm": (MaskedLM, BERT),
    "next-sentence": (NextSentence, BERT),
    "reconstruction": (Reconstruction, T5),
}


@pytest.mark.parametrize("name", PIECES)
def test_models_keep_to_what_each_objective_declares(name, tokenizer, corpus):
    kind, architecture = PIECES[name]
    objective = kind(tokenizer, kind.Settings(window=16))
    passages = objective.plan(corpus, 0, 0)[:3]
    draws = [Draw(place, generator("noise", place)) for place in range(3)]
    batch = objective.batch(passages, draws)
    model = built(architecture, vocabulary=tokenizer.size)
    proofs = prove_causality(model, batch, objective.visibility(batch), name)
    assert len(proofs) == 2 * len(batch.targets) and all(proof.passed for proof in proofs)
    for proof in proofs:
        assert proof.name.startswith(name + " causality by ")
        assert proof.numbers["outputs"] == sum(batch.counts().values())


# --- the proofs can fail ---------------------------------------------------------------------


def broken(monkeypatch, mask):
    monkeypatch.setattr(
        minicpt.models.layers, "causal_mask", lambda length, device=None: mask(length)
    )


@pytest.mark.parametrize("mask", [
    lambda length: torch.ones(length, length).bool(),
    lambda length: torch.ones(length, length).tril(1).bool(),
    lambda length: ~causal_mask(length),
], ids=["none", "off by one", "wrong polarity"])  # fmt: skip
def test_a_wrong_mask_is_caught_and_the_pair_named(monkeypatch, mask):
    broken(monkeypatch, mask)
    batch = Batch({"tokens": ids(), "mask": MASK}, {"tokens": targets(MASK)})
    for proof in prove_causality(
        built(GPT2), batch, {"tokens": {"tokens": sees_the_past(MASK)}}
    ):
        place = proof.numbers["place"]
        assert not proof.passed and proof.numbers["worst"] > 0
        assert place["from"] > place["to"] and place["from row"] == place["to row"]
        assert f"from position {place['from']} of tokens to position {place['to']}" in proof.message


def test_a_mask_that_sees_one_pair_too_many_is_found_at_that_pair(monkeypatch):
    def mask(length):
        found = causal_mask(length)
        found[3, 7] = True
        return found

    broken(monkeypatch, mask)
    batch = Batch({"tokens": ids()}, {"tokens": targets(torch.ones_like(MASK))})
    visible = {"tokens": sees_the_past(torch.ones_like(MASK))}
    for proof in prove_causality(built(GPT2, layers=1), batch, {"tokens": visible}):
        assert (proof.numbers["place"]["from"], proof.numbers["place"]["to"]) == (7, 3)


def test_attention_to_pads_is_caught():
    batch = Batch({"tokens": ids(), "mask": torch.ones_like(MASK)}, {"tokens": targets(MASK)})
    visible = {"tokens": sees_everything(MASK, T)}
    assert passed(built(BERT), batch, visible) == [False, False]


def test_a_model_that_sees_nothing_proves_nothing():
    model = built(GPT2)
    torch.nn.init.zeros_(model.norm.weight)
    batch = Batch({"tokens": ids()}, {"tokens": targets(torch.ones_like(MASK))})
    visible = {"tokens": {"tokens": sees_the_past(torch.ones_like(MASK))}}
    for proof in prove_causality(model, batch, visible):
        assert not proof.passed and "vacuous: position 0 of row 0" in proof.message
    empty = Batch(batch.inputs, {"tokens": torch.full((B, T), IGNORE)})
    for proof in prove_causality(built(GPT2), empty, visible):
        assert proof.passed is None and "no position has one" in proof.message


# --- the measurement itself, against influences known by hand ----------------------------------


def test_influence_is_what_the_weights_say():
    weights = torch.rand(3, 3, generator=generator("weights")).double()
    weights[0, 2] = 0.0
    table = torch.arange(V).double()[:, None] + 1  # (V, 1)

    def run(streams):
        return weights @ table[streams["tokens"]]  # (B, T, 1)

    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    visible, wanted = {"tokens": torch.ones(2, 3, 3).bool()}, torch.ones(2, 3).bool()
    found = by_derivatives(run, {"tokens": tokens}, visible, wanted)
    expected = torch.zeros(2, 3, 2, 3).double()
    expected[0, :, 0], expected[1, :, 1] = weights, weights
    relative = expected / expected.amax(dim=(2, 3), keepdim=True)
    close(found.sizes["tokens"], relative, 3)
    changes = by_changes(run, {"tokens": tokens}, visible, wanted, torch.tensor([0, 7]))
    assert torch.equal(changes.sizes["tokens"] > 0, expected > 0)
    absolute = changes.sizes["tokens"] * changes.scale[..., None, None]
    steps = absolute[0, :, 0] / weights.where(weights > 0, 1.0)  # by how much each token changed
    close(steps[1], steps[2], 3 + 3, size=(V + 1) / float(weights[1:].min()))


def test_what_several_tokens_do_together_is_found_though_none_does_it_alone():
    tokens = torch.tensor([[1, 2, 3, 4]])

    def run(streams):
        new = streams["tokens"] != tokens
        later = new.flip(1).cumsum(1).flip(1) - new.int()  # how many changed after each position
        return (new.cumsum(1) + (later > 1)).double()[..., None]

    visible, wanted = {"tokens": torch.ones(1, 4, 4).tril().bool()}, torch.ones(1, 4).bool()
    found = by_changes(run, {"tokens": tokens}, visible, wanted, torch.arange(5, V))
    assert not found.sizes["tokens"][hidden_from(visible["tokens"])].any()
    leak = worst_leak(found, visible)
    assert (leak.to, leak.position) == (0, None) and "replaced together" in leak.text()
    assert leak.place()["from"] == "invisible tokens, all at once"


def test_hidden_from_and_worst_leak_by_hand():
    visible = torch.tensor([[[True, False], [True, True]]] * 2)  # two rows of two positions
    hidden = hidden_from(visible)
    assert hidden[0, 0].tolist() == [[False, True], [True, True]]
    assert hidden[1, 1].tolist() == [[True, True], [False, False]]
    sizes = torch.ones(2, 2, 2, 2).double() * ~hidden  # as declared
    influence = Influence({"tokens": sizes}, torch.ones(2, 2))
    assert worst_leak(influence, {"tokens": visible}) is None
    sizes[1, 0, 1, 1], sizes[0, 1, 1, 0] = 1e-30, 0.5
    leak = worst_leak(influence, {"tokens": visible})
    assert (leak.to_row, leak.to, leak.row, leak.position) == (0, 1, 1, 0)
    leak = worst_leak(influence, {"tokens": visible}, judge=lambda leak: leak.size < 0.1)
    assert (leak.to_row, leak.to, leak.row, leak.position) == (1, 0, 1, 1)
    sizes[0, 0, 0, 1] = torch.nan
    assert worst_leak(influence, {"tokens": visible}).size == torch.inf
