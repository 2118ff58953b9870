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
from making import close

import minicpt.models
import minicpt.objectives
from minicpt.batch import IGNORE, target_stream, valid_positions
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.common.settings import check
from minicpt.data.order import Draw
from minicpt.generation import Sampling
from minicpt.loss import per_token_losses
from minicpt.objectives.base import Objective
from minicpt.proofs.bounds import additions, gap, nats, tolerance
from minicpt.runs.assembly import model_kind, new_model
from minicpt.training.evaluation import evaluate, in_bits

WINDOW = 24  # short, so that documents are cut and pairs are trimmed
OBJECTIVES = minicpt.objectives.known()


def variants():
    """Every objective with its defaults, with each of its switches and choices changed, and with
    every other role of models that it can train."""
    for name, kind in OBJECTIVES.items():
        hints = typing.get_type_hints(kind.Settings)
        fields = {field.name: field for field in dataclasses.fields(kind.Settings)}
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
            yield pytest.param((kind, window | change, None), id=name + label)
        for role in kind.roles[1:]:
            yield pytest.param((kind, window, role), id=f"{name}, {role}")


@pytest.fixture(params=list(variants()))
def objective(request, tokenizer):
    kind, changes, role = request.param
    tokenizer = tokenizer.with_tokens(kind.reserved)
    return kind(tokenizer, kind.Settings(**changes), role)


