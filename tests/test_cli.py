"""The command line as its users meet it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import dataclass

import pytest
import torch

from minicpt import checkpoint, cli
from minicpt.cli import flags
from minicpt.cli import main as command_line
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.settings import setting
from minicpt.data.corpus import Corpus
from minicpt.models.gpt2 import GPT2
from minicpt.objectives import causal_lm
from minicpt.proofs.bounds import tolerance
from minicpt.runs import describe
from minicpt.runs.assembly import check_sizes
from minicpt.runs.config import RunConfig
from minicpt.runs.fitting import objective_of
from minicpt.runs.texts import recorded_texts

SMALL = "--width 16 --layers 1 --num-heads 2 --vocab-size 300 --window 32".split()
SMALL += ["--batch-size", "4", "--evaluate-passages", "8"]
OBJECTIVES = ["causal-lm", "masked-lm", "next-sentence", "reconstruction"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A user's own text: one file of a few thousand characters."""
    lines = [
        f"On day {day} the {animal} saw {count} boats. It counted them. Then it rained."
        for day, animal in enumerate(["cat", "dog", "owl", "fox"] * 20)
        for count in (day + 3,)
    ]
    path = tmp_path_factory.mktemp("text") / "days.txt"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    """A finished run of each objective."""
    folder = tmp_path_factory.mktemp("runs")
    for name in OBJECTIVES:
        words = ["train", name, "--corpus", text, "--steps", "6", "--out", str(folder / name)]
        assert main([*words, *SMALL, "--save-every", "3"]) == 0
    return folder


def error_of(words, capsys):
    """The one line of a refused command, which must have status 2."""
    assert main(words) == 2
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if not line.startswith("minicpt: error")]
    errors = [line for line in output.err.splitlines() if line.startswith("minicpt: error: ")]
    assert len(errors) == 1 and "Traceback" not in output.err, (lines, errors)
    return errors[0]


def plain(content):
    """The same with tuples for lists, which JSON writes alike."""
    if isinstance(content, dict):
        return {name: plain(each) for name, each in content.items()}
    return tuple(content) if isinstance(content, list) else content


def last_weights(folder):
    return torch.load(checkpoint.find(folder)[0] / "pytorch_model.bin", weights_only=True)


# --- every verb on every objective


