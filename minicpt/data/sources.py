"""Built-in text, files, folders, globs and .jsonl become documents.

What is wrong with them is found here, before any work is done, and said in one line: ``read`` goes
through all text once, piece by piece. The text is read again when it is used. Leaves out other
encodings than UTF-8, compressed files, archives, and the network.
"""

import functools
import glob
import itertools
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from minicpt.common.errors import InputError
from minicpt.data import builtin
from minicpt.data.builtin import BUILTIN
from minicpt.data.documents import Document, Documents, count_invalid, decode, decoded, raw
from minicpt.data.text import BLANK_LINE

# Files of a folder that are never text, told by their name without reading them.
BINARY = frozenset(
    ".7z .a .avi .bin .bmp .bz2 .class .db .dll .doc .docx .dylib .eot .exe .flac .gif .gz .h5 .ico"
    " .jar .jpeg .jpg .mkv .mov .mp3 .mp4 .npy .npz .o .odt .ogg .otf .parquet .pdf .pickle .pkl"
    " .png .ppt .pptx .psd .pt .pth .pyc .pyd .pyo .rar .safetensors .so .sqlite .sqlite3 .tar .tgz"
    " .tif .tiff .ttf .wasm .wav .webm .webp .whl .woff .woff2 .xls .xlsx .xz .zip .zst".split()
)

LONGEST = 1 << 27  # of a line of .jsonl, and of a block, which are held whole


def read(
    sources: str | Sequence[str],
    blocks: bool = False,
    errors: str = "strict",
    progress: bool = False,
) -> Documents:
    r"""The documents of the sources, in the given order; a text alone is one source.

    A source is one of

    - ``builtin:docs``, the topics of the Python language reference, a document each;
      ``builtin:code``, the source files of the standard library, sorted, without its tests.
      Both depend on the version of Python.
    - a file: one document. It must be UTF-8 text; a byte order mark is dropped.
    - a ``.jsonl`` file: each line is a JSON object, its string ``text`` a document.
    - a folder: its files and those of its folders, sorted by path. Any file counts as text,
      whatever its suffix, except hidden ones (a name that begins with a dot), those with a suffix
      known to be binary (images, archives, weights, ...), those that hold a NUL byte, and what is
      not a regular file. A file that is left after that must be UTF-8.
    - a glob (``*``, ``?``, ``[...]``, ``**`` for folders at any depth): what it matches, sorted;
      files are chosen as in a folder, folders are read as folders.

    ``\r\n`` and ``\r`` become ``\n``. A file that is reached twice counts once. Documents without
    anything but white space are left out. With ``blocks`` every stretch between blank lines is a
    document of its own. With ``errors`` "replace" every invalid stretch of bytes becomes U+FFFD,
    and is counted. ``progress`` shows a bar if stderr is a terminal.

    Raises InputError, with the place, for what is missing, unreadable, not UTF-8, or no text.
    """
    sources = [sources] if isinstance(sources, str) else sources
    if not sources:
        raise InputError("no corpus: name a file, a folder, builtin:docs or builtin:code")
    seen: set[str] = set()
    parts = [part for source in sources for part in _parts(source, seen, errors)]
    files = [part for part in parts if isinstance(part, str)]
    replaced = sum(map(count_invalid, files)) if errors == "replace" else 0
    again = functools.partial(_documents, parts, errors, blocks)
    return Documents.measured(again, replaced, progress)


def _documents(parts: list[str | Document], errors: str, blocks: bool) -> Iterator[Document]:
    """Those of some files, and those that are held."""
    for part in parts:
        for document in _of_file(part, errors) if isinstance(part, str) else [part]:
            yield from _blocks(document) if blocks else [document]


def _parts(source: str, seen: set[str], errors: str) -> list[str | Document]:
    """The paths of a source's files, or its documents where it is built in.

    seen  the real paths of the files so far: each is read once
    """
    if source.startswith(BUILTIN):
        return [] if _again(source, seen) else builtin.documents(source)
    mode = _mode(source)
    if mode is not None and not stat.S_ISDIR(mode):
        paths, explicit = _file(source, mode, errors), True
    elif mode is not None:
        paths, explicit, what = _walk(source), False, f"folder {source!r}"
    elif re.search(r"[*?[]", source):
        paths, explicit, what = _glob(source), False, f"glob {source!r}"
    else:
        raise InputError(f"no such file or folder: {source!r}")
    if not explicit:
        paths = [path for path in paths if _is_text(path) and not _blank(path, errors)]
        if not paths:
            raise InputError(f"{what} holds no text: give one with files that are UTF-8 text")
    return [path for path in paths if not _again(path, seen)]


def _again(path: str, seen: set[str]) -> bool:
    real = path if path.startswith(BUILTIN) else os.path.realpath(path)
    known = real in seen
    seen.add(real)
    return known


