"""What a saved folder makes other tools feed the model: just what it was trained on."""

import json
import os
import stat

import pytest
import torch
import transformers
from oracles import (
    LINES,
    SAMPLES,
    TEXT,
    bert,
    bert_tokenizer,
    gpt2,
    gpt2_tokenizer,
    t5_10,
    t5_tokenizer,
)

from minicpt import checkpoint
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.order import Draw
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import Sampling
from minicpt.models.bert import BERT
from minicpt.models.gpt2 import GPT2
from minicpt.models.t5 import T5
from minicpt.objectives import causal_lm, masked_lm, next_sentence, reconstruction
from minicpt.training.trainer import Trainer, Training

PAIRS = [("On day 7 the cat saw.", "It rained."), ("It counted them.", SAMPLES[1] * 3)]
UNLIMITED = 10**9
NAMES = {"tokens": "input_ids", "segments": "token_type_ids", "mask": "attention_mask"}


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    """One trained here, with merges."""
    return Tokenizer.train(LINES, 300)


def model_of(kind, tokenizer, **sizes):
    torch.manual_seed(0)
    sizes = {"width": 16, "layers": 2, "num_heads": 2} | sizes
    if kind is T5:
        sizes["pad"] = tokenizer.need("pad")
    else:
        sizes.setdefault("positions", 64)
    return kind(kind.Config(vocabulary=tokenizer.size, **sizes))


def written(folder, model, tokenizer, form="export"):
    """The folder as a checkpoint or an export, opened by transformers."""
    if form == "export":
        checkpoint.export(folder, model, tokenizer)
    else:
        checkpoint.save(folder, model, tokenizer, {}, {})
    return transformers.AutoTokenizer.from_pretrained(folder)


