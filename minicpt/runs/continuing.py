"""What a continued run takes over from its base: its text, for measuring and for replay.

Replayed text is never text that is held out, here or by the base: a text is parted as the base
parted its own; what is kept from training anywhere is taken out of it, and so is what stands in the
held-out text too, word for word or nearly so (``data.copies``).
"""

import argparse
import dataclasses
import hashlib
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from tqdm import tqdm

from minicpt.checkpoint.folder import Checkpoint
from minicpt.cli import flags
from minicpt.common.errors import InputError
from minicpt.data.copies import unseen
from minicpt.data.corpus import Corpus
from minicpt.data.coverage import coverage
from minicpt.data.documents import Document, Documents
from minicpt.data.split import FEW, has_words
from minicpt.data.tokenizer import Tokenizer
from minicpt.remedies import replay, self_replay
from minicpt.remedies.replay import Replay
from minicpt.runs import build
from minicpt.runs.loop import say

WRITES_NOTHING = {
    "encoder": "an encoder gives no probability to whole texts, so there is nothing to draw from",
    "encoder-decoder": "an encoder-decoder writes only in reply to a text that it is given",
}
TITLES = {"base": "the text of the base", "self": "texts written by the base itself"}


def known_texts(
    base: Checkpoint, named: tuple[str, ...], settings: build.Text
) -> list[build.Texts]:
    """The texts that the base was trained on: those named, else its own and its bases'."""
    if named:
        return [build.texts(dataclasses.replace(settings, corpus=named))]
    if not base.record:
        say(
            "the base does not say what text it was trained on, so no forgetting is measured;"
            " name it with --old-corpus"
        )
        return []
    return build.old_texts([base.record["text"], *base.record["old_texts"]])


# --- replay ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replayed:
    """What is mixed in, and the record of it that a checkpoint keeps."""

    replay: Replay
    record: dict

    def __str__(self) -> str:
        source = " ".join(self.record["replay"])
        corpus = self.replay.corpus
        return (
            f"{self.replay.fraction:.2%} of the passages: {TITLES.get(source, source)}, "
            f"{len(corpus.documents):,} documents, {len(corpus.tokens):,} tokens"
        )


def settings_of(arguments: argparse.Namespace) -> replay.Settings | None:
    """What the flags say of replay; None without it. InputError where they contradict."""
    settings = flags.build(arguments, replay.Settings)
    source = settings.replay
    if not source:
        flags.refuse(arguments, replay.Settings, "nothing is replayed without --replay")
        return None
    if len(source) > 1 and {"base", "self"} & set(source):
        raise InputError("--replay takes `base` or `self` alone, or files and folders")
    kind = build.objective_module(arguments.objective).Objective.role
    if source != ("self",):
        why = "only --replay self writes text"
        flags.refuse(arguments, replay.Settings, why, but=("replay", "replay_fraction"))
    elif kind in WRITES_NOTHING:
        raise InputError(
            f"--replay self: {WRITES_NOTHING[kind]}; use --replay with files or folders of old"
            " text (or with `base`, where the base says what it was trained on), or --kl"
        )
    return settings


def replayed(
    settings: replay.Settings,
    base: Checkpoint,
    objective,
    text: build.Texts,
    old: Sequence[build.Texts],
    named: Sequence[str],
    passages: int | None,
    seed: int,
) -> Replayed:
    """The text to replay in a run of so many passages (None: not known yet).

    named  what --old-corpus says
    """
    record = {"replay": list(settings.replay), "fraction": settings.replay_fraction}
    if settings.replay == ("self",):
        written = write(settings, base, objective, passages, seed)
        return of_written(written, objective, record)
    if settings.replay == ("base",):
        writes = "" if objective.role in WRITES_NOTHING else "self"
        known = 1 if named or not base.record else 1 + len(base.record["old_texts"])
        if len(old) < known:
            raise InputError(
                f"--replay base: the text that {base.folder} was trained on is not known, or gone;"
                f" name it with --replay SRC{writes and ', or use --replay self'}"
            )
        sources = list(old)
    else:
        parted = base.record["text"] if base.record else text.record
        rule = {field.name: parted[field.name] for field in dataclasses.fields(build.Text)}
        rule |= {"corpus": settings.replay, "errors": text.settings.errors}
        sources = [build.texts(build.Text(**rule))]
    record["texts"] = [each.record for each in sources]
    record["without"] = [each.record["sha256"] for each in (text, *old)]
    corpus = corpus_of(sources, [text, *old], objective.tokenizer)
    build.check_plans(objective, {"replayed": corpus})
    return Replayed(Replay(corpus, settings.replay_fraction), record)


