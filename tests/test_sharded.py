"""Checkpoints that several processes write: the same numbers for any number of readers."""

import json
import shutil

import pytest
import sharding
import torch
import transformers

from minicpt import checkpoint
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.merging import merged_weights
from minicpt.runs.needs import activations

BATCH = ["--batch-size", "2", "--evaluate-passages", "6"]
SMALL = "--width 16 --layers 1 --num-heads 2 --vocab-size 300 --window 32".split() + BATCH


@pytest.fixture(scope="session")
def written(tmp_path_factory, tokenizer, corpus):
    """What two processes have saved, a folder for each case."""
    folder = tmp_path_factory.mktemp("sharded")
    sharding.trainer_of("copy", (tokenizer, corpus), "none").advance()  # imports what training does
    told = sharding.launch(2, folder, sharding.begin, (tokenizer, corpus))
    assert told == ["", ""], told[0] + told[1]
    return folder


@pytest.mark.parametrize("case", sharding.CASES)
def test_one_process_goes_on_from_what_two_have_saved(case, written, tokenizer, corpus):
    base = checkpoint.load(written / case)
    assert not base.notes
    loaded = {name: each.clone() for name, each in base.model.named_parameters()}
    trainer = sharding.trainer_of(case, (tokenizer, corpus), "none", base)
    assert sharding.same(sharding.everything(trainer), torch.load(written / f"{case}.pt"))
    tensors = json.loads((written / case / "shards.json").read_text())["tensors"]
    assert all(len(each["chunks"]) == 2 for n, each in tensors.items() if n.startswith("model."))
    # What the folder has as the model holds LoRA's sum.
    assert sharding.same(loaded, dict(merged_weights(trainer.model)))


def test_three_processes_go_on_from_what_two_or_one_have_saved(written, tokenizer, corpus):
    """DDP and FSDP2, from files of either kind; and what they save, one process reads."""
    trainer = sharding.trainer_of(
        "copy", (tokenizer, corpus), "none", checkpoint.load(written / "copy")
    )
    sharding.save(trainer, written / "plain", tokenizer)
    assert (written / "plain" / "pytorch_model.bin").exists()
    jobs = [
        ("copy", "copy", "none"),
        ("copy", "plain", "weights"),
        ("shared", "shared", "weights"),
        ("lora", "lora", "weights"),
        ("lora", "lora", "none"),
    ]
    told = sharding.launch(3, written, sharding.go_on, (tokenizer, corpus), jobs)
    assert told == [""] * 3, "".join(told)
    for case, name, shard in jobs:
        base = checkpoint.load(written / f"{name} {shard}")
        trainer = sharding.trainer_of(case, (tokenizer, corpus), "none", base)
        assert trainer.step == 3
        assert sharding.same(
            sharding.everything(trainer), torch.load(written / f"{name} {shard}.pt")
        )


@pytest.mark.parametrize("case", sharding.CASES)
def test_a_passage_needs_as_much_whoever_holds_the_weights(case, written, tokenizer, corpus):
    """A micro-batch keeps the same for its backward pass: gathered weights do not count."""
    expected = activations(sharding.trainer_of(case, (tokenizer, corpus), "none"))
    for rank in range(2):
        found = int((written / f"{case}-{rank}.needs").read_text())
        assert found == pytest.approx(expected, rel=0.02)


