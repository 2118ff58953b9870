"""The texts of a comparison: read, held apart, bounded and tokenised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from minicpt.checkpoint import Checkpoint
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.comparison.plan import Sources
from minicpt.comparison.task import Task, task
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document, Documents
from minicpt.data.tokenizer import Tokenizer
from minicpt.runs.texts import Texts, clear, known_texts, nothing_left, texts

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


# --- the text as it is used ------------------------------------------------------------------


@dataclass(frozen=True)
class Domain:
    """A text as the comparison uses it; ``probe`` is None where it has too few parts."""

    training: Corpus
    held_out: Corpus
    probe: Task | None = None


def domain(
    training: Sequence[Document],
    held_out: Sequence[Document],
    tokenizer: Tokenizer,
    size: int,
    most: int,
) -> Domain:
    """The corpora of a divided text, and its probe: see ``task``."""
    both = training, held_out
    corpora = [Corpus.build(each, tokenizer, progress=True) for each in both]
    halves = list(zip(both, corpora, strict=True))
    return Domain(*corpora, task(halves[1], halves[0], size, most))
