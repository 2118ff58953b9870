"""The comparison's pieces: intervals, probe, texts, plan of parts, store, advice."""

import json
import math

import pytest
import torch
from making import close

from minicpt.common.errors import InputError
from minicpt.comparison import measure, probe, task, texts
from minicpt.comparison.arms import QUICK_ARMS, arms, arms_of, compared
from minicpt.comparison.parts import Part, base_objective, model_of, parts, roles_of
from minicpt.comparison.plan import Asked, Comparison
from minicpt.comparison.statistics import Figures, Interval, interval, less
from minicpt.comparison.store import Store
from minicpt.comparison.summary import front, lead, rows
from minicpt.comparison.table import sentences, text
from minicpt.data.corpus import Corpus, Passage
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


def test_seeds_alone_have_students_interval():
    found = interval(figures([[value] * 50 for value in (0.0, 1.0, 5.0)]))
    half = 4.302653 * math.sqrt(7 / 3)  # the variance of 0, 1 and 5 is 7; t of 2 degrees: a table's
    assert found.value == 2.0 and found.sign == 0
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))


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


def small(kind, tokenizer):
    torch.manual_seed(0)
    sizes = {"vocabulary": tokenizer.size, "width": 16, "layers": 1, "num_heads": 2, "dropout": 0.5}
    if kind is not T5:
        sizes["positions"] = 64
    return kind(kind.Config(**sizes))


@pytest.mark.parametrize("kind", [BERT, GPT2, T5])
def test_features_are_means_over_the_text_alone(kind, tokenizer, corpus):
    """Each passage by itself, without padding, and its own positions picked by hand."""
    model = small(kind, tokenizer)
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
    found = task.parts([*alone, *several])
    assert found == ["a", "a", "c.py", "d.jsonl", "e.txt"]


@pytest.mark.parametrize("name", ["x:3", "x, block 2", "x, token 5", "x, from character 5"])
def test_a_name_that_looks_like_a_message_is_a_name(name, tokenizer):
    """Files may be called anything; where a text comes from stands in fields."""
    assert task.parts(documents("a/1", name)) == ["a", name]
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


# --- the probe's task


def of_parts(tokenizer, *sizes):
    """The sides of a text for ``task``: by part, how many tokens are held out and how many not."""
    sides = []
    for side, each in zip("ht", zip(*sizes, strict=True), strict=True):
        given = [
            Document(f"{part}/{side}", "".join(chr(97 + (n + k) % 26) for k in range(size)))
            for n, (part, size) in enumerate(zip("abcde", each, strict=False))
            if size
        ]
        sides.append((given, Corpus.build(given, tokenizer)))
    return sides


def test_shots_and_what_is_asked_stand_in_different_stretches(tokenizer):
    found = task.task(*of_parts(tokenizer, (9000, 50), (3000, 50), (70, 50)), 8, 4)
    assert found.parts == ["a", "b"] and found.shots == [4] and not found.read
    own = [each.document for each in found.passages]
    assert own == [f"{'ab'[label]}/h" for label in found.labels]  # held out
    assert all(4 < len(each.tokens) <= 8 for each in found.passages)
    places = list(zip(found.labels.tolist(), found.stretches.tolist(), strict=True))
    for stretch in set(places):  # neighbours of one document
        starts = sorted(
            each.start for each, place in zip(found.passages, places, strict=True)
            if place == stretch
        )  # fmt: skip
        assert len(starts) <= task.STRETCH and starts[-1] - starts[0] == 8 * (len(starts) - 1)
    draws = [found.draw(number) for number in range(task.DRAWS)]
    for shots, asked in draws:
        assert found.labels[shots].tolist() == [[0] * 4, [1] * 4]
        learnt = {places[place] for place in shots.flatten().tolist()}
        assert not learnt & {places[place] for place in asked.tolist()}
        assert len(asked) >= len(found.passages) - 2 * (4 + task.STRETCH - 1)
    assert len({tuple(shots.flatten().tolist()) for shots, _ in draws}) == task.DRAWS


