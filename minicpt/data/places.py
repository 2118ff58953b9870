"""Where tokens start in their text, in characters, without a Python object for each.

A byte-level token stands for bytes, so that the places follow from the lengths of the tokens; for
other tokenizers the library says them. Left out: what starts there (``building``).
"""

import functools
from array import array
from collections.abc import Sequence

import torch
from tokenizers import Encoding
from torch import Tensor

from minicpt.data.tokenizer import Tokenizer

IDEOGRAPHIC_SPACE = 0x3000  # the last of all white space


def located(
    encodings: Sequence[Encoding], texts: Sequence[str], tokenizer: Tokenizer
) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens of the texts, one after the other; the encodings are ``encodings`` of them.

    Gives the ids (L,) int32, the character at which each token starts, counted through all texts,
    (L,) int64, and (texts + 1,) int64, the first token of each text, and L.

    >>> texts, tokenizer = ["été", "a"], Tokenizer.train([], 256)
    >>> ids, starts, first = located(encodings(texts, tokenizer), texts, tokenizer)
    >>> starts.tolist(), first.tolist()
    ([0, 0, 1, 2, 2, 3], [0, 5, 6])
    """
    ids, first = _joined(encodings)
    if tokenizer.bytewise:
        starts = from_bytes(tokenizer.token_bytes[ids.long()], first, texts)
        if starts is not None:
            return ids, starts, first
        encodings = tokenizer.encodings(texts, offsets=True)
    starts, base = array("q"), 0
    for text, encoding in zip(texts, encodings, strict=True):
        starts.extend([base + start for start, _ in encoding.offsets])
        base += len(text)
    return ids, _tensor(starts), first


def encodings(texts: Sequence[str], tokenizer: Tokenizer) -> list[Encoding]:
    """What ``located`` needs: with the library's offsets only where the bytes do not say them."""
    return tokenizer.encodings(texts, offsets=not tokenizer.bytewise)


def from_bytes(lengths: Tensor, first: Tensor, texts: Sequence[str]) -> Tensor | None:
    """The starts of tokens that stand for ``lengths`` bytes each; None if these are not the texts.

    lengths  (L,) int64
    first    (texts + 1,) int64, the first token of each text, and L
    """
    codes = code_points("".join(texts))  # (C,)
    widths = 1 + (codes >= 0x80).long() + (codes >= 0x800) + (codes >= 0x10000)
    characters = torch.cat([widths.new_zeros(1), widths.cumsum(0)])  # the byte of each, and the end
    tokens = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    bases = torch.tensor([0, *map(len, texts)]).cumsum(0)
    if not torch.equal(tokens[first], characters[bases]):
        return None
    if len(codes) == int(characters[-1]):  # a byte each
        return tokens[:-1]
    return torch.searchsorted(characters[1:], tokens[:-1], right=True)


def is_space(text: str) -> Tensor:
    """(C,) bool: which characters are white space."""
    return _spaces()[code_points(text).clamp(max=IDEOGRAPHIC_SPACE + 1)]


def code_points(text: str) -> Tensor:
    """(C,) int32."""
    data = bytearray(text.encode("utf-32-le", "surrogatepass"))
    return torch.frombuffer(data, dtype=torch.int32) if data else torch.empty(0, dtype=torch.int32)


@functools.cache
def _spaces() -> Tensor:
    return torch.tensor([chr(code).isspace() for code in range(IDEOGRAPHIC_SPACE + 2)])


def _joined(encodings: Sequence[Encoding]) -> tuple[Tensor, Tensor]:
    """The ids of all texts, and the first of each, and their number."""
    ids = array("i")
    for encoding in encodings:
        ids.extend(encoding.ids)
    return _tensor(ids), torch.tensor([0, *map(len, encodings)]).cumsum(0)


def _tensor(values: array) -> Tensor:
    """A tensor of its own with the values of an array."""
    kind = {"i": torch.int32, "q": torch.int64}[values.typecode]
    return torch.frombuffer(values, dtype=kind).clone() if values else torch.empty(0, dtype=kind)
