"""Folders of transformers, loaded: logits, losses and whole training runs against its own."""

import json

import making
import pytest
import torch
import transformers
from oracles import (
    FULLEST,
    KINDS,
    P,
    bert,
    exact,
    gpt2,
    llama,
    llama_own_head,
    make,
    t5,
    t5_10,
    t5_11,
)

from minicpt.batch import IGNORE
from minicpt.checkpoint import folder as checkpoint
from minicpt.loss import objective_loss, whole_sequence_loss
from minicpt.proofs.bounds import additions, tolerance
from minicpt.training.trainer import Trainer, Training

VARIANTS = [bert, gpt2, t5_10, t5_11]
# Rows, positions, and how many of the last row's are padding: batch 1, odd, up to the last one.
SHAPES = [(1, 7, 0), (3, 13, 5), (1, P, 0), (2, P, 9), (2, 1, 0)]


def close(found, expected, model, inputs):
    assert found.dtype == expected.dtype
    making.close(found, expected, model, inputs)


def folder_of(oracle, tokenizer, path, **options):
    oracle.save_pretrained(path, **options)
    tokenizer.save(path)
    return path


def tokens_and_mask(size, rows, length, short, seed):
    tokens = torch.randint(size, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(rows, length, dtype=torch.bool)
    mask[-1, length - short :] = False
    return tokens, mask


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_logits(name, dtype, tokenizer, tmp_path, monkeypatch):
    oracle = make(name)
    model = checkpoint.load(folder_of(oracle, tokenizer, tmp_path / "theirs")).model
    model, oracle = model.to(dtype).eval(), oracle.to(dtype)
    if dtype == torch.float64:
        exact(monkeypatch)
    # T5 has no last position, but a distance from which on all share a bucket. Llama has none.
    endless = "T5" in name or KINDS[name] in (llama, llama_own_head)
    shapes = [*SHAPES, (1, 150, 0)] if endless else SHAPES
    for rows, length, short in shapes:
        tokens, mask = tokens_and_mask(model.config.vocabulary, rows, length, short, 0)
        inputs, theirs, seen = {"tokens": tokens, "mask": mask}, {"input_ids": tokens}, mask
        theirs["attention_mask"] = mask.long()
        if "segments" in model.INPUTS:
            segments = (torch.arange(length) > length // 2).long().expand(rows, length)
            inputs["segments"] = theirs["token_type_ids"] = segments
        if "T5" in name:
            other = length + 2 - length // 2
            target, seen = tokens_and_mask(model.config.vocabulary, rows, other, min(short, 1), 1)
            inputs |= {"decoder_tokens": target, "decoder_mask": seen}
            theirs |= {"decoder_input_ids": target, "decoder_attention_mask": seen.long()}
        expected, hidden = oracle(**theirs), model(**inputs)
        if name.split("-")[0].endswith("Model"):
            close(hidden[seen], expected.last_hidden_state[seen], model, inputs)
            continue
        if hasattr(expected, "seq_relationship_logits"):
            found = model.heads["pair"](hidden[:, 0])
            close(found, expected.seq_relationship_logits, model, inputs)
        if name in ("BertForNextSentencePrediction", "ModernBertForSequenceClassification"):
            close(model.heads["pair"](hidden[:, 0]), expected.logits, model, inputs)
            continue
        logits = expected.get("logits", expected.get("prediction_logits"))
        close(model.heads["tokens"](hidden)[seen], logits[seen], model, inputs)


# --- losses

OBJECTIVES = {
    "masked-lm, ModernBERT": ("ModernBertForMaskedLM", "masked-lm", {}),
    "next-sentence, ModernBERT": ("ModernBertForSequenceClassification", "next-sentence", {}),
    "causal-lm": ("GPT2LMHeadModel", "causal-lm", {}),
    "causal-lm, Llama": ("LlamaForCausalLM-own head", "causal-lm", {}),
    "causal-lm, Mistral": ("MistralForCausalLM", "causal-lm", {}),
    "masked-lm": ("BertForMaskedLM", "masked-lm", {}),
    "next-sentence": ("BertForNextSentencePrediction", "next-sentence", {}),
    "next-sentence --masked": ("BertForPreTraining", "next-sentence", {"masked": True}),
    "reconstruction 1.0": ("T5ForConditionalGeneration-1.0", "reconstruction", {}),
    "reconstruction 1.1": ("T5ForConditionalGeneration-1.1", "reconstruction", {}),
    "reconstruction 1.1, tied": ("T5ForConditionalGeneration-1.1-tied", "reconstruction", {}),
}


def labelled(batch):
    """The arguments with which transformers computes the loss of a batch of ours itself.

    Its models shift on their own, so each shift of ours is undone here: a decoder is given the
    whole row of tokens, the target of the last one at its end, as inputs and as labels; a T5 is
    given its labels alone, and makes the decoder's inputs.
    """
    if "decoder_tokens" in batch.inputs:
        labels = batch.targets["tokens"]
        inputs = {"input_ids": batch.inputs["tokens"], "attention_mask": batch.inputs["mask"]}
        return {**inputs, "labels": labels}
    if "pair" in batch.targets or bool((batch.targets["tokens"] == IGNORE)[:, 0].all()):
        found = {"input_ids": batch.inputs["tokens"], "attention_mask": batch.inputs["mask"]}
        if "segments" in batch.inputs:
            found["token_type_ids"] = batch.inputs["segments"]
        if "tokens" in batch.targets:
            found["labels"] = batch.targets["tokens"]
        if "pair" in batch.targets:
            label = batch.targets["pair"][:, 0]
            found["next_sentence_label" if "labels" in found else "labels"] = label
        return found
    rows, real = [], batch.inputs["mask"].sum(1).tolist()
    for tokens, target, length in zip(
        batch.inputs["tokens"].tolist(), batch.targets["tokens"].tolist(), real, strict=True
    ):
        last = target[length - 1]
        rows.append(tokens[:length] + ([last] if last != IGNORE else []))
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows]),
        "labels": torch.tensor(
            [[IGNORE, *row[1:], *[IGNORE] * (longest - len(row))] for row in rows]
        ),
    }


