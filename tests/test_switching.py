"""A base goes on with another objective: the tokens that it lacks, what is new, what is exported.
"""

import importlib
import json
import sys

import pytest
import torch
import transformers
from making import close

import minicpt.models
import minicpt.objectives
from minicpt import checkpoint
from minicpt.checkpoint.growing import like, rows_by_token, with_rows
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.data.tokenizer import TRAINED, LackingTokens, Tokenizer
from minicpt.runs.fitting import fitted

LINES = "On day {} the {} saw {} boats. It counted them. Then it rained.\n\n"
TEXT = "".join(LINES.format(day, "cat dog owl fox".split()[day % 4], day + 3) for day in range(40))
SMALL = "--blocks --width 16 --layers 1 --num-heads 2 --window 24".split()
SHORT = "--batch-size 4 --evaluate-passages 4 --steps 4".split()
BASES = {"decoder": "causal-lm", "encoder": "masked-lm", "encoder-decoder": "reconstruction"}
MODELS = {"decoder": "gpt2", "encoder": "bert", "encoder-decoder": "t5"}
ORACLES = {
    "decoder": transformers.GPT2LMHeadModel,
    "encoder": transformers.BertForPreTraining,
    "encoder-decoder": transformers.T5ForConditionalGeneration,
}

# An objective for every role that needs two tokens, and as a decoder sees both sides.
TOY = '''"""Toy marks: each text between two marks, from both sides."""

from dataclasses import dataclass

import torch

from minicpt.batch import IGNORE, Batch, pad, padding, sees_everything, valid_positions
from minicpt.common.settings import Checked, setting
from minicpt.data.order import Plan, windows
from minicpt.data.patterns import two_way_mask
from minicpt.objectives.base import Objective


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(24, "the most tokens", least=4)


class ToyMarks(Objective):
    roles = ("encoder", "decoder", "encoder-decoder")
    reserved = ("<toy_b>", "<toy_a>")
    looks_ahead = True
    Settings = Settings

    def __init__(self, tokenizer, settings=None, role=None):
        super().__init__(tokenizer, settings, role)
        self.marks = tokenizer.need_special([("<toy_a>", "<other_a>"), "<toy_b>"], "toy-marks")

    def plan(self, corpus, seed, epoch):
        cuts = windows(corpus, self.length - 2, seed, epoch)
        return Plan(cuts, corpus.passage).grouped(seed, epoch)

    def batch(self, passages, draws):
        one, two = torch.tensor(self.marks)[:, None]
        rows = [torch.cat([one, each.tokens, two]) for each in passages]
        tokens, mask = pad(rows, 0), padding(rows)
        inputs = {"tokens": tokens, "mask": mask}
        if self.role == "decoder":
            inputs["mask"] = two_way_mask(mask)
        if self.role == "encoder-decoder":
            inputs |= {"decoder_tokens": tokens, "decoder_mask": mask}
        return Batch(inputs, {"tokens": pad(rows, IGNORE)})

    def visibility(self, batch):
        if self.role != "decoder":
            return super().visibility(batch)
        mask = valid_positions(batch.inputs["mask"])
        return {"tokens": {"tokens": sees_everything(mask, mask.shape[1])}}

    def generate(self, model, text, sampling, generator):
        return text

    def probe(self, model, passage, sampling, draw):
        return self.tokenizer.decode(passage.tokens.tolist())
'''


@pytest.fixture(scope="module", autouse=True)
def toy(tmp_path_factory):
    """An objective that no file of the package holds."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy_marks.py").write_text(TOY)
    minicpt.objectives.__path__.append(str(folder))
    importlib.invalidate_caches()
    yield
    minicpt.objectives.__path__.remove(str(folder))
    sys.modules.pop("minicpt.objectives.toy_marks", None)
    vars(minicpt.objectives).pop("toy_marks", None)
    importlib.invalidate_caches()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bases of every role, whose tokenizer has no token that an objective reserves."""
    folder = tmp_path_factory.mktemp("bases")
    (folder / "text.txt").write_text(TEXT)
    Tokenizer.train([TEXT], 300).save(folder / "tokenizer")
    for role, name in BASES.items():
        words = ["train", name, "--tokenizer", str(folder / "tokenizer"), *SMALL, *SHORT]
        out = str(folder / role)
        assert main([*words, "--corpus", str(folder / "text.txt"), "--out", out]) == 0
    return folder