def _mode(path: str) -> int | None:
    """The kind of thing at a path; None where there is nothing."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        return None
    except OSError as error:  # permission denied on the way, a link to itself, a name too long
        raise InputError(f"cannot read {path!r}: {error.strerror}") from error


def _file(path: str, mode: int, errors: str) -> list[str]:
    """A file that was named itself: whatever keeps it from being text is an error."""
    if not stat.S_ISREG(mode):  # never opened: opening a pipe waits for a writer
        raise InputError(f"{path!r} is a pipe, a device or a socket: give a regular file")
    place = _nul(path)
    if place is not None:
        raise InputError(
            f"{path!r} is not text (NUL byte at byte {place}): give a file of UTF-8 text"
        )
    if not any(decoded(path, errors)):
        raise InputError(f"{path!r} is empty: give a file with text")
    if _blank(path, errors):
        raise InputError(f"{path!r} holds only blank text: give a file with words")
    return [path]


def _is_text(path: str) -> bool:
    """Whether a file of a folder counts as text: whether it has no NUL byte."""
    return _nul(path) is None


def _nul(path: str) -> int | None:
    """The place of a file's first NUL byte. Raises InputError for UTF-16, which has many."""
    start = 0
    for data in raw(path):
        if not start and data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{path!r} is UTF-16: convert it to UTF-8, for example with iconv")
        if b"\0" in data:
            return start + data.index(0)
        start += len(data)
    return None


def _blank(path: str, errors: str) -> bool:
    return not any(map(str.strip, decoded(path, errors)))


def _of_file(path: str, errors: str) -> Iterator[Document]:
    """The documents of a file: of .jsonl one a line, else the whole file."""
    name = _printable(path)
    if path.lower().endswith(".jsonl"):
        yield from _of_lines(path, name, errors)
    else:
        yield Document.of_file(name, path, errors)


def _of_lines(path: str, name: str, errors: str) -> Iterator[Document]:
    some = False
    for number, line in enumerate(_lines(path, errors), start=1):
        if line.strip():
            text = _newlines(_text_field(line, f"{path!r} line {number}"))
            if text.strip():
                some = True
                yield Document(f"{name}:{number}", text, inside=name)
    if not some:
        raise InputError(f"{path!r} holds only blank text: give lines with words in 'text'")


def _lines(path: str, errors: str) -> Iterator[str]:
    """Only \\n ends a line: U+2028 and its like may stand inside a JSON string."""
    place = 0
    try:
        with open(path, "rb") as file:
            while line := file.readline(LONGEST):
                if len(line) == LONGEST:
                    raise InputError(
                        f"{path!r} has a line of {LONGEST >> 20} MiB or more at byte {place}: "
                        "give a document a line"
                    )
                text = decode(line, errors, path, place)[0]
                yield text if place else text.removeprefix("\ufeff")
                place += len(line)
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from error


def _text_field(line: str, place: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON: each line must be a JSON object") from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise InputError(f"{place} has no string 'text': each line needs one")
    text = record["text"]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place} has half a surrogate pair in 'text' at character {error.start}: "
            "write the whole character"
        ) from error
    return text


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _printable(path: str) -> str:
    """A path as a name that fits on one line and can be printed (a file name may be any bytes)."""
    return path if path.isprintable() else repr(path)[1:-1]


def _walk(folder: str) -> list[str]:
    """The candidates for text in a folder; links are followed, each folder is entered once."""

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read {error.filename!r}: {error.strerror}") from error

    entered = {os.path.realpath(folder)}
    found = []
    for top, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(top, name))
            if not name.startswith(".") and real not in entered:
                entered.add(real)
                kept.append(name)
        folders[:] = kept
        found += [os.path.join(top, name) for name in files if not name.startswith(".")]
    return sorted(filter(_maybe_text, found), key=lambda path: Path(path).parts)


def _glob(pattern: str) -> list[str]:
    found = []
    for path in sorted(glob.glob(pattern, recursive=True), key=lambda path: Path(path).parts):
        if os.path.isdir(path):
            # `**` matches a folder and what is in it; ``read`` counts each file once.
            found += _walk(path)
        elif _maybe_text(path):
            found.append(path)
    if not found:
        raise InputError(f"glob {pattern!r} matches no text file: check it, and quote it")
    return list(dict.fromkeys(found))


def _maybe_text(path: str) -> bool:
    return Path(path).suffix.lower() not in BINARY and os.path.isfile(path)


def _blocks(document: Document) -> Iterator[Document]:
    """The stretches between blank lines."""
    number, held, rest = 0, [], ""  # a block begins with what is held
    for piece in itertools.chain(document.pieces(), [None]):
        *texts, last = [rest, ""] if piece is None else BLANK_LINE.split(rest + piece)
        for text in texts:
            block = "".join([*held, text])
            held = []
            if block.strip():
                number += 1
                name = f"{document.source}, block {number}"
                yield Document(name, block.strip("\n"), inside=document.file)
        before, newline, line = last.rpartition("\n")
        held.append(before)
        rest = newline + line  # may begin a blank line that the next piece ends
        if sum(map(len, held)) + len(rest) > LONGEST:
            raise InputError(
                f"{document.name!r} has no blank line in {LONGEST >> 20} Mi characters: "
                "leave out --blocks"
            )
