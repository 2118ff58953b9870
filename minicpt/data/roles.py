"""Which token of a tokenizer plays which role: as its folder declares, or by well-known names.

And what else a folder declares of how texts are fed, and how special tokens stand around them.
"""

import json
from pathlib import Path

from minicpt.common.errors import InputError

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


def declared(folder: Path) -> dict[str, str]:
    """What tokenizer_config.json, and before it special_tokens_map.json, say: {"pad_token": ...}.

    Raises InputError for a file that is not what its name says.
    """
    found: dict[str, str] = {}
    for file in (folder / "special_tokens_map.json", folder / "tokenizer_config.json"):
        if file.is_file():
            found |= _in_config(read_json(file), file)
    # GPT-2 declares its end of text as unknown too, although no byte is ever unknown.
    if found.get("unk_token") == found.get("eos_token"):
        found.pop("unk_token", None)
    return found


def habits(folder: Path) -> dict:
    """Those of ``HABITS`` that tokenizer_config.json declares. InputError for a wrong value."""
    file = folder / "tokenizer_config.json"
    config = read_json(file) if file.is_file() else {}
    found = {name: config[name] for name in HABITS if config.get(name) is not None}
    for name, value in found.items():
        if name == "model_max_length":
            right = isinstance(value, (int, float)) and value is not True and value > 0
        else:
            right = value in (("left", "right") if "side" in name else (True, False))
        if not right:
            raise InputError(f"{str(file)!r} has a {name} that is not {HABITS[name]}: correct it")
    return found


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


def read_json(file: Path) -> dict:
    """The object in a JSON file of a tokenizer's folder, or an InputError."""
    remedy = "give a folder with a tokenizer.json (or the older files of BERT, GPT-2 or T5)"
    if not file.is_file():
        raise InputError(f"no tokenizer at {str(file)!r}: {remedy}")
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {str(file)!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(file)!r} is not JSON: {remedy}") from error
    if not isinstance(content, dict):
        raise InputError(f"{str(file)!r} is not a JSON object: {remedy}")
    return content


def _in_config(config: dict, file: Path) -> dict[str, str]:
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
