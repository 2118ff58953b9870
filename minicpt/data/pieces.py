"""For which bytes of a text a token stands, where its piece alone says so.

byte-level   GPT-2, Llama 3, Qwen, ModernBERT: a piece is written in an alphabet that has one
             character for each byte
with marks   SentencePiece's BPE with byte fallback (Llama 2, Mistral): ▁ is a space, <0x0A> is a
             byte, and other characters are themselves

The bytes of all tokens, in a row, are those of the text, but for one: SentencePiece puts a space in
front of a text, which is no byte of it. ``building`` holds their sum against the text, so a text
that a normalizer changes, or one that holds ▁ itself, is found, and the library's offsets are used.

V ids of a tokenizer.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minicpt.data.text import MARK

# Pre-tokenizers that take nothing away, unless their behavior is "Removed".
KEEPING = {"Split", "Digits", "Punctuation", "UnicodeScripts"}
BYTE = re.compile("<0x([0-9A-F]{2})>")
SEVERAL = ("normalizers", "pretokenizers", "decoders", "processors")
ALL_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def components(whole: dict | None) -> list[dict]:
    """The components that a component of a tokenizer.json is a sequence of; or it alone.

    >>> [each["type"] for each in components({"type": "Sequence", "decoders": [{"type": "Fuse"}]})]
    ['Fuse']
    """
    if whole is None:
        return []
    for name in SEVERAL:
        if name in whole:
            return [part for each in whole[name] for part in components(each)]
    return [whole]


@dataclass(frozen=True)
class Pieces:
    """How many bytes the tokens of a tokenizer stand for.

    lengths  (V,) int64; 0 for special tokens
    prepend  whether a space is put in front of every text; metaspace: unless it begins with one
    nfc      whether texts are brought into Unicode's form NFC
    """

    lengths: Tensor
    prepend: bool = False
    metaspace: bool = False
    nfc: bool = False

    @staticmethod
    def of(definition: dict, vocabulary: Mapping[str, int], added: Mapping) -> "Pieces | None":
        """None where the pieces do not say it.

        definition  the content of a tokenizer.json
        vocabulary  piece -> id, and ``added``, id -> token: those that the file adds to its model
        """
        bytewise = byte_level(definition)
        if not bytewise and not with_marks(definition):
            return None
        lengths = torch.zeros(1 + max(vocabulary.values()), dtype=torch.int64)
        for piece, index in vocabulary.items():
            if index in added:
                lengths[index] = 0 if added[index].special else len(piece.encode())
            elif bytewise:
                lengths[index] = len(piece)  # a character of the alphabet stands for a byte
            else:
                text = "." if BYTE.fullmatch(piece) else piece.replace(MARK, " ")
                lengths[index] = len(text.encode())
        changes = components(definition["normalizer"])
        cuts = components(definition["pre_tokenizer"])
        return Pieces(
            lengths,
            prepend=any(each["type"] == "Prepend" for each in changes),
            metaspace=any(each.get("prepend_scheme", "never") != "never" for each in cuts),
            nfc=any(each["type"] == "NFC" for each in changes),
        )

    def say(self, texts: Sequence[str]) -> bool:
        """Whether the lengths hold in these texts: no normalizer changes them."""
        return not self.nfc or all(unicodedata.is_normalized("NFC", text) for text in texts)

    def fronted(self, texts: Sequence[str], goes_on: Sequence[bool]) -> Tensor:
        """(texts,) bool: before which a space is put. ``goes_on``: which continue another text."""
        if self.prepend:
            return torch.tensor([bool(t) and not on for t, on in zip(texts, goes_on, strict=True)])
        spaced = (" ", MARK)
        return torch.tensor([self.metaspace and not t.startswith(spaced) for t in texts])


def byte_level(definition: dict) -> bool:
    """Whether pieces are byte-level, and the text reaches the model as it is, or in NFC."""
    cuts = components(definition["pre_tokenizer"])
    return (
        any(each["type"] == "ByteLevel" for each in cuts)
        and all(kept(each) for each in cuts)
        and all(each["type"] == "NFC" for each in components(definition["normalizer"]))
    )


def with_marks(definition: dict) -> bool:
    """Whether pieces are SentencePiece's, and a character without a piece is told in bytes."""
    model, cuts = definition["model"], components(definition["pre_tokenizer"])
    changes = components(definition["normalizer"])
    metaspaces = [each for each in cuts if each["type"] == "Metaspace"]
    marks = [each for each in changes if each["type"] == "Replace"]
    return (
        model["type"] == "BPE"
        and bool(model.get("byte_fallback"))
        and all(byte in model["vocab"] for byte in ALL_BYTES)
        and bool(metaspaces or marks)
        and all(each["replacement"] == MARK for each in metaspaces)
        and all(each in metaspaces or kept(each) for each in cuts)
        and all(each["type"] in ("Replace", "Prepend") for each in changes)
        and all(each["pattern"] == {"String": " "} and each["content"] == MARK for each in marks)
    )


def kept(cut: dict) -> bool:
    """Whether a pre-tokenizer hands on all of the text, and puts nothing in front of it."""
    if cut["type"] == "ByteLevel":
        return not cut.get("add_prefix_space", True)
    return cut["type"] in KEEPING and cut.get("behavior") != "Removed"
