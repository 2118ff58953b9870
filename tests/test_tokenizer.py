"""The tokenizer: training, roles, kinds of files, and text that looks like a special token."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from minicpt.common.errors import InputError, WorkError
from minicpt.data import bpe
from minicpt.data.documents import Document
from minicpt.data.sources import read
from minicpt.data.text import SPACES, stretches
from minicpt.data.tokenizer import Tokenizer

TEXT = "low lower lowest, and slow: slower than the slowest.\n\n  Naïve café — 你好 😀\t" * 5
SPECIAL_LOOKALIKES = "a [MASK] b </s><pad> <|endoftext|> [CLS]<mask>[UNK] <unk> <extra_id_0> <s>"


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train([TEXT], 256 + 40)


def saved(engine: Engine, folder: Path, **config) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    engine.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer.load(folder)


def wordpiece() -> Engine:
    vocabulary = "[PAD] [UNK] [CLS] [SEP] [MASK] low ##er ##est slow , é 你 [ ] mask cls a b"
    vocabulary = vocabulary.split()
    engine = Engine(
        models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    engine.normalizer = normalizers.BertNormalizer(strip_accents=False)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    engine.add_special_tokens(vocabulary[:5])
    engine.enable_truncation(4)
    engine.enable_padding(length=4)
    return engine


def unigram() -> Engine:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), ("▁low", -1.0)]
    pieces += [("er", -2.0), ("▁slow", -1.5), ("é", -4.0), ("s", -5.0), ("<", -6.0), (">", -6.0)]
    pieces += [("/", -6.0), ("p", -6.0), ("a", -6.0), ("d", -6.0), ("<extra_id_0>", 0.0)]
    engine = Engine(models.Unigram(pieces, unk_id=2))
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    engine.decoder = decoders.Metaspace()
    engine.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    engine.add_special_tokens(["<pad>", "</s>", "<unk>", "<extra_id_0>"])
    return engine


def byte_level(*special: str) -> Engine:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, "lo", "low", "Ġlow"])}
    engine = Engine(models.BPE(vocabulary, [("l", "o"), ("lo", "w"), ("Ġ", "low")]))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    engine.post_processor = processors.ByteLevel(trim_offsets=True)
    engine.add_special_tokens(list(special))
    return engine


def roberta() -> Engine:
    return byte_level("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def test_training_counts_ordinary_tokens_and_puts_special_tokens_first(trained):
    assert trained.roles == {"pad": 0, "end": 1, "cls": 2, "sep": 3, "mask": 4}
    assert trained.special == [0, 1, 2, 3, 4]
    assert trained.size == 5 + 256 + 40
    assert trained.ordinary.tolist() == list(range(5, trained.size))
    assert trained.ordinary.dtype == torch.int64


def test_256_tokens_are_the_bytes():
    tokenizer = Tokenizer.train([TEXT], 256)
    ids = tokenizer.encode(TEXT)
    assert tokenizer.size == 261 and len(ids) == len(TEXT.encode())
    assert {tokenizer.token(i) for i in tokenizer.encode("a é")} == {"a", "␣", "\\xc3", "\\xa9"}
    assert tokenizer.pieces.lengths.tolist() == [0] * 5 + [1] * 256


def test_merges_are_the_most_frequent_pairs():
    """abab abab: "ab" four times; then "abab" twice, and " abab" once."""
    tokenizer = Tokenizer.train(["abab abab"], 256 + 3)
    assert [tokenizer.token(i) for i in range(261, 264)] == ["ab", "abab", "␣abab"]
    assert [tokenizer.token(i) for i in tokenizer.encode("abab ababa")] == ["abab", "␣abab", "a"]


def test_a_small_text_has_fewer_merges():
    assert Tokenizer.train(["ab"], 1000).size == 5 + 256 + 1
    assert Tokenizer.train([], 1000).size == 5 + 256


@pytest.mark.parametrize("vocabulary", [255, 0, -1])
def test_fewer_tokens_than_bytes_are_refused(vocabulary):
    with pytest.raises(InputError, match="256"):
        Tokenizer.train([TEXT], vocabulary)


def test_training_is_the_same_in_another_process(tmp_path):
    program = (
        "import pathlib, sys; from minicpt.data.tokenizer import Tokenizer; "
        "Tokenizer.train([pathlib.Path('minicpt/data/text.py').read_text()], 400).save(sys.argv[1])"
    )
    root = Path(__file__).parent.parent
    for name in "ab":
        subprocess.run([sys.executable, "-c", program, tmp_path / name], check=True, cwd=root)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@settings(derandomize=True, deadline=None)
@given(st.text())
def test_text_survives_encoding_and_its_bytes_are_counted(text):
    tokenizer = test_text_survives_encoding_and_its_bytes_are_counted.tokenizer
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert int(tokenizer.pieces.lengths[ids].sum()) == len(text.encode())
    ((same, offsets),) = tokenizer.encode_with_offsets([text])
    assert same == ids
    starts = [start for start, _ in offsets]
    assert starts == sorted(starts) and {
        place for start, stop in offsets for place in range(start, stop)
    } == set(range(len(text)))


test_text_survives_encoding_and_its_bytes_are_counted.tokenizer = Tokenizer.train([TEXT], 300)


KINDS = {
    "trained": lambda: None,
    "bert": wordpiece,
    "t5": unigram,
    "gpt2": lambda: byte_level("<|endoftext|>"),
    "roberta": roberta,
}
ROLES = {
    "trained": {"pad": 0, "end": 1, "cls": 2, "sep": 3, "mask": 4},
    "bert": {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4},
    "t5": {"pad": 0, "end": 1, "unk": 2},
    "gpt2": {"end": 259},
    "roberta": {"cls": 259, "pad": 260, "sep": 261, "end": 261, "unk": 262, "mask": 263},
}


@pytest.fixture(params=list(KINDS))
def kind(request) -> str:
    return request.param


@pytest.fixture
def tokenizer(kind, trained, tmp_path) -> Tokenizer:
    return trained if kind == "trained" else saved(KINDS[kind](), tmp_path / kind)


def test_roles_by_well_known_names(kind, tokenizer):
    assert tokenizer.roles == ROLES[kind]
    assert set(tokenizer.roles.values()) <= set(tokenizer.special)
    assert not set(tokenizer.ordinary.tolist()) & set(tokenizer.special)
    assert len(tokenizer.ordinary) + len(tokenizer.special) == tokenizer.size


def test_need_gives_the_id_or_says_what_is_missing(kind, tokenizer):
    for role in ("pad", "mask", "cls", "sep", "unk", "end"):
        if role in ROLES[kind]:
            assert tokenizer.need(role) == ROLES[kind][role]
        else:
            with pytest.raises(InputError, match=f"no {role} token"):
                tokenizer.need(role)


def test_special_tokens_in_a_text_are_text(kind, tokenizer):
    ids = tokenizer.encode(SPECIAL_LOOKALIKES)
    assert ids
    assert not set(ids) & set(tokenizer.special) - {tokenizer.roles.get("unk")}
    if kind in ("trained", "gpt2", "roberta"):
        assert tokenizer.decode(ids) == SPECIAL_LOOKALIKES


def test_nothing_is_added_cut_off_or_filled_up(kind, tokenizer):
    text = "low low slow low low low"
    pieces = [tokenizer.token(i) for i in tokenizer.encode(text)]
    assert "".join(pieces).replace("␣", "") == text.replace(" ", "")
    assert tokenizer.encode("") == []
    both = [tokenizer.encode("low"), tokenizer.encode(text)]
    assert tokenizer.encode_batch(["low", text]) == both


def test_saving_loses_nothing(kind, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert again.sha256 == tokenizer.sha256
    assert again.roles == tokenizer.roles and again.special == tokenizer.special
    for text in (TEXT, SPECIAL_LOOKALIKES):
        assert again.encode_with_offsets([text]) == tokenizer.encode_with_offsets([text])
    again.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()
    content = json.loads((tmp_path / "saved/tokenizer.json").read_text())
    if kind in ("bert", "t5"):
        assert content["post_processor"]["type"] == "TemplateProcessing"
    assert Tokenizer.load(tmp_path / "saved/tokenizer.json").roles == tokenizer.roles


def test_transformers_opens_the_saved_folder(kind, tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = "low slow lower é"
    assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    for role, name in (
        ("pad", "pad"),
        ("mask", "mask"),
        ("cls", "cls"),
        ("sep", "sep"),
        ("unk", "unk"),
        ("end", "eos"),
    ):
        assert getattr(theirs, f"{name}_token_id") == tokenizer.roles.get(role)


def test_the_hash_is_of_the_tokenizer_alone(trained, tmp_path):
    trained.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert trained.sha256 == hashlib.sha256(canonical.encode()).hexdigest()
    assert Tokenizer.train([TEXT], 299).sha256 != trained.sha256


def test_what_the_model_does_not_know(trained, tmp_path):
    """Whether its role is declared or not: T5's here is, BERT's is not."""
    end = {"eos_token": "[SEP]"}
    assert saved(wordpiece(), tmp_path / "bert", **end).roles == {"end": 3, "begin": 2}
    assert saved(wordpiece(), tmp_path / "bert", **end).unknown == 1
    assert saved(unigram(), tmp_path / "t5").unknown == 2
    assert trained.unknown is None and saved(byte_level(), tmp_path / "gpt2").unknown is None


def test_pieces_can_be_read(trained, tmp_path):
    def shown(text: str, tokenizer: Tokenizer) -> list[str]:
        return [tokenizer.token(i) for i in tokenizer.encode(text)]

    assert shown("lower \n\t", Tokenizer.train([], 256)) == [*"lower", "␣", "\\n", "\\t"]
    assert trained.token(4) == "[MASK]" and trained.token(1) == "<|endoftext|>"
    assert "no token" in trained.token(10**6)
    assert shown("lower low", saved(wordpiece(), tmp_path / "b")) == ["low", "##er", "low"]
    assert shown("lower low", saved(unigram(), tmp_path / "u")) == ["␣low", "er", "␣low"]


def test_decoding_leaves_special_tokens_out(trained):
    ids = trained.encode("low [SEP]")
    assert trained.decode([2, *ids, 3, 0, 0]) == "low [SEP]"


def test_a_byte_level_token_keeps_its_space_in_its_offsets(tmp_path):
    """RoBERTa's post-processor would trim them, and words could not be told apart."""
    tokenizer = saved(roberta(), tmp_path / "r")
    assert tokenizer.encode_with_offsets(["low low"]) == [([258 - 1, 258], [(0, 3), (3, 7)])]


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_declared_roles_go_before_well_known_names(tmp_path, file):
    saved(byte_level("<|endoftext|>", "<pad>", "<odd>"), tmp_path)
    declared = {"eos_token": {"content": "<odd>"}, "pad_token": "<odd>", "mask_token": None}
    (tmp_path / file).write_text(json.dumps(declared))
    assert Tokenizer.load(tmp_path).roles == {"end": 261, "pad": 261}