def continuing(folder, role, name, out, *flags):
    words = ["train", name, "--init", str(folder / role), "--corpus", str(folder / "text.txt")]
    return [*words, "--blocks", *SHORT, "--out", str(out), *flags]


def model_for(role):
    kind = minicpt.models.known()[MODELS[role]]
    torch.manual_seed(0)
    return kind(kind.Config(vocabulary=50, width=8, layers=1, num_heads=2)).eval()


def inputs_for(role, most):
    tokens = torch.randint(most, (3, 7), generator=torch.Generator().manual_seed(1))
    return {"tokens": tokens} | ({"decoder_tokens": tokens} if role == "encoder-decoder" else {})


def errors(capsys):
    lines = capsys.readouterr().err.splitlines()
    return [each for each in lines if each.startswith("minicpt: error: ")]


# --- what is needed


def test_needed_tokens_are_found_by_any_of_their_names():
    tokenizer = Tokenizer.train([], 256, ["<b>", "<a>", "<fim_middle>"])
    b, a, middle = (tokenizer.size - 3, tokenizer.size - 2, tokenizer.size - 1)
    names = ["<a>", ("<|fim_middle|>", "<fim_middle>"), "<b>"]
    assert tokenizer.need_special(names, "a test") == [a, middle, b]


def test_lacking_tokens_are_refused_in_one_line_with_their_number():
    tokenizer = Tokenizer.train([], 256, ["<x_1>"])
    names = [(f"<x_{number}>", f"<y_{number}>") for number in range(6)]
    with pytest.raises(LackingTokens) as error:
        tokenizer.need_special(names, "a test")
    assert error.value.names == ["<x_0>", "<x_2>", "<x_3>", "<x_4>", "<x_5>"]
    assert isinstance(error.value, InputError) and str(error.value) == (
        "the tokenizer lacks 5 of the 6 special tokens that a test needs (<x_0>, <x_2>, <x_3>, …):"
        " add them with --add-tokens"
    )


def test_a_missing_mask_token_can_be_added(tmp_path):
    names = {role: token for role, token in TRAINED.items() if role != "mask_token"}
    Tokenizer.train([], 256).save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["added_tokens"] = [
        each for each in content["added_tokens"] if each["content"] != "[MASK]"
    ]
    content["model"]["vocab"].pop("[MASK]", None)
    tokenizer = Tokenizer(json.dumps(content), names)
    with pytest.raises(LackingTokens, match="no mask token.*--add-tokens") as error:
        tokenizer.need("mask")
    grown = tokenizer.with_tokens(error.value.names)
    assert grown.need("mask") == grown.special_id("[MASK]")
    assert {**grown.roles, "mask": None} == {**tokenizer.roles, "mask": None}
    # A token that has the role under another name keeps it.
    other = Tokenizer(json.dumps(content), names | {"mask_token": "[SEP]"})
    assert other.with_tokens(["[MASK]"]).need("mask") == other.need("sep")


# --- the rows


@pytest.mark.parametrize("role", BASES)
def test_known_tokens_keep_their_rows_and_their_logits(role):
    model = model_for(role)
    grown = with_rows(model, 50, 57, torch.Generator().manual_seed(0))
    assert grown.config.vocabulary == 57 and not grown.training
    inputs = inputs_for(role, 50)
    with torch.no_grad():
        before, after = (each.heads["tokens"](each(**inputs)) for each in (model, grown))
    assert after.shape[-1] == 57 and torch.equal(before, after[..., :50])
    # Tied weights stay one; everything else is as it was.
    own, new = dict(model.named_parameters()), dict(grown.named_parameters())
    assert own.keys() == new.keys()
    for name in own:
        assert torch.equal(own[name], new[name][: len(own[name])])
    expected = {
        "decoder": {"tokens.weight"},
        "encoder": {"tokens.weight", "heads.tokens.bias"},
        "encoder-decoder": {"tokens.weight", "heads.tokens.weight"},
    }
    assert {*rows_by_token(model)} == expected[role]
    assert {name for name in own if len(own[name]) != len(new[name])} == expected[role]
    assert torch.equal(model_for(role).tokens.weight, own["tokens.weight"]), "the base has changed"