def loaded(name, tokenizer, path):
    """An oracle without dropout, in float64, and our model and objective from its folder."""
    kind, of, settings = OBJECTIVES[name]
    off = {"GPT2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"), "T5Fo": ("dropout_rate",)}
    off["Bert"] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    # Of the others, dropout is off by default.
    oracle = make(kind, **dict.fromkeys(off.get(kind[:4], ()), 0.0))
    base = checkpoint.load(folder_of(oracle, tokenizer, path / "theirs"), dropout=0.0)
    objective = making.objective_of(of, base.tokenizer, base.model, window=P - 1, **settings)
    return oracle.double(), base.model.double(), objective


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses(name, tokenizer, corpus, tmp_path, monkeypatch):
    exact(monkeypatch)
    oracle, model, objective = loaded(name, tokenizer, tmp_path)
    plan = objective.plan(corpus, 3, 0)
    padded = 0
    for start in range(0, min(len(plan), 12), 3):
        passages = [plan[i] for i in range(start, min(start + 3, len(plan)))]
        batch = objective.batch(passages, making.draws(len(passages), "test", start))
        padded += not batch.inputs["mask"].all()
        with torch.no_grad():
            found = objective_loss(whole_sequence_loss(model, batch), batch.counts())
            expected = oracle(**labelled(batch)).loss
        assert found.dtype == expected.dtype == torch.float64
        making.close(found, expected, model, batch)
    assert padded


