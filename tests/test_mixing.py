"""``--mix``: two objectives share the passages, each target counts once, and a run goes on bitwise.

Gradients are held against those of the two objectives apart, computed here with their own batches.
"""

import copy
import json
from collections import Counter
from fractions import Fraction

import pytest
import torch
from making import batches_of, close, model_of, objective_of, remedy_of
from torch import nn

from minicpt import checkpoint, objectives
from minicpt.batch import IGNORE, Batch
from minicpt.cli.main import main
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.interleaving import of_second
from minicpt.data.stacking import stacked
from minicpt.data.tokenizer import Tokenizer
from minicpt.proofs.bounds import additions, largest
from minicpt.remedies.mixture import Mixture
from minicpt.runs import parts
from minicpt.training.mixing import Mixed, MixedBatch, MixedStream, SecondDraw
from minicpt.training.trainer import Learner, train_step

BYTES = Tokenizer.train([], 256, objectives.reserved())
TEXTS = [f"A cat {number} sat. The dog {number * 7} ran on. It rained." for number in range(9)]
CORPUS = Corpus.build([Document(str(n), text) for n, text in enumerate(TEXTS)], BYTES)

PAIRS = {
    "causal-lm prefix-lm": "decoder",
    "causal-lm masked-diffusion": "decoder",  # a class is never predicted
    "span-corruption causal-lm": "decoder",
    "masked-lm next-sentence": "encoder",  # heads of their own, and segments
    "masked-lm replaced-token-detection": "encoder",  # parts, and a weight of a head
    "reconstruction span-corruption": "encoder-decoder",
}
MODELS = {"decoder": "gpt2", "encoder": "bert", "encoder-decoder": "t5"}


def mixed_of(pair, share=0.4):
    both = [objective_of(name, BYTES, PAIRS[pair], window=24) for name in pair.split()]
    return Mixed(*both, share)


def passages_apart(objective, count):
    """The passages of the first ``count`` places, those of the two objectives apart."""
    some = list(zip(*MixedStream(objective, CORPUS, 3).passages(0, count), strict=True))
    return [
        [each for each in some if isinstance(each[1], SecondDraw) == second]
        for second in (False, True)
    ]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("micro", [10, 3])
def test_a_mixed_step_is_the_sum_of_the_two(pair, micro):
    """The gradient, in float64: both objectives alone, on batches of their own, one divisor."""
    objective = mixed_of(pair)
    model = model_of(objective.first, model=MODELS[PAIRS[pair]]).double()
    torch.manual_seed(1)
    learning = objective.parts(model).double()
    apart, counts = [], Counter()
    both = objective.first, objective.second
    for each, some in zip(both, passages_apart(objective, 10), strict=True):
        batch = each.batch(*zip(*some, strict=True))
        apart.append((each, batch))
        counts += Counter(batch.counts())
    expected = sum(
        each.head_weights.get(head, 1.0) * (found.losses * found.weights).sum() / counts[head]
        for each, batch in apart
        for head, found in each.losses(model, learning, batch, fused=False).items()
    )
    modules = nn.ModuleList([model, learning])
    weights = dict(modules.named_parameters())
    gradient = torch.autograd.grad(expected, list(weights.values()), allow_unused=True)
    gradient = dict(zip(weights, gradient, strict=True))
    before = {name: each.detach().clone() for name, each in weights.items()}

    stream, joint = MixedStream(objective, CORPUS, 3), copy.copy(objective)
    batches = [
        objective.batch(*stream.passages(begin, min(micro, 10 - begin)))
        for begin in range(0, 10, micro)
    ]
    joint.parts = lambda model: learning
    optimizer = torch.optim.SGD(modules.parameters(), lr=1.0)
    losses = train_step(
        Learner(model, joint, fused=False), optimizer, batches, head_weights=joint.head_weights
    )[""]
    assert {head: each.count for head, each in losses.items()} == dict(counts)
    size = largest(*(each for each in gradient.values() if each is not None))
    operations = 8 * max(additions(model, batch) for _, batch in apart)
    for name, each in weights.items():
        if gradient[name] is None:
            assert each.grad is None or not each.grad.any()
        else:
            close(each.grad, gradient[name], operations, size=size)
            moved = before[name] - each
            close(moved, gradient[name], operations, size=size + largest(before[name]))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.05])
def test_the_share_is_exact_and_a_function_of_the_place(share):
    objective = mixed_of("causal-lm prefix-lm", share)
    stream = MixedStream(objective, CORPUS, 3)
    passages, draws = stream.passages(0, 120)
    of = [isinstance(each, SecondDraw) for each in draws]
    for count in range(121):
        assert sum(of[:count]) == of_second(count, Fraction(str(share)))
    numbers = [float(torch.rand((), generator=each.generator)) for each in draws]
    for begin, count in ((0, 7), (33, 1), (50, 70)):
        again, others = MixedStream(objective, CORPUS, 3).passages(begin, count)
        places = slice(begin, begin + count)
        assert [each.place for each in again] == [each.place for each in passages[places]]
        assert [isinstance(each, SecondDraw) for each in others] == of[places]
        found = [float(torch.rand((), generator=each.generator)) for each in others]
        assert found == numbers[places]
    # Each reads in an order of its own, so that one step does not read a text twice.
    own, other = (
        [x.place for x, y in zip(passages, of, strict=True) if y == second] for second in (0, 1)
    )
    assert own[: len(other)] != other[: len(own)]