def base(folder, model, tokenizer, **config):
    """A folder as transformers writes it, with more said in its tokenizer_config.json."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def minilm(folder):
    """As MiniLM is published: the bare body, and a file that cuts off and fills up by itself."""
    model = bert("BertModel", max_position_embeddings=100)
    base(folder, model, bert_tokenizer(), model_max_length=20, padding_side="right")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["truncation"] = {
        "max_length": 12, "strategy": "LongestFirst", "stride": 0, "direction": "Right",
    }  # fmt: skip
    content["padding"] = {
        "strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    path.write_text(json.dumps(content))
    return folder


def older(folder):
    """The same GPT-2 without a tokenizer.json, as it was published at first."""
    (folder / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((folder.parent / name).read_bytes())
    return folder


BASES = {
    "MiniLM": minilm,
    "BERT": lambda folder: base(folder, bert(max_position_embeddings=100), bert_tokenizer()),
    "BERT, left": lambda folder: base(
        folder, bert(), bert_tokenizer(),
        padding_side="left", truncation_side="left", model_max_length=9,
    ),
    "GPT-2": lambda folder: base(
        folder, gpt2(), gpt2_tokenizer(folder.parent), model_max_length=17
    ),
    "GPT-2, older files": lambda folder: older(base(folder, gpt2(), gpt2_tokenizer(folder.parent))),
    "T5": lambda folder: base(folder, t5_10(), t5_tokenizer(), model_max_length=15),
}  # fmt: skip


@pytest.mark.parametrize("form", ["export", "checkpoint"])
@pytest.mark.parametrize("name", BASES)
def test_an_exported_base_feeds_as_the_original(name, form, tmp_path):
    """Singles, pairs, truncation to its own and a given length, padding: every key and id."""
    folder = BASES[name](tmp_path / "base")
    loaded = checkpoint.load(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = written(tmp_path / "ours", loaded.model, loaded.tokenizer, form)
    positions = getattr(loaded.model.config, "positions", UNLIMITED)
    calls = [{}, {"truncation": True, "max_length": 8}]
    if theirs.model_max_length < UNLIMITED:
        calls += [{"truncation": True}]
    if theirs.pad_token:
        calls += [{"padding": True}, {"padding": "max_length", "max_length": 11}]
    texts, pairs = [*SAMPLES, TEXT[:300]], [list(side) for side in zip(*PAIRS, strict=True)]
    for call in calls:
        assert dict(ours(texts, **call)) == dict(theirs(texts, **call)), call
        assert dict(ours(*pairs, **call)) == dict(theirs(*pairs, **call)), call
    assert ours.padding_side == theirs.padding_side
    assert ours.truncation_side == theirs.truncation_side
    assert ours.model_max_length == min(theirs.model_max_length, positions)
    assert (tmp_path / "ours" / "tokenizer.json").read_text() == (
        resaved(loaded.tokenizer, tmp_path / "again")
    )


def resaved(tokenizer, folder) -> str:
    """tokenizer.json as it was loaded: where nothing has to change, nothing does."""
    tokenizer.save(folder)
    return (folder / "tokenizer.json").read_text()


def tokenizers_of(kind, folder, trained):
    """(tokenizer, words) of an encoder: ours, and what transformers opens."""
    if kind == "trained here":
        return trained, written(folder, model_of(BERT, trained, positions=100), trained)
    BASES[kind](folder.parent / "base")
    loaded = checkpoint.load(folder.parent / "base")
    return loaded.tokenizer, written(folder, loaded.model, loaded.tokenizer)


@pytest.mark.parametrize("kind", ["trained here", "MiniLM", "BERT"])
def test_an_encoder_gets_what_masked_lm_feeds(kind, tmp_path, trained):
    tokenizer, words = tokenizers_of(kind, tmp_path / "ours", trained)
    none = masked_lm.Settings(choice="independent", rate=1e-9, window=200)
    objective = masked_lm.MaskedLM(tokenizer, none)
    texts = [LINES[0], "It rained.", LINES[3] + " " + LINES[4]]
    batch = batch_of(objective, [Document(f"{n}", text) for n, text in enumerate(texts)])
    assert set(words.model_input_names) == set(NAMES.values())
    agree(words(texts, padding=True), batch)


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("kind", ["trained here", "MiniLM", "BERT"])
def test_an_encoder_gets_what_next_sentence_feeds(kind, order, tmp_path, trained):
    """The two texts of each pair, read off the objective's own batch, tokenised anew.

    As they are decoded: a space at the front, if one is fed, is part of the text.
    """
    tokenizer, words = tokenizers_of(kind, tmp_path / "ours", trained)
    settings = next_sentence.Settings(window=100, order=order)
    objective = next_sentence.NextSentence(tokenizer, settings)
    batch = batch_of(objective, [Document(f"{n}", line) for n, line in enumerate(LINES[:6])])
    firsts, seconds = [], []
    for ids, segments, mask in zip(
        *(batch.inputs[name] for name in ("tokens", "segments", "mask")), strict=True
    ):
        ids, segments = ids[mask], segments[mask]
        firsts.append(tokenizer.decode(ids[segments == 0].tolist()))
        seconds.append(tokenizer.decode(ids[segments == 1].tolist()))
    assert len(firsts) > 4 and all(firsts) and all(seconds)
    agree(words(firsts, seconds, padding=True), batch)
    model = checkpoint.load(tmp_path / "ours").model.eval()
    theirs = transformers.BertForNextSentencePrediction.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        logits = model.heads["pair"](model(**batch.inputs)[:, 0])
        found = theirs(**words(firsts, seconds, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)


def batch_of(objective, documents):
    """The batch of all passages of an epoch, in the order of their names."""
    plan = objective.plan(Corpus.build(documents, objective.tokenizer), 0, 0)
    passages = sorted(plan[:], key=lambda each: each.place)
    return objective.batch(passages, [draw(number) for number in range(len(passages))])


def draw(number):
    return Draw(number, generator("test", number))


def agree(found, batch):
    """Every input of the model has the numbers of the objective; what it leaves out is zero."""
    assert set(found) == set(NAMES.values())
    for name, theirs in NAMES.items():
        expected = batch.inputs.get(name, torch.zeros_like(batch.inputs["tokens"]))
        assert found[theirs] == expected.long().tolist(), name


def test_what_an_encoder_was_trained_on_counts_more_than_a_foreign_rule(tmp_path, trained):
    """RoBERTa's rule gives a pair two separators and one segment; the objectives here do not."""
    folder = base(tmp_path / "base", bert(), bert_tokenizer())
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    for rule in (
        {"type": "RobertaProcessing", "sep": ["[SEP]", 4], "cls": ["[CLS]", 3],
         "trim_offsets": True, "add_prefix_space": False},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        None,
    ):  # fmt: skip
        path.write_text(json.dumps(content | {"post_processor": rule}))
        loaded = checkpoint.load(folder)
        words = written(tmp_path / str(rule and rule["type"]), loaded.model, loaded.tokenizer)
        found = words("a cat", "a dog")
        a, b = (loaded.tokenizer.encode(text) for text in ("a cat", "a dog"))
        assert found.input_ids == [3, *a, 4, *b, 4]
        assert found.token_type_ids == [0] * (len(a) + 2) + [1] * (len(b) + 1)


def test_a_decoder_begins_a_text_with_end_of_text_and_has_one_segment(tmp_path, trained):
    words = written(tmp_path / "a", model_of(GPT2, trained), trained)
    objective = causal_lm.CausalLM(trained)
    batch = batch_of(objective, [Document("a", LINES[0])])
    assert words(LINES[0]).input_ids == batch.inputs["tokens"][0].tolist()
    a, b = trained.encode("It rained."), trained.encode("It stopped.")
    pair = words("It rained.", "It stopped.")
    assert set(pair) == {"input_ids", "attention_mask"}
    assert pair.input_ids == [1, *a, 1, *b] and words.model_max_length == 64