def flat(value):
    """A passage of any kind as nested lists that can be compared."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return [(field.name, flat(getattr(value, field.name))) for field in fields]
    if isinstance(value, tuple):
        return [flat(each) for each in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def draws(count, place=0):
    """Those of ``count`` passages, from number ``place`` on."""
    return [Draw(each, generator("test", each)) for each in range(place, place + count)]


def batch_of(objective, corpus):
    """A whole epoch as one batch."""
    passages = objective.plan(corpus, 0, 0)[:]
    return objective.batch(passages, draws(len(passages)))


def model_for(objective):
    """A small model of the objective's role, and the objective's parts beside it."""
    fitting = [kind for kind in minicpt.models.known().values() if kind.ROLE == objective.role]
    kind = model_kind("", type(objective))
    kind = kind if kind in fitting else fitting[0]
    names = {field.name for field in dataclasses.fields(kind.Config)}
    sizes = {"width": 16, "layers": 1, "num_heads": 2}
    sizes = {key: value for key, value in sizes.items() if key in names}
    model = new_model(kind, objective, sizes, seed=0)
    return model, objective.parts(model)


def masks(batch):
    """Input stream -> its real positions."""
    streams = {"tokens": "mask", "decoder_tokens": "decoder_mask"}
    return {
        name: valid_positions(batch.inputs[mask])
        for name, mask in streams.items()
        if name in batch.inputs
    }


PARTS = ("inputs", "targets", "weights", "noise")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OBJECTIVES.values(), ids=OBJECTIVES)
class TestSettings:
    def test_frozen_with_help_and_defaults(self, kind):
        settings = kind.Settings()
        for field in dataclasses.fields(settings):
            assert field.metadata["help"].strip(), field.name
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(settings, field.name, field.default)

    def test_bounds_hold(self, kind):
        hints = typing.get_type_hints(kind.Settings)
        for field in dataclasses.fields(kind.Settings):
            hint, bounds = hints[field.name], field.metadata
            if hint not in (int, float):
                continue
            step = 1 if hint is int else 1e-6
            assert bounds["least"] is not None or bounds["above"] is not None, field.name
            edges = {"least": (0, -step), "above": (step, 0), "most": (0, step)}
            edges["below"] = (-step, 0)
            for name, (inside, outside) in edges.items():
                if bounds[name] is None:
                    continue
                check(field, hint, hint(bounds[name] + inside))
                with pytest.raises(InputError, match="--" + field.name.replace("_", "-")):
                    kind.Settings(**{field.name: hint(bounds[name] + outside)})

    def test_wrong_types_are_refused(self, kind):
        wrong = {int: 3.5, float: math.nan, bool: 1, str: 1}
        for name, hint in typing.get_type_hints(kind.Settings).items():
            value = wrong.get(hint, "no such choice")
            with pytest.raises(InputError):
                kind.Settings(**{name: value})


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


def test_batch_is_a_pure_function_of_passages_and_draws(objective, corpus):
    before = torch.get_rng_state()
    one, other = batch_of(objective, corpus), batch_of(objective, corpus)
    for part in PARTS:
        assert equal(getattr(one, part), getattr(other, part))
    assert torch.equal(torch.get_rng_state(), before), "torch's own generator was used"


def test_a_row_does_not_depend_on_its_neighbours(objective, corpus):
    passages = objective.plan(corpus, 0, 0)[:]
    count = len(passages)
    order = torch.randperm(count, generator=generator("order")).tolist()
    company = objective.batch([passages[i] for i in order], [draws(count)[i] for i in order])
    for row, place in enumerate(order):
        alone = objective.batch([passages[place]], draws(1, place))
        for part in PARTS:
            for name, value in getattr(alone, part).items():
                long = getattr(company, part)[name][row]
                width = value.shape[1]
                pattern = name.endswith("mask") and value.dim() == 3  # it has two sides
                cut = (slice(width),) * (2 if pattern else 1)
                assert torch.equal(long[cut], value[0]), name
                if name.endswith("mask"):
                    assert valid_positions(value).all(), "a passage alone has no padding"
                    assert not long[width:].any() and not long[..., width:].any()
                if part == "targets":
                    assert (long[width:] == IGNORE).all()


def test_batch_changes_nothing_that_it_is_given(objective, corpus):
    passages = objective.plan(corpus, 0, 0)[:7]
    before = flat(copy.deepcopy(corpus)), [flat(copy.deepcopy(each)) for each in passages]
    batch = objective.batch(passages, draws(len(passages)))
    assert (flat(corpus), [flat(each) for each in passages]) == before
    for value in (value for part in PARTS for value in getattr(batch, part).values()):
        value.fill_(1)  # whoever writes into a batch must not write into the text
    assert (flat(corpus), [flat(each) for each in passages]) == before


def test_inputs_are_what_the_model_reads(objective, corpus):
    batch, (model, _) = batch_of(objective, corpus), model_for(objective)
    parameters = inspect.signature(model.forward).parameters
    needed = {name for name, each in parameters.items() if each.default is inspect.Parameter.empty}
    assert needed <= batch.inputs.keys() <= set(model.INPUTS) == parameters.keys()
    if type(objective).losses is Objective.losses:  # else its parts may have heads of their own
        assert batch.targets.keys() <= set(objective.heads)
    hidden = model(**batch.inputs)
    for name, target in batch.targets.items():
        assert target.dtype == torch.int64
        assert target.shape == hidden.shape[:2] == batch.inputs[target_stream(batch)].shape
        chosen = target[target != IGNORE]
        assert len(chosen) and chosen.min() >= 0
        if name in model.heads:
            assert chosen.max() < model.heads[name](hidden[:1, 0]).shape[1]


def test_weights_and_noise_are_those_of_the_batch(objective, corpus):
    batch = batch_of(objective, corpus)
    assert batch.weights.keys() <= batch.targets.keys()
    for name, weights in batch.weights.items():
        assert weights.is_floating_point() and weights.shape == batch.targets[name].shape
        assert weights.isfinite().all() and (weights >= 0).all()
    for noise in batch.noise.values():
        assert len(noise) == len(batch.inputs["tokens"])
        assert noise.is_floating_point() and (noise >= 0).all() and (noise < 1).all()


def test_every_target_has_one_loss_and_the_losses_of_one_alone_are_the_same(objective, corpus):
    passages = objective.plan(corpus, 0, 0)[:2]
    batch = objective.batch(passages, draws(2))
    model, parts = (each.double().eval() for each in model_for(objective))
    found = objective.losses(model, parts, batch)
    alone = per_token_losses(
        lambda some: objective.losses(model, parts, some), batch, objective.visibility(batch)
    )
    assert found.keys() == batch.targets.keys()
    for name, each in found.items():
        asked = batch.targets[name] != IGNORE
        assert each.count == int(asked.sum())
        if name in batch.weights:
            asked = asked & (batch.weights[name] > 0)
        rows, positions = asked.nonzero(as_tuple=True)
        assert torch.equal(each.rows, rows) and torch.equal(each.positions, positions)
        apart = gap(each.losses, alone[name], nats(alone[name]))
        assert apart <= tolerance(additions(model, batch) + additions(parts, batch))


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
    batch = objective.batch(plan[:], draws(len(plan)))
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


def test_a_decoder_that_looks_ahead_says_so(objective, corpus):
    """Exported, it is read causally by other tools: only a declaration can tell the user."""
    if objective.role != "decoder":
        pytest.skip("an encoder sees both sides anyway, and the rest is told by transformers")
    seen = objective.visibility(batch_of(objective, corpus))
    ahead = any(bool(each["tokens"].triu(1).any()) for each in seen.values())
    assert ahead == objective.looks_ahead


def test_evaluation_reads_epoch_zero_and_repeats_itself(objective, corpus, monkeypatch):
    corpus.plans.clear()  # nothing is remembered of other tests
    asked, plan = [], objective.plan
    monkeypatch.setattr(objective, "plan", lambda *key: asked.append(key[1:]) or plan(*key))
    model, parts = model_for(objective)
    model.train()
    before = torch.get_rng_state()
    one, other = (evaluate(model, objective, corpus, 9, size, parts=parts) for size in (4, 3))
    assert asked == [(0, 0)]  # once: the plan is remembered
    assert model.training and torch.equal(torch.get_rng_state(), before)
    batch = objective.batch([objective.plan(corpus, 0, 0)[0]], draws(1))
    for name, loss in one.losses.items():
        assert other.losses[name].count == loss.count > 0
        same = tolerance(additions(model, batch, 9), torch.float32)
        assert float(other.losses[name].mean) == pytest.approx(float(loss.mean), rel=same)
    assert (one.bits_per_byte is not None) == in_bits(objective)


def test_places_are_those_of_the_targets(objective, corpus):
    """Position by position: the token of the corpus that a target stands for, -1 for none."""
    if not (objective.whole_text or objective.likelihood):
        return
    seen = []
    for passage in objective.plan(corpus, 1, 1):
        places = objective.places(passage)
        targets = objective.batch([passage], draws(1)).targets[objective.heads[0]][0]  # (T,)
        text, asked = places >= 0, targets != IGNORE
        seen += places[text].tolist()
        places, text = places[-len(targets) :], text[-len(targets) :]
        assert places.shape == targets.shape
        stands = text & asked
        assert torch.equal(corpus.tokens[places[stands]].long(), targets[stands])
        assert (targets[asked & ~text] == objective.tokenizer.need("end")).all()
        assert not objective.whole_text or (asked | ~text).all()
    assert len(seen) == len(set(seen))
    if objective.whole_text:  # others may skip what is too short
        assert sorted(seen) == list(range(len(corpus.tokens)))


def test_a_likelihood_that_is_estimated_weighs_every_target(objective, corpus):
    """Some targets stand for all: over one draw of a passage the weights add up to its targets."""
    if objective.likelihood not in ("bound", "pseudo"):
        return
    passages = objective.plan(corpus, 0, 0)[:]
    batch = objective.likelihood_batch(passages, draws(len(passages)))
    asked, weights = batch.targets["tokens"] != IGNORE, batch.weights["tokens"]
    close(weights.sum(dim=1), asked.sum(dim=1).float(), weights.shape[1])
    text = batch.inputs["tokens"].new_tensor([len(each.tokens) for each in passages])
    assert torch.equal(asked.sum(dim=1), text)


def test_generate_and_probe_give_text(objective, corpus):
    (model, parts), sampling = model_for(objective), Sampling(length=3)
    objective = objective.with_parts(parts)
    text = "The cat sat. It was warm."
    assert objective.generate(model, text, sampling, generator("a")) == objective.generate(
        model, text, sampling, generator("a")
    )
    for passage in objective.plan(corpus, 0, 0)[:3]:
        assert isinstance(objective.probe(model, passage, sampling, *draws(1)), str)


# --- one new file is enough ------------------------------------------------------------------

TOY_OBJECTIVE = '''"""A toy: each token is its own target."""

from dataclasses import dataclass

from minicpt.batch import IGNORE, Batch, pad, padding
from minicpt.common.settings import Checked, setting
from minicpt.objectives.base import Objective


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(16, "the most tokens", least=2)
    echo: bool = setting(True, "what only a toy has")


class Toy(Objective):
    roles = ("decoder",)
    Settings = Settings

    def batch(self, passages, draws):
        rows = [passage.tokens for passage in passages]
        inputs = {"tokens": pad(rows, 0), "mask": padding(rows)}
        return Batch(inputs, {"tokens": pad(rows, IGNORE)})

    def generate(self, model, text, sampling, generator):
        return "toy says " + text
'''

TOY_MODEL = '''"""A toy: embedded tokens."""

from dataclasses import dataclass

from torch import nn

from minicpt.models.layers import Model, Sizes, TiedHead


class ToyModel(Model):
    ROLE = "decoder"
    INPUTS = ("tokens", "mask")
    Config = Sizes

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.heads = nn.ModuleDict({"tokens": TiedHead(self.tokens)})

    def forward(self, tokens, mask=None):
        return self.tokens(tokens)
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


@pytest.mark.parametrize("model", ["gpt2", "toy-model"])
def test_a_new_file_is_found_trained_and_used(model, add_file, tmp_path, capsys):
    add_file(minicpt.objectives, "toy", TOY_OBJECTIVE)
    if model == "toy-model":
        add_file(minicpt.models, "toy_model", TOY_MODEL)
        assert "toy-model" in minicpt.models.known()
    assert "toy" in minicpt.objectives.known()
    text, out = tmp_path / "text.txt", tmp_path / "run"
    lines = (f"One two {number}. Four five {number + 7}.\n" for number in range(40))
    text.write_text("".join(lines))
    words = ["train", "toy", "--model", model, "--steps", "2", "--corpus", str(text)]
    small = ["--width", "8", "--layers", "1", "--num-heads", "1", "--vocab-size", "256"]
    assert main([*words, "--out", str(out), "--no-echo", *small]) == 0
    assert main(["generate", str(out), "hello"]) == 0
    assert "toy says hello" in capsys.readouterr().out


def test_the_toys_are_gone_again():
    assert "toy" not in minicpt.objectives.known()
    assert "toy-model" not in minicpt.models.known()
