r"""Where a text may be cut, so that the tokens of the parts, in a row, are those of the whole.

Never inside a word: only before white space. Whether that is right depends on the tokenizer. Llama
3's pre-tokenizer takes ")\n" as one piece, so there it is right before a space, but not before a
newline. BERT's cuts at any white space. A folder may hold a regular expression of its own. So
nothing is concluded from its kind: the folder's normalizer and pre-tokenizer are tried, on words
of all sorts.

SentencePiece's BPE (Llama 2) has no pre-tokenizer. But merges that join a space with what stands
before it are in no usual vocabulary. Then a text may be cut there as well.
"""

import functools
import json
import re

import tokenizers

from minicpt.data.encoders import continuing
from minicpt.data.pieces import components
from minicpt.data.text import MARK, SPACES

# Letters, digits, punctuation, contractions, other scripts, marks, control characters. A rule that
# looks at the kinds of two neighbours finds its pair of kinds here.
WORDS = (
    "word Word WORD it's 's 12345 7 a_ - -x (x) f( \" ' é e\u0301 \u0301 日本 。 😀 # ... !, ا α x;"
    " \x07 \u200b // ½"
).split()
RUNS = ("  ", "\n\n", " \n", "\t ")  # what may be cut before, where any white space may be
NO_MODEL = {"type": "BPE", "vocab": {}, "merges": []}


def breaks(definition: dict) -> str:
    """The white space before which a text may be cut. "": it stays whole.

    definition  the content of a tokenizer.json

    A space alone means one between two words.
    """
    added = [token for token in definition["added_tokens"] if not token["special"]]
    if any(token["rstrip"] or re.search(r"\S\s", token["content"]) for token in added):
        return ""  # tokens of the text that reach over a cut
    changes = components(definition["normalizer"])
    if added and any(each["type"] == "Prepend" for each in changes):
        return ""  # behind such a token the text begins anew, within a part too
    before = json.dumps([definition["normalizer"], definition["pre_tokenizer"]])
    return tried(before, may_cross(definition["model"]))


@functools.lru_cache(16)
def tried(before: str, crossing: bool) -> str:
    """``breaks`` of what stands before the model: a normalizer and a pre-tokenizer, as JSON.

    crossing  whether tokens may reach over the border of a word, where no pre-tokenizer parts them
    """
    normalizer, pre_tokenizer = json.loads(before)
    definition = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": NO_MODEL}
    engine = tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0"} | definition))
    within = continuing(definition, engine)
    for found in (SPACES, " "):
        runs = RUNS if found == SPACES else ()
        if all(cut_at(each, engine, within, crossing) for each in (*found, *runs)):
            return found
    return ""


def cut_at(space: str, engine, within, crossing: bool) -> bool:
    """Whether a text may be cut before every ``space``: each of ``WORDS`` stands before each.

    engine  encodes a text, and ``within`` a part that continues one
    """
    words = []
    for place, one in enumerate(WORDS):
        words.append(one)
        for other in WORDS[place + 1 :]:
            words += [one, other]
    words.append(WORDS[0])
    following = {word: pieces(within, space + word) for word in WORDS}
    parts = pieces(engine, words[0])
    for word in words[1:]:
        parts += following[word]
    whole = pieces(engine, space.join(words))
    if space == " " and not crossing:
        return "".join(parts) == "".join(whole)
    return parts == whole


def pieces(engine: tokenizers.Tokenizer, text: str) -> list[str]:
    """What the engine's model gets of a text: no token reaches from one piece into another."""
    if engine.normalizer:
        text = engine.normalizer.normalize_str(text)
    if not engine.pre_tokenizer:
        return [text]
    return [piece for piece, _ in engine.pre_tokenizer.pre_tokenize_str(text)]


def may_cross(model: dict) -> bool:
    """Whether the model can join a space, written as ▁, with what stands before it."""
    if model["type"] != "BPE" or MARK not in model["vocab"]:
        return True
    return any(re.search(f"[^{MARK}]{MARK}", piece) for piece in model["vocab"])
