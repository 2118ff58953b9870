"""What messages propose must fit, and work when it is pasted."""

import configparser
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minicpt import checkpoint, objectives
from minicpt.checkpoint import huggingface, weights
from minicpt.cli import hints
from minicpt.cli import main as command_line
from minicpt.cli.main import main
from minicpt.common import outputs
from minicpt.data.sources import read
from minicpt.runs.console import command
from minicpt.training.trainer import Trainer

SMALL = "--width 16 --layers 1 --num-heads 2 --vocab-size 300 --window 32".split()
SMALL += ["--batch-size", "4", "--evaluate-passages", "4"]
KINDS = {"causal-lm": "decoder", "masked-lm": "encoder", "reconstruction": "encoder-decoder"}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "days.txt"
    path.write_text("".join(f"On day {n} it saw {n + 3} boats. It rained.\n" for n in range(120)))
    return str(path)


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    """A run of each architecture."""
    folder = tmp_path_factory.mktemp("runs")
    for name in KINDS:
        words = ["train", name, "--corpus", text, "--steps", "1", "--out", str(folder / name)]
        assert main([*words, *SMALL]) == 0
    return folder


def error_of(words, capsys):
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("minicpt: error: ")]
    assert len(errors) == 1
    return errors[0]


# --- what fits


@pytest.mark.parametrize("name", ["causal-lm", "masked-lm", "next-sentence", "reconstruction"])
@pytest.mark.parametrize("held", KINDS)
def test_a_model_of_another_kind_is_named_with_what_fits_it(name, held, trained, text, capsys):
    kind = {"next-sentence": "encoder"}.get(name) or KINDS[name]
    if kind == KINDS[held]:
        return
    folder = str(trained / held)
    for words in (
        ["train", name, "--init", folder, "--corpus", text],
        ["evaluate", folder, "--objective", name],
        ["generate", folder, "Some words.", "--objective", name],
        ["explain", name, "--init", folder],
        ["compare", "--init", folder, "--corpus", text, "--objectives", name],
    ):
        message = error_of(words, capsys)
        assert re.search(rf"holds an? {KINDS[held]} \((BERT|GPT2|T5)[,)]", message)
        assert re.search(rf"{name} trains an? {kind} \((BERT|GPT2|T5)[,)]", message)
        known = objectives.known().items()
        fits = [each for each, other in known if KINDS[held] in other.roles]
        assert held in fits and message.endswith(f"; use {', '.join(fits)} or another folder")
        assert "tokenizer" not in message


@pytest.mark.parametrize("name", KINDS)
def test_replay_proposes_only_what_the_model_can_do(name, trained, text, tmp_path, capsys):
    exported = tmp_path / "exported"  # does not say what it was trained on
    model = checkpoint.load(trained / name)
    checkpoint.export(exported, model.model, model.tokenizer)
    words = ["train", name, "--init", str(exported), "--corpus", text]
    message = error_of([*words, "--replay", "base"], capsys)
    assert "is not known" in message and "name it with --old-corpus" in message
    if name != "causal-lm":
        message = error_of([*words, "--self-replay", "0.1"], capsys)
        assert "--self-replay fits decoder models, and this one is an encoder" in message


def test_a_head_that_is_there_in_part_is_said_part_by_part(trained):
    model = checkpoint.load(trained / "masked-lm").model
    state, config = huggingface.export_state(model), huggingface.export_config(model)
    pooler = ["bert.pooler.dense.weight", "bert.pooler.dense.bias"]
    classifier = ["cls.seq_relationship.weight", "cls.seq_relationship.bias"]

    def note(*gone):
        return huggingface.load(config, {k: v for k, v in state.items() if k not in gone})[1]

    new = "of head 'pair' is not in the folder: initialised at random"
    assert note() == []
    assert note(*classifier) == [f"the classifier {new}; its pooler is kept"]
    assert note(*pooler) == [f"the pooler {new}; its classifier is kept"]
    whole = ["head 'pair' is not in the folder: initialised at random"]
    assert note(*pooler, *classifier) == whole
    loaded, _ = huggingface.load(config, {k: v for k, v in state.items() if k not in classifier})
    assert loaded.heads["pair"].pooler.weight.equal(model.heads["pair"].pooler.weight)


# --- the names of other tools