def test_a_bert_has_an_end_if_it_is_declared(tmp_path):
    tokenizer = saved(wordpiece(), tmp_path, eos_token="[SEP]", pad_token="[PAD]")
    assert tokenizer.roles == {"end": 3, "pad": 0, "begin": 2}  # its template begins with 2


def test_gpt2s_declared_unknown_token_is_none(tmp_path):
    end = "<|endoftext|>"
    tokenizer = saved(byte_level(end), tmp_path, eos_token=end, bos_token=end, unk_token=end)
    assert tokenizer.roles == {"end": 259}
    tokenizer.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    assert config["bos_token"] == end


def test_a_role_makes_its_token_special(tmp_path):
    """Whether the file lists it as added but not special, or only among the pieces."""
    engine = wordpiece()
    engine.save(str(tmp_path / "tokenizer.json"))
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    for added in ([], [token | {"special": False} for token in content["added_tokens"]]):
        content["added_tokens"] = added
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        tokenizer = Tokenizer.load(tmp_path)
        assert tokenizer.special == [0, 1, 2, 3, 4]
        assert [tokenizer.token(i) for i in tokenizer.encode("[MASK]")] == ["[", "mask", "]"]


@pytest.mark.parametrize(
    "content, complaint",
    [
        (None, "no tokenizer at"),
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{}", "not a tokenizer"),
        ('{"model": {"type": "BPE"}}', "not a tokenizer"),
        ('{"model": {"type": "BPE", "vocab": {}, "merges": []}, "version": "1.0"}', "no ordinary"),
    ],
)
def test_what_is_no_tokenizer_is_refused_in_one_line(tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        with pytest.raises(InputError, match=complaint) as caught:
            Tokenizer.load(path)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "config, complaint",
    [
        ("{", "not JSON"),
        ('{"pad_token": 3}', "pad_token"),
        ('{"pad_token": "<none>"}', "'<none>'"),
    ],
)
def test_a_bad_declaration_is_refused(tmp_path, trained, config, complaint):
    trained.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(InputError, match=complaint):
        Tokenizer.load(tmp_path)


