"""Tokenizers of real folders: what is read, where it is cut, its bytes, its roles, its files."""

import json
import re
import unicodedata
from dataclasses import replace

import pytest
import real_tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from making import draws, model_of, objective_of
from real_tokenizers import KINDS, folder_of
from tokenizers import AddedToken, Regex, normalizers
from tokenizers import pre_tokenizers as pre

from minicpt.batch import IGNORE
from minicpt.checkpoint import folder as checkpoints
from minicpt.checkpoint.growing import grown
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data import building, text
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.text import SPACES, stretches
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import Sampling
from minicpt.proofs.batch_rules import batch_rules
from minicpt.proofs.subject import DOCUMENTS, Subject
from minicpt.remedies.self_replay import sample

HARD = (
    "  The cat's\tmat,\r\n\r\n\n def f(x):\n        return 12345  # 你好 😀 é e\u0301 naïve"
    "\x00 \ufffd [INST] <|im_start|>user</s><s>[MASK]<|begin_of_text|><|eot_id|> <0x0A> <unk>  x"
    " \n\n  end. "
)
PLAIN = HARD.replace("e\u0301", "ë")  # in NFC
SPECIAL = re.compile(r"\[INST\]|\[MASK\]|</?[a-z]+>|<\|[a-z_]+\|>")
CAUSAL = "causal-lm prefix-lm masked-next-token multi-token-prediction span-corruption".split()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    whole = tmp_path_factory.mktemp("real")
    return {kind: folder_of(kind, whole / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def loaded(folders) -> dict[str, Tokenizer]:
    return {kind: Tokenizer.load(folder) for kind, folder in folders.items()}


@pytest.fixture(params=list(KINDS))
def kind(request) -> str:
    return request.param


def theirs(folder):
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def changed(folder, target, **files):
    """A copy of a folder with some JSON files changed, by the names of these without the ending."""
    target.mkdir(exist_ok=True)
    for file in folder.iterdir():
        content = json.loads(file.read_text()) | files.pop(file.stem, {})
        (target / file.name).write_text(json.dumps(content))
    for name, content in files.items():
        (target / f"{name}.json").write_text(json.dumps(content))
    return target


# --- the same as other tools


def test_ids_and_text_are_those_of_transformers(kind, folders, loaded, tmp_path):
    ours, other = loaded[kind], theirs(folders[kind])
    for whole in (SPECIAL.sub("", HARD), "", "a", " a", "\n", "你"):
        ids = ours.encode(whole)
        assert ids == other(whole, add_special_tokens=False)["input_ids"]
        assert ours.decode(ids) == other.decode(ids, skip_special_tokens=True)


def test_saved_files_do_what_the_loaded_ones_did(kind, folders, loaded, tmp_path):
    model = {"inputs": ["input_ids"], "most": 64, "always": False}
    model |= {"single": "end:0 $A:0", "pair": "end:0 $A:0 $B:0"}  # as for a model made here
    loaded[kind].save(tmp_path, model)
    before, after = theirs(folders[kind]), theirs(tmp_path)
    if kind == "mistral":  # only its config asks for a begin token: see ``asked_for``
        assert after("a")["input_ids"] == [1, *before("a")["input_ids"]]
    else:
        for words in ([HARD], ["a b", "c"], [""]):
            assert before(*words)["input_ids"] == after(*words)["input_ids"]
    for role in ("bos", "eos", "pad", "unk", "mask", "cls", "sep"):
        assert getattr(before, f"{role}_token") == getattr(after, f"{role}_token")
    assert before.chat_template == after.chat_template
    attributes = (
        {id: (str(each), each.lstrip, each.normalized) for id, each in found.items()}
        for found in (before.added_tokens_decoder, after.added_tokens_decoder)
    )
    assert next(attributes) == next(attributes)
    again = Tokenizer.load(tmp_path)
    assert again.sha256 == loaded[kind].sha256 and again.roles == loaded[kind].roles


def test_what_looks_like_a_special_token_is_text(kind, loaded):
    tokenizer = loaded[kind]
    ids = tokenizer.encode(PLAIN)
    assert not set(ids) & set(tokenizer.special)
    assert tokenizer.decode(ids) == (PLAIN if kind != "mistral" else PLAIN[1:])  # as by the library


def test_a_whole_word_in_the_vocabulary_is_no_special_token():
    """``ignore_merges`` takes a word that is a piece as it is."""
    definition = json.loads(real_tokenizers.mistral()[0].to_str())
    definition["pre_tokenizer"]["prepend_scheme"] = "never"
    definition["model"]["ignore_merges"] = True
    tokenizer = Tokenizer(json.dumps(definition), {})
    ids = tokenizer.encode("</s>")
    assert 2 not in ids and tokenizer.decode(ids) == "</s>"


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from(" \n\t\r1a'é😀"), max_size=40))
def test_any_text_comes_back(whole):
    tokenizers = test_any_text_comes_back.tokenizers
    for kind in ("llama-3", "smollm2"):
        assert tokenizers[kind].decode(tokenizers[kind].encode(whole)) == whole
    if whole and "▁" not in whole:
        assert tokenizers["llama-2"].decode(tokenizers["llama-2"].encode(whole)) == whole


