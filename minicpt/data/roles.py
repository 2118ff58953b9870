"""Which token plays which role: end, begin, pad, mask, cls, sep, unk.

A folder says it by names in tokenizer_config.json or special_tokens_map.json, and by ids in
config.json and generation_config.json. Where it says nothing, well-known names decide.

    end     ends a document. A chat model's folder declares the end of a turn as eos_token. Texts
            have no turns: what ended documents before the model learnt to chat is the end, if the
            tokenizer still has it. Other tokens of a chat are left alone: no text becomes one, and
            none is written.
    begin   stands before a document: the token that the folder's post-processor puts before a text,
            or the bos_token if add_bos_token says so. Where neither does, the end of the document
            before it stands there, as in GPT-2's stream of documents.
    pad     only fills up: a mask tells where, never this id. A decoder needs none
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from minicpt.common.errors import InputError
from minicpt.data.pieces import components

# Role -> the name under which tokenizer_config.json declares it.
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
    "end": (
        "<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[EOS]", "<｜end▁of▁sentence｜>",
    ),
}  # fmt: skip
# What ends a turn of a chat: SmolLM2 and Qwen, Llama 3, Gemma, Phi 3.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>")
BY_ID = ("eos_token", "pad_token", "mask_token")  # what config.json names by ids


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


def well_known(definition: dict, vocabulary: dict[str, int]) -> dict[str, str]:
    """Roles by well-known names, among the special tokens if the file marks any."""
    candidates = set(marked(definition).values()) or set(vocabulary)
    names = dict(WELL_KNOWN)
    if {"<s>", "</s>", "<mask>"} <= candidates:
        names |= {"cls": ("<s>",), "sep": ("</s>",)}
    return {
        DECLARED[role]: token
        for role, tokens in names.items()
        for token in [next((token for token in tokens if token in candidates), None)]
        if token
    }


def ids(declared: dict[str, str], vocabulary: dict[str, int], definition: dict) -> dict[str, int]:
    """Role -> id. An unknown token that is the end as well is no unknown token.

    declared    "eos_token" and so on -> token
    vocabulary  token -> id, and ``definition``, the content of the tokenizer.json
    """
    tokens = {role: declared[name] for role, name in DECLARED.items() if name in declared}
    if "end" in tokens:
        tokens["end"] = document_end(tokens["end"], marked(definition).values())
    if tokens.get("unk") in (tokens.get("end"), declared.get("eos_token")):
        tokens.pop("unk", None)  # as GPT-2 declares it; no byte is ever unknown
    found = {role: vocabulary[token] for role, token in tokens.items()}
    before, _ = around(definition["post_processor"])
    if before and before[0] not in (found.get("cls"), found.get("end")):
        found["begin"] = before[0]
    return found


def marked(definition: dict) -> dict[int, str]:
    """Id -> token, of those that a tokenizer.json calls special."""
    added = definition.get("added_tokens", [])
    return {each["id"]: each["content"] for each in added if each["special"]}


def by_id(configs: Sequence[dict], definition: dict, unknown: str | None) -> dict[str, str]:
    """What config.json and generation_config.json name by ids: {"eos_token": ...}.

    Only ids of special tokens count: a config has the ids of another tokenizer as its defaults. The
    unknown token is nothing else (Llama's old configs call it the pad token).
    """
    special, found = marked(definition), {}
    nothing = (unknown, definition["model"].get("unk_token"))
    for name in BY_ID:
        ids = (id for config in configs for id in ids_of(config, name))
        tokens = (special[id] for id in ids if id in special and special[id] not in nothing)
        if token := next(tokens, None):
            found[name] = token
    return found


def ids_of(config: dict, name: str) -> list[int]:
    """The ids that a config has for a token: one, a list, or none.

    >>> ids_of({"eos_token_id": [7, 9]}, "eos_token"), ids_of({}, "pad_token")
    ([7, 9], [])
    """
    value = config.get(f"{name}_id")
    values = value if isinstance(value, list) else [value]
    return [each for each in values if type(each) is int]


def stops(configs: Iterable[dict], definition: dict) -> list[int]:
    """The ids at which other tools end a text: those of the first config that has some. They are
    those of special tokens, as in ``by_id``."""
    special = marked(definition)
    found = ([id for id in ids_of(each, "eos_token") if id in special] for each in configs)
    return next(filter(None, found), [])


def document_end(eos: str, special: Iterable[str]) -> str:
    """The token that ends a document, where ``eos`` is declared: see above.

    >>> document_end("<|im_end|>", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    '<|endoftext|>'
    """
    if eos not in TURN_ENDS:
        return eos
    special = set(special)
    return next((token for token in WELL_KNOWN["end"] if token in special), eos)


def around(post_processor: dict | None) -> tuple[list[int], list[int]]:
    """The ids that the post-processor of a tokenizer.json puts before a text, and behind it.

    Of the kinds that say it by names. BERT's and RoBERTa's own put cls and sep there.
    """
    before, behind = [], []
    for each in components(post_processor):
        if each["type"] != "TemplateProcessing":
            continue
        side = before
        for piece in each["single"]:
            if "Sequence" in piece:
                side = behind
            else:
                side += each["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
    return before, behind