def test_every_unit_holds_a_like_share_of_every_part(tokenizer):
    found = task.task(*of_parts(tokenizer, (9000, 50), (1000, 50)), 8, 16)
    units = found.units
    assert int(units.max()) + 1 <= task.UNITS
    for label in (0, 1):
        counts = units[found.labels == label].bincount()
        assert len(counts) == int(units.max()) + 1
        assert int(counts.max() - counts.min()) <= task.STRETCH


def test_training_text_joins_where_too_little_is_held_out(tokenizer):
    sides = of_parts(tokenizer, (400, 9000), (400, 9000))
    found = task.task(*sides, 8, 4)
    assert not found.read
    found = task.task(*sides, 8, 64)
    assert found.read and {each.document[-1] for each in found.passages} == {"h", "t"}
    assert found.shots == [4, 16, 64] and "some of them from training text" in found.said


def test_a_short_text_gives_fewer_shots_or_none(tokenizer):
    assert task.task(*of_parts(tokenizer, (250, 50), (250, 50)), 8, 64).shots == [4, 16]
    assert task.task(*of_parts(tokenizer, (900, 900), (20, 20)), 8, 64) is None


def test_enough_answers_are_within_three_points():
    """The binomial's own interval, for the share at which it is widest."""
    assert 1.96 * math.sqrt(0.25 / (task.ENOUGH * task.SHOTS[-1])) < 0.03


def by_letter(shots=8):
    """A task whose passages say what part they come from, in every third token."""
    size = 6 * shots
    labels = torch.arange(2).repeat_interleave(size)
    draws = torch.Generator().manual_seed(0)
    passages = []
    for label in labels.tolist():
        tokens = torch.randint(20, 60, (12,), generator=draws)
        tokens[::3] = 70 + label
        passages.append(
            Passage(tokens, tokens > 0, tokens > 0, True, True, None, 0, "x", 0)
        )
    stretches = torch.arange(size).repeat(2) // task.STRETCH
    return task.Task(passages, labels, stretches, ["a", "b"], [4, shots], False)


