"""What every objective keeps to, whichever it is: the tests run over all that are found."""

import copy
import dataclasses
import importlib
import inspect
import math
import sys
import typing

import pytest
import torch

import minicpt.models
import minicpt.objectives
from minicpt.batch import IGNORE, valid_positions
from minicpt.cli.main import main
from minicpt.common import registry
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.common.settings import check
from minicpt.generation import Sampling
from minicpt.loss import target_stream
from minicpt.proofs.bounds import additions, tolerance
from minicpt.training.evaluation import evaluate

WINDOW = 24  # short, so that documents are cut and pairs are trimmed
OBJECTIVES = {
    name: module
    for name, module in registry.modules(minicpt.objectives).items()
    if hasattr(module, "Objective")
}


def variants():
    """Every objective with its defaults, and with each of its switches and choices changed."""
    for name, module in OBJECTIVES.items():
        hints = typing.get_type_hints(module.Settings)
        fields = {field.name: field for field in dataclasses.fields(module.Settings)}
        changes = [{}]
        for field in fields.values():
            if hints[field.name] is bool:
                changes.append({field.name: not field.default})
            if typing.get_origin(hints[field.name]) is typing.Literal:
                choices = typing.get_args(hints[field.name])
                changes += [{field.name: each} for each in choices if each != field.default]
        window = {"window": WINDOW} if "window" in fields else {}
        for change in changes:
            label = "".join(f", {key}={value}" for key, value in change.items())
            yield pytest.param((module, window | change), id=name + label)


@pytest.fixture(params=list(variants()))
def objective(request, tokenizer):
    module, changes = request.param
    return module.Objective(tokenizer, module.Settings(**changes))


