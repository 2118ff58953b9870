"""The texts of a run: read once, split into training and held-out part, and read again later.

``Texts`` is one text with its record, which a checkpoint keeps. ``held_out`` chooses what a run is
evaluated on: nothing that stands in the training part of any of its texts. ``OldText`` gives
remedies old text to read: nothing that any of the texts holds out (copies: ``data.copies``).
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from minicpt.checkpoint import Checkpoint
from minicpt.common.errors import InputError
from minicpt.common.registry import name_of
from minicpt.data import cache
from minicpt.data.builtin import BUILTIN
from minicpt.data.copies import unseen
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Documents
from minicpt.data.order import planned
from minicpt.data.sources import read
from minicpt.data.split import divide, has_words, without
from minicpt.data.tokenizer import Tokenizer
from minicpt.runs.config import Text
from minicpt.runs.console import say
from minicpt.training.distributed import current

ENOUGH = 10_000  # characters: where copies leave less to evaluate on, it is said


@dataclass(frozen=True)
class Texts:
    """A text, split into what is trained on and what is held out, with its record.

    The record is what a checkpoint keeps of it: enough to read the same text again, and to notice
    when it is no longer the same.

    apart  what is kept from training: ``divide``
    """

    settings: Text
    documents: Documents
    training: Documents
    apart: Documents

    @cached_property
    def held_out(self) -> Documents:
        """What is kept from training and does not stand in the training part too."""
        return unseen(self.apart, self.training, progress=True)

    @property
    def name(self) -> str:
        return " ".join(self.settings.corpus)

    @cached_property
    def record(self) -> dict:
        sources = [
            source if source.startswith(BUILTIN) else os.path.abspath(source)
            for source in self.settings.corpus
        ]
        everything = self.documents.sha256
        return dataclasses.asdict(self.settings) | {"corpus": sources, "sha256": everything}


# --- reading ---------------------------------------------------------------------------------


def documents(settings) -> Documents:
    """What the settings ``corpus``, ``blocks`` and ``errors`` name, gone through once."""
    found = read(settings.corpus, settings.blocks, settings.errors, progress=True)
    if found.replaced:
        say(f"{found.replaced} times something that is not UTF-8 was replaced by U+FFFD")
    return found


def texts(settings: Text) -> Texts:
    found = documents(settings)
    return Texts(settings, found, *divide(found, settings.held_out))


def settings_of(record: dict) -> Text:
    """The settings with which a recorded text was read and split."""
    values = {each.name: record[each.name] for each in dataclasses.fields(Text)}
    return Text(**values | {"corpus": tuple(values["corpus"])})


def recorded_texts(record: dict, accept: bool = False) -> Texts:
    """The text of a record, read again. InputError when it is gone or has changed.

    A change that is accepted is said.
    """
    try:
        found = texts(settings_of(record))
    except InputError as error:
        raise InputError(f"the text of the training cannot be read again: {error}") from None
    if found.record["sha256"] != record["sha256"]:
        changed = f"the text {' '.join(record['corpus'])} is not the one that was trained on"
        if not accept:
            raise InputError(
                f"{changed} (its SHA-256 differs); put the old text back, start anew with --init,"
                " or resume with --accept-changes"
            )
        say(f"{changed}: accepted, so the run does not end as it would have")
    return found


def known_texts(base: Checkpoint, named: tuple[str, ...], settings: Text) -> list[Texts]:
    """The texts that the base was trained on: those named, else its own and its bases'."""
    if named:
        return [texts(dataclasses.replace(settings, corpus=named))]
    if not base.record:
        say(
            "the base does not say what text it was trained on, so no forgetting is measured;"
            " name it with --old-corpus"
        )
        return []
    return old_texts([*base.record["texts"], *base.record["old_texts"]])


def old_texts(records: Sequence[dict]) -> list[Texts]:
    """What can still be read of the texts that a base was trained on.

    They serve to measure forgetting alone, so a text that is gone stops nothing; it is said.
    """
    found = []
    for record in records:
        try:
            found.append(recorded_texts(record))
        except InputError as error:
            say(f"no forgetting is measured on {' '.join(record['corpus'])}: {error}")
    return found


# --- what is held out ------------------------------------------------------------------------


def held_out(
    text: Texts, old: Sequence[Texts], tell: Callable[[str], None] = say
) -> dict[str, Documents]:
    """The documents to evaluate on, by the name that tables give them; without those that are none.

    InputError where nothing is left of the held-out text. Where nothing is left of an old text, it
    is said: forgetting is not measured on it.
    """
    together = [text, *old]
    found = [clear(each, together, tell) for each in together]
    if text.apart and not found[0]:
        raise InputError(f"{nothing_left(text)}; give another text, or --held-out 0")
    for each, left in zip(old, found[1:], strict=True):
        if each.apart and not left:
            tell(f"{nothing_left(each)}: no forgetting is measured on it")
    named = {"held out": found[0], "old text": Documents.joined(found[1:])}
    return {name: each for name, each in named.items() if each}


def clear(text: Texts, together: Sequence[Texts], tell: Callable[[str], None] = say) -> Documents:
    """The held-out part of a text, without what stands in the training part of any of the texts.

    It is said how much that is, and whether it leaves too little. Empty: nothing is left.
    """
    found = text.held_out
    for other in together:
        if other is not text:
            found = unseen(found, other.training, progress=True)
    left_out = text.apart.characters - found.characters
    if left_out and has_words(found):
        few = found.characters < ENOUGH
        tell(
            f"{text.name}: {found.characters:,} characters are held out; {left_out:,} more stand in"
            " training text too, and are left out"
            + "; what is left is too little for a sure loss: give more text, or hold out more" * few
        )
    return found if has_words(found) else Documents.of([])