@pytest.mark.parametrize("kind", [BERT, GPT2, T5])
def test_a_copy_of_the_model_learns(kind, tokenizer):
    model = small(kind, tokenizer)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    state, given = torch.get_rng_state(), by_letter(32)
    found = probe.probe(model, tokenizer, given, 2e-2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
    share = sum(found["tuned"]["right"]) / sum(found["tuned"]["asked"])
    assert share > 0.9
    assert found == probe.probe(model, tokenizer, given, 2e-2)
    assert sum(found["asked"]) == sum(len(given.draw(n)[1]) for n in range(task.DRAWS))
    assert found["right"] == found["frozen"]["32"]["right"] and found["majority"] == 0.5
    assert probe.probe(model, tokenizer, given)["tuned"] is None


def test_the_probe_learns_nothing_from_what_it_is_asked(tokenizer):
    """The shots have the wrong names: every answer is wrong."""
    given = by_letter()
    model, wrong = small(BERT, tokenizer), given.labels.clone()
    known = torch.nn.functional.one_hot(given.labels, 2).float()
    shots, asked = given.draw(0)
    assert probe.told(known, given.labels, shots.flatten(), asked).all()
    wrong[shots.flatten()] = 1 - wrong[shots.flatten()]
    assert not probe.told(known, wrong, shots.flatten(), asked).any()
    turned = task.Task(given.passages, wrong, given.stretches, given.parts, given.shots, False)
    right = probe.tune(model, tokenizer, turned, shots.flatten(), asked, 2e-2)
    assert right.double().mean() < 0.5


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
    others = [name for name in compared() if name not in QUICK_ARMS]
    assert arms() == [*QUICK_ARMS[:-1], *others, "control"] and "ewc" in others
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
    names = [*QUICK_ARMS, "ewc", "freeze", "kl=0.5", "replay=0.005", "learning-rate=0.003"]
    assert [asked.label(arm) for arm in names] == [
        "no remedy", "replay 10 %", "self-replay 5 %", "kl 2", "l2 0.01", "lora rank 4",
        "wrong text", "ewc 1", "freeze last 1 learn", "kl 0.5", "replay 0.5 %",
        "learning rate 0.003",
    ]  # fmt: skip
    assert asked.remedies("kl=0.5") == {"kl": {"kl": 0.5}} and asked.value("kl") == 2.0
    assert asked.remedies("learning-rate=0.003") == asked.training("kl=0.5") == {}
    assert asked.training("learning-rate=0.003") == {"learning_rate": 0.003}
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


UNITS = 24


def results(**changes):
    """Of one objective: each arm's (gained, forgotten), the same for both seeds and all units.

    The bases' losses are 4 on the new and 2 on the old text.
    """

    def measured(value):
        heads = {"tokens": [[value * 3] * UNITS, [3] * UNITS]}
        return {"unit": "bits/byte", "units": list(map(str, range(UNITS))), "heads": heads}

    def result(new, old):
        losses = {"causal-lm": {"new": measured(new), "old": measured(old)}}
        return {"losses": losses, "probe": {"new": None, "old": None}}

    found = {Part("decoder", 0): result(4.0, 2.0)}
    for arm, (gained, forgotten) in changes.items():
        for seed in range(2):
            part = Part("decoder", 0, "causal-lm", arm, seed)
            found[part] = result(4.0 - gained, 2.0 + forgotten)
    return found


def with_probes(**right):
    """Two objectives, each with two seeds, and how often each is right in ten units of 20."""
    found = results(nothing=(1.0, 0.5))
    for name, counts in right.items():
        for seed in range(2):
            part = Part("decoder", 0, name, "nothing", seed)
            mine = {"right": counts, "asked": [20] * len(counts)}
            side = {"frozen": {"4": mine, "64": mine}, "tuned": mine, "majority": 0.5, "parts": []}
            losses = {name: next(iter(found[Part("decoder", 0)]["losses"].values()))}
            found[part] = {"losses": losses, "probe": {"new": side, "old": None}}
            found[part.from_base]["losses"] |= losses
    del found[Part("decoder", 0, "causal-lm", "nothing", 0)]
    del found[Part("decoder", 0, "causal-lm", "nothing", 1)]
    return rows(found)


def test_what_the_probe_says():
    """Shares by hand; a tie is said with how far it reaches, a lead with whom it beats."""
    level, noisy, high = [10] * 10, [12, 9] * 5, [15, 16] * 5
    found = with_probes(a=level, b=noisy)
    assert {kind: each.value for kind, each in found[1].probe["new"].items()} == {
        "4": 0.525, "64": 0.525, "tuned": 0.525
    }  # fmt: skip
    assert found[0].probe["old"] == {}
    said = [each for each in sentences(found, str) if each.startswith("Probe")]
    reach = 100 * interval(less(found[1].probed["new"]["64"], found[0].probed["new"]["64"])).high
    assert [each.split(":")[0] for each in said] == [
        "Probe on the new text, frozen, 64 shots, right answers in 100",
        "Probe on the new text, tuned, right answers in 100",
    ]
    assert "b 52.5 [" in said[0] and "a 50.0 [50.0, 50.0]" in said[0]
    assert said[0].endswith(f"All tie: each interval of what b is ahead by holds zero, and none"
                            f" reaches beyond {reach:.1f}.")  # fmt: skip
    (first, _) = (each for each in sentences(with_probes(a=level, b=high), str) if "Probe" in each)
    assert first.endswith("b is ahead of a.")
    three = with_probes(a=[17, 4] * 5, b=noisy, c=[13, 10] * 5)
    (first, _) = (each for each in sentences(three, str) if "Probe" in each)
    assert first.endswith("c is ahead of b, and ties with a.")


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
    assert "replay is best" in lines[-1]
    assert "it keeps 75% of the gain and spares 75% of the forgetting" in lines[-1]
    assert "ahead of nothing by +0.125 [+0.125, +0.125] and kl by +0.250" in lines[-1]
    assert "on 2 seeds of one base, and on 24 units of the new and 24 of the old text" in lines[-1]
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
    assert "training without one is best" in more
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