@pytest.mark.parametrize(
    "verb, words, flag",
    [
        ("train causal-lm", "--lr -lr --learning_rate --lr=5e-5 --max_lr", "--learning-rate"),
        ("train causal-lm", "--batch_size --per_device_train_batch_size", "--batch-size"),
        ("train causal-lm", "--num_train_epochs --num-train-epochs", "--epochs"),
        ("train causal-lm", "--max_steps --max_iters", "--steps"),
        ("train causal-lm", "--output_dir --output", "--out"),
        ("train causal-lm", "--model_name_or_path --base_model", "--init"),
        ("compare", "--model", "--init"),
        ("train causal-lm", "--train_file --dataset", "--corpus"),
        ("train causal-lm", "--block_size --max_seq_length --context_length", "--window"),
        ("train reconstruction", "--max_length", "--window"),
        ("train masked-lm", "--mlm_probability", "--rate"),
        ("train next-sentence", "--mlm_probability", "--rate"),
        ("train causal-lm", "--gradient_accumulation_steps", "--micro-batch-size"),
        ("train causal-lm", "--micro-batches --device_batch_size", "--micro-batch-size"),
        ("train causal-lm", "--num_heads --heads --n_head", "--num-heads"),
        ("train causal-lm", "--final --min_lr", "--min-lr-ratio"),
        ("train causal-lm", "--warmup_steps --warmup_ratio", "--warmup"),
        ("train causal-lm", "--weight_decay --wd", "--weight-decay"),
        ("train causal-lm", "--fp16 --bf16", "--dtype"),
        ("train causal-lm", "--lr_scheduler_type", "--schedule"),
        ("train causal-lm", "--max_grad_norm --grad_clip --clip", "--max-grad-norm"),
        ("train causal-lm", "--eval_steps --eval_interval", "--evaluate-every"),
        ("train causal-lm", "--save_steps", "--save-every"),
        ("train causal-lm", "--save_total_limit", "--keep"),
        ("train causal-lm", "--n_layer --num_hidden_layers", "--layers"),
        ("train causal-lm", "--lora_r", "--lora"),
        ("compare", "--lr", "--learning-rate"),
        ("generate DIR", "--max_new_tokens --max_length", "--length"),
        ("evaluate DIR", "--dataset", "--corpus"),
        ("evaluate DIR", "--per_device_eval_batch_size", "--batch-size"),
        ("export DIR --to X", "--output_dir", "--to"),
    ],
)
def test_a_flag_of_another_tool_is_answered_with_ours(verb, words, flag, capsys):
    for word in words.split():
        message = error_of([*verb.split(), word, "1"], capsys)
        assert f"unknown argument {word}; minicpt calls it {flag}: " in message
        assert f"see `minicpt {' '.join(verb.split()[:2 if 'train' in verb else 1])} --h" in message


def test_what_this_verb_does_not_have_is_not_proposed(capsys):
    for words in (
        ["train", "causal-lm", "--mlm_probability", "0.1"],
        ["resume", "DIR", "--lr", "1"],
        ["generate", "DIR", "--n_layer", "1"],
        ["evaluate", "DIR", "words", "dataset"],  # no flag
    ):
        assert "calls it" not in error_of(words, capsys)


def parsers(parser):
    yield parser
    for action in parser._actions:
        if isinstance(getattr(action, "choices", None), dict):
            for inner in action.choices.values():
                yield from parsers(inner)


def test_every_counterpart_exists_and_no_name_is_ours_already():
    whole = command_line.parser(*command_line.verbs())
    ours = [set(each._option_string_actions) for each in parsers(whole)]
    for flag, names in hints.ELSEWHERE.items():
        having = [known for known in ours if flag in known]
        assert having, flag
        for name in names.split():
            assert any(hints.counterpart("--" + name, known) == flag for known in having), name


# --- commands that are printed


def hinted(line):
    """The words of the command that a message ends with, as a shell would read it."""
    return shlex.split(line[line.index("minicpt ", line.rindex(": ")) :])[1:]


@pytest.mark.parametrize("name", ["my run", "-run", "it's; a  $run"])
def test_commands_work_when_they_are_pasted(name, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", "masked-lm", "--corpus", text, "--steps", "4", f"--out={name}", *SMALL]
    advance = Trainer.advance

    def stopped(self):
        if self.step == 1:
            signal.raise_signal(signal.SIGINT)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", stopped)
        assert main(words) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    refused = error_of(words, capsys)
    assert hinted(said) == hinted(refused)
    assert hinted(refused)[0] == "resume" and Path(hinted(refused)[1]) == Path(name)
    assert main(hinted(refused)) == 0
    capsys.readouterr()
    assert main([*words[:-len(SMALL) - 1], "--out=./" + name + "2", *SMALL]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert hinted(last)[0] == "generate" and main(hinted(last)) == 0
    message = error_of(["resume", f"./{name}/step-00000002", "--steps", "9"], capsys)
    assert hinted(message)[:3] == ["train", "masked-lm", "--init"]
    assert Path(hinted(message)[3]).is_dir() and not hinted(message)[3].startswith("-")


def test_a_shell_reads_the_name_that_was_meant(tmp_path):
    for name in ("my run", "-n", "it's", "a;b", "$HOME", "tab\there"):
        words = command("resume", Path(name))
        code = f"minicpt() {{ for x; do printf '%s\\n' \"$x\"; done; }}; {words}"
        done = subprocess.run(["sh", "-c", code], capture_output=True, text=True, check=True)
        shown = done.stdout.splitlines()
        assert shown[0] == "resume" and Path(shown[1]) == Path(name) and shown[1][0] != "-"


def test_minicpt_alone_prints_its_help(capsys):
    assert main([]) == 0
    output = capsys.readouterr()
    assert output.err == "" and output.out == command_line.parser().format_help()
    assert all(verb in output.out for verb in command_line.verbs())
    done = subprocess.run([sys.executable, "-m", "minicpt"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "usage: minicpt" in done.stdout


def test_a_missing_extra_is_named_by_its_packages(monkeypatch):
    """These can be installed wherever minicpt lies, also beside a checkout."""
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parent.parent / "setup.cfg")
    extras = setup["options.extras_require"]

    def names(extra):
        return set(re.findall(r"^\s*([a-z]+)", extras[extra], re.MULTILINE))

    assert set(weights.INSTALL.split()) - {"pip", "install"} == names("hf")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(outputs.InputError) as refused:
        outputs.plotting()
    assert set(str(refused.value).split("pip install ")[1].split()) == names("plot")


# --- Python


def test_a_source_alone_is_one_source(text):
    assert list(read(text)) == list(read([text])) and len(read(text)) == 1
    assert len(read("builtin:docs")) == len(read(["builtin:docs"])) > 10
