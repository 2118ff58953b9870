"""Text that every Python carries, so that a first run needs no file and no download.

``builtin:docs`` is the Python language reference, ``builtin:code`` the source of the standard
library. Both depend on the version of Python.
"""

import importlib
import platform
import sys
import sysconfig
import tokenize
from pathlib import Path

from minicpt.common.errors import InputError
from minicpt.data.documents import Document

BUILTIN = "builtin:"  # the names of built-in texts begin with it

# Of the standard library: tests, other people's packages, the text of builtin:docs (a base corpus
# must not be inside the new domain), and what the build of one machine wrote.
NOT_CODE = frozenset("test tests idle_test site-packages dist-packages pydoc_data".split())
GENERATED = ("_sysconfigdata", "config-")


def documents(source: str) -> list[Document]:
    """Those of builtin:docs or builtin:code. InputError for another name."""
    if source == "builtin:docs":
        return _docs()
    if source == "builtin:code":
        return _code()
    raise InputError(f"no built-in text {source!r}: there are builtin:docs and builtin:code")


def origin(source: str) -> str:
    """One line that says where the text of a source comes from.

    >>> origin("notes.txt")
    'notes.txt'
    """
    builtin = {"builtin:docs": "pydoc_data.topics", "builtin:code": "the standard library's source"}
    if source not in builtin:
        return source
    return f"{source} ({builtin[source]} of Python {platform.python_version()})"


def _missing(source: str) -> InputError:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return InputError(
        f"this Python has no text for {source}: install its whole standard library "
        f"(Debian, Ubuntu: libpython{version}-stdlib; Fedora: python3-libs) or give files instead"
    )


def _docs() -> list[Document]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except (ImportError, AttributeError) as error:
        raise _missing("builtin:docs") from error
    documents = [Document(name, topics[name]) for name in sorted(topics) if topics[name].strip()]
    if not documents:
        raise _missing("builtin:docs")
    return documents


def _code() -> list[Document]:
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
