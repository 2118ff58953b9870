"""The comparison's pieces: intervals, probe, texts, plan of parts, store, advice."""

import json
import math
from itertools import product

import pytest
import torch
from making import close

from minicpt.common.errors import InputError
from minicpt.comparison import measure, probe, texts
from minicpt.comparison.plan import (
    QUICK_ARMS,
    Asked,
    Comparison,
    Part,
    arms,
    arms_of,
    base_objective,
    compared,
    model_of,
    parts,
    roles_of,
)
from minicpt.comparison.statistics import Figures, Interval, interval, less
from minicpt.comparison.store import Store
from minicpt.comparison.summary import front, lead, rows
from minicpt.comparison.table import sentences, text
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document, Documents
from minicpt.models.bert import BERT
from minicpt.models.gpt2 import GPT2
from minicpt.models.t5 import T5
from minicpt.objectives.causal_lm import CausalLM
from minicpt.objectives.masked_lm import MaskedLM
from minicpt.objectives.next_sentence import NextSentence
from minicpt.proofs.bounds import largest, tolerance
from minicpt.training.evaluation import evaluate

DOUBLE = torch.float64


def figures(values, sizes=None):
    """Of values (S, U), with sizes 1."""
    values = torch.as_tensor(values, dtype=DOUBLE)
    return [Figures(values, torch.ones_like(values) if sizes is None else sizes)]


# --- statistics


def test_constant_data_have_an_interval_without_width():
    sizes = torch.tensor([[1.0, 5.0, 2.0]] * 3, dtype=DOUBLE)
    assert interval([Figures(0.25 * sizes, sizes)]) == Interval(0.25, 0.25, 0.25)


def test_one_seed_of_normal_units_has_the_textbook_width():
    draws = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    found = interval(figures(draws[None]))
    error = float(draws.std()) / math.sqrt(400)
    assert found.value == pytest.approx(float(draws.mean()))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.low < found.value < found.high


def test_units_that_all_seeds_share_do_not_average_away():
    draws = torch.randn(400, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    one, three = (interval(figures(draws.expand(seeds, 400))) for seeds in (1, 3))
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.1)


def test_seeds_alone_spread_as_all_their_draws_do():
    values = [0.0, 1.0, 5.0]
    found = interval(figures([[value] * 50 for value in values]))
    means = sorted(sum(draw) / 3 for draw in product(values, repeat=3))  # all 27, alike likely
    assert (found.low, found.high) == (means[0], means[-1])  # each end has 1/27 > 2.5 %
    assert found.value == 2.0 and found.sign == 0


def test_a_ratio_weighs_by_size():
    sizes = torch.tensor([[1.0, 3.0]], dtype=DOUBLE)
    sums = torch.tensor([[1.0, 0.0]], dtype=DOUBLE)
    assert interval([Figures(sums, sizes)]).value == 0.25