def recorded(
    record: dict | None,
    state: dict,
    objective,
    text: build.Texts,
    old: Sequence[build.Texts],
    accept: bool,
) -> Replayed | None:
    """What a run replayed, again. InputError when the text is gone or, unaccepted, has changed."""
    if record is None:
        return None
    if record["replay"] == ["self"]:
        return of_written(state["written"], objective, record)
    sources = [build.recorded_texts(each, accept) for each in record["texts"]]
    found = {
        "texts": [each.record for each in sources],
        "without": [each.record["sha256"] for each in (text, *old)],
    }
    if found["without"] != record["without"] and not accept:
        raise InputError(
            "an old text is gone, so what of it must not be replayed is not known; put it back, or"
            " start anew with --init"
        )
    corpus = corpus_of(sources, [text, *old], objective.tokenizer)
    return Replayed(Replay(corpus, record["fraction"]), record | found)


def write(settings: replay.Settings, base, objective, passages: int | None, seed: int) -> Tensor:
    """Has the base write as much as the run needs, and no more than the settings allow."""
    tokens = settings.replay_tokens
    if passages is not None:
        needed = math.ceil(passages * settings.replay_fraction) * objective.length
        tokens = min(tokens, needed)
    say(f"the base writes {tokens:,} tokens to replay, at temperature 1")

    def progress(steps):
        return tqdm(steps, desc="write", disable=None, leave=False, dynamic_ncols=True)

    tokenizer = objective.tokenizer
    return self_replay.sample(base.model, tokenizer, tokens, objective.length, seed, progress)


def of_written(written: Tensor, objective, record: dict) -> Replayed:
    corpus = self_replay.Samples.of(written, objective.tokenizer.need("end"))
    if not len(corpus.tokens):
        raise InputError("--replay self: the base writes nothing but ends of text; train it longer")
    return Replayed(Replay(corpus, record["fraction"], written), record)


def corpus_of(
    sources: Sequence[build.Texts], others: Sequence[build.Texts], tokenizer: Tokenizer
) -> Corpus:
    """The training part of the sources, less what they or other texts hold out, and its copies."""
    documents = Documents.joined(each.training for each in sources)
    for each in (*sources, *others):
        documents = without(documents, each.apart)
    for each in others:
        documents = unseen(documents, each.held_out, progress=True)
    if not has_words(documents):
        raise InputError("--replay: all of that text is held out for evaluation; name another")
    return build.corpus(documents, tokenizer)


def without(documents: Documents, held_out: Documents) -> Documents:
    """The documents less those held out, and less the end of one if that was held out.

    >>> whole = Documents.of([Document("a", "One. Two."), Document("b", "Three.")])
    >>> tail = Documents.of([Document("a, from character 5", "Two."), Document("b", "Three.")])
    >>> list(without(whole, tail))
    [Document(name='a', text='One. ')]
    """
    gone, sizes = {hashed(document) for document in held_out}, set(held_out.lengths)
    # Only of few documents is one cut in two, and its end is then the first: see ``split``.
    tail = next(iter(held_out)) if 0 < len(held_out) < FEW else None
    size = held_out.lengths[0] if tail else 0

    def left(document: Document, length: int) -> int:
        """How many of the document's characters are not held out."""
        if length in sizes and hashed(document) in gone:
            return 0
        if tail and length > size:
            end = document.part(length - size, None, document.name)
            return length - size if hashed(end) == hashed(tail) else length
        return length

    lengths = [left(*each) for each in zip(documents, documents.lengths, strict=True)]
    if sum(lengths) == documents.characters:
        return documents

    def part(number: int, document: Document) -> list[Document]:
        return [document.part(0, lengths[number], document.name)] if lengths[number] else []

    choice = hashlib.sha256(array("q", lengths).tobytes()).hexdigest()
    return documents.chosen(f"to {choice}", filter(None, lengths), part)


def hashed(document: Document) -> bytes:
    digest = hashlib.sha256()
    for piece in document.pieces():
        digest.update(piece.encode("utf-8", "surrogatepass"))
    return digest.digest()


# --- vocabulary ------------------------------------------------------------------------------


def vocabulary(
    tokenizer: Tokenizer, text: build.Texts, old: Sequence[build.Texts]
) -> dict[str, dict]:
    """How well the base's tokenizer fits the new text and the old one: see ``coverage``."""
    sides = {"new text": [text], "old text": old}
    documents = {
        name: Documents.joined(each.apart or each.training for each in texts)
        for name, texts in sides.items()
    }
    return {
        name: coverage(found, tokenizer).summary() for name, found in documents.items() if found
    }


def vocabulary_lines(found: dict[str, dict], tokenizer: Tokenizer) -> list[str]:
    """The same for people, a line a text."""

    def unknown(each: dict) -> str:
        if tokenizer.unknown is None and not each["unknown"]:
            return "no unknown ones"
        return f"{each['unknown']:.2%} unknown, hiding {each['hidden_bytes']:.2%} of the bytes"

    return [
        f"{name}: {each['tokens_per_byte']:.3f} tokens a byte, {each['words_in_pieces']:.1%} of"
        f" words in pieces, {unknown(each)}"
        for name, each in found.items()
    ]