def from_parts(kind: str) -> Tokenizer:
    engine, _ = KINDS[kind]()
    return Tokenizer(engine.to_str(), {})


test_any_text_comes_back.tokenizers = {kind: from_parts(kind) for kind in KINDS}


# --- where a text is cut


def in_parts(tokenizer: Tokenizer, whole: str, size: int, breaks: str) -> list[int]:
    parts = [each.text for each in stretches(Document("x", whole), breaks, size)]
    goes_on = [False] + [True] * (len(parts) - 1)
    return [id for each in tokenizer.encodings(parts, goes_on=goes_on) for id in each.ids]


def test_the_places_to_cut(loaded):
    found = {kind: tokenizer.breaks for kind, tokenizer in loaded.items()}
    only_spaces = dict.fromkeys(("llama-3", "qwen", "llama-2", "mistral"), " ")
    assert found == only_spaces | dict.fromkeys(("smollm2", "modernbert"), SPACES)


WORDS = "wording Words, it's 12345 xyzzyx) (count ... ,y 你好世界你好。 😀é a_bcdef ▁a x\u0301"


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(WORDS.split()), min_size=6),
    st.lists(st.sampled_from([" ", "  ", "\n", "\t", "\r\n", " \n", "    "]), min_size=20),
    st.integers(1, 9),
)
def test_the_parts_of_a_text_have_the_tokens_of_the_whole(words, spaces, size):
    whole = "".join(a + b for a, b in zip(words, spaces * len(words), strict=False))
    for tokenizer in test_any_text_comes_back.tokenizers.values():
        assert in_parts(tokenizer, whole, size, tokenizer.breaks) == tokenizer.encode(whole)


def of(engine) -> Tokenizer:
    return Tokenizer(engine.to_str(), {})


def test_text_stays_whole_where_tokens_may_reach_over_a_space():
    pairs = pre.Split(Regex(r"\w+( \w+)?"), "isolated")
    engine = real_tokenizers.of_bytes([pairs, pre.ByteLevel(False)])
    assert of(engine).breaks == ""
    engine = real_tokenizers.qwen()[0]
    engine.normalizer = normalizers.Strip()
    assert of(engine).breaks == ""
    engine = real_tokenizers.qwen()[0]
    engine.add_tokens([AddedToken("New York")])
    assert of(engine).breaks == ""
    engine = real_tokenizers.llama_2()[0]
    engine.add_tokens([AddedToken("<think>")])  # behind it a space is put in front again
    assert of(engine).breaks == ""
    definition = json.loads(real_tokenizers.llama_2()[0].to_str())
    model = definition["model"]
    model["vocab"]["t▁"] = len(model["vocab"])
    model["merges"].append(["t", "▁"])
    assert Tokenizer(json.dumps(definition), {}).breaks == ""


def test_a_space_in_front_forbids_a_cut_before_a_newline():
    engine = real_tokenizers.of_bytes([pre.ByteLevel(add_prefix_space=True)])
    assert of(engine).breaks == " "
    assert of(real_tokenizers.of_bytes([pre.ByteLevel(False)])).breaks == SPACES


# --- bytes


def sizes(whole: str, tokenizer: Tokenizer) -> list[int]:
    corpus = Corpus.build([Document("x", whole)], tokenizer)
    return corpus.sizes(torch.arange(len(corpus.tokens))).tolist()


def test_the_space_in_front_is_no_byte_of_the_text():
    """By hand: ▁ in front, é of two bytes, a space with its word, a newline, 你 of three."""
    for kind in ("llama-2", "mistral"):
        tokenizer = test_any_text_comes_back.tokenizers[kind]
        pieces = [tokenizer.token(id) for id in tokenizer.encode("你 b\n好")]
        byte = [f"\\x{each:02x}" for each in "你好".encode()]
        assert pieces == ["␣", *byte[:3], "␣", "b", "\\n", *byte[3:]]
        assert sizes("你 b\n好", tokenizer) == [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]
        # The literal mark has three bytes, and the library's offsets say whose they are.
        assert sum(sizes("a ▁b", tokenizer)) == 6 and sum(sizes(" a", tokenizer)) == 2