def test_half_a_surrogate_pair_is_refused(trained):
    with pytest.raises(InputError, match="surrogate"):
        trained.encode("a\ud800")


def test_a_tokenizer_without_an_unknown_token_says_so(tmp_path):
    tokenizer = saved(Engine(models.WordPiece({"a": 0}, unk_token="[UNK]")), tmp_path)
    with pytest.raises(InputError, match="UNK"):
        tokenizer.encode("zzz")


def cut(text: str, breaks: str, size: int) -> list[str]:
    return [each.text for each in stretches(Document("x", text), breaks, size)]


def test_a_long_text_in_portions_encodes_as_the_whole(kind, tokenizer):
    text = (TEXT + "x  y\n z . " * 3 + "low") * 3
    for breaks in {" ", tokenizer.breaks}:
        portions = cut(text, breaks, 7)
        assert len(portions) > 20 and "".join(portions) == text
        together = [i for ids in tokenizer.encode_batch(portions) for i in ids]
        assert together == tokenizer.encode(text)
    assert tokenizer.breaks == (" " if kind == "t5" else SPACES)


@settings(derandomize=True, deadline=None)
@given(st.text(st.sampled_from("lower er.\n\t 1é's\u2028\x1c。"), max_size=60), st.integers(1, 9))
def test_a_text_may_be_cut_before_any_white_space_in_breaks(text, size):
    for tokenizer in test_a_text_may_be_cut_before_any_white_space_in_breaks.tokenizers:
        portions = cut(text, tokenizer.breaks, size)
        together = [i for ids in tokenizer.encode_batch(portions) for i in ids]
        assert together == tokenizer.encode(text)


