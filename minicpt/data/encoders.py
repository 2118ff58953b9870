"""The library's tokenizer, made ready for text alone: nothing is added, cut off or filled up.

No special token is looked for in a text: ``<|im_start|>`` there is text like any other.
"""

import json
from collections.abc import Sequence

import tokenizers

from minicpt.common.errors import InputError
from minicpt.data.pieces import components

NOT_APPLIED = {"post_processor": None, "truncation": None, "padding": None}  # for other tools
UNREACHABLE = "\U0010ffff"  # not a character: no text holds it


def encoder(definition: dict, special: set[str]) -> tokenizers.Tokenizer:
    """The tokenizer without its special tokens.

    definition  the content of a tokenizer.json
    special     the special tokens

    ``encode_special_tokens`` keeps them from being looked for. But Unigram and WordPiece models
    list them among their pieces and would find them in a text (``</s>`` is HTML, and Unigram gives
    it the best score), so there they get a name that no text holds. BPE reaches only merges, unless
    ``ignore_merges`` is set (Llama 3).
    """
    definition = definition | NOT_APPLIED
    model = definition["model"] = dict(definition["model"])
    if model["type"] != "BPE" or model.get("ignore_merges"):
        rename = {token: UNREACHABLE + token for token in special}
        pieces = model["vocab"]
        if isinstance(pieces, dict):
            model["vocab"] = {rename.get(piece, piece): pieces[piece] for piece in pieces}
        else:
            model["vocab"] = [[rename.get(piece, piece), score] for piece, score in pieces]
        if "unk_token" in model:
            model["unk_token"] = rename.get(model["unk_token"], model["unk_token"])
        definition["added_tokens"] = [
            token | {"content": rename.get(token["content"], token["content"])}
            for token in definition["added_tokens"]
        ]
    encoder = tokenizers.Tokenizer.from_str(json.dumps(definition))
    encoder.encode_special_tokens = True
    return encoder


def continuing(definition: dict, encoder: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The encoder of text that goes on: without the normalizer that puts a space before a text."""
    changes = components(definition["normalizer"])
    kept = [each for each in changes if each["type"] != "Prepend"]
    if kept == changes:
        return encoder
    rest = json.loads(encoder.to_str())
    rest["normalizer"] = {"type": "Sequence", "normalizers": kept}
    within = tokenizers.Tokenizer.from_str(json.dumps(rest))
    within.encode_special_tokens = True
    return within


def encodings(
    engine: tokenizers.Tokenizer, texts: Sequence[str], offsets: bool
) -> list[tokenizers.Encoding]:
    """What the library makes of the texts. InputError for what it cannot encode."""
    encode_batch = engine.encode_batch if offsets else engine.encode_batch_fast
    try:
        return encode_batch(list(texts), add_special_tokens=False)
    except (TypeError, UnicodeEncodeError) as error:  # half a surrogate pair, as from argv
        raise InputError("a text is not Unicode (half a surrogate pair): give UTF-8") from error
    except Exception as error:  # the library raises Exception itself: no unk token, for one
        raise InputError(f"the tokenizer cannot encode the text: {error}") from error