@pytest.mark.parametrize("name", OBJECTIVES)
def test_train_leaves_checkpoints(name, trained):
    folders = [path.name for path in checkpoint.steps(trained / name)]
    assert folders == ["step-00000003", "step-00000006"]
    record = json.loads((trained / name / folders[-1] / "training.json").read_text())
    assert record["step"] == record["steps"] == 6
    assert record["config"]["objective"] == name
    assert RunConfig.of(record["config"]).plain() == plain(record["config"])
    assert [entry["step"] for entry in record["evaluations"]] == list(range(7))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_evaluate_gives_the_number_of_the_last_look(name, trained, capsys):
    assert main(["evaluate", str(trained / name), "--passages", "8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["held out"]
    last = checkpoint.load(trained / name).record["evaluations"][-1]["held out"]
    assert result["targets"] == last["targets"]
    same = tolerance(sum(result["targets"].values()), torch.float32)
    assert result["total"] == pytest.approx(last["total"], rel=same)
    whole = name in ("causal-lm", "reconstruction")
    assert (result["bits_per_byte"] is None) == (last["bits_per_byte"] is None) == (not whole)
    if whole:
        assert result["bits_per_byte"] == pytest.approx(last["bits_per_byte"], rel=same)
    assert main(["evaluate", str(trained / name), "--passages", "3"]) == 0
    line = capsys.readouterr().out
    assert re.match(r"held out: \d\.\d{4} nats/", line)
    assert (" bits/byte" in line) == (name in ("causal-lm", "masked-lm", "reconstruction"))
    assert ("pseudo-likelihood" in line) == (name == "masked-lm")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_evaluate_takes_any_text(name, trained, text, capsys):
    assert main(["evaluate", str(trained / name), "--corpus", text]) == 0
    assert text in capsys.readouterr().out


@pytest.mark.parametrize("name", OBJECTIVES)
def test_generate_works_on_a_text_and_repeats(name, trained, capsys):
    outputs = []
    for seed in ("1", "1"):
        words = ["generate", str(trained / name), "It rained. The cat slept.", "--length", "5"]
        assert main([*words, "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and outputs[0].strip()


def test_generate_without_a_text(trained, capsys):
    assert main(["generate", str(trained / "causal-lm")]) == 0
    assert "needs a TEXT" in error_of(["generate", str(trained / "masked-lm")], capsys)


def test_generate_fills_the_gaps_it_is_given(trained, capsys):
    assert main(["generate", str(trained / "masked-lm"), "The [MASK] saw two [MASK]."]) == 0
    output = capsys.readouterr().out
    assert re.fullmatch(r"The ?\[[^ ].*\] saw two ?\[.*\]\.\n", output, re.DOTALL)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_explain_with_and_without_a_trained_model(name, trained, capsys):
    for words in ([], ["--init", str(trained / name)]):
        assert main(["explain", name, *words]) == 0
        assert "target" in capsys.readouterr().out
    assert main(["explain", name, "--json"]) == 0
    json.loads(capsys.readouterr().out)


# --- going on


@pytest.mark.parametrize("name", OBJECTIVES)
def test_continuing_shows_both_sides(name, trained, tmp_path, capsys):
    new = tmp_path / "new.txt"
    new.write_text("A ship of stone. It sank at once. Nobody swam. " * 30)
    out = tmp_path / "out"
    words = ["train", name, "--init", str(trained / name), "--corpus", str(new), "--json"]
    words += ["--steps", "2", "--out", str(out), "--batch-size", "4", "--evaluate-passages", "8"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    for entry in result["evaluations"]:
        assert entry["held out"]["total"] > 0 and entry["old text"]["total"] > 0
    base = checkpoint.load(trained / name).record["evaluations"][-1]
    # The old text's figure begins where the base's own last evaluation ended.
    first = result["evaluations"][0]["old text"]["total"]
    same = tolerance(sum(base["held out"]["targets"].values()), torch.float32)
    assert first == pytest.approx(base["held out"]["total"], rel=same)
    assert main(["evaluate", str(out), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"held out", "old text"}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_run_stopped_by_a_signal_goes_on_bitwise(name, stop, trained, text, tmp_path, capsys):
    """SIGTERM in the middle of a step: it is finished, saved, and resuming ends alike."""
    out = tmp_path / "out"
    words = ["train", name, "--corpus", text, "--steps", "6", "--out", str(out), *SMALL]
    code = (
        "import os, signal, sys\n"
        "from minicpt.training import trainer\n"
        "from minicpt.cli.main import main\n"
        "step = trainer.train_step\n"
        "count = [0]\n"
        "def interrupted(*arguments):\n"
        "    count[0] += 1\n"
        f"    if count[0] == {stop}: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return step(*arguments)\n"
        "trainer.train_step = interrupted\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--threads", str(torch.get_num_threads())],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 143, done.stderr
    assert f"minicpt resume {out}" in done.stderr and f"after step {stop} of 6" in done.stderr
    assert main(["resume", str(out)]) == 0
    expected, found = last_weights(trained / name), last_weights(out)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert main(["resume", str(out)]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_ctrl_c_before_the_first_step_says_that_nothing_was_saved(text, tmp_path, monkeypatch):
    from minicpt.runs import loop

    def impatient(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        raise loop.Interrupted(signal.SIGINT)

    monkeypatch.setattr(loop, "evaluate", impatient)
    out = tmp_path / "out"
    assert main(["train", "causal-lm", "--corpus", text, "--out", str(out), *SMALL]) == 130
    assert not out.exists()


def test_a_killed_run_resumes_from_its_last_checkpoint(text, tmp_path):
    out = tmp_path / "out"
    words = ["train", "causal-lm", "--corpus", text, "--out", str(out), *SMALL]
    words += ["--steps", "100000", "--save-every", "1", "--keep", "3"]
    process = subprocess.Popen([sys.executable, "-m", "minicpt", *words], stdout=subprocess.DEVNULL)
    deadline = time.time() + 300  # a busy machine takes its time to start
    while len(checkpoint.steps(out) if out.exists() else []) < 3 and time.time() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert len(checkpoint.steps(out)) in (2, 3, 4)
    done = checkpoint.load(out).record["step"]
    assert done >= 3
    # What is left goes on: shorten the run in its record's copy of the settings, and resume.
    (base, _), more = checkpoint.find(out), tmp_path / "more"
    loaded = checkpoint.load(base)
    record = loaded.record | {"steps": done + 1}
    more.mkdir()
    checkpoint.save(more / base.name, loaded.model, loaded.tokenizer, record, loaded.state())
    assert main(["resume", str(more)]) == 0
    assert checkpoint.load(more).record["step"] == done + 1


def test_a_run_plans_each_text_once(text, tmp_path, monkeypatch):
    plan, asked = causal_lm.CausalLM.plan, []

    def counting(objective, corpus, seed, epoch):
        asked.append((len(corpus.tokens), seed, epoch))
        return plan(objective, corpus, seed, epoch)

    monkeypatch.setattr(causal_lm.CausalLM, "plan", counting)
    words = ["train", "causal-lm", "--corpus", text, "--steps", "4", "--evaluate-every", "1"]
    assert main([*words, "--out", str(tmp_path / "run"), *SMALL]) == 0
    assert len(asked) == len(set(asked)) == 2  # the training text, the held-out one


def test_keep_and_save_every(text, tmp_path):
    out = tmp_path / "out"
    words = ["train", "causal-lm", "--corpus", text, "--steps", "7", "--out", str(out), *SMALL]
    assert main([*words, "--save-every", "2", "--keep", "3"]) == 0
    assert [f.name[-1] for f in checkpoint.steps(out)] == ["4", "6", "7"]


def test_minutes_fix_the_steps_once_and_epochs_count_the_text(text, tmp_path, capsys):
    words = ["train", "causal-lm", "--corpus", text, *SMALL, "--json"]
    assert main([*words, "--minutes", "0.02", "--out", str(tmp_path / "minutes")]) == 0
    output = capsys.readouterr()
    steps = json.loads(output.out)["steps"]
    assert f"are {steps} steps" in output.err
    # A run of that many --steps is the same run.
    assert main([*words, "--steps", str(steps), "--out", str(tmp_path / "steps")]) == 0
    capsys.readouterr()
    expected, found = (last_weights(tmp_path / name) for name in ("minutes", "steps"))
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert main([*words, "--epochs", "2", "--out", str(tmp_path / "epochs")]) == 0
    capsys.readouterr()
    record = checkpoint.load(tmp_path / "epochs").record
    base = checkpoint.load(tmp_path / "epochs")
    objective = objective_of(base)
    (text,) = map(recorded_texts, record["texts"])
    corpus = Corpus.build(text.training, base.tokenizer)
    passages = sum(len(objective.plan(corpus, 0, epoch)) for epoch in (0, 1))
    assert record["steps"] == -(-passages // 4)


def test_not_finite_stops_saves_and_names_the_batch(text, tmp_path, capsys, monkeypatch):
    from minicpt.training import trainer

    real = trainer.Learner.forward
    calls = []

    def poisoned(*arguments, **options):
        calls.append(1)
        losses = real(*arguments, **options)
        if len(calls) == 4:
            losses[""] = {"tokens": trainer.Loss(losses[""]["tokens"].sum * float("nan"), 1)}
        return losses

    monkeypatch.setattr(trainer.Learner, "forward", poisoned)
    out = tmp_path / "out"
    words = ["train", "causal-lm", "--corpus", text, "--steps", "9", "--out", str(out), *SMALL]
    assert main(words) == 1
    message = capsys.readouterr().err
    assert "step 4" in message and "days.txt" in message and "saved in" in message
    assert checkpoint.load(out).record["step"] == 3


# --- what is refused, in one line and before anything is touched


REFUSED = [
    (["train", "causal-lm", "--corpus", "no/such/file"], "no/such/file"),
    (["train", "no-such-objective"], "no-such-objective"),
    (["train", "causal-lm", "--steps", "0"], "--steps must be at least 1"),
    (["train", "causal-lm", "--steps", "many"], "--steps"),
    (["train", "causal-lm", "--steps", "3", "--epochs", "1"], "exclude"),
    (["train", "causal-lm", "--learning-rate", "nan"], "--learning-rate must be a finite number"),
    (["train", "causal-lm", "--learning-rate", "-1"], "--learning-rate must be more than 0"),
    (["train", "causal-lm", "--num-heads", "3"], "--num-heads 3 does not divide"),
    (["train", "causal-lm", "--window", "1"], "--window must be at least 2"),
    (["train", "causal-lm", "--vocab-size", "255"], "--vocab-size must be at least 256"),
    (["train", "causal-lm", "--dropout", "1"], "--dropout must be less than 1"),
    (["train", "causal-lm", "--micro-batch-size", "-1"], "--micro-batch-size must be at least 0"),
    (["train", "causal-lm", "--model", "bert"], "--model bert is a model of the role encoder"),
    (["train", "causal-lm", "--model", "gpt9"], "no model is called 'gpt9'; use one of"),
    (["train", "causal-lm", "--old-corpus", "x"], "--init"),
    (["train", "masked-lm", "--mask", "0.95"], "must not exceed 1 together"),
    (["train", "masked-lm", "--choice", "some"], "--choice"),
    (["train", "causal-lm", "--init", "no/such/folder"], "not a folder"),
    (["resume", "no/such/folder"], "not a folder"),
    (["evaluate", "."], "no checkpoint"),
    (["explain", "causal-lm", "--text", " "], "--text is empty"),
    (["generate"], "DIR"),
    (["sing"], "sing"),
]


@pytest.mark.parametrize("words, expected", REFUSED, ids=lambda value: str(value)[:50])
def test_refused_in_one_line(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expected in error_of(words, capsys)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_go_with_init_is_refused(trained, text, tmp_path, capsys):
    words = ["train", "causal-lm", "--init", str(trained / "causal-lm"), "--corpus", text]
    words += ["--out", str(tmp_path / "out")]
    assert "--layers cannot be used here: the model comes" in error_of(
        [*words, "--layers", "2"], capsys
    )
    assert "--model cannot be used here" in error_of([*words, "--model", "gpt2"], capsys)
    assert "the tokenizer comes from" in error_of([*words, "--vocab-size", "999"], capsys)
    assert "--window 32 or less" in error_of([*words, "--window", "33"], capsys)
    words[1] = "masked-lm"
    assert "masked-lm trains an encoder" in error_of(words, capsys)


def test_nothing_is_overwritten(trained, text, capsys):
    words = ["train", "causal-lm", "--corpus", text, "--out", str(trained / "causal-lm")]
    assert "is not empty" in error_of(words, capsys)


def test_a_changed_text_is_noticed_when_resuming(text, tmp_path, capsys):
    own, out = tmp_path / "own.txt", tmp_path / "out"
    own.write_text(open(text).read())
    words = ["train", "causal-lm", "--corpus", str(own), "--steps", "2", "--out", str(out)]
    assert main([*words, *SMALL]) == 0
    capsys.readouterr()
    own.write_text(open(text).read() + " And more.")
    assert "SHA-256 differs" in error_of(["resume", str(out)], capsys)


def test_a_text_too_short_for_the_objective(tmp_path, capsys):
    path = tmp_path / "short.txt"
    path.write_text("One sentence alone")
    words = ["train", "next-sentence", "--corpus", str(path), "--held-out", "0"]
    line = error_of([*words, "--out", str(tmp_path / "o")], capsys)
    assert "three or more different sentences" in line


# --- help


def parsers(parser, words=()):
    yield words, parser
    for action in parser._actions:
        if hasattr(action, "choices") and isinstance(action.choices, dict):
            for name, inner in action.choices.items():
                yield from parsers(inner, (*words, name))


def test_every_help_fits_and_every_verb_has_two_examples():
    for words, parser in parsers(command_line.parser(*command_line.verbs())):
        text = parser.format_help()
        assert "None" not in text and "==SUPPRESS==" not in text, words
        if words:
            examples = re.findall(r"^  minicpt .*$", text, re.MULTILINE)
            assert len(examples) == 2, words
            assert all(example.split()[1] == words[0] for example in examples)


def test_examples_in_help_parse():
    for words, parser in parsers(command_line.parser(*command_line.verbs())):
        for example in re.findall(r"^  minicpt (.*)$", parser.format_help(), re.MULTILINE):
            import shlex

            arguments = command_line.parser(words[0]).parse_args(shlex.split(example))
            assert arguments.verb == words[0]


VERB = '''"""``minicpt greet``: greets."""


def add(parser):
    parser.epilog = "greetings"


def run(arguments):
    print("hello")
    return 0
'''


def test_a_new_verb_is_one_new_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "greet.py").write_text(VERB)
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    assert main([]) == 0
    found = re.findall(r"(?m)^ {4}(\w+)", capsys.readouterr().out)
    assert found.index("export") < found.index("exercise") < found.index("greet")
    assert found.index("greet") < found.index("lesson")  # by name, wherever the file lies
    assert main(["greet"]) == 0 and capsys.readouterr().out == "hello\n"
    sys.modules.pop("minicpt.cli.greet")


def test_a_size_that_the_model_does_not_have_is_refused_by_name():
    with pytest.raises(InputError, match="--head-width cannot be used here: GPT2 has no such size"):
        check_sizes(GPT2, {"width": 16, "head_width": 3})


def test_a_high_rate_for_many_trained_weights_is_said(trained, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(describe, "MANY", 1000)
    words = ["train", "causal-lm", "--init", str(trained / "causal-lm"), "--corpus", text]
    words += ["--steps", "1", "--evaluate-passages", "1", "--batch-size", "1"]
    for number, (more, said) in enumerate((
        ([], True), (["--learning-rate", "1e-4"], False), (["--lora", "1"], False)
    )):  # fmt: skip
        assert main([*words, *more, "--out", str(tmp_path / str(number))]) == 0
        assert ("--learning-rate 0.002 is high for" in capsys.readouterr().err) == said


def test_a_setting_without_a_flag_is_not_given_by_a_flag_of_its_name():
    @dataclass
    class Config:
        window: int = 0  # of a model: positions that a layer sees
        layers: int = setting(4, "number of layers")

    assert flags.given(Namespace(window=64, layers=3), Config) == {"layers": 3}


def test_a_reader_that_goes_away_stops_nothing(text, tmp_path):
    out = tmp_path / "out"
    train = f"train causal-lm --corpus {text} --steps 4 --evaluate-every 1 --out {out}"
    for words in ("explain causal-lm", f"{train} {' '.join(SMALL)}"):
        code = f"set -o pipefail; {sys.executable} -m minicpt {words} | head -1"
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert checkpoint.load(out).record["step"] == 4


def run_apart(words, **environment):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "minicpt", *words],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def test_an_output_that_carries_ascii_alone(trained):
    for words in (
        ["train", "causal-lm", "--help"],
        ["explain", "causal-lm"],
        ["generate", str(trained / "causal-lm"), "caf\u00e9"],
    ):
        done = run_apart(words, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr


def test_runs_without_a_folder_take_one_each(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", "causal-lm", "--corpus", text, "--steps", "1", *SMALL]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "causal-lm-1",
        "causal-lm-2",
    ]


def test_several_corpora_given_apart_or_together_all_count(text, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("Another text. It counts as well. " * 20)
    sizes = []
    for words in (["--corpus", text, str(other)], ["--corpus", text, "--corpus", str(other)]):
        out = str(tmp_path / f"out{len(sizes)}")
        command = ["train", "causal-lm", *words, "--steps", "1", "--out", out, *SMALL, "--json"]
        assert main(command) == 0
        sizes.append(json.loads(capsys.readouterr().out)["texts"])
    assert sizes[0] == sizes[1] and len(sizes[0][0]["corpus"]) == 2


def test_a_damaged_newest_checkpoint_is_made_again(text, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["train", "causal-lm", "--corpus", text, "--steps", "4", "--out", str(out), *SMALL]
    assert main([*words, "--save-every", "2"]) == 0
    expected = last_weights(out)
    (out / "step-00000004" / "state.pt").write_bytes(b"damaged")
    assert main(["resume", str(out)]) == 0
    assert "taking an older one" in capsys.readouterr().err
    loaded = checkpoint.load(out)
    assert loaded.folder.name == "step-00000004" and not loaded.notes
    assert all(torch.equal(expected[key], value) for key, value in last_weights(out).items())


def test_an_evaluation_that_was_interrupted_is_made_up_for(text, tmp_path, monkeypatch):
    from minicpt.runs import loop

    real, calls = loop.evaluate, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise loop.Interrupted(signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(loop, "evaluate", interrupted)
    out = tmp_path / "out"
    words = ["train", "causal-lm", "--corpus", text, "--steps", "4", "--out", str(out), *SMALL]
    assert main([*words, "--evaluate-every", "2"]) == 143
    assert main(["resume", str(out)]) == 0
    steps = [entry["step"] for entry in checkpoint.load(out).record["evaluations"]]
    assert steps == [0, 2, 4]


def test_settings_of_the_training_hold_for_evaluating_and_continuing(text, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["train", "masked-lm", "--corpus", text, "--steps", "1", "--rate", "0.4", *SMALL]
    assert main([*words, "--out", str(out)]) == 0
    capsys.readouterr()
    results = []
    for more in ([], ["--objective", "masked-lm"]):
        assert main(["evaluate", str(out), "--json", *more]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1]
    words = ["train", "masked-lm", "--init", str(out), "--corpus", text, "--steps", "1", "--json"]
    assert main([*words, "--out", str(tmp_path / "more"), "--keep", "1"]) == 0
    settings = json.loads(capsys.readouterr().out)["config"]["settings"]
    assert settings["rate"] == 0.4 and settings["window"] == 32


def test_nothing_to_predict_is_refused(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("".join(chr(97 + i % 26) for i in range(4000)))  # one word without end
    words = ["train", "masked-lm", "--whole-word", "--corpus", str(path), *SMALL]
    words += ["--batch-size", "1"]
    assert "nothing to predict" in error_of([*words, "--out", str(tmp_path / "out")], capsys)


def test_a_misspelt_flag_is_answered_with_the_right_one(capsys):
    message = error_of(["train", "causal-lm", "--learnign-rate", "1"], capsys)
    assert "--learning-rate" in message and "minicpt train causal-lm --help" in message
    assert "perhaps --batch-size;" in error_of(["train", "causal-lm", "--batch", "4"], capsys)
    assert "unknown argument --shape;" in error_of(["explain", "causal-lm", "--shape", "X"], capsys)


def test_resume_works_from_another_folder(text, tmp_path, monkeypatch):
    monkeypatch.chdir(os.path.dirname(text))
    out = tmp_path / "out"
    words = ["train", "causal-lm", "--corpus", os.path.basename(text), "--steps", "2"]
    assert main([*words, "--out", str(out), *SMALL]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["resume", str(out)]) == 0 and main(["evaluate", str(out)]) == 0


def test_training_without_held_out_text(text, tmp_path, capsys):
    out = str(tmp_path / "out")
    words = ["train", "causal-lm", "--corpus", text, "--held-out", "0", "--steps", "2"]
    assert main([*words, "--out", out, *SMALL]) == 0
    assert "held no text out" in error_of(["evaluate", out], capsys)