def test_an_epoch_is_as_much_text_as_there_is():
    objective = mixed_of("span-corruption causal-lm", 0.25)
    stream = MixedStream(objective, CORPUS, 0)
    sizes = [each.epoch_length(0) for each in (stream.first, stream.second)]
    assert sizes[0] != sizes[1]
    count = stream.epoch_length(0)
    second = of_second(count, Fraction(1, 4))
    assert abs((count - second) / sizes[0] + second / sizes[1] - 1) < 2 / min(sizes)


def test_what_is_not_mixed_is_read_by_the_first():
    """Evaluations and samples: the very batches and losses of the first objective."""
    objective = mixed_of("masked-lm replaced-token-detection")
    model = model_of(objective.first)
    learning = objective.parts(model)
    (found,) = batches_of(objective, CORPUS, 5)
    (expected,) = batches_of(objective.first, CORPUS, 5)
    assert type(found) is Batch and found.counts() == expected.counts()
    assert all(torch.equal(found.inputs[name], each) for name, each in expected.inputs.items())
    one, other = (x.losses(model, learning, expected) for x in (objective, objective.first))
    assert torch.equal(one["tokens"].losses, other["tokens"].losses) and len(one) == len(other)
    assert objective.likelihood == "pseudo" and objective.length == 24 and not objective.asks
    assert copy.copy(objective).share == objective.share


def test_old_passages_are_mixed_too():
    objective = mixed_of("causal-lm prefix-lm", 0.5)
    old = Corpus.build([Document("old", "It was so. " * 40)], BYTES)
    stream = Mixture(MixedStream(objective, CORPUS, 0), old, 0.25)
    passages, draws = stream.passages(0, 80)
    of = Counter(
        (each.document == "old", isinstance(draw, SecondDraw))
        for each, draw in zip(passages, draws, strict=True)
    )
    assert of == {(True, True): 10, (True, False): 10, (False, True): 30, (False, False): 30}


@pytest.mark.parametrize("pair", ["causal-lm masked-diffusion", "causal-lm prefix-lm"])
def test_each_loss_knows_its_place(pair):
    """So the divergence of a model from itself is nothing, whoever asks."""
    objective = mixed_of(pair)
    model = model_of(objective.first).double()
    batch = objective.batch(*MixedStream(objective, CORPUS, 0).passages(0, 7))
    found = objective.losses(model, objective.parts(model), batch)
    each = found["tokens"]
    asked = batch.targets["tokens"][each.rows, each.positions]
    assert torch.equal(asked, each.targets) and each.count == batch.counts()["tokens"]
    (loss,) = remedy_of("kl", model, objective, kl=1.0).on_targets(model, found).values()
    assert loss.count == each.count
    assert abs(loss.sum.item()) < 1e-9 * each.total().sum.item()


# --- one batch of two


def test_batches_of_different_kinds_become_one():
    """Patterns, positions, segments, weights and noise, by hand."""
    plain = Batch(
        {"tokens": torch.tensor([[5, 6]]), "mask": torch.tensor([[True, True]])},
        {"tokens": torch.tensor([[6, IGNORE]])},
    )
    whole = Batch(
        {
            "tokens": torch.tensor([[7, 8, 9]]),
            "mask": torch.ones(1, 3, 3).bool(),
            "positions": torch.tensor([[0, 0, 1]]),
            "segments": torch.tensor([[0, 1, 1]]),
        },
        {"pair": torch.tensor([[1, IGNORE, IGNORE]])},
        {"pair": torch.tensor([[0.5, 2.0, 0.0]])},
        {"sample": torch.tensor([[[0.1], [0.2], [0.3]]])},
    )
    for role, expected in (
        ("decoder", [[1, 0, 0], [1, 1, 0], [0, 0, 0]]),
        ("encoder", [[1, 1, 0], [1, 1, 0], [0, 0, 0]]),
    ):
        found = stacked([plain, whole], role)
        assert found.inputs["mask"].int().tolist() == [expected, [[1] * 3] * 3]
    inputs = {name: each.tolist() for name, each in found.inputs.items()}
    assert inputs["tokens"] == [[5, 6, 0], [7, 8, 9]]
    assert inputs["positions"] == [[0, 1, 0], [0, 0, 1]]
    assert inputs["segments"] == [[0, 0, 0], [0, 1, 1]]
    targets = {name: each.tolist() for name, each in found.targets.items()}
    assert targets == {
        "tokens": [[6, IGNORE, IGNORE], [IGNORE] * 3],
        "pair": [[IGNORE] * 3, [1, IGNORE, IGNORE]],
    }
    assert found.weights["pair"].tolist() == [[1, 1, 1], [0.5, 2.0, 0.0]]
    assert found.noise["sample"][:, :, 0].tolist()[0] == [0, 0, 0]
    masks = [plain, Batch(plain.inputs | {"mask": torch.tensor([[True, False]])}, plain.targets)]
    assert stacked(masks, "decoder").inputs["mask"].tolist() == [[True, True], [True, False]]


