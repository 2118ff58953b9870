"""Where the tokens of texts start, at which character and at which byte, and what hides text.

Where the pieces of a tokenizer say for which bytes they stand (``pieces``), the places follow from
their lengths. Elsewhere the library says the places.

L tokens, C characters.
"""

import itertools
import unicodedata
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Encoding
from torch import Tensor

from minicpt.data.text import code_points, is_space
from minicpt.data.tokenizer import Tokenizer

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
             text stands that has no token
    lost     (texts,) bool, whether such text stands before the first token of a text
    """

    ids: Tensor
    starts: Tensor
    first: Tensor
    bytes: Tensor
    sizes: Tensor
    unknown: Tensor
    lost: Tensor


def located(
    encodings: Sequence[Encoding],
    texts: Sequence[str],
    tokenizer: Tokenizer,
    goes_on: Sequence[bool] = (),
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
    goes_on = goes_on or [False] * len(texts)
    if tokenizer.pieces and tokenizer.pieces.say(texts):
        lengths = tokenizer.pieces.lengths[ids.long()]
        fronted = tokenizer.pieces.fronted(texts, goes_on)
        lengths[first[:-1][fronted]] -= 1  # the space in front is no byte of the text
        ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        if torch.equal(ends[first], places[bases]):  # these are the tokens of these texts
            starts = begins = ends[:-1]  # a byte for each character; else
            if len(codes) < int(places[-1]):
                starts = torch.searchsorted(places[1:], begins, right=True)
            unknown, lost = first.new_empty(0), torch.zeros(len(texts), dtype=torch.bool)
            return Located(ids, starts, first, begins, sizes, unknown, lost)
        encodings = tokenizer.encodings(texts, offsets=True, goes_on=goes_on)
    spans = _spans(encodings) + torch.repeat_interleave(bases[:-1], first.diff())[:, None]  # (L, 2)
    starts = spans[:, 0].contiguous()
    unknown = torch.zeros(len(ids), dtype=torch.bool)
    if tokenizer.unknown is not None:
        unknown = ids == tokenizer.unknown
    dropped = _dropped(codes, spans)
    before = torch.searchsorted(starts, dropped, right=True) - 1  # the last token before each
    text = torch.searchsorted(bases, dropped, right=True) - 1
    behind = before >= first[text]
    unknown[before[behind]] = True
    lost = torch.zeros(len(texts), dtype=torch.bool)
    lost[text[~behind]] = True
    return Located(ids, starts, first, places[starts], sizes, unknown.nonzero()[:, 0], lost)


def encodings(
    texts: Sequence[str], tokenizer: Tokenizer, goes_on: Sequence[bool] = ()
) -> list[Encoding]:
    """What ``located`` needs: with the library's offsets only where the pieces do not say them."""
    known = tokenizer.pieces and tokenizer.pieces.say(texts)
    return tokenizer.encodings(texts, offsets=not known, goes_on=goes_on)


def _dropped(codes: Tensor, spans: Tensor) -> Tensor:
    """The characters in no token that are more than white space, marks or control characters.

    A normaliser drops marks (the accents of letters) and control characters; a tokenizer without
    an unknown token drops any character that it does not know.
    """
    change = torch.zeros(len(codes) + 1, dtype=torch.int64)
    change.index_add_(0, spans[:, 0], torch.ones(len(spans), dtype=torch.int64))
    change.index_add_(0, spans[:, 1], -torch.ones(len(spans), dtype=torch.int64))
    bare = (change.cumsum(0)[:-1] == 0).nonzero()[:, 0]
    bare = bare[~is_space(codes[bare])]
    content = [unicodedata.category(chr(code))[0] in CONTENT for code in codes[bare].tolist()]
    return bare[torch.tensor(content, dtype=torch.bool)]


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
