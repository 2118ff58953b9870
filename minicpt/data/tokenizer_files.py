"""The folder of a tokenizer: which token plays which role, and how other tools feed a text.

Reads tokenizer.json, or makes one from older files (``vocabularies``), and what
tokenizer_config.json and special_tokens_map.json declare beside it. Writes the first two again.
"""

import json
import os
from pathlib import Path

import tokenizers

from minicpt.common import disk
from minicpt.common.errors import InputError, WorkError
from minicpt.data import vocabularies

MOST = 1 << 28  # bytes of a file
CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"
REMEDY = "give a folder with a tokenizer.json (or the older files of BERT, GPT-2 or T5)"
# Role -> the name under which tokenizer_config.json declares it. bos has no role here.
DECLARED = {
    "pad": "pad_token",
    "mask": "mask_token",
    "cls": "cls_token",
    "sep": "sep_token",
    "unk": "unk_token",
    "end": "eos_token",
}
# Role -> well-known tokens, where a folder declares none. <s> and </s> are cls and sep only in the
# family of RoBERTa, which is told by <mask>; elsewhere </s> is only the end.
WELL_KNOWN = {
    "pad": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "unk": ("[UNK]", "<unk>"),
    "end": ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[EOS]"),
}
# What tokenizer_config.json says beside that, and whoever opens the folder next goes by.
HABITS = {
    "model_max_length": "a number above 0",
    "padding_side": "left or right",
    "truncation_side": "left or right",
    "clean_up_tokenization_spaces": "true or false",
}


def read(path: str | os.PathLike) -> tuple[str, dict[str, str], dict]:
    """The content of a tokenizer.json, what is ``declared`` beside it, and the ``habits``.

    path  of a folder with a tokenizer.json or older vocabulary files, or of a tokenizer.json

    Roles come from the tokenizer_config.json or special_tokens_map.json beside it, or, if these
    declare none, from well-known names. Raises InputError for what is no tokenizer.
    """
    path = Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    config = read_json(file.parent / CONFIG)
    special = declared(file.parent / MAP, read_json(file.parent / MAP))
    special |= declared(file.parent / CONFIG, config)
    # GPT-2 declares its end of text as unknown too, although no byte is ever unknown.
    if special.get("unk_token") == special.get("eos_token"):
        special.pop("unk_token", None)
    old = path.is_dir() and not file.is_file()
    made = vocabularies.definition(path, config, special) if old else None
    if not (made or file.is_file()):
        raise InputError(f"no tokenizer at {str(file)!r}: {REMEDY}")
    definition = json.loads(made) if made else read_json(file)
    try:
        vocabulary = tokenizers.Tokenizer.from_str(json.dumps(definition)).get_vocab()
    except Exception as error:  # the library raises Exception itself
        raise InputError(f"{str(file)!r} is not a tokenizer: give a tokenizer.json") from error
    if made or not special:  # the old files say only what is unusual
        special = well_known(definition, vocabulary) | special
    unknown = sorted(token for token in special.values() if token not in vocabulary)
    if unknown:
        raise InputError(
            f"{str(file.parent)!r} declares the special token {unknown[0]!r}, which its "
            "vocabulary does not hold: use files that belong together"
        )
    return json.dumps(definition), special, habits(file.parent / CONFIG, config)


def read_json(file: Path) -> dict:
    """The object in a JSON file of the folder; {} where there is none."""
    return disk.read_json(file, MOST, REMEDY) if file.is_file() else {}


def declared(file: Path, config: dict) -> dict[str, str]:
    """The special tokens that a file declares: {"pad_token": ...}. InputError for what is none."""
    found = {}
    for name in [*DECLARED.values(), "bos_token"]:
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if token is None:
            continue
        if not isinstance(token, str) or not token:
            raise InputError(f"{str(file)!r} has a {name} that is no string: write the token")
        found[name] = token
    return found


def habits(file: Path, config: dict) -> dict:
    """Those of ``HABITS`` that tokenizer_config.json declares. InputError for a wrong value."""
    found = {name: config[name] for name in HABITS if config.get(name) is not None}
    for name, value in found.items():
        if name == "model_max_length":
            right = isinstance(value, (int, float)) and value is not True and value > 0
        else:
            right = value in (("left", "right") if "side" in name else (True, False))
        if not right:
            raise InputError(f"{str(file)!r} has a {name} that is not {HABITS[name]}: correct it")
    return found


