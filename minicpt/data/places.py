"""Where tokens start in their text, in characters and bytes, without a Python object for each.

A byte-level token stands for bytes, so that the places follow from the lengths of the tokens; for
other tokenizers the library says them. Left out: what starts there (``building``).

L tokens, C characters.
"""

import functools
import itertools
import unicodedata
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Encoding
from torch import Tensor

from minicpt.data.tokenizer import Tokenizer

IDEOGRAPHIC_SPACE = 0x3000  # the last of all white space
CONTENT = "LNPS"  # letters, numbers, punctuation, symbols: what Unicode's categories begin with


@dataclass(frozen=True)
class Located:
    """The tokens of some texts, one after the other.

    ids      (L,) int32
    starts   (L,) int64, the character at which each token starts, counted through all texts
    first    (texts + 1,) int64, the first token of each text, and L
    bytes    (L,) int64, the byte (in UTF-8) at which each token starts, counted through all texts
    sizes    (texts,) int64, the bytes of each text
    unknown  ascending int64, the tokens that hide text: unknown tokens, and those behind which
             text stands that has no token (else those before which it stands)
    """

    ids: Tensor
    starts: Tensor
    first: Tensor
    bytes: Tensor
    sizes: Tensor
    unknown: Tensor


def located(
    encodings: Sequence[Encoding], texts: Sequence[str], tokenizer: Tokenizer
) -> Located:
    """Where the tokens of the texts are; the encodings are ``encodings`` of them.

    >>> texts, tokenizer = ["été", "a"], Tokenizer.train([], 256)
    >>> found = located(encodings(texts, tokenizer), texts, tokenizer)
    >>> found.starts.tolist(), found.first.tolist(), found.bytes.tolist(), found.sizes.tolist()
    ([0, 0, 1, 2, 2, 3], [0, 5, 6], [0, 1, 2, 3, 4, 5], [5, 1])
    """
    ids, first = _joined(encodings)
    codes = code_points("".join(texts))  # (C,)
    widths = 1 + (codes >= 0x80).long() + (codes >= 0x800) + (codes >= 0x10000)
    places = torch.cat([widths.new_zeros(1), widths.cumsum(0)])  # the byte of each, and the end
    bases = torch.tensor([0, *map(len, texts)]).cumsum(0)
    sizes = places[bases].diff()
    if tokenizer.bytewise:
        begins = from_bytes(tokenizer.token_bytes[ids.long()], first, places[bases])
        if begins is not None:
            starts = begins  # a byte for each character; else
            if len(codes) < int(places[-1]):
                starts = torch.searchsorted(places[1:], begins, right=True)
            return Located(ids, starts, first, begins, sizes, first.new_empty(0))
        encodings = tokenizer.encodings(texts, offsets=True)
    spans = _spans(encodings) + torch.repeat_interleave(bases[:-1], first.diff())[:, None]  # (L, 2)
    starts = spans[:, 0].contiguous()
    unknown = torch.zeros(len(ids), dtype=torch.bool)
    if tokenizer.unknown is not None:
        unknown = ids == tokenizer.unknown
    unknown[_beside(_dropped(codes, spans), starts, first, bases)] = True
    return Located(ids, starts, first, places[starts], sizes, unknown.nonzero()[:, 0])


def encodings(texts: Sequence[str], tokenizer: Tokenizer) -> list[Encoding]:
    """What ``located`` needs: with the library's offsets only where the bytes do not say them."""
    return tokenizer.encodings(texts, offsets=not tokenizer.bytewise)


def from_bytes(lengths: Tensor, first: Tensor, ends: Tensor) -> Tensor | None:
    """(L,) int64, the bytes at which tokens start that stand for ``lengths`` bytes each.

    lengths  (L,) int64
    first    (texts + 1,) int64, the first token of each text, and L
    ends     (texts + 1,) int64, the byte at which each text starts, and their end

    None where these are not the tokens of these texts.
    """
    tokens = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return tokens[:-1] if torch.equal(tokens[first], ends) else None


def _dropped(codes: Tensor, spans: Tensor) -> Tensor:
    """The characters in no token that are more than white space, marks or control characters.

    A normaliser drops marks (the accents of letters) and control characters; a tokenizer without
    an unknown token drops any character that it does not know.
    """
    change = torch.zeros(len(codes) + 1, dtype=torch.int64)
    change.index_add_(0, spans[:, 0], torch.ones(len(spans), dtype=torch.int64))
    change.index_add_(0, spans[:, 1], -torch.ones(len(spans), dtype=torch.int64))
    bare = (change.cumsum(0)[:-1] == 0).nonzero()[:, 0]
    bare = bare[~_is_space(codes[bare])]
    content = [unicodedata.category(chr(code))[0] in CONTENT for code in codes[bare].tolist()]
    return bare[torch.tensor(content, dtype=torch.bool)]


def _beside(characters: Tensor, starts: Tensor, first: Tensor, bases: Tensor) -> Tensor:
    """The last token before each character, else the first one of its text, if that has any."""
    text = torch.searchsorted(bases, characters, right=True) - 1
    some = first[text] < first[text + 1]
    tokens = torch.searchsorted(starts, characters[some], right=True) - 1
    return torch.maximum(tokens, first[text[some]])


def is_space(text: str) -> Tensor:
    """(C,) bool: which characters are white space."""
    return _is_space(code_points(text))


def _is_space(codes: Tensor) -> Tensor:
    return _spaces()[codes.clamp(max=IDEOGRAPHIC_SPACE + 1)]


def code_points(text: str) -> Tensor:
    """(C,) int32."""
    data = bytearray(text.encode("utf-32-le", "surrogatepass"))
    return torch.frombuffer(data, dtype=torch.int32) if data else torch.empty(0, dtype=torch.int32)


@functools.cache
def _spaces() -> Tensor:
    return torch.tensor([chr(code).isspace() for code in range(IDEOGRAPHIC_SPACE + 2)])


def _spans(encodings: Sequence[Encoding]) -> Tensor:
    """(L, 2) int64, where each token starts and stops in its text; no start before an earlier one.
    """
    places = array("q")
    for encoding in encodings:
        places.extend(itertools.chain.from_iterable(encoding.offsets))
    return _tensor(places).view(-1, 2)


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
