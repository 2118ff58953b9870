"""What each part of a comparison is trained and measured on: every setting, every text, its seed.

One comparison runs, with a value of its own for every setting, under watch.
"""

import json

import pytest
import torch

from minicpt.checkpoint import folder as checkpoint
from minicpt.checkpoint import huggingface
from minicpt.cli.main import main
from minicpt.comparison import work
from minicpt.remedies.base import Situation
from minicpt.remedies.lora import lora_state
from minicpt.remedies.self_replay import SelfReplay
from minicpt.runs.config import RunConfig
from minicpt.training.trainer import Trainer

BASE = {"batch_size": 4, "learning_rate": 0.003}
CONTINUED = {"batch_size": 4, "learning_rate": 0.005}
WORDS = (
    "--held-out 0.3 --seeds 2 --steps 2 --base-steps 3 --batch-size 4"
    " --base-learning-rate 0.003 --learning-rate 0.005 --replay-fraction 0.25 --self-replay 0.25"
    " --kl 0.7 --l2 0.3 --ewc 0.6 --ewc-passages 3 --lora 2 --evaluate-passages 5"
    " --probe-passages 8 --window 24 --width 16 --layers 1"
    " --vocab-size 280 --threads 1"
).split()


def write(folder, side, kinds):
    """Two folders of twenty files; every file is like no other."""
    for kind, words in enumerate(kinds):
        for number in range(20):
            path = folder / side / f"part{kind}" / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            turned = " ".join(f"{word} {number * 37 + place}" for place, word in enumerate(words))
            path.write_text(f"{side.capitalize()} {turned}. Then {number} {words[0]}. It ends.\n")
    return str(folder / side)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The trainers and measurements of every part, by its name, and the comparison's folder."""
    folder = tmp_path_factory.mktemp("arms")
    words = {
        "old": (["cat", "dog", "owl", "fox"], ["rain", "wind", "snow", "sun"]),
        "new": (["x", "y", "z", "w"], ["def", "for", "if", "while"]),
        "wrong": (["ut", "et", "in", "ad"], ["lo", "ip", "do", "si"]),
    }
    old, new, wrong = (write(folder, side, kinds) for side, kinds in words.items())
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        do, begin, measure, asked = work.Work.do, Trainer.__init__, work.measure, work.probe

        def watching(self, part, watch):
            found[part.name] = {"trainers": [], "measured": [], "probed": []}
            watching.now = found[part.name]
            return do(self, part, watch)

        def beginning(self, model, *arguments, **options):
            before = {name: each.clone() for name, each in huggingface.export_state(model).items()}
            begin(self, model, *arguments, **options)
            watching.now["trainers"].append((self, before))

        def measuring(model, objective, corpus, passages, *rest):
            result = measure(model, objective, corpus, passages, *rest)
            watching.now["measured"].append((corpus, passages))
            return result | {"of": sorted(side_of(corpus.names))}

        def probing(model, tokenizer, task, rate):
            watching.now["probed"].append(({each.document for each in task.passages}, rate))
            return asked(model, tokenizer, task, rate)

        watching.now = {"trainers": []}  # of the estimate of the time, before the first part
        patch.setattr(work.Work, "do", watching)
        patch.setattr(Trainer, "__init__", beginning)
        patch.setattr(work, "measure", measuring)
        patch.setattr(work, "probe", probing)
        texts = ["--old-corpus", old, "--corpus", new, "--control", wrong]
        words = ["compare", *WORDS, *texts, "--objectives", "causal-lm", "masked-lm"]
        assert main([*words, "--out", str(folder / "out")]) == 0
    return found, folder / "out"


def side_of(names):
    return {name.split("/part")[0].rsplit("/", 1)[1] for name in names}


def trainer_of(watched, name):
    (found,) = watched[0][name]["trainers"]
    return found


ARMS = ("nothing", "replay", "kl", "l2", "lora", "ewc", "freeze", "control")
NAMES = [f"{name}.{arm}" for name in ("causal-lm", "masked-lm") for arm in ARMS]
NAMES.append("causal-lm.self-replay")


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_base_learns_the_old_text_with_settings_and_seed_of_its_own(kind, seed, watched):
    trainer, before = trainer_of(watched, f"base.{kind}.{seed}")
    assert side_of(trainer.corpus.names) == {"old"}
    assert {name: getattr(trainer.settings, name) for name in BASE} == BASE
    assert trainer.settings.seed == seed and trainer.steps == 3 and trainer.machine.threads == 1
    assert trainer.optimizer.param_groups[0]["lr"] <= 0.003 and not trainer.remedies
    _, other = trainer_of(watched, f"base.{kind}.{1 - seed}")
    assert any(not torch.equal(before[name], other[name]) for name in before)
    if kind == "encoder":  # BERT's own pre-training, so that both heads have learnt something
        assert trainer.objective.settings.masked


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_continuation_differs_from_the_plain_one_in_its_arm_alone(name, seed, watched):
    objective, arm = name.split(".")
    trainer, before = trainer_of(watched, f"{name}.{seed}")
    replay = getattr(trainer.stream, "second", None)
    assert side_of(trainer.corpus.names) == ({"wrong"} if arm == "control" else {"new"})
    assert {name: getattr(trainer.settings, name) for name in CONTINUED} == CONTINUED
    assert trainer.settings.seed == seed and trainer.steps == 2 and trainer.machine.threads == 1
    kind = {"causal-lm": "decoder", "masked-lm": "encoder"}[objective]
    assert trainer.objective.role == kind and trainer.objective.length == 24
    # It begins at the base of its seed, at its last step.
    base = checkpoint.load(watched[1] / "bases" / f"{kind}-{seed}")
    saved = huggingface.export_state(base.model)
    assert base.record["step"] == 3
    assert before.keys() == saved.keys()
    assert all(torch.equal(before[each], saved[each]) for each in saved)
    assert trainer.model.config.dropout == 0
    # What the arm adds, and nothing else.
    plain = arm in ("nothing", "control")
    assert [each.name for each in trainer.remedies] == ([] if plain else [arm])
    for remedy in trainer.remedies:
        strengths = {"kl": 0.7, "l2": 0.3, "ewc": 0.6, "lora": 2, "train_last": 1}
        strengths |= {"replay_fraction": 0.25, "self_replay": 0.25, "ewc_passages": 3}
        settings = vars(remedy.settings)
        own = {name: value for name, value in strengths.items() if name in settings}
        assert own and settings == settings | own
        if arm in ("kl", "l2", "ewc"):
            theirs = huggingface.export_state(remedy.base)
            assert all(torch.equal(theirs[each], saved[each]) for each in saved)
    found = lora_state(trainer.model)
    ranks = {value.shape[1] for name, value in found.items() if name[-2:] == ".A"}
    assert ranks == ({2} if arm == "lora" else set())
    frozen = any(not each.requires_grad for each in trainer.model.parameters())
    assert frozen == (arm in ("lora", "freeze"))
    assert (replay is not None) == ("replay" in arm)
    if replay:
        assert float(trainer.stream.share) == 0.25
    if arm == "replay":
        assert side_of(replay.corpus.names) == {"old"}
    if arm == "self-replay":  # a quarter of 2 steps of 4 passages of 24 tokens, and end-of-texts
        assert 40 <= replay.corpus.tokens.numel() <= 2 * 24