def test_an_encoder_decoder_reads_words_alone(tmp_path, trained):
    """As reconstruction feeds its encoder; whoever makes labels ends them."""
    words = written(tmp_path / "a", model_of(T5, trained), trained)
    objective = reconstruction.Reconstruction(trained, reconstruction.Settings(deletion=0.0))
    corpus = Corpus.build([Document("a", LINES[0])], trained)
    (passage, *_) = objective.plan(corpus, 0, 0)[:]
    batch = objective.batch([passage], [draw(0)])
    given = reconstruction.damage(objective.words(passage), objective.settings, draw(0).generator)
    assert words(" ".join(given)).input_ids == batch.inputs["tokens"][0].tolist()
    sentence = trained.decode(passage.tokens.tolist())
    labels = words(sentence + words.eos_token).input_ids
    assert labels == batch.targets["tokens"][0].tolist()
    assert set(words("x", "y")) == {"input_ids", "attention_mask"}


def test_a_tokenizer_of_another_model_feeds_a_new_one_as_it_is_trained(tmp_path):
    """T5's puts </s> behind every text; a decoder made with it would be asked to go on after it."""
    t5_tokenizer().save_pretrained(tmp_path / "t5")
    (tmp_path / "text.txt").write_text(TEXT)
    words = ["train", "causal-lm", "--corpus", str(tmp_path / "text.txt"), "--steps", "1"]
    words += ["--batch-size", "2", "--width", "16", "--num-heads", "2", "--layers", "1"]
    words += ["--window", "24", "--evaluate-passages", "2", "--out", str(tmp_path / "run")]
    assert main([*words, "--tokenizer", str(tmp_path / "t5")]) == 0
    tokenizer = checkpoint.load(tmp_path / "run").tokenizer
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "step-00000001")
    assert theirs("It rained").input_ids == [1, *tokenizer.encode("It rained")]


@pytest.mark.parametrize("kind", [GPT2, T5])
def test_generate_of_transformers_stops_at_our_end_of_text(kind, tmp_path, trained):
    """A model learns one sentence by heart; theirs writes it from the same beginning and stops."""
    sentence = LINES[2].split(". ")[0] + "."
    if kind is GPT2:
        objective, given = causal_lm.CausalLM(trained), sentence[:6]
    else:
        settings = reconstruction.Settings(deletion=0.0, shuffle=False)
        objective, given = reconstruction.Reconstruction(trained, settings), sentence
    model = model_of(kind, trained, width=32, dropout=0.0)
    corpus = Corpus.build([Document("a", sentence)], trained)
    training = Training(batch_size=1, learning_rate=1e-2)
    for step in Trainer(model, objective, corpus, training, steps=60).run():
        loss = float(step.losses["tokens"].mean)
    assert loss < 0.05
    draws = generator("test", 0)
    ours = objective.generate(model, given, Sampling(length=40, temperature=0.0), draws)
    assert ours == sentence
    words = written(tmp_path / "a", model, trained)
    name = {GPT2: "GPT2LMHeadModel", T5: "T5ForConditionalGeneration"}[kind]
    theirs = getattr(transformers, name).from_pretrained(tmp_path / "a").eval()
    found = theirs.generate(
        **words(given, return_tensors="pt"), do_sample=False, max_new_tokens=40
    )[0].tolist()
    assert words.decode(found, skip_special_tokens=True) == sentence
    assert found[-1] == trained.need("end") and found.count(found[-1]) == 1 + (kind is GPT2)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_files_have_the_usual_modes(mask, tmp_path, trained):
    before = os.umask(mask)
    try:
        model = model_of(GPT2, trained)
        for form in ("export", "checkpoint"):
            written(tmp_path / form, model, trained, form)
            modes = {
                path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / form).iterdir()
            }
            assert set(modes.values()) == {0o666 & ~mask}, modes
            assert stat.S_IMODE((tmp_path / form).stat().st_mode) == 0o777 & ~mask
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "name, value",
    [("model_max_length", "512"), ("model_max_length", 0), ("model_max_length", True),
     ("padding_side", "top"), ("truncation_side", 1), ("clean_up_tokenization_spaces", "no")],
)  # fmt: skip
def test_a_wrong_habit_is_refused_by_name(name, value, tmp_path):
    folder = base(tmp_path / "base", bert(), bert_tokenizer(), **{name: value})
    with pytest.raises(InputError, match=name):
        Tokenizer.load(folder)


def test_the_hash_is_of_what_a_tokenizer_makes_of_a_text(tmp_path, trained):
    """Not of what other tools put around it: a run and its checkpoint have one tokenizer."""
    written(tmp_path / "a", model_of(BERT, trained), trained)
    again = Tokenizer.load(tmp_path / "a")
    assert again.sha256 == trained.sha256
    assert json.loads((tmp_path / "a/tokenizer.json").read_text())["post_processor"]