def nothing_left(text: Texts) -> str:
    return (
        f"nothing is left of the held-out text of {text.name}: in every part of it, a third or more"
        " of the lines stand in training text too"
    )


def check_held_out(found: dict[str, str], recorded: dict[str, str] | None) -> None:
    """Says where the held-out text is not the one that a checkpoint was evaluated on.

    found, recorded  SHA-256 of each, by its name in tables; None: the record does not say
    """
    for name, sha256 in (recorded or {}).items():
        if found.get(name) != sha256:
            say(f"{name}: not the text on which this run was evaluated, so losses may differ")


# --- corpora ---------------------------------------------------------------------------------


def corpora(
    text: Texts, held_out: dict[str, Documents], tokenizer: Tokenizer
) -> tuple[Corpus, dict[str, Corpus]]:
    """The corpus to train on, and the held-out ones by the name that tables give them."""
    return corpus(text.training, tokenizer), {
        name: corpus(documents, tokenizer) for name, documents in held_out.items()
    }


def corpus(documents: Documents, tokenizer: Tokenizer) -> Corpus:
    """The corpus of some documents, from the cache if it was tokenised before.

    Of several processes one tokenises, and all map its files into memory.
    """
    small = None if current().size == 1 else 0
    with current().in_turn():
        return cache.corpus(documents, tokenizer, progress=True, say=say, small=small)


def check_plans(objective, corpora: dict[str, Corpus]) -> None:
    """InputError unless the objective finds passages in each text. It is said which it skips."""
    for name, corpus in corpora.items():
        try:
            plan = planned(objective, corpus, 0, 0)
        except InputError as error:
            raise InputError(f"the {name} text is too short: {error}") from None
        if not len(plan):
            raise InputError(f"the {name} text is too short: it gives not a single passage")
        if plan.skipped:
            whole, kind = len(plan) + plan.skipped, name_of(type(objective))
            say(
                f"{plan.skipped:,} of the {whole:,} passages of the {name} text are too short for"
                f" {kind}, and are skipped"
            )


def check_batch(size: int, objective, corpus: Corpus) -> None:
    """InputError where a batch is larger than the text: it would hold passages twice."""
    passages = len(planned(objective, corpus, 0, 0))
    if size > passages:
        raise InputError(
            f"--batch-size is {size}, and the training text gives {passages} passages; lower it,"
            " or give more text"
        )


# --- old text for remedies ---------------------------------------------------------------------


@dataclass
class OldText:
    """Gives remedies the old text that they read: see ``remedies.base.Situation``.

    text      the new text
    old       the texts that the base was trained on, as far as they can be read
    missing   why these are not all; "": they are
    split     how text is split that a remedy names itself
    accept    whether text that was read before may have changed
    record    what is read, by the names of the sources ("": the text of the base), for the
              checkpoint: the records of the texts, and the SHA-256 of the texts whose held-out
              parts are not in. A run that goes on begins with what it has read before
    """

    text: Texts
    old: Sequence[Texts]
    objective: object
    missing: str
    split: Text
    accept: bool = False
    record: dict[str, dict] = field(default_factory=dict)
    found: dict[str, Corpus] = field(default_factory=dict)

    def __call__(self, sources: tuple[str, ...] = ()) -> Corpus:
        """The training text of some sources; none named: of all that the base was trained on."""
        name = " ".join(sources)
        if name not in self.found:
            others = [self.text, *self.old]
            apart = [each.record["sha256"] for each in others]
            read = self.again(name, apart) if name in self.record else self.first(sources)
            corpus = training_corpus(read, others, self.objective.tokenizer)
            check_plans(self.objective, {"old": corpus})
            self.record[name] = {
                "texts": [each.record for each in read],
                "without": apart,
                "documents": len(corpus.documents),
                "tokens": len(corpus.tokens),
            }
            self.found[name] = corpus
        return self.found[name]

    def first(self, sources: tuple[str, ...]) -> list[Texts]:
        if sources:
            return [texts(dataclasses.replace(self.split, corpus=sources))]
        if self.missing:
            raise InputError(self.missing)
        return list(self.old)

    def again(self, name: str, apart: list[str]) -> list[Texts]:
        """The same texts. InputError when one is gone or, unaccepted, has changed."""
        read = [recorded_texts(each, self.accept) for each in self.record[name]["texts"]]
        if apart != self.record[name]["without"] and not self.accept:
            raise InputError(
                "an old text is gone, so what of it must not be replayed is not known; put it"
                " back, or start anew with --init"
            )
        return read


def training_corpus(
    sources: Sequence[Texts], others: Sequence[Texts], tokenizer: Tokenizer
) -> Corpus:
    """The training part of the sources, less what they or other texts hold out, and its copies."""
    documents = Documents.joined(each.training for each in sources)
    for each in (*sources, *others):
        documents = without(documents, each.apart)
    for each in others:
        documents = unseen(documents, each.held_out, progress=True)
    if not has_words(documents):
        raise InputError("all of the old text is held out for evaluation; name another")
    return corpus(documents, tokenizer)
