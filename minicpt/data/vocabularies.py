"""A tokenizer.json made from the vocabulary files of folders that hold none.

    vocab.txt                 WordPiece (BERT)
    vocab.json, merges.txt    byte-level BPE (GPT-2)
    spiece.model              SentencePiece's Unigram (T5), with its sentinels <extra_id_0>, …

Each is assembled as transformers assembles it, with the settings in tokenizer_config.json. Leaves
out SentencePiece's other models, which T5 does not use.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from minicpt.common.errors import InputError

SENTINELS = 100  # of T5, unless tokenizer_config.json has another number as extra_ids
UNIGRAM = 1  # SentencePiece's number of that kind of model
CONVERT = (
    "make a tokenizer.json where transformers and sentencepiece are installed: python -c"
    " \"from transformers import AutoTokenizer as T;"
    " T.from_pretrained('DIR').save_pretrained('DIR')\""
)


def definition(folder: Path, config: dict, special: dict[str, str]) -> str | None:
    """The tokenizer.json of the vocabulary files in a folder; None where it holds none of them.

    config   the content of its tokenizer_config.json
    special  the special tokens that it declares: {"pad_token": ...}

    Raises InputError for files that cannot be read as what they are called.
    """
    for names, build in (
        (("vocab.txt",), wordpiece),
        (("vocab.json", "merges.txt"), byte_level_bpe),
        (("spiece.model",), unigram),
    ):
        files = [folder / name for name in names]
        if not all(file.is_file() for file in files):
            continue
        try:
            return build(*files, config, special).to_str()
        except InputError:
            raise
        except Exception as error:  # the library raises Exception itself
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"cannot read a tokenizer from {files[0]}: {reason[:120]}") from error
    if (folder / "tokenizer.model").is_file():
        raise InputError(f"{folder} has a tokenizer.model and no tokenizer.json: {CONVERT}")
    for one, other in (("vocab.json", "merges.txt"), ("merges.txt", "vocab.json")):
        if (folder / one).is_file():
            raise InputError(f"{folder} has a {one} and no {other}: copy that too")
    return None


def wordpiece(file: Path, config: dict, special: dict[str, str]) -> tokenizers.Tokenizer:
    """BERT's: a piece a line, its id the number of the line. Lower case unless the config says."""
    with open(file, encoding="utf-8") as lines:  # splitlines() would part at U+2028 as well
        vocabulary = {line.rstrip("\n"): place for place, line in enumerate(lines)}
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"} | special
    engine = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk_token"]))
    engine.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(prefix="##")
    cls, sep = names["cls_token"], names["sep_token"]
    if cls in vocabulary and sep in vocabulary:
        engine.post_processor = processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
        )
    return engine


def byte_level_bpe(
    file: Path, merges: Path, config: dict, special: dict[str, str]
) -> tokenizers.Tokenizer:
    """GPT-2's: piece -> id, and the merges in their order."""
    engine = tokenizers.Tokenizer(models.BPE(*models.BPE.read_file(str(file), str(merges))))
    space = config.get("add_prefix_space", False)
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    engine.decoder = decoders.ByteLevel()
    engine.post_processor = processors.ByteLevel(trim_offsets=False)  # adds no token
    return engine


def unigram(file: Path, config: dict, special: dict[str, str]) -> tokenizers.Tokenizer:
    """T5's: SentencePiece's pieces and their scores, then the sentinels, the last one first."""
    pieces, marked, trained, characters = [], [], {}, b""
    for field, value in _fields(file.read_bytes()):
        inner = dict(_fields(value)) if field in (1, 2, 3) else {}
        if field == 1:  # a piece: its text, its score, its type; 2 is unknown, 3 are controls
            piece, score = inner[1].decode(), struct.unpack("<f", inner.get(2, bytes(4)))[0]
            pieces.append((piece, score))
            marked += [piece] if inner.get(3) in (2, 3) else []
        elif field == 2:  # how it was trained
            trained = inner
        elif field == 3:  # which characters are replaced before anything else
            characters = inner.get(2, b"")
    if trained.get(3, UNIGRAM) != UNIGRAM or trained.get(35):  # 35: falls back to bytes
        raise InputError(f"{file} is not of SentencePiece's Unigram kind: {CONVERT}")
    count = config.get("extra_ids", SENTINELS)
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(count))]
    pieces += [(sentinel, 0.0) for sentinel in sentinels]
    unknown = trained.get(40, 0)
    engine = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=unknown, byte_fallback=False))
    if characters:
        engine.normalizer = normalizers.Precompiled(characters)
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    engine.decoder = decoders.Metaspace(prepend_scheme="always")
    end = special.get("eos_token", "</s>")
    if (index := engine.token_to_id(end)) is not None:
        engine.post_processor = processors.TemplateProcessing(
            single=["$A", end], pair=["$A", end, "$B", end], special_tokens=[(end, index)]
        )
    engine.add_special_tokens(marked + sentinels)
    return engine


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a message of Protocol Buffers, in order: (number, value).

    >>> list(_fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))
    [(1, 150), (2, b'hi')]
    """
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while shift < 64:
            byte = message[place]
            value |= (byte & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if byte < 0x80:
                return value
        raise ValueError("not a SentencePiece model")

    while place < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        if kind not in (1, 2, 5):
            raise ValueError("not a SentencePiece model")
        size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        if place + size > len(message):
            raise ValueError("the file is cut off")
        yield key >> 3, message[place : place + size]
        place += size