def well_known(definition: dict, vocabulary: dict[str, int]) -> dict[str, str]:
    """Roles by well-known names, among the special tokens if the file marks any."""
    marked = {item["content"] for item in definition.get("added_tokens", []) if item["special"]}
    candidates = marked or set(vocabulary)
    names = dict(WELL_KNOWN)
    if {"<s>", "</s>", "<mask>"} <= candidates:
        names |= {"cls": ("<s>",), "sep": ("</s>",)}
    return {
        DECLARED[role]: token
        for role, tokens in names.items()
        for token in [next((token for token in tokens if token in candidates), None)]
        if token
    }


# --- what other tools need -------------------------------------------------------------------


def write(
    folder: str | os.PathLike,
    engine: tokenizers.Tokenizer,
    declared: dict[str, str],
    others: set[str],
    habits: dict,
    feeding: dict | None,
) -> None:
    """Writes tokenizer.json and tokenizer_config.json, which transformers opens too.

    others   special tokens without a role, such as T5's sentinels
    feeding  how a model is fed: see ``Tokenizer.save``
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **habits,
        **declared,
    }
    if feeding:
        config["model_input_names"] = feeding["inputs"]
        limits = [habits.get("model_max_length"), feeding["most"]]
        if any(limits):
            config["model_max_length"] = min(filter(None, limits))
    if others:
        config["additional_special_tokens"] = sorted(others)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in (
            ("tokenizer.json", engine.to_str(pretty=True)),
            (CONFIG, json.dumps(config, indent=2, ensure_ascii=False)),
        ):
            Path(folder, name).write_text(content + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise WorkError(f"cannot write to {str(folder)!r}: {error.strerror}") from error


def surrounding(
    engine: tokenizers.Tokenizer,
    roles: dict[str, int],
    feeding: dict,
    pair: list[tokenizers.Encoding],
) -> tokenizers.Tokenizer:
    """The engine whose post-processor puts special tokens around texts as ``feeding`` says.

    Itself where its own does the same, or where that counts more; and where it lacks a token that
    is needed.

    pair  two encoded texts, on which the two are compared
    """
    definition = json.loads(engine.to_str())
    own = definition["post_processor"]
    if "single" not in feeding or own and not feeding["always"]:
        return engine
    tokens = {role: (id, engine.id_to_token(id)) for role, id in roles.items()}
    try:
        made = post_processor(feeding["single"], feeding["pair"], tokens)
    except KeyError:
        return engine
    other = tokenizers.Tokenizer.from_str(json.dumps(definition | {"post_processor": made}))
    same = own and all(
        (one.ids, one.type_ids) == (two.ids, two.type_ids)
        for one, two in (
            (engine.post_process(*texts), other.post_process(*texts)) for texts in (pair[:1], pair)
        )
    )
    return engine if same else other


def post_processor(single: str, pair: str, tokens: dict[str, tuple[int, str]]) -> dict:
    """The post-processor of a tokenizer.json that puts special tokens around a text, or a pair.

    single, pair  such as "cls:0 $A:0 sep:0": roles and texts, and the segment of each
    tokens        role -> (id, token)

    Raises KeyError for a role that has no token.
    """

    def piece(word: str) -> dict:
        name, _, segment = word.partition(":")
        if name in ("$A", "$B"):
            return {"Sequence": {"id": name[1:], "type_id": int(segment)}}
        return {"SpecialToken": {"id": tokens[name][1], "type_id": int(segment)}}

    words = f"{single} {pair}".split()
    used = {word.partition(":")[0] for word in words} - {"$A", "$B"}
    return {
        "type": "TemplateProcessing",
        "single": [piece(word) for word in single.split()],
        "pair": [piece(word) for word in pair.split()],
        "special_tokens": {
            token: {"id": token, "ids": [id], "tokens": [token]}
            for id, token in (tokens[role] for role in sorted(used))
        },
    }