def test_new_rows_have_mean_and_covariance_of_the_others():
    """Counted: 40,000 rows, against the numbers that they are drawn from."""
    draws = torch.Generator().manual_seed(3)
    mixing = torch.tensor([[1.0, 0, 0], [2.0, 0.5, 0], [-1.0, 0.25, 0]]).double()  # of rank 2 in 3
    known = torch.randn(12, 3, generator=draws).double() @ mixing.T + 5
    rows = like(known, torch.randn(40_000, 12, generator=draws))
    mean, covariance = known.mean(dim=0), torch.cov(known.T, correction=0)
    size = covariance.diagonal().sqrt()
    assert ((rows.mean(dim=0) - mean).abs() < 5 * size / 200).all()
    apart = (torch.cov(rows.T) - covariance).abs()
    assert (apart < 5 * 2**0.5 * size[:, None] * size / 200).all()
    # In a direction in which the known rows do not differ, the new ones do not either.
    _, vectors = torch.linalg.eigh(covariance)
    close((rows - mean) @ vectors[:, 0], torch.zeros(40_000).double(), 1000, size=float(size.sum()))


def test_spare_rows_are_taken_first_and_drawn_anew():
    """Published folders often have a few more rows than tokens."""
    model = model_for("encoder")
    grown = with_rows(model, 40, 45, torch.Generator().manual_seed(0))
    assert grown.config.vocabulary == 50
    for name in rows_by_token(model):
        old, new = model.get_parameter(name), grown.get_parameter(name)
        assert torch.equal(old[:40], new[:40]) and torch.equal(old[45:], new[45:])
        # BERT's bias starts at 0 throughout, and so does what is drawn from it.
        assert not (old[40:45] == new[40:45]).any() or not old.any()


# --- runs


@pytest.mark.parametrize("role", BASES)
def test_a_base_without_the_tokens(role, folder, tmp_path, capsys):
    """Refused, then grown; resumed to the same end; exported, and opened by transformers."""
    assert main(continuing(folder, role, "toy-marks", tmp_path / "run")) == 2
    (line,) = errors(capsys)
    assert "lacks 2 of the 2 special tokens that toy-marks needs (<toy_a>, <toy_b>)" in line
    assert "--add-tokens" in line and not (tmp_path / "run").exists()

    words = continuing(folder, role, "toy-marks", tmp_path / "run", "--add-tokens")
    assert main([*words, "--save-every", "2"]) == 0
    told = capsys.readouterr().err
    size = checkpoint.load(folder / role).tokenizer.size
    assert (
        f"--add-tokens for toy-marks: 2 (<toy_b>, <toy_a>), ids {size} to {size + 1}; embedding and"
        f" head have {size + 2} rows ({size} before), those of the new tokens drawn with mean and"
        " covariance of the others\n" in told
    )
    run = checkpoint.load(tmp_path / "run")
    assert run.tokenizer.need_special(["<toy_b>", "<toy_a>"], "a test") == [size, size + 1]
    assert run.model.config.vocabulary == run.tokenizer.size == size + 2
    learnt = run.model.tokens.weight[size:]
    assert learnt.isfinite().all() and not torch.equal(learnt[0], learnt[1])

    whole = (run.folder / "pytorch_model.bin").read_bytes()
    (run.folder / "manifest.json").unlink()
    for file in run.folder.iterdir():
        file.unlink()
    run.folder.rmdir()
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert (run.folder / "pytorch_model.bin").read_bytes() == whole

    capsys.readouterr()
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert ("transformers reads it causally" in told) == (role == "decoder")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.convert_tokens_to_ids(["<toy_b>", "<toy_a>"]) == [size, size + 1]
    assert theirs("<toy_a>", add_special_tokens=False).input_ids == [size + 1]
    opened = ORACLES[role].from_pretrained(tmp_path / "out").eval()
    inputs = inputs_for(role, size + 2)
    names = {"tokens": "input_ids", "decoder_tokens": "decoder_input_ids"}
    with torch.no_grad():
        ours = run.model.eval().heads["tokens"](run.model(**inputs))
        found = opened(**{names[name]: value for name, value in inputs.items()})
        found = found.prediction_logits if role == "encoder" else found.logits
    close(ours, found, run.model, inputs)


