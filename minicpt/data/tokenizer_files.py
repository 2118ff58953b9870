"""The folder of a tokenizer: its tokens, their roles, and how other tools feed a text.

Reads tokenizer.json, or makes one from older files (``vocabularies``), and what other files declare
beside it (``roles``). Writes tokenizer.json and tokenizer_config.json.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import tokenizers

from minicpt.common import disk
from minicpt.common.errors import InputError, WorkError
from minicpt.data import roles, vocabularies
from minicpt.data.pieces import components

MOST = 1 << 28  # bytes of a file
CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"
MODELS = ("generation_config.json", "config.json")  # of the model beside it
TEMPLATE = "chat_template.jinja"
REMEDY = "give a folder with a tokenizer.json (or the older files of BERT, GPT-2 or T5)"
# What tokenizer_config.json says beside that, and whoever opens the folder next goes by.
HABITS = {
    "model_max_length": "a number above 0",
    "padding_side": "left or right",
    "truncation_side": "left or right",
    "clean_up_tokenization_spaces": "true or false",
    "add_bos_token": "true or false",
    "add_eos_token": "true or false",
    "chat_template": "a text, or a list",
}


@dataclass(frozen=True)
class Habits:
    """What a folder says beside its tokens and their roles.

    config  those of ``HABITS`` that tokenizer_config.json has
    stops   the ids at which other tools end a text: more than one for a model that chats
    also    the tokens that the model's config names by ids: {"eos_token": ...}
    fixed   a model was trained with what its post-processor puts around a text, or with nothing
    """

    config: dict = field(default_factory=dict)
    stops: tuple[int, ...] = ()
    also: dict[str, str] = field(default_factory=dict)
    fixed: bool = False


def read(path: str | os.PathLike) -> tuple[str, dict[str, str], Habits]:
    """The content of a tokenizer.json, what is ``declared`` beside it, and the ``Habits``.

    path  of a folder with a tokenizer.json or older vocabulary files, or of a tokenizer.json

    Raises InputError for what is no tokenizer.
    """
    path = Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    config = read_json(file.parent / CONFIG)
    special = roles.declared(file.parent / MAP, read_json(file.parent / MAP))
    special |= roles.declared(file.parent / CONFIG, config)
    old = path.is_dir() and not file.is_file()
    made = vocabularies.definition(path, config, special) if old else None
    if not (made or file.is_file()):
        raise InputError(f"no tokenizer at {str(file)!r}: {REMEDY}")
    definition = json.loads(made) if made else read_json(file)
    content = made or read_text(file)
    try:
        vocabulary = tokenizers.Tokenizer.from_str(content).get_vocab()
    except Exception as error:  # the library raises Exception itself
        raise InputError(f"{str(file)!r} is not a tokenizer: give a tokenizer.json") from error
    models = [read_json(file.parent / name) for name in MODELS]
    also = roles.by_id(models, definition, special.get("unk_token"))
    if made or not special:  # the old files say only what is unusual
        special = roles.well_known(definition, vocabulary) | also | special
    unknown = sorted(token for token in special.values() if token not in vocabulary)
    if unknown:
        raise InputError(
            f"{str(file.parent)!r} declares the special token {unknown[0]!r}, which its "
            "vocabulary does not hold: use files that belong together"
        )
    found = habits(file.parent / CONFIG, config)
    if file.parent.joinpath(TEMPLATE).is_file():  # it goes before the one in the config
        found["chat_template"] = read_text(file.parent / TEMPLATE)
    asked = asked_for(definition.get("post_processor"), special, vocabulary, found)
    if asked != definition.get("post_processor"):
        content = json.dumps(definition | {"post_processor": asked})
    stops = tuple(roles.stops(models, definition))
    return content, special, Habits(found, stops, also, fixed=True)


def read_json(file: Path) -> dict:
    """The object in a JSON file of the folder; {} where there is none."""
    return disk.read_json(file, MOST, REMEDY) if file.is_file() else {}


def read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}): correct it, or take it out") from None


def habits(file: Path, config: dict) -> dict:
    """Those of ``HABITS`` that tokenizer_config.json declares. InputError for a wrong value."""
    found = {name: config[name] for name in HABITS if config.get(name) is not None}
    for name, value in found.items():
        if name == "model_max_length":
            right = isinstance(value, (int, float)) and value is not True and value > 0
        elif name == "chat_template":
            right = isinstance(value, (str, list))
        else:
            right = value in (("left", "right") if "side" in name else (True, False))
        if not right:
            raise InputError(f"{str(file)!r} has a {name} that is not {HABITS[name]}: correct it")
    return found


def asked_for(own: dict | None, special: dict, vocabulary: dict, habits: dict) -> dict | None:
    """The post-processor: the tokenizer.json's own, where it puts something around a text.

    Else what add_bos_token and add_eos_token ask for, if they are true. That is what the classes of
    transformers 4 did by name, LlamaTokenizer for one; version 5 reads the tokenizer.json alone.
    """
    names = {"begin": ("add_bos_token", "bos_token"), "end": ("add_eos_token", "eos_token")}
    tokens = {
        role: (vocabulary[special[name]], special[name])
        for role, (flag, name) in names.items()
        if habits.get(flag) and name in special
    }
    if not tokens or any(each["type"] != "ByteLevel" for each in components(own)):
        return own

    def words(text: str, segment: int) -> str:
        return " ".join(f"{x}:{segment}" for x in ("begin", text, "end") if x in (text, *tokens))

    single = words("$A", 0)
    return post_processor(single, f"{single} {words('$B', 1)}", tokens)


# --- what other tools need -------------------------------------------------------------------


def write(
    folder: str | os.PathLike,
    engine: tokenizers.Tokenizer,
    declared: dict[str, str],
    others: set[str],
    habits: Habits,
    feeding: dict | None,
) -> None:
    """Writes tokenizer.json and tokenizer_config.json, which transformers opens too.

    others   special tokens without a role, such as T5's sentinels
    feeding  how a model is fed: see ``Tokenizer.save``
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **habits.config,
        **declared,
    }
    if feeding:
        config["model_input_names"] = feeding["inputs"]
        limits = [habits.config.get("model_max_length"), feeding["most"]]
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
    fixed: bool,
) -> tokenizers.Tokenizer:
    """The engine whose post-processor puts special tokens around texts as ``feeding`` says.

    Itself where its own does the same, or where that counts more; and where it lacks a token that
    is needed.

    pair   two encoded texts, on which the two are compared
    fixed  a model was trained with the engine's own rule, even where this is to add nothing
    """
    definition = json.loads(engine.to_str())
    own = definition["post_processor"]
    if "single" not in feeding or (own or fixed) and not feeding["always"]:
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
