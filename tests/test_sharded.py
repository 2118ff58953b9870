"""Checkpoints that several processes write: the same numbers for any number of readers."""

import json

import pytest
import sharding
import torch

from minicpt import checkpoint
from minicpt.common.merging import merged_weights


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