def test_each_byte_belongs_to_one_token_however_a_text_is_cut(kind, monkeypatch):
    tokenizer = test_any_text_comes_back.tokenizers[kind]
    whole = sizes(PLAIN, tokenizer)
    assert sum(whole) == len(PLAIN.encode()) and sum(sizes(HARD, tokenizer)) == len(HARD.encode())
    monkeypatch.setattr(text, "stretches", lambda *given: stretches(*given[:2], 8))
    monkeypatch.setattr(building, "stretches", lambda *given: stretches(*given[:2], 8))
    assert sizes(PLAIN, tokenizer) == whole
    if kind in ("llama-3", "smollm2"):  # each piece is its bytes
        lengths = [len(tokenizer.data(id)) for id in tokenizer.encode(PLAIN)]
        assert whole == lengths


def test_changes_of_form_that_cancel_out_are_seen():
    """NFC takes a byte from each é and gives three to क़: the sum stays what it was."""
    whole = "e\u0301 e\u0301 e\u0301 \u0958"
    assert len(unicodedata.normalize("NFC", whole).encode()) == len(whole.encode())
    corpus = Corpus.build([Document("x", whole)], test_any_text_comes_back.tokenizers["qwen"])
    starts = [*corpus.words.tolist(), len(corpus.tokens)]
    words = corpus.bytes[starts].diff()
    assert words.tolist() == [3, 4, 4, 4]


# --- roles


def test_roles_of_real_folders(loaded):
    names = {
        kind: {role: tokenizer.token(id) for role, id in tokenizer.roles.items()}
        for kind, tokenizer in loaded.items()
    }
    turns = "<|im_end|>"
    assert names["llama-3"] == {"end": "<|end_of_text|>", "begin": "<|begin_of_text|>"}
    assert names["qwen"] == {"end": "<|endoftext|>", "pad": "<|endoftext|>"}
    assert names["smollm2"] == {"end": "<|endoftext|>", "pad": turns}
    assert names["llama-2"] == {"end": "</s>", "begin": "<s>", "unk": "<unk>"}
    assert names["mistral"] == {"end": "</s>", "begin": "<s>"}
    marks = {role: f"[{role.upper()}]" for role in ("unk", "cls", "sep", "pad", "mask")}
    assert names["modernbert"] == marks
    for tokenizer in loaded.values():
        assert tokenizer.unknown in (None, tokenizer.roles.get("unk"), 0)


def test_where_nothing_begins_a_text_the_end_of_another_does(loaded):
    for kind in ("qwen", "smollm2"):
        assert loaded[kind].begin == loaded[kind].roles["end"]
    bare = loaded["llama-3"].bare()  # for a new model
    assert bare.begin == bare.roles["end"]


def test_the_end_of_a_turn_ends_no_document_and_stays_declared(folders, tmp_path):
    """The folder of a model that chats; config.json has several ends."""
    ends = {"eos_token_id": [332, 330]}
    whole = changed(folders["smollm2"], tmp_path / "a", generation_config=ends)
    assert Tokenizer.load(whole).config_ids["eos_token_id"] == [332, 330]
    assert Tokenizer.load(folders["smollm2"]).config_ids["eos_token_id"] == [332, 330]
    llama = changed(
        folders["llama-3"], tmp_path / "b", tokenizer_config={"eos_token": "<|eot_id|>"},
        config={"eos_token_id": [2, 334, 331], "bos_token_id": 330},  # 2 is an ordinary token
    )  # fmt: skip
    tokenizer = Tokenizer.load(llama)
    assert tokenizer.token(tokenizer.roles["end"]) == "<|end_of_text|>"
    assert tokenizer.config_ids == {"bos_token_id": 330, "eos_token_id": [334, 331]}


def test_ids_in_a_models_config_say_what_is_not_declared(folders, tmp_path):
    bare = dict.fromkeys(("bos_token", "eos_token", "unk_token"))
    ids = {"eos_token_id": 2, "pad_token_id": 0, "mask_token_id": 300}
    whole = changed(folders["llama-2"], tmp_path / "a", tokenizer_config=bare, config=ids)
    # An ordinary token is none of them, and the unknown token is nothing else.
    assert set(Tokenizer.load(whole).roles) == {"end", "unk", "begin"}
    ids = {"eos_token_id": 334, "pad_token_id": 332}
    whole = changed(folders["llama-3"], tmp_path / "b", config=ids)
    assert Tokenizer.load(whole).roles == {"end": 331, "begin": 330, "pad": 332}