def test_pairing_takes_out_what_both_share():
    shared = 10 * torch.randn(100, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    one, other = figures((shared + 1)[None]), figures(shared[None])
    assert interval(one).sign == 0
    difference = interval(less(one, other))
    assert (difference.low, difference.high) == (pytest.approx(1), pytest.approx(1))


# --- the probe


def cloud(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_the_probe_tells_what_a_line_can_separate():
    labels = torch.arange(90) % 3
    points = cloud(90, 5, 0) * 0.1
    points[torch.arange(90), labels] += 3
    found = probe.classify(points[:60], labels[:60], points[60:], 3)
    assert found.tolist() == labels[60:].tolist()
    again = probe.classify(points[:60], labels[:60], points[60:], 3)
    assert torch.equal(found, again)


def test_the_probe_finds_nothing_in_noise():
    labels = torch.arange(2000) % 2
    found = probe.classify(cloud(1000, 5, 1), labels[:1000], cloud(1000, 5, 2), 2)
    assert abs(float((found == labels[1000:]).double().mean()) - 0.5) < 0.06  # 4 deviations


def test_the_probe_does_not_mind_a_feature_that_never_changes():
    points = torch.tensor([[1.0, 0.0], [1.0, 1.0]] * 4)
    assert probe.classify(points, torch.tensor([0, 1] * 4), points, 2).tolist() == [0, 1] * 4


@pytest.mark.parametrize("kind", [BERT, GPT2, T5])
def test_features_are_means_over_the_text_alone(kind, tokenizer, corpus):
    """Each passage by itself, without padding, and its own positions picked by hand."""
    torch.manual_seed(0)
    sizes = {"vocabulary": tokenizer.size, "width": 16, "layers": 1, "num_heads": 2, "dropout": 0.5}
    if kind is not T5:
        sizes["positions"] = 64
    model = kind(kind.Config(**sizes))
    passages = [corpus.passage(0, 9), corpus.passage(2, 6)]
    found = probe.features(model, tokenizer, passages)
    assert model.training  # as it was
    model.eval()
    roles = tokenizer.roles
    for row, passage in zip(found, passages, strict=True):
        ids = passage.tokens.tolist()
        read, begin = {
            "encoder": ([roles["cls"], *ids, roles["sep"]], 1),
            "decoder": ([roles["end"], *ids], 1),
            "encoder-decoder": (ids, 0),
        }[kind.ROLE]
        run = model.encode if kind is T5 else model
        hidden = run(torch.tensor([read]))[0, begin : begin + len(ids)]
        close(row, hidden.mean(0), model, torch.tensor([read]), size=largest(hidden))


# --- texts


def documents(*names):
    return [Document(name, f"{name} " * 30) for name in names]


def test_a_bound_takes_whole_documents_and_cuts_the_last():
    given = Documents.of(Document(str(number), chr(97 + number) * 10) for number in range(10))
    kept = texts.bounded(given, 35)
    assert sum(len(each.text) for each in kept) == 35
    assert sorted(len(each.text) for each in kept) == [5, 10, 10, 10]
    assert [each.name for each in kept] == sorted(each.name for each in kept)
    assert texts.bounded(given, 35) == kept and texts.bounded(given, 0) == list(given)


def test_parts_are_folders_and_files_of_several_documents():
    alone = documents("x/a/1.py", "x/a/b/2.py", "x/c.py")
    several = [
        Document("x/d.jsonl:3", "text", inside="x/d.jsonl"),
        Document("x/e.txt, block 2", "text", inside="x/e.txt"),
    ]
    found = texts.parts([*alone, *several], ["x"])
    assert found == ["a", "a", "c.py", "d.jsonl", "e.txt"]


@pytest.mark.parametrize("name", ["x:3", "x, block 2", "x, token 5", "x, from character 5"])
def test_a_name_that_looks_like_a_message_is_a_name(name, tokenizer):
    """Files may be called anything; where a text comes from stands in fields."""
    assert texts.parts(documents("a/1", name), ["."]) == ["a", name]
    given = Documents.of(documents(name, *(f"y{number}" for number in range(11))))
    kept = texts.bounded(given, 0)
    assert [each.source for each in kept] == [each.name for each in given]
    corpus = Corpus.build([kept[0].part(7)], tokenizer)
    passage = corpus.passage(0, 5)
    assert (passage.document, passage.character) == (name, 7)


def test_the_parts_of_a_document_are_one_unit(tokenizer):
    """Between them stood a copy of training text, which was left out."""
    several = documents(*(f"{number}, token 1" for number in range(10)))
    first = several.pop(0)
    held_out = [first.part(0, 90), first.part(120, None), *several]
    assert len({each.name for each in held_out}) == 11
    corpus = Corpus.build(held_out, tokenizer)
    measured = measure.measure(decoder(tokenizer), causal_lm(tokenizer), corpus, 1000, bits=True)
    assert measured["units"] == sorted(f"{number}, token 1" for number in range(10))


def test_the_sides_of_the_probe_share_no_document(tokenizer):
    training = documents(*(f"{part}/{number}" for part in "abc" for number in range(4)))
    held_out = documents("a/8", "a/9", "b/8", "b/9", "c/9")  # c has one: too few
    domain = texts.domain(training, held_out, tokenizer, ["."], 16, 6)
    learning, tested = domain.probe
    assert learning.parts == tested.parts == ["a", "b"]
    assert not set(learning.units) & set(tested.units)
    assert len(learning.passages) <= 12 and len(tested.passages) <= 6
    for side in domain.probe:
        for passage, label, unit in zip(side.passages, side.labels, side.units, strict=True):
            assert unit.startswith("ab"[label]) and passage.document == unit
    assert texts.domain(training, documents("a/9", "b/9"), tokenizer, ["."], 16, 6).probe is None


# --- measurements


def causal_lm(tokenizer):
    return CausalLM(tokenizer, CausalLM.Settings(window=16))


def sized(kind, tokenizer):
    sizes = {"vocabulary": tokenizer.size, "positions": 16, "width": 16, "layers": 1}
    return kind(kind.Config(**sizes))


def decoder(tokenizer):
    return sized(GPT2, tokenizer)


@pytest.mark.parametrize("kind", [CausalLM, MaskedLM])
def test_units_add_up_to_the_evaluation(kind, tokenizer, corpus):
    torch.manual_seed(0)
    made = kind(tokenizer, kind.Settings(window=16))
    model = sized(GPT2 if kind is CausalLM else BERT, tokenizer)
    measured = measure.measure(model, made, corpus, 7, bits=made.whole_text)
    expected = evaluate(model, made, corpus, 7)
    whole = expected.bits_per_byte if kind is CausalLM else expected.total
    assert measure.loss(measured) == pytest.approx(whole, rel=tolerance(7 * 16, torch.float32))
    assert len(measured["units"]) == 7  # five documents are few: passages are units
    assert json.loads(json.dumps(measured)) == measured


def test_units_are_documents_where_there_are_many(tokenizer):
    corpus = Corpus.build(documents(*map(str, range(12))), tokenizer)
    measured = measure.measure(decoder(tokenizer), causal_lm(tokenizer), corpus, 1000, bits=True)
    assert measured["units"] == sorted(map(str, range(12)))


def test_a_pair_belongs_to_the_document_of_its_first_text(tokenizer):
    texts = [f"{name} came. He saw. It rained {name}. We left." for name in "ABCDEFGHIJKL"]
    corpus = Corpus.build([Document(f"{text[0]}, token 1", text) for text in texts], tokenizer)
    made = NextSentence(tokenizer, NextSentence.Settings(window=16))
    measured = measure.measure(sized(BERT, tokenizer), made, corpus, 1000, bits=False)
    assert measured["units"] == [f"{name}, token 1" for name in "ABCDEFGHIJKL"]


class Weighed(MaskedLM):
    """Half of the targets count nothing, and the head counts thrice."""

    head_weights = {"tokens": 3.0}

    def batch(self, passages, draws):
        batch = super().batch(passages, draws)
        weights = torch.zeros(batch.targets["tokens"].shape)
        weights[:, ::2] = 0.5
        return type(batch)(batch.inputs, batch.targets, {"tokens": weights})


def test_weights_count_as_they_do_in_training(tokenizer, corpus):
    made, model = Weighed(tokenizer, Weighed.Settings(window=16)), sized(BERT, tokenizer)
    expected = evaluate(model, made, corpus, 7).losses["tokens"]
    measured = measure.measure(model, made, corpus, 7, bits=False)
    whole = 3 * float(expected.mean)
    assert measure.loss(measured) == pytest.approx(whole, rel=tolerance(7 * 16, torch.float32))


# --- the plan of parts


ROLES = {"causal-lm": "decoder", "masked-lm": "encoder", "next-sentence": "encoder"}


def test_every_base_comes_before_what_continues_it():
    found = arms_of(ROLES, (), quick=False)
    assert found["causal-lm"] == arms()
    assert found["masked-lm"] == [arm for arm in arms() if arm != "self-replay"]
    count = sum(map(len, found.values()))
    for one_base, bases in ((True, 2), (False, 4)):
        comparison = Comparison(seeds=2, one_base=one_base)
        every = parts(comparison, ROLES, found)
        assert len(every) == len(set(every)) == 2 * count + bases
        assert len({part.name for part in every}) == len(every)
        for place, part in enumerate(every):
            assert part.arm is None or part.from_base in every[:place]


def test_all_remedies_that_can_be_measured_are_arms():
    assert arms() == [*QUICK_ARMS[:-1], "ewc", "freeze", "interpolation", "lines", "control"]
    assert arms_of(ROLES, ("ewc",), quick=False)["masked-lm"] == ["nothing", "ewc"]


def test_quick_spends_remedies_on_causal_lm_alone():
    assert arms_of(ROLES, (), quick=True)["causal-lm"] == list(QUICK_ARMS)
    found = arms_of(ROLES, ("kl",), quick=True)
    assert found["causal-lm"] == ["nothing", "kl"]
    assert found["masked-lm"] == found["next-sentence"] == ["nothing"]
    with pytest.raises(InputError, match="no remedy is called 'x'"):
        arms_of({"causal-lm": "decoder"}, ("x",), quick=True)


def test_defaults_skip_what_is_not_there(monkeypatch):
    from minicpt import models, objectives, remedies

    for package, gone in ((objectives, "next-sentence"), (models, "t5"), (remedies, "kl")):
        found = {name: kind for name, kind in package.known().items() if name != gone}
        monkeypatch.setattr(package, "known", lambda found=found: found)
    assert roles_of((), None) == {"causal-lm": "decoder", "masked-lm": "encoder"}
    assert roles_of((), "encoder") == {"masked-lm": "encoder"}
    assert base_objective("encoder") == ("masked-lm", {}) and model_of("encoder") == "bert"
    assert "kl" not in arms() and "kl" not in arms_of(ROLES, (), quick=True)["causal-lm"]
    with pytest.raises(InputError, match="reconstruction trains encoder-decoder models"):
        roles_of(("reconstruction",), None)


def test_strengths_are_the_remedies_own_settings():
    asked = Asked.of(kl=2.0, replay_fraction=0.1, lora=4, seeds=5, corpus="notes", remedies=["kl"])
    assert asked.comparison.seeds == 5 and asked.sources.corpus == ("notes",)
    assert asked.sources.remedies == ("kl",)
    called = [asked.label(arm) for arm in arms()]
    assert called == [
        "no remedy", "replay 10 %", "self-replay 5 %", "kl 2", "l2 0.01", "lora rank 4", "ewc 1",
        "freeze last 1 learn", "interpolation 0.5", "lines 0", "wrong text",
    ]  # fmt: skip
    assert asked.remedies("replay") == {"replay": {"replay": ("base",), "replay_fraction": 0.1}}
    assert asked.remedies("nothing") == asked.remedies("control") == asked.remedies(None) == {}
    for name, kind in compared().items():
        kind.Settings(**asked.remedies(name)[name])
    with pytest.raises(InputError, match="no setting called 'klll'"):
        Asked.of(klll=2.0)
    with pytest.raises(InputError, match="--kl must be"):
        Asked.of(kl="much")


# --- the store


def test_a_store_keeps_parts_and_refuses_another_comparison(tmp_path):
    said = []
    folder = tmp_path / "out"
    part = Part("decoder", 0, "causal-lm", "kl", 1)

    def store(version="1", strengths=None, **settings):
        made = Store(folder, {"minicpt": version}, said.append)
        made.open({"steps": 5} | settings, strengths or {"kl": {"kl": 1.0}})
        return made

    assert store().load(part) is None
    store().keep(part, {"a": [1.5]})
    assert store().load(part) == {"a": [1.5]} and said == []
    assert store("2").load(part) == {"a": [1.5]}
    assert len(said) == 1 and "minicpt 1" in said[0] and "minicpt 2" in said[0]
    with pytest.raises(InputError, match="steps 5, and this one has 6"):
        store(steps=6)
    with pytest.raises(InputError, match="kl {'kl': 1.0}, and this one has {'kl': 2.0}"):
        store(strengths={"kl": {"kl": 2.0}})
    assert store(strengths={"l2": {"l2": 1.0}}).load(Part("decoder", 0)) is None
    assert store().load(part) == {"a": [1.5]}  # what another remedy is set to leaves it as it is
    with pytest.raises(InputError, match="l2 {'l2': 1.0}"):
        store(strengths={"l2": {"l2": 2.0}})
    (folder / "parts" / "causal-lm.kl.1.json").write_text("{")
    with pytest.raises(InputError, match="causal-lm.kl.1.json"):
        store().load(part)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "novel.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no comparison"):
        Store(tmp_path / "other", {}, said.append).open({}, {})


# --- what the numbers say


def results(**changes):
    """Of one objective: each arm's (gained, forgotten), the same for both seeds and all units.

    The bases' losses are 4 on the new and 2 on the old text.
    """

    def measured(value):
        heads = {"tokens": [[value * 3] * 12, [3] * 12]}
        return {"unit": "bits/byte", "units": list(map(str, range(12))), "heads": heads}

    def result(new, old):
        losses = {"causal-lm": {"new": measured(new), "old": measured(old)}}
        return {"losses": losses, "probe": {"new": None, "old": None}}

    found = {Part("decoder", 0): result(4.0, 2.0)}
    for arm, (gained, forgotten) in changes.items():
        for seed in range(2):
            part = Part("decoder", 0, "causal-lm", arm, seed)
            found[part] = result(4.0 - gained, 2.0 + forgotten)
    return found


def test_rows_by_hand():
    found = rows(results(nothing=(1.0, 0.5), replay=(0.75, 0.125)))
    plain, replay = found
    assert plain.gained == Interval(1.0, 1.0, 1.0) and plain.forgotten.value == 0.5
    assert plain.net.value == 0.5 and plain.spared is plain.lost is None
    assert plain.before == {"new": 4.0, "old": 2.0} and plain.after == {"new": 3.0, "old": 2.5}
    assert replay.spared == Interval(0.375, 0.375, 0.375) and replay.lost.value == 0.25
    assert lead(replay, plain).value == 0.125
    assert json.loads(json.dumps(replay.plain()))["spared"]["value"] == 0.375


def test_the_front_is_what_nothing_beats_on_both_sides():
    found = rows(
        results(nothing=(1, 0.5), replay=(0.9, 0.1), kl=(0.8, 0.2), lora=(0.1, 0), control=(2, -1))
    )
    assert [row.arm for row in front(found)] == ["lora", "replay", "nothing"]


def said(**changes):
    return sentences(rows(results(**changes)), lambda arm: arm)


def test_advice_follows_the_numbers():
    lines = said(nothing=(1, 0.5), replay=(0.75, 0.125), kl=(0.5, 0.125), control=(0.25, -0.5))
    assert "replay keeps 75% of the gain and spares 75% of the forgetting" in lines[-1]
    assert "ahead of nothing by +0.125" in lines[-1]
    (control,) = (line for line in lines if "wrong text" in line)
    assert "gains on the new text, too: +0.250 bits/byte" in control and "25%" in control
    assert "no remedy pays here" in said(nothing=(1, 0.5), kl=(0.5, 0.25))[-1]
    assert "does not gain" in said(nothing=(-1, 0.5), kl=(0.5, 0.25))[-1]


def test_a_remedy_is_held_against_training_without_one():
    """`nothing` is the name of an arm, and reads as a riddle in a sentence."""

    def all_of(**changes):
        return " ".join(sentences(rows(results(**changes)), Asked.of().label))

    less = all_of(nothing=(1, 0.5), kl=(0.75, 0.125))
    assert "causal-lm, kl 1: forgets less than without a remedy, by +0.375 bits/byte" in less
    more = all_of(nothing=(1, 0.25), kl=(0.75, 0.5))
    assert "forgets more than without a remedy, by +0.250 bits/byte [+0.250, +0.250]" in more
    assert "gained less forgotten, training without one is best" in more
    for said in (less, more, all_of(nothing=(1, 0.5), kl=(1, 0.5))):
        assert "nothing" not in said


def test_the_wrong_text_may_teach_something_too():
    gains = said(nothing=(1, 0.5), control=(0.125, 0))
    assert any("gains on the new text, too: +0.125" in line for line in gains)
    assert any("wrong text: no gain on the new text shows: -0.500" in line
               for line in said(nothing=(1, 0.5), control=(-0.5, 0)))  # fmt: skip


def test_one_seed_gives_no_interval_over_seeds():
    several = results(nothing=(1, 0.5))
    one = {part: result for part, result in several.items() if part.seed == 0}
    shown = [text(rows(each), [], [], str, 100) for each in (several, one)]
    shown = [" ".join(each.split()) for each in shown]
    assert "intervals over seeds and held-out text" in shown[0] and "2 seeds" in shown[0]
    assert "over seeds" not in shown[1] and "1 seed)" in shown[1]
    assert "intervals over held-out text alone; one seed does not show" in shown[1]


def test_advice_says_what_is_within_noise():
    lines = said(nothing=(1, 0.5), kl=(1, 0.5))
    assert "its lead over" in lines[-1] and "within noise" in lines[-1]
    assert any("less forgetting does not show" in line for line in lines)
    assert "No gain shows for causal-lm" in said(nothing=(0, 0.5))[0]