def flat(value):
    """A passage of any kind as nested lists that can be compared."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return [(field.name, flat(getattr(value, field.name))) for field in fields]
    if isinstance(value, tuple):
        return [flat(each) for each in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def noise(count):
    return [generator("test", place) for place in range(count)]


def batch_of(objective, corpus):
    """A whole epoch as one batch."""
    passages = objective.plan(corpus, 0, 0)[:]
    return objective.batch(passages, noise(len(passages)))


def model_for(objective):
    module = registry.modules(minicpt.models)[objective.role]
    names = {field.name for field in dataclasses.fields(module.Config)}
    torch.manual_seed(0)
    sizes = {"vocabulary": objective.tokenizer.size, "width": 16, "layers": 1, "num_heads": 2}
    sizes["positions"] = objective.length
    return module.Model(module.Config(**{key: sizes[key] for key in sizes.keys() & names}))


def masks(batch):
    """Input stream -> its real positions."""
    streams = {"tokens": "mask", "decoder_tokens": "decoder_mask"}
    return {
        name: valid_positions(batch.inputs[mask]) for name, mask in streams.items() if name in batch.inputs
    }


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("module", OBJECTIVES.values(), ids=OBJECTIVES)
class TestSettings:
    def test_frozen_with_help_and_defaults(self, module):
        settings = module.Settings()
        for field in dataclasses.fields(settings):
            assert field.metadata["help"].strip(), field.name
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(settings, field.name, field.default)

    def test_bounds_hold(self, module):
        hints = typing.get_type_hints(module.Settings)
        for field in dataclasses.fields(module.Settings):
            kind, bounds = hints[field.name], field.metadata
            if kind not in (int, float):
                continue
            step = 1 if kind is int else 1e-6
            assert bounds["least"] is not None or bounds["above"] is not None, field.name
            edges = {"least": (0, -step), "above": (step, 0), "most": (0, step)}
            edges["below"] = (-step, 0)
            for name, (inside, outside) in edges.items():
                if bounds[name] is None:
                    continue
                check(field, kind, kind(bounds[name] + inside))
                with pytest.raises(InputError, match="--" + field.name.replace("_", "-")):
                    module.Settings(**{field.name: kind(bounds[name] + outside)})

    def test_wrong_types_are_refused(self, module):
        wrong = {int: 3.5, float: math.nan, bool: 1, str: 1}
        for name, hint in typing.get_type_hints(module.Settings).items():
            value = wrong.get(hint, "no such choice")
            with pytest.raises(InputError):
                module.Settings(**{name: value})


# --- the plan --------------------------------------------------------------------------------


def test_plan_is_a_pure_function_of_seed_and_epoch(objective, corpus):
    before = torch.get_rng_state()
    plans = {}
    for seed, epoch in [(0, 0), (0, 1), (0, 2), (1, 0)]:
        plans[seed, epoch] = [flat(each) for each in objective.plan(corpus, seed, epoch)]
        torch.rand(3)  # whatever others draw
        again = objective.plan(corpus, seed, epoch)
        assert plans[seed, epoch] == [flat(each) for each in again[:]]
    keys = list(plans)
    for place, key in enumerate(keys):
        for other in keys[:place]:
            assert plans[key] != plans[other], f"{key} and {other} have one order"
    torch.set_rng_state(before)
    objective.plan(corpus, 0, 3)
    assert torch.equal(torch.get_rng_state(), before), "torch's own generator was used"


def test_plan_leaves_the_corpus_alone(objective, corpus):
    before = flat(copy.deepcopy(corpus))
    for passage in objective.plan(corpus, 0, 1):
        assert isinstance(passage.place, str) and "text-" in passage.place
    assert flat(corpus) == before


# --- the batch -------------------------------------------------------------------------------


def test_batch_is_a_pure_function_of_passages_and_generators(objective, corpus):
    before = torch.get_rng_state()
    one, other = batch_of(objective, corpus), batch_of(objective, corpus)
    assert equal(one.inputs, other.inputs) and equal(one.targets, other.targets)
    assert torch.equal(torch.get_rng_state(), before), "torch's own generator was used"


def test_a_row_does_not_depend_on_its_neighbours(objective, corpus):
    passages = objective.plan(corpus, 0, 0)[:]
    count = len(passages)
    order = torch.randperm(count, generator=generator("order")).tolist()
    company = objective.batch([passages[i] for i in order], [noise(count)[i] for i in order])
    for row, place in enumerate(order):
        alone = objective.batch([passages[place]], [noise(count)[place]])
        for part in ("inputs", "targets"):
            for name, value in getattr(alone, part).items():
                long = getattr(company, part)[name][row]
                width = value.shape[1]
                cut = (slice(width),) * (value.dim() - 1)  # a pattern has two sides
                assert torch.equal(long[cut], value[0]), name
                if name.endswith("mask"):
                    assert valid_positions(value).all(), "a passage alone has no padding"
                    assert not long[width:].any() and not long[..., width:].any()
                if part == "targets":
                    assert (long[width:] == IGNORE).all()


def test_batch_changes_nothing_that_it_is_given(objective, corpus):
    passages = objective.plan(corpus, 0, 0)[:7]
    before = flat(copy.deepcopy(corpus)), [flat(copy.deepcopy(each)) for each in passages]
    batch = objective.batch(passages, noise(len(passages)))
    assert (flat(corpus), [flat(each) for each in passages]) == before
    for value in [*batch.inputs.values(), *batch.targets.values()]:
        value.fill_(1)  # whoever writes into a batch must not write into the text
    assert (flat(corpus), [flat(each) for each in passages]) == before


def test_inputs_are_what_the_architecture_reads(objective, corpus):
    batch, model = batch_of(objective, corpus), model_for(objective)
    parameters = inspect.signature(model.forward).parameters
    needed = {name for name, each in parameters.items() if each.default is inspect.Parameter.empty}
    assert needed <= batch.inputs.keys() <= parameters.keys()
    hidden = model(**batch.inputs)
    for name, target in batch.targets.items():
        assert target.dtype == torch.int64
        assert target.shape == hidden.shape[:2] == batch.inputs[target_stream(batch)].shape
        chosen = target[target != IGNORE]
        assert len(chosen) and chosen.min() >= 0
        assert chosen.max() < model.heads[name](hidden[:1, 0]).shape[1]


def test_masks_show_the_real_positions_and_pads_have_no_target(objective, corpus):
    batch = batch_of(objective, corpus)
    for stream, mask in masks(batch).items():
        tokens = batch.inputs[stream]
        assert tokens.dtype == torch.int64 and mask.dtype == torch.bool
        assert mask.shape == tokens.shape and mask[:, 0].all()
        assert mask.any(dim=0).all(), "a column of padding alone"
        assert (mask[:, 1:] <= mask[:, :-1]).all(), "padding stands on the right"
    if masks(batch)[target_stream(batch)].all():
        pytest.skip("rows of one length: without padding this shows nothing")
    for target in batch.targets.values():
        assert (target[~masks(batch)[target_stream(batch)]] == IGNORE).all()


def test_length_holds(objective, corpus):
    plan = objective.plan(corpus, 0, 1)
    batch = objective.batch(plan[:], noise(len(plan)))
    assert batch.inputs[target_stream(batch)].shape[1] <= objective.length
    if objective.role in ("encoder", "decoder"):  # tables of learned positions
        assert batch.inputs["tokens"].shape[1] <= objective.length


def test_visibility_is_declared_for_every_target(objective, corpus):
    batch = batch_of(objective, corpus)
    before = copy.deepcopy(batch)
    visibility = objective.visibility(batch)
    assert equal(batch.inputs, before.inputs) and equal(batch.targets, before.targets)
    assert visibility.keys() == batch.targets.keys()
    for head, target in batch.targets.items():
        assert visibility[head].keys() == masks(batch).keys()
        for stream, seen in visibility[head].items():
            readable = masks(batch)[stream]  # (B, length of the stream)
            assert seen.dtype == torch.bool
            assert seen.shape == (*target.shape, readable.shape[1])
            assert not (seen & ~readable[:, None]).any(), "a pad may be seen"
        rows, places = (target != IGNORE).nonzero(as_tuple=True)
        own = visibility[head][target_stream(batch)][rows, places, places]
        assert own.all(), "a target's own position must be among those it sees"


def test_evaluation_reads_epoch_zero_and_repeats_itself(objective, corpus, monkeypatch):
    corpus.plans.clear()  # nothing is remembered of other tests
    asked, plan = [], objective.plan
    monkeypatch.setattr(objective, "plan", lambda *key: asked.append(key[1:]) or plan(*key))
    model = model_for(objective).train()
    before = torch.get_rng_state()
    one, other = evaluate(model, objective, corpus, 9, 4), evaluate(model, objective, corpus, 9, 3)
    assert asked == [(0, 0)]  # once: the plan is remembered
    assert model.training and torch.equal(torch.get_rng_state(), before)
    batch = objective.batch([objective.plan(corpus, 0, 0)[0]], [generator("evaluation", 0, 0)])
    for name, loss in one.losses.items():
        assert other.losses[name].count == loss.count > 0
        same = tolerance(additions(model, batch, 9), torch.float32)
        assert float(other.losses[name].mean) == pytest.approx(float(loss.mean), rel=same)
    assert (one.bits_per_byte is not None) == objective.whole_text


def test_places_are_those_of_the_targets(objective, corpus):
    """In order: the tokens of the corpus that the targets stand for, -1 for end-of-text."""
    if not objective.whole_text:
        return
    seen = []
    for passage in objective.plan(corpus, 1, 1):
        places = objective.places(passage)
        (targets,) = objective.batch([passage], noise(1)).targets.values()
        text = places >= 0
        assert torch.equal(corpus.tokens[places[text]].long(), targets[0][text])
        assert (targets[0][~text] == objective.tokenizer.need("end")).all()
        seen += places[text].tolist()
    assert sorted(seen) == list(range(len(corpus.tokens)))


def test_generate_and_probe_give_text(objective, corpus):
    model, sampling = model_for(objective), Sampling(length=3)
    text = "The cat sat. It was warm."
    assert objective.generate(model, text, sampling, generator("a")) == objective.generate(
        model, text, sampling, generator("a")
    )
    for passage in objective.plan(corpus, 0, 0)[:3]:
        assert isinstance(objective.probe(model, passage, sampling, generator("b")), str)


# --- one new file is enough ------------------------------------------------------------------

TOY_OBJECTIVE = '''"""A toy: each token is its own target."""

from dataclasses import dataclass

import torch

from minicpt.batch import IGNORE, Batch, pad, padding, sees_the_past
from minicpt.data.plan import Plan, windows
from minicpt.settings import Checked, setting


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(16, "the most tokens", least=2)
    echo: bool = setting(True, "what only a toy has")


class Objective:
    architecture = "ARCHITECTURE"
    whole_text = True

    def __init__(self, tokenizer, settings=None):
        self.tokenizer, self.settings = tokenizer, settings or Settings()
        self.length = self.settings.window

    def plan(self, corpus, seed, epoch):
        return Plan(windows(corpus, self.length, seed, epoch), corpus.passage).grouped(seed, epoch)

    def batch(self, passages, generators):
        rows = [passage.tokens for passage in passages]
        inputs = {"tokens": pad(rows, 0), "mask": padding(rows)}
        return Batch(inputs, {"tokens": pad(rows, IGNORE)})

    def places(self, passage):
        return torch.arange(passage.start, passage.start + len(passage.tokens))

    def visibility(self, batch):
        return {"tokens": {"tokens": sees_the_past(batch.inputs["mask"])}}

    def generate(self, model, text, sampling, generator):
        return "toy says " + text

    def probe(self, model, passage, sampling, generator):
        return "toy"
'''

TOY_MODEL = '''"""A toy: embedded tokens."""

from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Config:
    vocabulary: int
    width: int = field(default=8, metadata={"help": "width"})
    fused: bool = field(default=True, metadata={"help": "for nothing"})


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.heads = nn.ModuleDict({"tokens": nn.Linear(config.width, config.vocabulary)})

    def forward(self, tokens, mask=None):
        return self.tokens(tokens)


MODEL_TYPE = "toy"
NAMES = {
    "prefix": "toy.",
    "weights": {
        "tokens.weight": "toy.tokens",
        "heads.tokens.weight": "toy.head",
        "heads.tokens.bias": "toy.bias",
    },
    "transposed": (),
    "optional": {},
    "copies": {},
    "ignored": (),
    "renamed": {},
}


def to_foreign(config):
    return {"model_type": MODEL_TYPE, "size": config.vocabulary, "width": config.width}


def from_foreign(foreign):
    return Config(foreign["size"], foreign["width"])
'''


@pytest.fixture
def add_file(tmp_path):
    """Puts one file into a package, for the length of a test."""
    added = []

    def add(package, name, text):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        package.__path__.append(str(folder))
        importlib.invalidate_caches()
        added.append((package, name, str(folder)))

    yield add
    for package, name, folder in added:
        package.__path__.remove(folder)
        sys.modules.pop(f"{package.__name__}.{name}", None)
        if hasattr(package, name):
            delattr(package, name)
    importlib.invalidate_caches()


@pytest.mark.parametrize("architecture", ["decoder", "toy-model"])
def test_a_new_file_is_found_trained_and_used(architecture, add_file, tmp_path, capsys):
    small = ["--width", "8"] + (["--layers", "1", "--num-heads", "1"] * (architecture == "decoder"))
    add_file(minicpt.objectives, "toy", TOY_OBJECTIVE.replace("ARCHITECTURE", architecture))
    if architecture == "toy-model":
        add_file(minicpt.models, "toy_model", TOY_MODEL)
        assert "toy-model" in registry.modules(minicpt.models)
    assert "toy" in registry.modules(minicpt.objectives)
    text, out = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("One two three. Four five six.\n" * 20)
    words = ["train", "toy", "--steps", "2", "--corpus", str(text), "--out", str(out)]
    assert main([*words, "--vocab-size", "256", "--no-echo", *small]) == 0
    assert main(["generate", str(out), "hello"]) == 0
    assert "toy says hello" in capsys.readouterr().out


def test_the_toys_are_gone_again():
    assert "toy" not in registry.modules(minicpt.objectives)
    assert "toy-model" not in registry.modules(minicpt.models)