def test_add_bos_token_counts_where_the_tokenizer_json_is_silent(folders, tmp_path):
    for number, (kind, flags, begins) in enumerate([
        ("mistral", {"add_bos_token": False}, False),
        ("mistral", {"add_eos_token": True}, True),
        ("llama-2", {"add_bos_token": False}, True),  # the post-processor of the file is there
        ("qwen", {"add_bos_token": True, "bos_token": "<|im_start|>"}, True),
    ]):  # fmt: skip
        whole = changed(folders[kind], tmp_path / str(number), tokenizer_config=flags)
        tokenizer = Tokenizer.load(whole)
        assert ("begin" in tokenizer.roles) is begins
        tokenizer.save(tmp_path / "saved")
        read = theirs(tmp_path / "saved")("a")["input_ids"]
        around = ([tokenizer.begin] if begins else []), [2] if "add_eos_token" in flags else []
        assert read == [*around[0], *tokenizer.encode("a"), *around[1]]


# --- what objectives put around a document


def windows_of(tokenizer: Tokenizer, *objective, **settings):
    made = objective_of(*objective[:1], tokenizer, *objective[1:], **settings)
    corpus = Corpus.build([Document("x", "a b c d e f g h i")], tokenizer)
    passages = made.plan(corpus, 0, 0)[:]
    return made, sorted(passages, key=lambda each: each.start)


def test_a_document_stands_between_its_begin_and_its_end(loaded):
    """By hand, for a window of 6: <begin> and five tokens, six tokens, the rest and <end>."""
    for kind, begin in (("llama-3", 330), ("llama-2", 1), ("qwen", 330)):
        tokenizer = loaded[kind]
        end, whole = tokenizer.need("end"), tokenizer.encode("a b c d e f g h i")
        made, passages = windows_of(tokenizer, "causal-lm", window=6)
        rows = [made.batch([each], draws(1)) for each in passages]
        assert rows[0].inputs["tokens"][0].tolist() == [begin, *whole[:5]]
        assert rows[0].targets["tokens"][0].tolist() == whole[:6]
        assert rows[1].inputs["tokens"][0].tolist() == whole[5:11]
        assert [t for row in rows for t in row.targets["tokens"][0].tolist()] == [*whole, end]
        assert [n for each in passages for n in made.places(each).tolist()] == [
            *range(len(whole)), -1
        ]  # fmt: skip


@pytest.mark.parametrize("name", [*CAUSAL, "masked-diffusion"])
def test_the_rules_hold_with_a_begin_token(name, loaded):
    """The rules look everything up in the text; the model has rows beyond the tokenizer's."""
    tokenizer = loaded["llama-3"].with_tokens(["[MASK]", *(f"<extra_id_{n}>" for n in range(9))])
    objective = objective_of(name, tokenizer, "decoder", window=24)
    assert tokenizer.begin != tokenizer.need("end")
    corpus = Corpus.build(DOCUMENTS, tokenizer)
    subject = Subject(name, name, None, None, objective, tuple(DOCUMENTS), corpus)
    found = batch_rules(subject)
    assert found.passed, found.message
    opened = [each for each in subject.passages(10**6) if getattr(each, "first", True)]
    assert int(subject.batch(opened[:1]).inputs["tokens"][0, 0]) == tokenizer.begin


# --- rows beyond the tokenizer


def padded(name: str, tokenizer: Tokenizer, rows: int = 7, role: str | None = None):
    """An objective and a model with more rows, whose predictions are all for these."""
    objective = objective_of(name, tokenizer, role, window=16)
    model = model_of(objective)
    larger = type(model)(replace(model.config, vocabulary=tokenizer.size + rows))
    with torch.no_grad():
        for parameter in larger.parameters():
            parameter.fill_(0.5)
        larger.tokens.weight[tokenizer.size :] = 50.0
    return objective, larger


def test_rows_beyond_the_tokenizer_are_never_written(loaded):
    tokenizer = loaded["qwen"].with_tokens(["[MASK]"])
    for name in ("causal-lm", "prefix-lm", "masked-diffusion", "masked-next-token"):
        objective, model = padded(name, tokenizer, role="decoder")
        hidden = model(tokens=torch.tensor([[1]]))[0]
        assert int(model.heads["tokens"](hidden).argmax()) >= tokenizer.size
        sampling = Sampling(length=5, temperature=1.0)
        written = objective.generate(model, "a [MASK] b", sampling, generator("x"))
        assert "no token" not in written
    objective, model = padded("causal-lm", tokenizer)
    written = sample(model, tokenizer, 40, 16, seed=0)
    allowed = {*tokenizer.ordinary.tolist(), tokenizer.need("end")}
    assert set(written.flatten().tolist()) <= allowed


