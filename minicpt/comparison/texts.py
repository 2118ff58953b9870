"""The texts of a comparison: read, held apart, bounded, tokenised, and labelled for the probe.

What the probe tells apart are the parts of a text: the first folder below the one that all files
share (for builtin:code the package; modules that stand alone belong to none), or a file that holds
several documents (.jsonl, --blocks). builtin:docs has no folders: there, topics on a statement are
told from the rest.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from minicpt.checkpoint import Checkpoint
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.comparison.plan import Sources
from minicpt.comparison.probe import Labelled
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document, Documents
from minicpt.data.order import windows
from minicpt.data.tokenizer import Tokenizer
from minicpt.runs.texts import Texts, clear, known_texts, nothing_left, texts

MOST_PARTS = 8
LEAST_TOKENS = 16  # of a passage that the probe sees
DOCUMENTS = 2  # of a part, at least, on each side


# --- reading ---------------------------------------------------------------------------------


def sides(sources: Sources, base: Checkpoint | None, control: bool) -> dict[str, list[Texts]]:
    """The texts by side: "old", "new" and, if it is another text, "wrong"."""
    found = {
        "old": old_texts(sources, base),
        "new": [texts(sources.text(sources.corpus))],
    }
    if control and sources.control:
        found["wrong"] = [texts(sources.text(sources.control))]
    if found["new"][0].record["sha256"] in [each.record["sha256"] for each in found["old"]]:
        raise InputError("the new text is the old one; give another --corpus or --old-corpus")
    return found


def old_texts(sources: Sources, base: Checkpoint | None) -> list[Texts]:
    if base is None:
        return [texts(sources.text(sources.old_corpus or ("builtin:docs",)))]
    if found := known_texts(base, sources.old_corpus, sources.text(sources.corpus)):
        return found
    raise InputError(f"{sources.init} does not say what text it knows; name it with --old-corpus")


def divided(
    found: Mapping[str, Sequence[Texts]], characters: int
) -> dict[str, list[list[Document]]]:
    """By side: the documents to train on, and those held out, which stand in no training text.

    Both together have at most so many characters (0: any number); each keeps its share.
    """
    everything = [each for side in found.values() for each in side]
    result = {}
    for side, some in found.items():
        left = [clear(each, everything) for each in some]
        if not any(left):
            raise InputError(f"the {side} text: {nothing_left(some[0])}; give another text")
        both = [Documents.joined(each.training for each in some), Documents.joined(left)]
        share = min(1, characters / sum(each.characters for each in both)) if characters else 1
        result[side] = [bounded(each, max(1, round(share * each.characters))) for each in both]
    return result


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
        each.part(0, sizes[number]) for number, each in enumerate(documents) if number in sizes
    )
    held = [replace(each, content=each.text) for each in cut]
    return [document for document in held if document.text.strip()]


# --- the probe's labels ----------------------------------------------------------------------


def parts(documents: Sequence[Document], sources: Sequence[str]) -> list[str]:
    """The part that each document belongs to, by name.

    >>> parts([Document("notes/a/1.txt", ""), Document("notes/b/2.txt", "")], ["notes"])
    ['a', 'b']
    """
    if tuple(sources) == ("builtin:docs",):
        titles = [each.text.strip().split("\n")[0] for each in documents]
        return ["statement" if "statement" in title else "other" for title in titles]
    files = [document.file for document in documents]
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
        places = [(document.source, document.start) for document in documents]
        of_document = dict(zip(places, side, strict=True))
        passages, labels, units = [], [], []
        left = dict.fromkeys(able, room)
        for start, stop in windows(corpus, size, 0, 0).tolist():
            if stop - start < min(LEAST_TOKENS, size):
                continue
            passage = corpus.passage(start, stop)
            part = of_document[passage.document, passage.character]
            if left.get(part, 0):
                left[part] -= 1
                passages.append(passage)
                labels.append(able.index(part))
                units.append(passage.document)
        if len(set(labels)) < 2 or len(set(labels)) < len(able):
            return None
        found.append(Labelled(passages, torch.tensor(labels), units, able))
    return found[0], found[1]


# --- the text as it is used ------------------------------------------------------------------


@dataclass(frozen=True)
class Domain:
    """A text as the comparison uses it; ``probe`` is None where it has too few parts."""

    training: Corpus
    held_out: Corpus
    probe: tuple[Labelled, Labelled] | None = None


def domain(
    training: Sequence[Document],
    held_out: Sequence[Document],
    tokenizer: Tokenizer,
    sources: Sequence[str],
    size: int,
    most: int,
) -> Domain:
    """The corpora of a divided text, and its probe: see ``labelled``."""
    both = training, held_out
    corpora = [Corpus.build(each, tokenizer, progress=True) for each in both]
    return Domain(*corpora, labelled(*both, corpora, sources, size, most))