def test_rows_know_whose_they_are():
    objective = mixed_of("masked-lm next-sentence", 0.5)
    batch = objective.batch(*MixedStream(objective, CORPUS, 0).passages(0, 6))
    assert isinstance(batch, MixedBatch) and batch.second.tolist() == [False] * 3 + [True] * 3
    assert not (batch.targets["pair"][:3] != IGNORE).any()
    assert not (batch.targets["tokens"][3:] != IGNORE).any()
    places, own = batch.to("cpu").rows(1)
    assert places.tolist() == [3, 4, 5] and list(own.targets) == ["pair"]


# --- as a user has it

WORDS = (
    "--corpus CORPUS --blocks --held-out 0.2 --window 24 --width 16 --layers 1 --num-heads 2"
    " --vocab-size 256 --batch-size 6 --evaluate-passages 4 --save-every 2 --keep 9"
).split()


def words_of(tmp_path, name, *more):
    text = tmp_path / "text.txt"
    more_text = [f"{number} {number * 3}. It was so. So it is." for number in range(9)]
    text.write_text("\n\n".join(TEXTS * 3 + more_text))
    return ["train", name, *[str(text) if each == "CORPUS" else each for each in WORDS], *more]


@pytest.mark.parametrize(
    "name, other, more",
    [
        ("causal-lm", "prefix-lm", ["--dropout", "0.1"]),
        ("masked-lm", "replaced-token-detection", []),
    ],
)
def test_a_run_goes_on_bitwise_and_its_folder_says_who_trained(name, other, more, tmp_path, capsys):
    words = words_of(tmp_path, name, "--steps", "5", "--mix", other, "0.3", *more)
    whole = tmp_path / "whole"
    assert main([*words, "--out", str(whole)]) == 0
    rows = [row for row in capsys.readouterr().out.splitlines() if " | " in row]
    assert rows and all(f"| {other}: held out" in row for row in rows if "held out" in row)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    (whole / "step-00000002").rename(stopped / "step-00000002")
    assert main(["resume", str(stopped)]) == 0
    one, two = (checkpoint.load(each) for each in (whole, stopped))
    states = [each.model.state_dict() | each.state()["parts"] for each in (one, two)]
    assert all(torch.equal(states[0][key], each) for key, each in states[1].items())
    assert one.record["step"] == 5 and one.record["config"]["mixing"] == {"mix": [other, "0.3"]}
    assert checkpoint.trained_by(one.record) == [name, other]
    # The second objective goes on with what learnt beside the model.
    second = objective_of(other, one.tokenizer, one.model)
    assert not parts.of_checkpoint(one, second)[1]
    capsys.readouterr()
    assert main(["evaluate", str(whole), "--passages", "3", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["held out"]) == [name, other]
    # The settings can be taken over.
    assert main([*words_of(tmp_path, name), "--config", str(whole), "--dry-run"]) == 0
    assert f"{other} reads 0.3 of the passages" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, why",
    [
        (["prefix-lm"], "takes one objective and its share"),
        (["prefix-lm", "1"], "above 0 and below 1"),
        (["prefix-lm", "half"], "takes one objective and its share"),
        (["prefix-lm", "nan"], "above 0 and below 1"),
        (["prefix-lm", "0.5", "more"], "takes one objective and its share"),
        (["causal-lm", "0.5"], "is the objective of the run"),
        (["masked-lm", "0.5"], "for a model of the role encoder"),
        (["nobody", "0.5"], "no objective is called 'nobody'"),
        (["multi-token-prediction", "0.5"], "weigh the head 'tokens' differently, 1 and 0.25"),
        (["prefix-lm", "0.5", "--select", "0.5", "--reference", "REFERENCE"], "exclude each other"),
    ],
)
def test_what_cannot_be_mixed_is_refused(words, why, tmp_path, capsys):
    out = tmp_path / "out"
    base = tmp_path / "base"
    if "REFERENCE" in words:
        assert main([*words_of(tmp_path, "causal-lm", "--steps", "1"), "--out", str(base)]) == 0
        words = [str(base) if each == "REFERENCE" else each for each in words]
        capsys.readouterr()
    assert main([*words_of(tmp_path, "causal-lm", "--mix", *words), "--out", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("minicpt: error: ") and why in error
    assert not out.exists()

