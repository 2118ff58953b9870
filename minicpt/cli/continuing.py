"""What a continued run takes over from its base: its text, for measuring and for replay.

Replayed text is never text that is held out, here or by the base: a text is parted as the base
parted its own, and what is held out anywhere is taken out of it.
"""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from tqdm import tqdm

from minicpt import replay, sampling
from minicpt.checkpoint import Checkpoint
from minicpt.cli import flags, pieces
from minicpt.cli.running import say
from minicpt.data.corpus import Corpus
from minicpt.data.coverage import coverage
from minicpt.data.text import FEW, Document, sha256
from minicpt.errors import InputError
from minicpt.replay import Replay

WRITES_NOTHING = {
    "encoder": "an encoder gives no probability to whole texts, so there is nothing to draw from",
    "encoder-decoder": "an encoder-decoder writes only in reply to a text that it is given",
}
TITLES = {"base": "what the base was trained on", "self": "written by the base itself"}


def known_texts(
    base: Checkpoint, named: tuple[str, ...], settings: pieces.Text
) -> list[pieces.Texts]:
    """The texts that the base was trained on: those named, else its own and its bases'."""
    if named:
        return [pieces.texts(dataclasses.replace(settings, corpus=named))]
    if not base.record:
        say(
            "the base does not say what text it was trained on, so no forgetting is measured;"
            " name it with --old-corpus"
        )
        return []
    return pieces.old_texts([base.record["text"], *base.record["old_texts"]])


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
            f"{self.replay.fraction:.2%} of the passages from {TITLES.get(source, source)}: "
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
    kind = pieces.objective_module(arguments.objective).Objective.architecture
    if source != ("self",):
        why = "only --replay self writes text"
        flags.refuse(arguments, replay.Settings, why, but=("replay", "replay_fraction"))
    elif kind in WRITES_NOTHING:
        raise InputError(
            f"--replay self: {WRITES_NOTHING[kind]}; use --replay base, or files, or keep the"
            " weights or predictions near the base"
        )
    return settings


def replayed(
    settings: replay.Settings,
    base: Checkpoint,
    objective,
    text: pieces.Texts,
    old: Sequence[pieces.Texts],
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
        known = 1 if named or not base.record else 1 + len(base.record["old_texts"])
        if len(old) < known:
            raise InputError(
                f"--replay base: the text that {base.folder} was trained on is not known, or gone;"
                " name it with --replay SRC, or use --replay self"
            )
        sources = list(old)
    else:
        parted = base.record["text"] if base.record else text.record
        rule = {name: parted[name] for name in ("blocks", "held_out")}
        sources = [pieces.texts(pieces.Text(corpus=settings.replay, **rule))]
    record["texts"] = [each.record for each in sources]
    documents = documents_of(sources, [text, *old])
    if not documents:
        raise InputError("--replay: all of that text is held out for evaluation; name another")
    found = Replay(Corpus.build(documents, objective.tokenizer, progress=True), record["fraction"])
    pieces.check_plans(objective, {"replayed": found.corpus})
    return Replayed(found, record | {"sha256": sha256(documents)})


def recorded(
    record: dict | None,
    state: dict,
    objective,
    text: pieces.Texts,
    old: Sequence[pieces.Texts],
) -> Replayed | None:
    """What a run replayed, again. InputError when the text is gone or has changed."""
    if record is None:
        return None
    if record["replay"] == ["self"]:
        return of_written(state["written"], objective, record)
    sources = [pieces.recorded_texts(each) for each in record["texts"]]
    documents = documents_of(sources, [text, *old])
    if sha256(documents) != record["sha256"]:
        raise InputError(
            "what is left to replay is not what it was: an old text that was held out from it"
            " cannot be read any more; put it back, or start anew with --init"
        )
    corpus = Corpus.build(documents, objective.tokenizer, progress=True)
    return Replayed(Replay(corpus, record["fraction"]), record)


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
    return sampling.sample(base.model, tokenizer, tokens, objective.length, seed, progress)


def of_written(written: Tensor, objective, record: dict) -> Replayed:
    corpus = sampling.Samples.of(written, objective.tokenizer.need("end"))
    if not len(corpus.tokens):
        raise InputError("--replay self: the base writes nothing but ends of text; train it longer")
    return Replayed(Replay(corpus, record["fraction"], written), record)


def documents_of(
    sources: Sequence[pieces.Texts], others: Sequence[pieces.Texts]
) -> list[Document]:
    """The training part of the sources, less what they or other texts hold out."""
    documents = [document for each in sources for document in each.training]
    for each in (*sources, *others):
        documents = without(documents, each.held_out)
    return documents


def without(documents: Sequence[Document], held_out: Sequence[Document]) -> list[Document]:
    """The documents less those held out, and less the end of one if that was held out.

    >>> whole = [Document("a", "One. Two."), Document("b", "Three.")]
    >>> without(whole, [Document("a, from character 5", "Two."), whole[1]])
    [Document(name='a', text='One. ')]
    """
    texts = {document.text for document in held_out}
    # Only of few documents is one cut in two: see ``split``.
    tails = texts if len(held_out) < FEW else ()
    found = []
    for document in documents:
        if document.text in texts:
            continue
        for tail in tails:
            document = Document(document.name, document.text.removesuffix(tail))
        found.append(document)
    return [document for document in found if document.text.strip()]


# --- vocabulary ------------------------------------------------------------------------------


def vocabulary(tokenizer, text: pieces.Texts, old: Sequence[pieces.Texts]) -> dict[str, dict]:
    """How well the base's tokenizer fits the new text and the old one: see ``coverage``."""
    sides = {"new text": [text], "old text": old}
    documents = {
        name: [document for each in texts for document in each.held_out or each.training]
        for name, texts in sides.items()
    }
    return {
        name: coverage(found, tokenizer).summary() for name, found in documents.items() if found
    }


def vocabulary_lines(found: dict[str, dict], tokenizer) -> list[str]:
    """The same for people, a line a text."""
    knows = "unk" in tokenizer.roles
    return [
        f"{name}: {each['tokens_per_byte']:.3f} tokens a byte, {each['words_in_pieces']:.1%} of"
        f" the words in pieces, {each['unknown']:.2%} unknown"
        + ("" if knows else " (it knows every byte)")
        for name, each in found.items()
    ]