def test_parts_of_two_seeds_read_their_passages_in_another_order(watched):
    orders = [
        [passage.place for passage in trainer_of(watched, f"causal-lm.nothing.{seed}")[0]
         .stream.passages(0, 8)[0]]
        for seed in (0, 1)
    ]  # fmt: skip
    assert orders[0] != orders[1]


def test_each_seed_writes_a_text_of_its_own_to_replay(watched):
    """From the same base, so that nothing but the seed tells them apart."""
    trainer, _ = trainer_of(watched, "causal-lm.nothing.0")
    written = []
    for seed in (0, 1, 1):
        remedy = SelfReplay(SelfReplay.Settings(self_replay=0.5))
        remedy.begin(Situation(trainer.model, trainer.objective, seed, passages=16))
        written.append(remedy.written)
    assert torch.equal(written[1], written[2]) and not torch.equal(written[0], written[1])


def test_a_base_is_a_checkpoint_like_any_other(watched):
    """Its record says how it was trained, as that of ``train`` does."""
    base = checkpoint.load(watched[1] / "bases" / "encoder-1")
    config = RunConfig.of(base.record["config"])
    trainer, _ = trainer_of(watched, "base.encoder.1")
    assert (config.objective, config.model) == ("next-sentence", "bert")
    assert config.training == trainer.settings and config.length.count == trainer.steps == 3
    assert config.settings == {"window": 24, "masked": True} and not config.remedies
    assert config.sizes == {"width": 16, "layers": 1, "dropout": 0.0}
    assert [each["held_out"] for each in base.record["texts"]] == [0.3]
    assert base.state()["step"] == 3


def test_gained_is_of_the_new_held_out_text_and_forgotten_of_the_old(watched):
    found, folder = watched
    trained = {
        side: set(trainer_of(watched, name)[0].corpus.names)
        for side, name in (("old", "base.decoder.0"), ("new", "causal-lm.nothing.0"))
    }
    for name, entry in found.items():
        result = json.loads((folder / "parts" / f"{name}.json").read_text())["result"]
        for losses in result["losses"].values():
            assert {side: each["of"] for side, each in losses.items()} == {
                "new": ["new"], "old": ["old"]
            }  # fmt: skip
        for corpus, passages in entry["measured"]:
            (side,) = side_of(corpus.names)
            assert passages == 5 and not trained[side] & set(corpus.names)
        assert len(entry["probed"]) == 2
        for side, (documents, rate) in zip(("new", "old"), entry["probed"], strict=True):
            assert side_of(documents) == {side}
            tuned = name.startswith("base") or ".nothing." in name
            assert rate == (0.003 if tuned else None)  # that of the bases


def test_a_comparison_without_a_control_text_takes_the_old_one(watched, tmp_path, monkeypatch):
    """The wrong text is by default the old one, and never the new."""
    seen = {}
    do, begin = work.Work.do, Trainer.__init__

    def doing(self, part, watch):
        doing.now = part.name  # before the first part, the time is estimated
        return do(self, part, watch)

    def beginning(self, model, *arguments, **options):
        begin(self, model, *arguments, **options)
        seen[doing.now] = side_of(self.corpus.names)

    doing.now = ""
    monkeypatch.setattr(work.Work, "do", doing)
    monkeypatch.setattr(Trainer, "__init__", beginning)
    folder = watched[1].parent
    words = ["compare", *WORDS, "--old-corpus", str(folder / "old"), "--corpus"]
    words += [str(folder / "new"), "--objectives", "causal-lm", "--remedies", "control"]
    assert main([*words, "--seeds", "1", "--out", str(tmp_path / "out")]) == 0
    del seen[""]
    assert seen == {
        "base.decoder.0": {"old"}, "causal-lm.nothing.0": {"new"}, "causal-lm.control.0": {"old"}
    }  # fmt: skip
