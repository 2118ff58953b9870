"""The texts of a comparison: bounded, and labelled in parts.

A part of a text is what the probe has to tell: the first folder below the one that all documents
share (for builtin:code the package; modules that stand alone belong to none), or a file that
holds several documents (.jsonl, --blocks). builtin:docs has no folders: there, topics on a
statement are told from the rest.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from minicpt.common.randomness import generator
from minicpt.comparison.probe import Labelled
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document, Documents, whole
from minicpt.data.order import windows
from minicpt.data.tokenizer import Tokenizer

MOST_PARTS = 8
LEAST_TOKENS = 16  # of a passage that the probe sees
DOCUMENTS = 2  # of a part, at least, on each side


@dataclass(frozen=True)
class Domain:
    """A text as the comparison uses it; ``probe`` is None where it has too few parts."""

    training: Corpus
    held_out: Corpus
    probe: tuple[Labelled, Labelled] | None = None


def bounded(documents: Documents, characters: int) -> list[Document]:
    """Documents in a fixed random order until ``characters`` are used; the last one is cut.

    They keep their order, and are held from now on. A pure function of its arguments; 0 characters:
    all of them.

    >>> [each.text for each in bounded(Documents.of([Document("a", "one two")]), 3)]
    ['one']
    """
    left = characters or documents.characters
    sizes = {}
    for number in torch.randperm(len(documents), generator=generator("bounded", len(documents))):
        sizes[int(number)] = min(left, documents.lengths[number])
        left -= sizes[int(number)]
        if not left:
            break
    cut = (
        Document(each.name, each.part(0, sizes[number], each.name).text)
        for number, each in enumerate(documents)
        if number in sizes
    )
    return [document for document in cut if document.text.strip()]


def parts(documents: Sequence[Document], sources: Sequence[str]) -> list[str]:
    """The part that each document belongs to, by name.

    >>> parts([Document("notes/a/1.txt", ""), Document("notes/b/2.txt", "")], ["notes"])
    ['a', 'b']
    """
    if tuple(sources) == ("builtin:docs",):
        titles = [each.text.strip().split("\n")[0] for each in documents]
        return ["statement" if "statement" in title else "other" for title in titles]
    names = [whole(document.name) for document in documents]
    files = [re.sub(r"(:\d+|, block \d+)$", "", name) for name in names]
    folders = {os.path.dirname(each) for each in files}
    try:
        shared = os.path.commonpath(folders)
    except ValueError:  # relative and absolute paths
        shared = ""
    return [os.path.relpath(each, shared or ".").split(os.sep)[0] for each in files]


def labelled(
    training: Sequence[Document],
    held_out: Sequence[Document],
    corpora: Sequence[Corpus],
    sources: Sequence[str],
    size: int,
    most: int,
) -> tuple[Labelled, Labelled] | None:
    """The probe's two sides, at most ``most`` passages of ``size`` tokens from a part; or None.

    Held out are half as many. The largest parts are taken, those with DOCUMENTS on each side.
    """
    names = parts([*training, *held_out], sources)
    sides = names[: len(training)], names[len(training) :]
    counts = [Counter(side) for side in sides]
    able = [part for part in counts[1] if min(each[part] for each in counts) >= DOCUMENTS]
    able = sorted(sorted(able), key=lambda part: -counts[1][part])[:MOST_PARTS]
    found = []
    for documents, side, corpus, room in zip(
        (training, held_out), sides, corpora, (most, max(1, most // 2)), strict=True
    ):
        of_name = {each.name: part for each, part in zip(documents, side, strict=True)}
        passages, labels, units = [], [], []
        left = dict.fromkeys(able, room)
        for start, stop in windows(corpus, size, 0, 0).tolist():
            if stop - start < min(LEAST_TOKENS, size):
                continue
            passage = corpus.passage(start, stop)
            name = passage.place.split(", token ")[0]
            if left.get(of_name[name], 0):
                left[of_name[name]] -= 1
                passages.append(passage)
                labels.append(able.index(of_name[name]))
                units.append(name)
        if len(set(labels)) < 2 or len(set(labels)) < len(able):
            return None
        found.append(Labelled(passages, torch.tensor(labels), units, able))
    return found[0], found[1]


def domain(
    training: Sequence[Document],
    held_out: Sequence[Document],
    tokenizer: Tokenizer,
    sources: Sequence[str],
    size: int,
    most: int,
) -> Domain:
    """The corpora of a divided text, and its probe: see ``labelled``."""
    sides = training, held_out
    corpora = [Corpus.build(each, tokenizer, progress=True) for each in sides]
    return Domain(*corpora, labelled(*sides, corpora, sources, size, most))