def test_the_base_writes_each_document_behind_what_begins_one(loaded):
    tokenizer = loaded["llama-3"]
    model = model_of(objective_of("causal-lm", tokenizer, window=16))
    step, read = model.step, []
    model.step = lambda tokens, cache: (read.append(tokens[:, 0].clone()), step(tokens, cache))[1]
    with torch.no_grad():
        model.tokens.weight[tokenizer.need("end")] *= 30
    written = sample(model, tokenizer, 200, 16, seed=0)
    end = tokenizer.need("end")
    begins = written[:, :-1] == end
    assert begins.any()
    read = torch.stack(read, dim=1)
    assert read[:, 0].unique().tolist() == [tokenizer.begin]
    expected = torch.where(begins, tokenizer.begin, written[:, :-1])
    assert read[:, 1:].tolist() == expected.tolist()


def test_a_token_is_never_replaced_by_a_row_beyond_the_tokenizer(loaded):
    settings = {"mask": 0.0, "random": 1.0, "rate": 1.0}
    tokenizer = loaded["modernbert"]
    objective = objective_of("masked-lm", tokenizer, window=16, **settings)
    corpus = Corpus.build(DOCUMENTS, tokenizer)
    passages = objective.plan(corpus, 0, 0)[:]
    batch = objective.batch(passages, draws(len(passages)))
    read = batch.inputs["tokens"][batch.targets["tokens"] != IGNORE]
    assert len(read) > 100 and set(read.tolist()) <= set(tokenizer.ordinary.tolist())


def test_added_tokens_take_rows_beyond_the_tokenizer_first(loaded, tmp_path):
    """They were never read and never a target, so nothing of the model is lost with them."""
    tokenizer = loaded["qwen"]
    _, model = padded("causal-lm", tokenizer)
    base = checkpoints.Checkpoint(tmp_path, model, tokenizer)
    names = [f"<{number}>" for number in range(3)]
    larger = grown(base, names, generator("x"))
    assert larger.model.config.vocabulary == tokenizer.size + 7
    size, rows = tokenizer.size, larger.model.tokens.weight
    assert [larger.tokenizer.special_id(name) for name in names] == [size, size + 1, size + 2]
    assert bool((rows[size : size + 3] < 1).all()) and bool((rows[size + 3 :] > 1).all())
    assert larger.tokenizer.begin == tokenizer.begin


# --- text that goes on


def test_what_is_written_goes_on_behind_the_prompt(loaded):
    for kind in ("llama-2", "mistral", "llama-3"):
        tokenizer = loaded[kind]
        ids = tokenizer.encode("The cat 你 mat")
        for place in range(1, len(ids)):
            before = tokenizer.decode(ids[:place]).rstrip("\ufffd")
            after = tokenizer.decode(ids[place:], [tokenizer.begin, *ids[:place]])
            assert before + after == "The cat 你 mat"


# --- wrong folders


@pytest.mark.parametrize(
    "files, told",
    [
        ({"tokenizer.model": "x"}, "make a tokenizer.json where transformers and sentencepiece"),
        ({"vocab.json": "{}"}, "has a vocab.json and no merges.txt"),
        ({"merges.txt": ""}, "has a merges.txt and no vocab.json"),
        ({"tokenizer.json": '{"model": {"type": "Word2Vec", "vocab": {}}}'}, "is not a tokenizer"),
        ({"tokenizer.json": '{"model": {"type": "BPE", "vocab": {"a": 0}}}'}, "is not a tokenizer"),
        ({}, "no tokenizer at"),
    ],
)
def test_wrong_folders_are_refused_in_one_line(files, told, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        Tokenizer.load(tmp_path)
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config, told",
    [
        ({"add_bos_token": "yes"}, "add_bos_token that is not true or false"),
        ({"chat_template": 3}, "chat_template that is not a text, or a list"),
        ({"eos_token": "<none>"}, "'<none>'"),
    ],
)
def test_a_wrong_config_is_refused(config, told, folders, tmp_path):
    with pytest.raises(InputError, match=re.escape(told)):
        Tokenizer.load(changed(folders["qwen"], tmp_path / "x", tokenizer_config=config))
