"""Tokenizers of older folders, without a tokenizer.json, against those of transformers."""

import json
import struct

import pytest
import transformers
from oracles import (
    SAMPLES,
    bert_pieces,
    bert_tokenizer,
    gpt2_files,
    gpt2_tokenizer,
    t5_pieces,
    t5_tokenizer,
)

from minicpt.common.errors import InputError
from minicpt.data.tokenizer import Tokenizer


def agree(ours, theirs):
    """Encodings of plain text, ids of special tokens, and what the next reader gets."""
    assert ours.size == len(theirs)
    for sample in SAMPLES:
        # Text that looks like a special token is text to us, and to them with this flag.
        expected = theirs(sample, add_special_tokens=False, split_special_tokens=True).input_ids
        if "[MASK]" not in sample:
            assert ours.encode(sample) == expected, sample
            assert ours.decode(expected) == theirs.decode(expected, skip_special_tokens=True)
    names = {"pad": "pad_token_id", "mask": "mask_token_id", "cls": "cls_token_id",
             "sep": "sep_token_id", "unk": "unk_token_id", "end": "eos_token_id"}  # fmt: skip
    for role, name in names.items():
        if role == "unk" and theirs.unk_token == theirs.eos_token:
            continue  # GPT-2: no byte is ever unknown
        assert ours.roles.get(role) == getattr(theirs, name, None), role


def reopened(ours, theirs, folder):
    """What we save opens in transformers and does the same, special tokens added."""
    ours.save(folder)
    again = transformers.AutoTokenizer.from_pretrained(folder)
    for sample in SAMPLES:
        assert again(sample).input_ids == theirs(sample).input_ids
    assert set(again.all_special_ids) == set(theirs.all_special_ids)
    assert Tokenizer.load(folder).sha256 == ours.sha256


@pytest.mark.parametrize(
    "config",
    [{}, {"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False},
     {"tokenize_chinese_chars": False}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_vocab_txt_of_bert(config, end, tmp_path):
    text = "".join(piece + end for piece in bert_pieces())
    (tmp_path / "vocab.txt").write_text(text, encoding="utf-8", newline="")
    if config:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = Tokenizer.load(tmp_path), bert_tokenizer(**config)
    agree(ours, theirs)
    assert "end" not in ours.roles
    reopened(ours, theirs, tmp_path / "ours")


def test_vocab_txt_keeps_strange_lines(tmp_path):
    """Only a newline ends a line: vocabularies of many languages hold U+2028 and U+0085."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a\u2028b", "\x85", "cat"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    assert Tokenizer.load(tmp_path).encode("cat") == [7]


@pytest.mark.parametrize("config", [{}, {"add_prefix_space": True}], ids=str)
def test_vocab_json_and_merges_txt_of_gpt2(config, tmp_path):
    gpt2_files(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = Tokenizer.load(tmp_path)
    vocabulary, merges = str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
    theirs = transformers.GPT2Tokenizer(vocab=vocabulary, merges=merges, **config)
    agree(ours, theirs)
    assert set(ours.roles) == {"end"} and ours.roles["end"] == ours.size - 1
    reopened(ours, theirs, tmp_path / "ours")


def field(number, content):
    """A field of Protocol Buffers: bytes, a float or a whole number."""
    if isinstance(content, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", content)
    kind = 2 if isinstance(content, bytes) else 0
    value = varint(number << 3 | kind)
    return value + (varint(len(content)) + content if kind else varint(content))


def varint(value):
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def spiece(pieces, kind=1, fallback=0):
    """The file that SentencePiece writes; types: 1 ordinary, 2 unknown, 3 control."""
    types = {"<pad>": 3, "</s>": 3, "<unk>": 2}
    model = b""
    for piece, score in pieces:
        inner = field(1, piece.encode()) + field(2, score)
        model += field(1, inner + field(3, types.get(piece, 1)))
    trainer = field(3, kind) + field(35, fallback) + field(40, 2) + field(45, b"unk piece")
    return model + field(2, trainer) + field(3, field(1, b"nmt_nfkc") + field(4, 1))


def test_spiece_model_of_t5(tmp_path):
    (tmp_path / "spiece.model").write_bytes(spiece(t5_pieces()))
    ours, theirs = Tokenizer.load(tmp_path), t5_tokenizer()
    agree(ours, theirs)
    # The sentinels count down from the highest id.
    assert [ours.token(ours.size - 1 - n) for n in (0, 1, 99)] == [
        "<extra_id_0>", "<extra_id_1>", "<extra_id_99>",
    ]  # fmt: skip
    assert len(ours.special) == 103
    reopened(ours, theirs, tmp_path / "ours")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 7}))
    assert Tokenizer.load(tmp_path).size == ours.size - 93


def test_spiece_model_of_another_kind_says_how_to_convert_it(tmp_path):
    for model in (spiece(t5_pieces(), kind=2), spiece(t5_pieces(), fallback=1)):
        (tmp_path / "spiece.model").write_bytes(model)
        with pytest.raises(InputError, match="Unigram kind.*AutoTokenizer.*save_pretrained"):
            Tokenizer.load(tmp_path)


def test_tokenizer_json_comes_first(tmp_path):
    theirs = gpt2_tokenizer(tmp_path)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\nx\n")
    agree(Tokenizer.load(tmp_path), theirs)


@pytest.mark.parametrize(
    "files",
    [
        {"vocab.txt": b"\xff\xfe\xfa"},
        {"vocab.txt": b""},
        {"vocab.json": b"{", "merges.txt": b"a b"},
        {"vocab.json": b"[1]", "merges.txt": b"a b"},
        {"vocab.json": b'{"a": 0}', "merges.txt": b"#version\nx y z\n"},
        {"vocab.json": b'{"a": 0}', "merges.txt": b"#version\nx y\n"},
        {"spiece.model": b"\xff" * 40},
        {"spiece.model": b"version https://git-lfs.github.com/spec/v1"},
        {"spiece.model": spiece(t5_pieces())[:300]},
        {"spiece.model": b""},
        {"vocab.txt": b"[UNK]\na\n", "tokenizer_config.json": b'{"do_lower_case": "no"}'},
        {"vocab.txt": b"[UNK]\na\n", "tokenizer_config.json": b'{"mask_token": "<gap>"}'},
        {"vocab.json": b'{"a": 0}'},
        {},
    ],
    ids=str,
)
def test_files_that_are_not_what_they_are_called_give_one_line(files, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
