"""Checkpoints that several processes write: the same numbers for any number of readers."""

import pytest
import sharding
import torch

from minicpt import checkpoint
from minicpt.common.merging import merged_weights


@pytest.fixture(scope="session")
def written(tmp_path_factory, tokenizer, corpus):
    """What two processes have saved, a folder for each case."""
    folder = tmp_path_factory.mktemp("sharded")
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
    # What the folder has as the model holds LoRA's sum.
    assert sharding.same(loaded, dict(merged_weights(trainer.model)))
