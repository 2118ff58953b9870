"""The text of a UTF-8 file, piece by piece, so that it may be larger than memory.

Left out: other encodings, and what the text means.
"""

import codecs
import io
from collections.abc import Iterator

from minicpt.common.errors import InputError

PIECE = 1 << 20  # bytes that are read at once
REPLACEMENT = "\ufffd"


def decoded(path: str, errors: str = "strict") -> Iterator[str]:
    r"""The text of a UTF-8 file in pieces: no byte order mark, ``\r\n`` and ``\r`` as ``\n``.

    Raises InputError with the byte for what is not UTF-8, unless ``errors`` is "replace".
    """
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    first = True
    for text in _decoded_pieces(path, errors):
        if not text:  # a piece of a character
            continue
        text = newlines.decode(text.removeprefix("\ufeff") if first else text)
        first = False
        if text:
            yield text
    if text := newlines.decode("", final=True):
        yield text


def decode(data: bytes, errors: str, path: str, place: int, final: bool = True) -> tuple[str, int]:
    """The text of bytes that stand at ``place`` of a file, and how many of them it took."""
    try:
        return codecs.utf_8_decode(data, errors, final)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path!r} is not UTF-8 at byte {place + error.start}: convert it to UTF-8, leave it"
            " out, or replace what is invalid with --errors replace"
        ) from None


def raw(path: str) -> Iterator[bytes]:
    """The bytes of a file in pieces."""
    try:
        with open(path, "rb") as file:
            while data := file.read(PIECE):
                yield data
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from error


def count_invalid(path: str) -> int:
    """How often ``errors="replace"`` replaces something in a file."""
    count, rest = 0, b""
    for data in raw(path):
        rest += data
        text, used = codecs.utf_8_decode(rest, "replace", False)
        # Those that the file itself holds are valid, and are as many as their bytes.
        count += text.count(REPLACEMENT) - rest[:used].count(REPLACEMENT.encode())
        rest = rest[used:]
    return count + rest.decode("utf-8", "replace").count(REPLACEMENT)


def _decoded_pieces(path: str, errors: str) -> Iterator[str]:
    place, rest = 0, b""
    for data in raw(path):
        rest += data
        text, used = decode(rest, errors, path, place, final=False)
        yield text
        place, rest = place + used, rest[used:]
    if rest:
        yield decode(rest, errors, path, place)[0]
