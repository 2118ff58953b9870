"""A thin layer over ``tokenizers``: special tokens by role, never taken from the text itself.

Trains a byte-level BPE (``bpe``) and loads any ``tokenizer.json`` of the usual kinds: byte-level
BPE (GPT-2, RoBERTa, Llama 3, Qwen, ModernBERT), SentencePiece's BPE with byte fallback (Llama 2,
Mistral), WordPiece (BERT), Unigram (T5). ``tokenizer_files`` reads and writes folders, ``roles``
says which token is what. Objectives put special tokens around texts (``framing``). Other tools let
the tokenizer do it, by a post-processor in its file. That of a loaded file is not applied here; it
says which token begins a text. ``save`` writes one that feeds a model as it was trained.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Sequence

import tokenizers
import torch

from minicpt.common.errors import InputError
from minicpt.data import bpe, cutting, encoders, roles, tokenizer_files
from minicpt.data.bpe import BYTES
from minicpt.data.documents import Document
from minicpt.data.encoders import NOT_APPLIED
from minicpt.data.pieces import BYTE, Pieces, components
from minicpt.data.roles import DECLARED
from minicpt.data.text import SPACES, readable, stretches
from minicpt.data.tokenizer_files import Habits

# The special tokens of a trained tokenizer, in the order of their ids. T5 starts its decoder with
# the pad token and takes it to be 0. Bytes are never unknown, so there is no unk.
TRAINED = {
    "pad_token": "[PAD]",
    "eos_token": "<|endoftext|>",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "bos_token": "<|endoftext|>",
}
SHOWN = 3  # names in an error message
PORTION = 1 << 16  # characters of a text that are handed to the library together


class LackingTokens(InputError):
    """A tokenizer lacks special tokens that are needed: those of ``names``, in their order."""

    def __init__(self, message: str, names: Sequence[str]):
        super().__init__(message)
        self.names = list(names)


class Tokenizer:
    """Text <-> token ids.

    size         V, the number of ids
    roles        role -> id, for those of pad, mask, cls, sep, unk, end (end of text) that exist;
                 and begin, if another token than these stands before a text
    special      the ids of all special tokens, sorted
    ordinary     (K,) int64, the other ids
    sha256       of what it makes of a text: its definition in a canonical form

    >>> tokenizer = Tokenizer.train(["low lower lowest"] * 3, 256 + 3)
    >>> [tokenizer.token(i) for i in tokenizer.encode("low lower [MASK]")[:3]]
    ['low', '␣low', 'e']
    >>> tokenizer.decode(tokenizer.encode("low lower [MASK]"))
    'low lower [MASK]'
    """

    def __init__(self, definition: str, declared: dict[str, str], habits: Habits | None = None):
        """Use ``train`` or ``load``.

        definition  the content of a tokenizer.json
        declared    "pad_token" and so on -> token
        habits      what else its folder says of how texts are fed
        """
        self._habits = habits or Habits()
        self._engine = tokenizers.Tokenizer.from_str(definition)
        added = self._engine.get_added_tokens_decoder().values()
        special = {token.content for token in added if token.special}
        lacking = [token for token in declared.values() if token not in special]
        self._engine.add_special_tokens(lacking)  # marks those that exist
        self._declared = {name: declared[name] for name in sorted(declared)}
        self._definition = json.loads(self._engine.to_str())
        self._vocabulary = self._engine.get_vocab()
        self.size = max(self._vocabulary.values(), default=-1) + 1
        self._added = self._engine.get_added_tokens_decoder()
        self.special = sorted(index for index, token in self._added.items() if token.special)
        self.roles = roles.ids(
            self._habits.also | declared, self._vocabulary, self._definition
        )
        ordinary = sorted(set(self._vocabulary.values()).difference(self.special))
        self.ordinary = torch.tensor(ordinary, dtype=torch.int64)
        kinds = components(self._definition["decoder"]), self._definition["pre_tokenizer"]
        self._byte_level = any(
            each["type"] == "ByteLevel" for each in [*kinds[0], *components(kinds[1])]
        )
        special = {self._added[index].content for index in self.special}
        self._encoder = encoders.encoder(self._definition, special)
        self._within = encoders.continuing(self._definition, self._encoder)

    @staticmethod
    def train(
        texts: Iterable[str], vocabulary: int, reserved: Sequence[str] = ()
    ) -> "Tokenizer":
        """A byte-level BPE with GPT-2's pre-tokenisation and no prefix space, see ``bpe``.

        vocabulary  the number of ordinary tokens: 256 are the bytes and no merges; a text with
                    fewer merges to make gives fewer. The special tokens come on top, with the
                    first ids
        reserved    more special tokens, which some objectives need; they get the last ids

        Words are cut after ``bpe.LONGEST_WORD`` characters. Deterministic.
        Raises InputError for a vocabulary below 256.
        """
        if vocabulary < BYTES:
            raise InputError(f"a vocabulary of {vocabulary} cannot hold the 256 bytes: give 256+")
        portions = (
            stretch.text
            for text in texts
            for stretch in stretches(Document("the text", text), SPACES, PORTION)
        )
        special = list(dict.fromkeys(TRAINED.values()))
        return Tokenizer(bpe.train(portions, vocabulary, special), TRAINED).with_tokens(reserved)

    @staticmethod
    def load(path: str | os.PathLike) -> "Tokenizer":
        """Of a folder with a tokenizer.json or older vocabulary files, or of a tokenizer.json.

        Roles come from the tokenizer_config.json or special_tokens_map.json beside it, or, if
        these declare none, from well-known names. Raises InputError for what is no tokenizer.
        """
        tokenizer = Tokenizer(*tokenizer_files.read(path))
        if not len(tokenizer.ordinary):
            raise InputError(f"{str(path)!r} holds no ordinary token: give a trained one")
        return tokenizer

    def with_tokens(self, names: Sequence[str]) -> "Tokenizer":
        """The same with more special tokens. Those that are new get the next ids, in their order.

        One that this program calls by the name of a role ("[MASK]") plays it, if nothing else does.

        >>> grown = Tokenizer.train([], 256).with_tokens(["<a>", "<b>"])
        >>> grown.special_id("<b>") - grown.special_id("<a>"), grown.size - grown.special_id("<b>")
        (1, 1)
        """
        engine = tokenizers.Tokenizer.from_str(json.dumps(self._definition))
        engine.add_special_tokens([each for each in names if self.special_id(each) is None])
        played = {role: token for role, token in TRAINED.items() if token in names}
        return Tokenizer(engine.to_str(), played | self._declared, self._habits)

    def special_id(self, *names: str) -> int | None:
        """The id of the first of these tokens that is a special token here; None: none of them is.

        The names of a token that models call by different ones may be given together. A token that
        a file adds beside its model counts, though it does not call it special: Qwen's do.
        """
        known = {token.content: index for index, token in self._added.items()}
        return next((known[name] for name in names if name in known), None)

    def need_special(self, names: Sequence[str | tuple[str, ...]], why: str) -> list[int]:
        """The ids of special tokens that ``why`` needs.

        names  of each token its name, or a tuple of the names by which models call it

        Raises LackingTokens, with the first name of each token that is not here.
        """
        spellings = [(each,) if isinstance(each, str) else each for each in names]
        found = [self.special_id(*each) for each in spellings]
        lacking = [each[0] for each, id in zip(spellings, found, strict=True) if id is None]
        if lacking:
            raise LackingTokens(
                f"the tokenizer lacks {len(lacking)} of the {len(names)} special tokens that {why}"
                f" needs ({', '.join(lacking[:SHOWN])}{', …' * (len(lacking) > SHOWN)}): add them"
                " with --add-tokens",
                lacking,
            )
        return found

    def bare(self) -> "Tokenizer":
        """The same for a new model: nothing is decided of what stands around a text."""
        return Tokenizer(json.dumps(self._definition | NOT_APPLIED), self._declared)

    def save(self, folder: str | os.PathLike, feeding: dict | None = None) -> None:
        """Writes tokenizer.json and tokenizer_config.json, which transformers opens too.

        ``feeding`` (see ``huggingface.feeding``) is how a model is fed. Without it the files say of
        that what the loaded ones said.
        """
        engine, declared = self._engine, self._declared
        if feeding:
            pair = self.encodings(["a", "b"])
            fixed = self._habits.fixed
            engine = tokenizer_files.surrounding(engine, self.roles, feeding, pair, fixed)
        others = {self._added[index].content for index in self.special} - {*declared.values()}
        tokenizer_files.write(folder, engine, declared, others, self._habits, feeding)

    def encode(self, text: str) -> list[int]:
        """The ids of a text. No special token is added, none is recognised."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self.encodings(texts)]

    def encode_with_offsets(
        self, texts: Sequence[str]
    ) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """For each text its ids and, for each id, the (start, stop) characters it stands for."""
        return [(found.ids, found.offsets) for found in self.encodings(texts, offsets=True)]

    @functools.cached_property
    def pieces(self) -> Pieces | None:
        """For how many bytes each token stands; None where its piece does not say it."""
        return Pieces.of(self._definition, self._vocabulary, self._added)

    @functools.cached_property
    def breaks(self) -> str:
        """The white space before which a text may be cut, so that the ids of the parts, one after
        the other, are those of the whole: see ``cutting``. The parts after the first go on."""
        return cutting.breaks(self._definition)

    def encodings(
        self, texts: Sequence[str], offsets: bool = False, goes_on: Sequence[bool] = ()
    ) -> list[tokenizers.Encoding]:
        """What the library makes of the texts; it lets other threads run meanwhile.

        goes_on  which texts continue another one: nothing is put in front of them
        """
        if self._within is self._encoder or not any(goes_on):
            return encoders.encodings(self._encoder, texts, offsets)
        both = list(zip(texts, goes_on, strict=True))
        begun, going = ([text for text, on in both if on == each] for each in (False, True))
        new = iter(encoders.encodings(self._encoder, begun, offsets))
        rest = iter(encoders.encodings(self._within, going, offsets))
        return [next(rest if on else new) for _, on in both]

    def decode(self, ids: Sequence[int], after: Sequence[int] = ()) -> str:
        """The text of the ids, special tokens left out; broken characters become U+FFFD.

        after  the ids that stand before: SentencePiece takes a space from the front of a text, and
               not from what goes on
        """
        text = self._engine.decode([*after, *ids], skip_special_tokens=True)
        if not len(after):
            return text
        before = self._engine.decode(list(after), skip_special_tokens=True)
        return text[len(os.path.commonprefix([before, text])) :]

    def token(self, index: int) -> str:
        """One id as a piece that can be read in a table: a space is ␣, a newline \\n, and so on."""
        piece = self._engine.id_to_token(index)
        if piece is None:
            return f"<no token {index}>"
        if index in self._added:
            return piece
        data = self.data(index)
        return readable(piece if data is None else data.decode("utf-8", "backslashreplace"))

    def data(self, index: int) -> bytes | None:
        """The bytes that an id stands for, if they may be a part of a character; else None."""
        piece = self._engine.id_to_token(index)
        if piece is None or index in self._added:
            return None
        if self._byte_level:
            return bytes(bpe.byte_alphabet()[character] for character in piece)
        byte = BYTE.fullmatch(piece)
        return bytes.fromhex(byte[1]) if byte else None

    def need(self, role: str) -> int:
        """The id of a role. Raises InputError where this tokenizer has none."""
        if role == "mask" and role not in self.roles:
            raise LackingTokens(
                "the tokenizer has no mask token: declare its mask_token in tokenizer_config.json,"
                " or add one with --add-tokens",
                [TRAINED["mask_token"]],
            )
        if role not in self.roles:
            raise InputError(
                f"the tokenizer has no {role} token: declare its {DECLARED[role]} in "
                "tokenizer_config.json or use another tokenizer"
            )
        return self.roles[role]

    @property
    def begin(self) -> int:
        """The id of what stands before a document: see ``roles``. InputError where none is."""
        return self.roles["begin"] if "begin" in self.roles else self.need("end")

    @property
    def config_ids(self) -> dict[str, int | list[int]]:
        """The ids of special tokens as a model's config.json names them."""
        known = self.roles
        ends = [*self._habits.stops, self._vocabulary.get(self._declared.get("eos_token"))]
        ends = list(dict.fromkeys(id for id in [*ends, known.get("end")] if id is not None))
        bos = self._vocabulary.get(self._declared.get("bos_token"))
        bos = known.get("end", known.get("cls")) if bos is None else bos
        found = {"bos_token_id": bos, "eos_token_id": ends[0] if len(ends) == 1 else ends or None}
        found |= dict.fromkeys(("pad_token_id", "decoder_start_token_id"), known.get("pad"))
        return {name: value for name, value in found.items() if value is not None}

    @functools.cached_property
    def unknown(self) -> int | None:
        """The id of text that the tokenizer has no token for; None where there is no such id."""
        model = self._definition["model"]
        if "unk_id" in model:
            return model["unk_id"]
        return self._engine.token_to_id(model.get("unk_token") or "")

    @functools.cached_property
    def sha256(self) -> str:
        applied = self._definition | NOT_APPLIED
        canonical = json.dumps(applied, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
