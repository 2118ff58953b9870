"""Text on its way in: built-in text, files, folders, globs and .jsonl become documents.

Everything a user can get wrong is found here, before any work is done, and said in one line.
Left out: other encodings than UTF-8, compressed files, archives, and anything over the network.
"""

import glob
import importlib
import json
import os
import platform
import re
import stat
import sys
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minicpt.errors import InputError

BLANK_LINE = re.compile(r"\n[^\S\n]*\n")  # whole, so that it never scans a stretch twice

BUILTIN = "builtin:"  # the names of built-in texts begin with it

# Files of a folder that are never text, told by their name without reading them.
BINARY = frozenset(
    ".7z .a .avi .bin .bmp .bz2 .class .db .dll .doc .docx .dylib .eot .exe .flac .gif .gz .h5 .ico"
    " .jar .jpeg .jpg .mkv .mov .mp3 .mp4 .npy .npz .o .odt .ogg .otf .parquet .pdf .pickle .pkl"
    " .png .ppt .pptx .psd .pt .pth .pyc .pyd .pyo .rar .safetensors .so .sqlite .sqlite3 .tar .tgz"
    " .tif .tiff .ttf .wasm .wav .webm .webp .whl .woff .woff2 .xls .xlsx .xz .zip .zst".split()
)

# Of the standard library: tests, other people's packages, the text of builtin:docs (a base corpus
# must not be inside the new domain), and what the build of one machine wrote.
NOT_CODE = frozenset("test tests idle_test site-packages dist-packages pydoc_data".split())
GENERATED = ("_sysconfigdata", "config-")


@dataclass(frozen=True)
class Document:
    """One text with the name that messages call it by."""

    name: str
    text: str


def read(sources: Sequence[str], blocks: bool = False) -> list[Document]:
    r"""The documents of the sources, in the given order.

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
    document of its own.

    Raises InputError, with the place, for what is missing, unreadable, not UTF-8, or no text.
    """
    if not sources:
        raise InputError("no corpus: name a file, a folder, builtin:docs or builtin:code")
    seen: set[str] = set()
    found = [document for source in sources for document in _documents(source, seen)]
    if blocks:
        found = [block for document in found for block in _blocks(document)]
    return found


def origin(source: str) -> str:
    """One line that says where the text of a source comes from.

    >>> origin("notes.txt")
    'notes.txt'
    """
    builtin = {"builtin:docs": "pydoc_data.topics", "builtin:code": "the standard library's source"}
    if source not in builtin:
        return source
    return f"{source} ({builtin[source]} of Python {platform.python_version()})"


def _documents(source: str, seen: set[str]) -> list[Document]:
    """The documents of one source; ``seen`` holds the real paths of the files read so far."""
    if source == "builtin:docs":
        return [] if _again(source, seen) else _builtin_docs()
    if source == "builtin:code":
        return [] if _again(source, seen) else _builtin_code()
    if source.startswith(BUILTIN):
        raise InputError(f"no built-in text {source!r}: there are builtin:docs and builtin:code")
    mode = _mode(source)
    if mode is not None and not stat.S_ISDIR(mode):
        return _file(source, mode, seen)
    if mode is not None:
        paths, what = _walk(source), f"folder {source!r}"
    elif re.search(r"[*?[]", source):
        paths, what = _glob(source), f"glob {source!r}"
    else:
        raise InputError(f"no such file or folder: {source!r}")
    documents, texts = [], 0
    for path in paths:
        contents = _contents(path, explicit=False)
        if contents is None or not contents.strip():
            continue
        texts += 1
        if not _again(path, seen):
            documents += _of_file(path, contents)
    if not texts:
        raise InputError(f"{what} holds no text: give one with files that are UTF-8 text")
    return documents


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


def _file(path: str, mode: int, seen: set[str]) -> list[Document]:
    """A file that was named itself: whatever keeps it from being text is an error."""
    if not stat.S_ISREG(mode):  # never opened: opening a pipe waits for a writer
        raise InputError(f"{path!r} is a pipe, a device or a socket: give a regular file")
    contents = _contents(path, explicit=True)
    if not contents:
        raise InputError(f"{path!r} is empty: give a file with text")
    if not contents.strip():
        raise InputError(f"{path!r} holds only blank text: give a file with words")
    return [] if _again(path, seen) else _of_file(path, contents)


def _contents(path: str, explicit: bool) -> str | None:
    """The decoded text of a regular file; None for a file of a folder that is not text."""
    try:
        with open(path, "rb") as file:
            data = file.read(1 << 16)
            if b"\0" not in data:
                data += file.read()
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path!r} is UTF-16: convert it to UTF-8, for example with iconv")
    if b"\0" in data:
        if not explicit:
            return None
        raise InputError(
            f"{path!r} is not text (NUL byte at byte {data.index(0)}): give a file of UTF-8 text"
        )
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path!r} is not UTF-8 at byte {error.start}: convert it to UTF-8 or leave it out"
        ) from error


def _of_file(path: str, contents: str) -> list[Document]:
    name = _printable(path)
    if not path.lower().endswith(".jsonl"):
        return [Document(name, _newlines(contents))]
    # Only \n ends a line: U+2028 and its like may stand inside a JSON string.
    lines = enumerate(contents.split("\n"), start=1)
    records = (
        Document(f"{name}:{number}", _newlines(_text_field(line, f"{path!r} line {number}")))
        for number, line in lines
        if line.strip()
    )
    documents = [document for document in records if document.text.strip()]
    if not documents:
        raise InputError(f"{path!r} holds only blank text: give lines with words in 'text'")
    return documents


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
    texts = [text for text in BLANK_LINE.split(document.text) if text.strip()]
    for number, text in enumerate(texts, start=1):
        yield Document(f"{document.name}, block {number}", text.strip("\n"))


def _missing(source: str) -> InputError:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return InputError(
        f"this Python has no text for {source}: install its whole standard library "
        f"(Debian, Ubuntu: libpython{version}-stdlib; Fedora: python3-libs) or give files instead"
    )


def _builtin_docs() -> list[Document]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except (ImportError, AttributeError) as error:
        raise _missing("builtin:docs") from error
    documents = [Document(name, topics[name]) for name in sorted(topics) if topics[name].strip()]
    if not documents:
        raise _missing("builtin:docs")
    return documents


def _builtin_code() -> list[Document]:
    library = Path(sysconfig.get_path("stdlib"))
    documents = []
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        generated = any(part.startswith(GENERATED) for part in parts)
        if NOT_CODE.isdisjoint(parts) and not generated and path.is_file():
            with tokenize.open(path) as file:  # honours the coding line of Python source
                text = file.read()
            if text.strip():
                documents.append(Document("/".join(parts), text))
    if not documents:
        raise _missing("builtin:code")
    return documents