@pytest.mark.parametrize("name", OBJECTIVES)
def test_twenty_steps_of_training(name, tokenizer, corpus, tmp_path, monkeypatch):
    exact(monkeypatch)
    oracle, model, objective = loaded(name, tokenizer, tmp_path)
    batches, make_batch = [], objective.batch

    def remember(passages, draws):
        batches.append(make_batch(passages, draws))
        return batches[-1]

    objective.batch = remember
    settings = Training(
        batch_size=3, learning_rate=3e-3, schedule="constant", warmup=0.25, weight_decay=0.1,
        beta1=0.9, beta2=0.99, epsilon=1e-8, max_grad_norm=1.0,
    )  # fmt: skip
    trainer = Trainer(model, objective, corpus, settings, steps=20)
    found = [sum(float(loss.mean) for loss in step.losses.values()) for step in trainer.run()]

    matrices = [parameter for parameter in oracle.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in oracle.parameters() if parameter.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.99), weight_decay=0.1, foreach=False, fused=False,
    )  # fmt: skip
    expected = []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 5)
        loss = oracle(**labelled(batch)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(oracle.parameters(), 1.0)
        optimizer.step()
        expected.append(loss.item())
    assert len(found) == len(expected) == 20
    assert abs(expected[-1] - expected[0]) > 0.01  # the steps matter
    differences = [abs(a - b) / b for a, b in zip(found, expected, strict=True)]
    # Each step goes through the model once more.
    assert max(differences) <= tolerance(20 * additions(model, batches[0])), differences


# --- round trips


# No class has room for both heads of a ModernBERT: what each leaves over of the folder.
LEFT_OVER = {
    "ModernBertForMaskedLM": {"classifier.weight", "classifier.bias"},
    "ModernBertForSequenceClassification": {"decoder.bias"},
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("way", ["save", "export"])
def test_load_and_save_and_load_is_bitwise(name, way, tokenizer, tmp_path):
    """Theirs -> load -> save -> theirs, nothing missing or left over -> save -> load."""
    oracle = make(name)
    ours = checkpoint.load(folder_of(oracle, tokenizer, tmp_path / "theirs"))
    if way == "save":
        checkpoint.save(tmp_path / "ours", ours.model, tokenizer, {"fused": True}, {})
    else:
        checkpoint.export(tmp_path / "ours", ours.model, tokenizer)
    modern = name.startswith("ModernBert")
    kind, _, _ = name.partition("-")
    itself = name in LEFT_OVER or kind.endswith("ForCausalLM")
    whole = kind if itself else FULLEST[KINDS[name]]
    fullest = getattr(transformers, whole)
    again, info = fullest.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert set(info.pop("unexpected_keys")) == LEFT_OVER.get(whole, set())
    assert not any(info.values()), info
    for key, tensor in oracle.state_dict().items():
        if key not in again.state_dict():
            key = f"{again.base_model_prefix}.{key}"
        assert torch.equal(again.state_dict()[key], tensor), key
    last = checkpoint.load(folder_of(again, tokenizer, tmp_path / "again"))
    unverified, *new = last.notes
    assert unverified == f"{tmp_path / 'again'} has no manifest: its files are unverified"
    assert modern or not new  # what that class has no room for is new, of the same seed
    before, after = dict(ours.model.named_parameters()), dict(last.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[each], after[each]) for each in before)
    if "own head" not in name and name != "T5ForConditionalGeneration-1.1":
        assert last.model.heads["tokens"].weight is last.model.tokens.weight


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@torch.no_grad()
def test_the_head_of_t5_is_tied_or_not_and_scaled_or_not(
    version, tied, scaled, tokenizer, tmp_path
):
    """The two are told apart in each version, in a folder of transformers and in one of ours."""
    oracle = t5(version, tied=tied, scaled=scaled)
    given, _ = tokens_and_mask(oracle.config.vocab_size, 1, 6, 0, 0)
    expected = oracle(input_ids=given, decoder_input_ids=given).logits
    folder_of(oracle, tokenizer, tmp_path / "theirs")
    for folder in ("theirs", "ours"):
        found = checkpoint.load(tmp_path / folder)
        assert not any("initialised" in note for note in found.notes)
        model = found.model.eval()
        assert (model.config.tied, model.config.scaled) == (tied, scaled)
        assert (model.heads["tokens"].weight is model.tokens.weight) == tied
        close(model.heads["tokens"](model(given, given)), expected, model, {"tokens": given})
        if folder == "theirs":
            checkpoint.export(tmp_path / "ours", model, tokenizer)
    again = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    assert torch.equal(again(input_ids=given, decoder_input_ids=given).logits, expected)


def test_the_head_of_a_t5_from_before_transformers_5(tokenizer, tmp_path):
    """Then one key said both: tied and scaled, or neither. torch's files hold a tied head twice."""
    for version, tied in (("1.0", True), ("1.1", False)):
        oracle = t5(version)
        folder = folder_of(oracle, tokenizer, tmp_path / version)
        config = json.loads((folder / "config.json").read_text())
        del config["scale_decoder_outputs"]
        config["tie_word_embeddings"] = tied
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").unlink()
        torch.save(dict(oracle.state_dict()), folder / "pytorch_model.bin")
        model = checkpoint.load(folder).model
        assert (model.config.tied, model.config.scaled) == (tied, tied)
        assert torch.equal(model.heads["tokens"].weight, oracle.lm_head.weight)


def test_a_bare_t5_gets_the_head_that_its_config_names(tokenizer, tmp_path):
    """Tied, it needs no weights; a head of its own is new, and that is said."""
    folder = folder_of(t5_11("T5Model"), tokenizer, tmp_path / "bare")
    bare = checkpoint.load(folder)
    assert bare.model.config.tied and not any("initialised" in note for note in bare.notes)
    config = json.loads((folder / "config.json").read_text())
    del config["scale_decoder_outputs"]
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    notes = checkpoint.load(folder).notes
    assert "head 'tokens' is not in the folder: initialised at random" in notes
