"""A corpus on disk: tokenised once, and mapped into memory by every later run.

    <cache>/corpora/<key>/tokens, words, sentences, documents,
                          starts, bytes, unknown                a tensor's bytes each
                          names, name_ends                      UTF-8, and where each name ends
                          corpus.json                           what belongs there; written last

The cache is $MINICPT_CACHE, else minicpt in $XDG_CACHE_HOME, else ~/.cache/minicpt. The key is made
of the texts, their names, the tokenizer and the format, so an entry stays right for ever. The cache
can be deleted at any time. A text that changes between hashing and tokenising is refused
(``documents``), so no other text stands under its key. corpus.json holds the SHA-256 of each file.
It is checked at each start, which takes about a second per GB. Damage that comes later, while a run
reads from the file, is not found.
"""

import ctypes
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from minicpt.common.disk import put_folder, read_json, remove, sha256, write_json
from minicpt.common.errors import InputError, WorkError
from minicpt.data import building
from minicpt.data.corpus import NO_TOKEN, Corpus
from minicpt.data.documents import Documents
from minicpt.data.tokenizer import Tokenizer

FORMAT = 4
SMALL = 1 << 22  # characters: what is not longer is tokenised anew each time, and held
MOST = 32 << 30  # bytes of all corpora together; those that were not used for longest go first
ABANDONED = 24 * 3600  # seconds after which a corpus that nobody has finished is cleared away
KINDS = {
    "tokens": torch.int32,
    "words": torch.int64,
    "sentences": torch.int64,
    "documents": torch.int64,
    "starts": torch.int64,
    "bytes": torch.int32,
    "unknown": torch.int64,
    "names": torch.uint8,
    "name_ends": torch.int64,
}
HEADER = "corpus.json"


class Names(Sequence):
    """The names of a corpus's documents, each made when it is asked for.

    data  (bytes,) uint8, UTF-8
    ends  (documents,) int64
    """

    def __init__(self, data: Tensor, ends: Tensor):
        self.data, self.ends = data, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]
        start = int(self.ends[index - 1]) if index else 0
        data = bytes(self.data[start : int(self.ends[index])].tolist())
        return data.decode("utf-8", "surrogatepass")


def corpus(
    documents: Documents,
    tokenizer: Tokenizer,
    progress: bool = False,
    say: Callable[[str], None] = print,
    small: int | None = None,
) -> Corpus:
    """As ``Corpus.build``, from the cache or into it, where the text is not small.

    small  characters up to which it is; None: SMALL

    A cached corpus that is damaged is made anew, and it is said. Where the cache cannot be written
    it is said, and the corpus is one for this process alone. Raises WorkError where that cannot be
    written either.
    """
    if documents.characters <= (SMALL if small is None else small):
        return Corpus.build(documents, tokenizer, progress)
    key = f"{FORMAT} {documents.key} {tokenizer.sha256}"
    entry = folder() / hashlib.sha256(key.encode()).hexdigest()
    if (found := _open(entry, key)) is not None:
        return found
    if os.path.lexists(entry):
        say(f"the tokenised text in {str(entry)!r} is damaged: it is made anew")
        remove(entry)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        put_folder(
            entry,
            lambda temporary: _write(temporary, key, documents, tokenizer, progress),
            shared=True,
        )
        tidy(entry)
        found = _open(entry, key)
    except OSError as error:
        if (found := _open(entry, key)) is not None:  # another process was faster
            return found
        say(
            f"the cache {str(entry.parent)!r} cannot be written ({error.strerror}): the text is"
            " tokenised for this run alone; set MINICPT_CACHE to another folder"
        )
    return found or _passing(key, documents, tokenizer, progress)


def folder() -> Path:
    """Where corpora are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("MINICPT_CACHE") or Path(base, "minicpt"), "corpora")


def tidy(keep: Path) -> None:
    """Clears away what was abandoned, and what was not used for longest, down to MOST bytes."""
    used = []
    for path in keep.parent.iterdir():
        try:
            size = sum(file.stat().st_size for file in path.rglob("*"))
            used.append((path != keep, path.stat().st_mtime, size, path))
        except OSError:
            continue  # another process clears as well
    total = sum(size for _, _, size, _ in used)
    for other, when, size, path in sorted(used, key=lambda each: each[1]):
        if path.suffix == ".tmp":
            old = time.time() - when > ABANDONED
        else:
            old = total > MOST
        if other and old:
            remove(path)
            total -= size


def _passing(key: str, documents: Documents, tokenizer: Tokenizer, progress: bool) -> Corpus:
    """A corpus whose files are gone when this process is: where files can, they go at once."""
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            _write(Path(temporary), key, documents, tokenizer, progress)
            found = _open(Path(temporary), key)
    except OSError as error:
        raise WorkError(
            f"cannot write to {tempfile.gettempdir()!r}: {error.strerror}; make room, or set TMPDIR"
        ) from error
    if found is None:
        raise WorkError(f"what was written to {tempfile.gettempdir()!r} cannot be read again")
    return found


def _write(
    entry: Path, key: str, documents: Documents, tokenizer: Tokenizer, progress: bool
) -> None:
    counts, end = dict.fromkeys(KINDS, 0), 0
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(entry / name, "wb")) for name in KINDS}
        for chunk in building.chunks(documents, tokenizer, progress):
            tensors = {name: getattr(chunk, name) for name in building.TENSORS}
            names = [name.encode("utf-8", "surrogatepass") for name in chunk.names]
            sizes = torch.tensor([len(name) for name in names], dtype=torch.int64)
            tensors["name_ends"] = end + sizes.cumsum(0)
            end += int(sizes.sum())
            files["names"].write(b"".join(names))
            for name, tensor in tensors.items():
                tensor = tensor.contiguous()
                files[name].write(ctypes.string_at(tensor.data_ptr(), tensor.nbytes))
                counts[name] += len(tensor)
        counts["names"] = end
        if not counts["tokens"]:
            raise InputError(NO_TOKEN)
    digests = {name: sha256(entry / name) for name in KINDS}
    write_json(entry / HEADER, {"key": key, "counts": counts, "sha256": digests})


def _open(entry: Path, key: str) -> Corpus | None:
    """The corpus in a folder; None where it is not there, or is not whole."""
    try:
        header = read_json(entry / HEADER)
        if header["key"] != key:
            return None
        tensors = {}
        for name, kind in KINDS.items():
            count, path = header["counts"][name], entry / name
            if path.stat().st_size != count * kind.itemsize:
                return None
            if sha256(path) != header["sha256"][name]:
                return None
            mapped = torch.from_file(str(path), shared=False, size=count, dtype=kind)
            tensors[name] = mapped if count else torch.empty(0, dtype=kind)
        os.utime(entry)  # when it was used last
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None
    names = Names(tensors.pop("names"), tensors.pop("name_ends"))
    return Corpus(**tensors, names=names)