def test_tied_weights_are_written_once(written):
    """The copy of the base that KL keeps names its tied matrix twice."""
    copied = json.loads((written / "copy" / "state.json").read_text())["remedies"]["kl"]
    assert copied["heads.tokens.weight"] == copied["tokens.weight"]
    places = [each["of"] for each in copied.values()]
    assert len(set(places)) == len(places) - 1


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run of two processes from the command line."""
    folder = tmp_path_factory.mktemp("run")
    text = "".join(f"On day {n} the owl saw {n + 3} boats. It rained.\n\n" for n in range(60))
    (folder / "text.txt").write_text(text)
    words = ["train", "causal-lm", "--corpus", str(folder / "text.txt"), "--blocks", *SMALL]
    words += [
        "--steps",
        "2",
        "--schedule",
        "constant",
        "--shard",
        "weights",
        "--out",
        str(folder / "run"),
    ]
    assert sharding.started(2, folder, sharding.command, words) == ["", ""]
    return folder


def test_other_verbs_open_such_a_folder_in_one_process(run, tmp_path, capsys):
    """What is exported is what the folder holds, and transformers opens it."""
    (step,) = checkpoint.steps(run / "run")
    assert (step / "shards.json").exists() and not (step / "pytorch_model.bin").exists()
    to = tmp_path / "exported"
    assert main(["export", str(run / "run"), "--to", str(to)]) == 0
    model = checkpoint.load(step).model
    oracle, info = transformers.GPT2LMHeadModel.from_pretrained(to, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(oracle.transformer.wte.weight, model.tokens.weight)
    last = json.loads((run / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    capsys.readouterr()
    assert main(["evaluate", str(run / "run"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["total"] == pytest.approx(last["held out"]["total"], rel=1e-5)
    assert main(["generate", str(run / "run"), "On day"]) == 0
    assert main(["explain", "causal-lm", "--init", str(run / "run"), "--text", "A boat."]) == 0
    words = ["--corpus", str(run / "text.txt"), "--blocks", "--steps", "1", *BATCH]
    out = str(tmp_path / "continued")
    assert main(["train", "causal-lm", "--init", str(run / "run"), *words, "--out", out]) == 0
    shutil.copytree(run / "run", tmp_path / "longer")
    assert main(["resume", str(tmp_path / "longer"), "--steps", "3"]) == 0
    newest, _ = checkpoint.find(tmp_path / "longer")
    assert newest.name == "step-00000003" and (newest / "pytorch_model.bin").exists()


# --- folders that are not what they say ------------------------------------------------------


@pytest.fixture
def changed(run, tmp_path):
    """A copy of a folder, and what makes its manifest anew: as somebody does who means harm."""
    (step,) = checkpoint.steps(run / "run")
    folder = tmp_path / step.name
    shutil.copytree(step, folder)

    def sealed():
        (folder / "manifest.json").unlink()
        checkpoint.write_manifest(folder)

    return folder, sealed


def refused(folder, match):
    with pytest.raises(InputError, match=match) as caught:
        checkpoint.load(folder).state()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["shard-00001.bin", "shards.json", "state.json"])
def test_a_flipped_bit_and_a_missing_file_are_noticed(name, changed):
    folder, _ = changed
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    refused(folder, f"{name} differs from the manifest")
    (folder / name).unlink()
    refused(folder, f"{name} is missing")
    (folder / "manifest.json").unlink()
    refused(folder, "and no manifest.json")


TABLE = "model.tokens.weight"
HUGE = 10**15
# What somebody makes of the entry of one tensor, whose rows lie in two files.
ENTRIES = {
    "another file": lambda entry: entry["chunks"][0].__setitem__(0, "../../etc/passwd"),
    "a file that is none of them": lambda entry: entry["chunks"][0].__setitem__(0, "config.json"),
    "rows outside the file": lambda entry: entry["chunks"][0].__setitem__(1, HUGE * 4),
    "rows before the file": lambda entry: entry["chunks"][0].__setitem__(1, -4),
    "rows between two numbers": lambda entry: entry["chunks"][0].__setitem__(1, 2),
    "rows of others": lambda entry: entry["chunks"][0].__setitem__(1, 4),
    "no rows": lambda entry: entry["chunks"][0].__setitem__(2, 0),
    "true rows": lambda entry: entry["chunks"][0].__setitem__(2, True),
    "more rows than there are": lambda entry: entry["chunks"][0].__setitem__(2, HUGE),
    "rows twice": lambda entry: entry["chunks"].append(entry["chunks"][0]),
    "a chunk less": lambda entry: entry["chunks"].pop(),
    "a chunk of texts": lambda entry: entry["chunks"].__setitem__(0, ["a", "b", "c"]),
    "no list of chunks": lambda entry: entry.__setitem__("chunks", 3),
    "a huge shape": lambda entry: entry.__setitem__("shape", [HUGE, HUGE]),
    "a shape of nothing": lambda entry: entry.__setitem__("shape", [0, HUGE]),
    "a row more than is listed": lambda entry: entry["shape"].__setitem__(0, 1 + entry["shape"][0]),
    "a negative shape": lambda entry: entry.__setitem__("shape", [-1, -16]),
    "a deep shape": lambda entry: entry.__setitem__("shape", [*entry["shape"], *[1] * 99]),
    "half the numbers": lambda entry: entry.__setitem__("dtype", "BF16"),
    "an unknown type": lambda entry: entry.__setitem__("dtype", "F7"),
}


@pytest.mark.parametrize("what", ENTRIES)
def test_an_index_that_lies_is_refused(what, changed, monkeypatch):
    folder, sealed = changed
    content = json.loads((folder / "shards.json").read_text())
    ENTRIES[what](content["tensors"][TABLE])
    (folder / "shards.json").write_text(json.dumps(content))
    sealed()
    monkeypatch.setattr(torch, "from_file", None)  # nothing is even mapped
    refused(folder, "shards.json does not describe the files beside it")


def other_shape(tensors):
    entry = tensors[TABLE]
    rows, columns = entry["shape"]
    entry["shape"] = [2 * rows, columns // 2]
    for chunk in entry["chunks"]:
        chunk[2] *= 2


TENSORS = {
    "another shape": (other_shape, "misshapen: tokens.weight"),
    "whole numbers": (lambda x: x[TABLE].__setitem__("dtype", "I32"), "misshapen: tokens.weight"),
    "another name": (lambda x: x.__setitem__("model.a", x.pop(TABLE)), "missing: tokens.weight"),
    "a moment less": (lambda x: x.__setitem__("a", x.pop(FIRST)), "is not what minicpt writes"),
    "a name twice": (lambda x: x.__setitem__("a", x[TABLE]), "overlap"),
    "no tensors": (dict.clear, "do not fill"),
}
FIRST = "state.optimizer.state.0.exp_avg"


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_are_not_the_models_are_refused(what, changed):
    folder, sealed = changed
    change, match = TENSORS[what]
    content = json.loads((folder / "shards.json").read_text())
    change(content["tensors"])
    (folder / "shards.json").write_text(json.dumps(content))
    sealed()
    refused(folder, match)


@pytest.mark.parametrize(
    "content, match",
    [
        ({"step": {"": "tensor", "of": "nowhere"}}, "is not what minicpt writes"),
        ({"step": {"": "tensor", "of": ["a"]}}, "is not what minicpt writes"),
        ({"step": {"": "code", "of": "os.system"}}, "is not what minicpt writes"),
        ({"step": {"": "dict", "of": [[1]]}}, "is not what minicpt writes"),
        ({"step": {"": "dict", "of": [[[], 1]]}}, "is not what minicpt writes"),
        ([], "is not a JSON object"),
        ('{"a":' * 10**5, "is not JSON"),
        ('{"a":' + "[" * 900 + "]" * 900 + "}", "is not what minicpt writes"),
    ],
)
def test_a_state_that_is_none_is_refused(content, match, changed):
    folder, sealed = changed
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "state.json").write_text(text)
    sealed()
    refused(folder, match)


def test_a_file_too_much_and_a_list_too_little_are_refused(changed):
    folder, sealed = changed
    (folder / "shard-00002.bin").write_bytes(b"more")
    refused(folder, "shard-00002.bin, which the manifest does not list")
    sealed()
    refused(folder, "do not fill shard-00002.bin")
    (folder / "shard-00002.bin").unlink()
    (folder / "shards.json").unlink()
    sealed()
    refused(folder, "the manifest does not list pytorch_model.bin")