def test_the_rows_are_a_function_of_the_seed(folder, tmp_path):
    found = []
    for number, seed in enumerate("112"):
        words = continuing(folder, "decoder", "toy-marks", tmp_path / str(number), "--add-tokens")
        torch.rand(number + 1)  # whatever others draw
        assert main([*words, "--learning-rate", "1e-9", "--seed", seed]) == 0
        found.append(checkpoint.load(tmp_path / str(number)).model.tokens.weight[-2:])
    assert torch.equal(found[0], found[1]) and not torch.allclose(found[0], found[2])


def test_nothing_is_added_where_nothing_lacks(folder, tmp_path, capsys):
    words = continuing(folder, "decoder", "causal-lm", tmp_path / "run", "--add-tokens")
    assert main(words) == 0
    assert "adds none: the tokenizer has all that causal-lm needs" in capsys.readouterr().err
    base, run = (checkpoint.load(each) for each in (folder / "decoder", tmp_path / "run"))
    assert base.tokenizer.size == run.tokenizer.size


def test_rows_that_cannot_learn_are_named(folder, tmp_path, capsys):
    words = continuing(folder, "decoder", "toy-marks", tmp_path / "run", "--add-tokens")
    assert main([*words, "--lora", "2"]) == 0
    assert "rows of the added tokens stay as they were drawn" in capsys.readouterr().err


def test_without_a_base_there_is_nothing_to_add_to(folder, tmp_path, capsys):
    words = ["train", "toy-marks", "--corpus", str(folder / "text.txt"), *SMALL, *SHORT]
    assert main([*words, "--add-tokens", "--out", str(tmp_path / "run")]) == 2
    assert errors(capsys) == [
        "minicpt: error: --add-tokens cannot be used here: without --init a tokenizer is made that"
        " has the tokens"
    ]


def test_a_tokenizer_that_is_brought_gets_them_too(folder, tmp_path, capsys):
    words = ["train", "toy-marks", "--corpus", str(folder / "text.txt"), *SMALL, *SHORT]
    words += ["--tokenizer", str(folder / "tokenizer"), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "add them with --add-tokens" in errors(capsys)[0]
    assert main([*words, "--add-tokens"]) == 0
    run = checkpoint.load(tmp_path / "run")
    size = Tokenizer.load(folder / "tokenizer").size
    assert run.tokenizer.need_special(["<toy_b>", "<toy_a>"], "a test") == [size, size + 1]
    assert run.model.config.vocabulary == size + 2


# --- from each objective to each other one of the same role


@pytest.fixture(scope="module")
def usual(folder):
    """Bases of every role as ``train`` makes them, with settings of their own."""
    settings = {"decoder": ["--pack"], "encoder": ["--rate", "0.3"], "encoder-decoder": []}
    for role, name in BASES.items():
        words = ["train", name, "--vocab-size", "300", *SMALL, *SHORT, *settings[role]]
        words += ["--corpus", str(folder / "text.txt"), "--out", str(folder / f"{role} usual")]
        assert main(words) == 0
    return folder


def pairs():
    for name, kind in minicpt.objectives.known().items():
        for role in kind.roles:
            if BASES[role] != name:
                yield pytest.param(role, name, id=f"{BASES[role]} to {name}")


@pytest.mark.parametrize("role, name", [*pairs()])
def test_a_base_goes_on_with_any_objective_of_its_role(role, name, usual, tmp_path, capsys):
    out = tmp_path / "run"
    words = continuing(usual, f"{role} usual", name, out)
    assert main(words) == 0
    told = capsys.readouterr().err
    run = checkpoint.load(out)
    parts = {key.partition(".")[0] for key in run.state()["parts"]}
    assert all(part in told for part in parts), "a part is new, and not named"
    assert run.record["config"]["objective"] == name
    # Nothing that it recorded stands in the way back.
    assert isinstance(fitted(run, BASES[role], {}), minicpt.objectives.known()[BASES[role]])