test_a_text_may_be_cut_before_any_white_space_in_breaks.tokenizers = [
    Tokenizer.train([TEXT], 300),
    Tokenizer(wordpiece().to_str(), {}),
    Tokenizer(unigram().to_str(), {}),
]


def test_bytes_say_where_tokens_start_unless_a_space_is_put_in_front(tmp_path):
    assert saved(byte_level(), tmp_path / "a").pieces
    engine = byte_level()
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert not saved(engine, tmp_path / "b").pieces
    assert not saved(wordpiece(), tmp_path / "c").pieces


def test_without_a_pre_tokenizer_a_text_stays_whole(tmp_path):
    engine = byte_level()
    engine.pre_tokenizer = None
    engine.save(str(tmp_path / "tokenizer.json"))
    breaks = Tokenizer.load(tmp_path).breaks
    assert breaks == "" and len(cut("low lower " * 50_000, breaks, 100)) == 1


def test_saving_where_nothing_can_be_written_is_a_work_error(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match="cannot write"):
        trained.save(tmp_path / "file" / "folder")
    shutil.rmtree(tmp_path)


# --- training: long words, and how it ends

WORD = "abcdefghij" * 300
GPT2 = re.sub(r"\{1,\d+\}", "+", bpe.WORDS)  # words of any length


def test_words_end_after_1024_characters_in_other_tools_too(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer.train([f"a {WORD} {WORD}"], 300)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    again = Tokenizer.load(tmp_path)
    for text in (WORD, f"low {WORD}é", "é" * 2000, " " * 3000 + "low", TEXT):
        ids = tokenizer.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == again.encode(text) == ids
        assert tokenizer.decode(ids) == text and tokenizer.pieces
        if text == WORD:  # no token reaches across a cut
            assert {1024, 2048} <= set(tokenizer.pieces.lengths[ids].cumsum(0).tolist())


def test_words_are_gpt2s():
    """Against the library's own rule, where no word is too long."""
    texts = [TEXT, SPECIAL_LOOKALIKES, "it's I'll 3.14 x_1\r\n \t a  b   ", *"aé \n1_😀\u2028"]
    texts += [each.text for each in read(["builtin:docs"])]
    theirs = pre_tokenizers.ByteLevel(add_prefix_space=False)
    definition = json.loads(bpe.train([], 256, []))
    ours = Engine.from_str(json.dumps(definition)).pre_tokenizer
    for text in texts:
        assert ours.pre_tokenize_str(text) == theirs.pre_tokenize_str(text)


def test_ordinary_words_are_not_cut(monkeypatch):
    documents = [each.text for each in read(["builtin:docs"])]
    cut = Tokenizer.train(documents, 600)
    monkeypatch.setattr(bpe, "WORDS", GPT2)
    whole = Tokenizer.train(documents, 600)
    assert cut.encode_batch(documents) == whole.encode_batch(documents)
    assert cut.sha256 != whole.sha256  # the rule is a part of the tokenizer


def test_the_second_process_trains_the_same(monkeypatch):
    expected = Tokenizer.train([TEXT, "\n", "", WORD], 340)
    monkeypatch.setattr(bpe, "SHORT", -1)
    assert Tokenizer.train([TEXT, "\n", "", WORD], 340).sha256 == expected.sha256
    assert Tokenizer.train(iter([TEXT, "\n", "", WORD]), 340).sha256 == expected.sha256


def test_a_second_process_that_dies_is_said(monkeypatch):
    monkeypatch.setattr(bpe, "SHORT", -1)
    monkeypatch.setattr(bpe, "PROGRAM", "import os; os._exit(7)")
    with pytest.raises(WorkError, match="status 7"):
        Tokenizer.train([TEXT] * 9999, 300)


def test_a_text_that_cannot_be_read_ends_the_second_process(monkeypatch):
    made = []

    class Watched(subprocess.Popen):
        def __init__(self, *words, **options):
            super().__init__(*words, **options)
            made.append(self)

    def texts():
        yield TEXT
        raise InputError("gone")

    monkeypatch.setattr(bpe, "SHORT", 1)
    monkeypatch.setattr(bpe.subprocess, "Popen", Watched)
    with pytest.raises(InputError, match="gone"):
        Tokenizer.train(texts(), 300)
    assert made[0].returncode == -signal.SIGKILL


# Words that are not cut would keep the library at work for minutes: no end but a signal's.
ENDLESS = """
import random, sys
from minicpt import __main__
from minicpt.cli import main as command_line
from minicpt.data import bpe
from minicpt.data.tokenizer import Tokenizer

bpe.WORDS = bpe.WORDS.replace("1024", "90000")
text = "".join(random.Random(0).choices("abcdefghij", k=2_000_000))

def work(arguments):
    print("ready", flush=True)
    Tokenizer.train([text], 30_000)

command_line.verbs()["demo"].run = work
sys.argv = ["minicpt", "demo"]
sys.exit(__main__.main())
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the second process in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_training_and_its_process(number):
    child = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "ready\n"
        second = wait_for(lambda: working_child(child.pid))
        child.send_signal(number)
        _, error = child.communicate(timeout=20)
        assert wait_for(lambda: not alive(second))
    finally:
        child.kill()
        child.wait()
    if number != signal.SIGKILL:
        assert child.returncode == 128 + number
        assert error == f"minicpt: {number.name}: stopped; nothing to save\n"


def working_child(pid: int) -> int | None:
    """The child of a process, once it has worked for a while: Python has started by then."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        times = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        if int(times[11]) > 100:  # hundredths of a second
            return int(child)
    return None


def alive(pid: int) -> bool:
    """Whether a process works; one that nobody has waited for is dead all the same."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(what):
    for _ in range(1200):
        if found := what():
            return found
        time.sleep(0.05)
    return None
