"""From names, flags and records to models, objectives and corpora: what the verbs share."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Literal

from minicpt import models, objectives
from minicpt.checkpoint import huggingface
from minicpt.checkpoint.folder import Checkpoint
from minicpt.common import registry
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.data import cache
from minicpt.data.bpe import LONGEST_WORD
from minicpt.data.builtin import BUILTIN
from minicpt.data.copies import unseen
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Documents
from minicpt.data.order import planned
from minicpt.data.sources import read
from minicpt.data.split import divide, has_words
from minicpt.data.tokenizer import Tokenizer
from minicpt.runs.loop import say

ENOUGH = 10_000  # characters: where copies leave less to evaluate on, it is said


@dataclass(frozen=True)
class Text(Checked):
    """Which text, and how it is parted."""

    corpus: tuple[str, ...] = setting(
        ("builtin:docs",), "builtin:docs, builtin:code, or files, folders, globs"
    )
    blocks: bool = setting(False, "a document is a block between blank lines, not a whole file")
    errors: Literal["strict", "replace"] = setting(
        "strict", "what is not UTF-8: refuse it, or replace it and say how often"
    )
    held_out: float = setting(
        0.1, "share of the text that is kept for evaluation", least=0, most=0.5
    )


@dataclass(frozen=True)
class Vocabulary(Checked):
    vocab_size: int = setting(
        4096,
        "ordinary tokens of a tokenizer made from the text; 256: bytes (words are cut after"
        f" {LONGEST_WORD} characters)",
        least=256,
        most=2**20,
    )
    tokenizer: str | None = setting(None, "an existing tokenizer.json, or a folder that holds one")


@dataclass(frozen=True)
class Texts:
    """A text, parted into what is trained on and what is held out, with its record.

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


def documents(settings) -> Documents:
    """What the settings ``corpus``, ``blocks`` and ``errors`` name, gone through once."""
    found = read(settings.corpus, settings.blocks, settings.errors, progress=True)
    if found.replaced:
        say(f"{found.replaced} times something that is not UTF-8 was replaced by U+FFFD")
    return found


def texts(settings: Text) -> Texts:
    found = documents(settings)
    return Texts(settings, found, *divide(found, settings.held_out))


def recorded_texts(record: dict, accept: bool = False) -> Texts:
    """The text of a record, read again. InputError when it is gone or has changed.

    A change that is accepted is said.
    """
    fields = {field.name for field in dataclasses.fields(Text)}
    values = {name: value for name, value in record.items() if name in fields}
    try:
        found = texts(Text(**values | {"corpus": tuple(values["corpus"])}))
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


def objective_modules() -> dict[str, ModuleType]:
    """The objectives by name: the modules of ``objectives`` that define one."""
    found = registry.modules(objectives)
    return {name: module for name, module in found.items() if hasattr(module, "Objective")}


def objective_module(name: str) -> ModuleType:
    found = objective_modules()
    if name not in found:
        raise InputError(f"no objective is called {name!r}; use one of {', '.join(found)}")
    return found[name]


def model_module(architecture: str) -> ModuleType:
    return registry.modules(models)[architecture]


def architecture(model) -> str:
    """The name of a model's architecture."""
    found = registry.modules(models).items()
    return next(name for name, module in found if isinstance(model, module.Model))


def objective_of(base: Checkpoint, name: str | None):
    """The objective that a checkpoint was trained with, or another one that fits its model.

    A folder of somebody else shows what it does with the first objective of its architecture.
    """
    if name is None and base.record:
        name = base.record["objective"]
    elif name is None:
        wanted = architecture(base.model)
        fits = (n for n, m in objective_modules().items() if m.Objective.role == wanted)
        name = next(fits)
    return fitted(base, name, {})


def fitted(base: Checkpoint, name: str, given: dict):
    """An objective for a checkpoint's model, with the settings that were given.

    What is not given is as in the checkpoint's own training, if that had the same objective; a
    window that nobody gave shrinks to the model's positions. InputError where the two do not fit.
    """
    module = objective_module(name)
    check_kind(base.model, name, base.folder)
    recorded = base.record.get("objective_settings", {})
    settings = (recorded if base.record.get("objective") == name else {}) | given
    objective = module.Objective(base.tokenizer, module.Settings(**settings))
    positions = getattr(base.model.config, "positions", objective.length)
    if "window" not in settings and objective.length > positions:
        objective = module.Objective(base.tokenizer, module.Settings(window=positions, **settings))
    check_fit(base.model, objective, base.folder)
    return objective


def check_sizes(config: type, sizes: dict) -> None:
    """InputError for wrong sizes of a model, before those that the text decides are known."""
    unknown = {f.name: 1 for f in dataclasses.fields(config) if f.default is dataclasses.MISSING}
    config(**unknown, **sizes)


def untrained(objective, **sizes):
    """A new model of the architecture that the objective needs, in the sizes given."""
    kind = model_module(objective.role)
    tokenizer = objective.tokenizer
    decided = {"vocabulary": tokenizer.size, "positions": objective.length}
    decided["pad"] = tokenizer.roles.get("pad")
    names = {field.name for field in dataclasses.fields(kind.Config)}
    config = kind.Config(**{n: v for n, v in decided.items() if n in names}, **sizes)
    check_memory(kind.Model, config)
    return kind.Model(config)


def check_memory(kind: type, config) -> None:
    """InputError unless weights, gradient and both moments of AdamW fit into the machine."""
    numbers = sum(each.numel() for each in huggingface.without_memory(kind, config).parameters())
    need, have = 4 * 4 * numbers, memory()
    if have and need > have:
        raise InputError(
            f"a model of {numbers:,} weights needs {need >> 30:,} GiB to be trained, and this"
            f" machine has {have >> 30}; lower --width, --layers or --vocab-size"
        )


def memory() -> int:
    """The machine's memory in bytes; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def check_kind(model, name: str, folder) -> None:
    """InputError unless the objective ``name`` trains models like the one that ``folder`` holds.

    Comes before the objective is made: that one would complain about the other kind's tokenizer.
    """
    found, wanted = architecture(model), objective_module(name).Objective.role
    if found != wanted:
        modules = objective_modules().items()
        fit = [each for each, module in modules if module.Objective.role == found]
        raise InputError(
            f"{folder} holds {described(found)}, and {name} trains {described(wanted)}; use"
            f" {' or '.join([*fit, 'another folder'])}"
        )


def described(architecture: str) -> str:
    """An architecture with its article and its model: "an encoder (BERT)"."""
    article = "an" if architecture[0] in "aeiou" else "a"
    return f"{article} {architecture} ({model_module(architecture).MODEL_TYPE.upper()})"


def check_fit(model, objective, folder) -> None:
    """InputError unless the objective's length and tokenizer fit the model in ``folder``."""
    positions = getattr(model.config, "positions", objective.length)
    if objective.length > positions:
        raise InputError(
            f"--window is {objective.length}, but the model in {folder} has {positions} positions;"
            f" use --window {positions} or less"
        )
    if objective.tokenizer.size > model.config.vocabulary:
        raise InputError(
            f"the tokenizer has {objective.tokenizer.size} tokens, more than the"
            f" {model.config.vocabulary} of the model in {folder}; use the tokenizer that"
            " belongs to it"
        )


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


def check_batch(size: int, objective, corpus: Corpus) -> None:
    """InputError where a batch is larger than the text: it would hold passages twice."""
    passages = len(planned(objective, corpus, 0, 0))
    if size > passages:
        raise InputError(
            f"--batch-size is {size}, and the training text gives {passages} passages; lower it,"
            " or give more text"
        )


def check_plans(objective, corpora: dict[str, Corpus]) -> None:
    """InputError unless the objective finds passages in each text."""
    for name, corpus in corpora.items():
        try:
            count = len(planned(objective, corpus, 0, 0))
        except InputError as error:
            raise InputError(f"the {name} text is too short: {error}") from None
        if not count:
            raise InputError(f"the {name} text is too short: it gives not a single passage")


def held_out(
    text: Texts, old: Sequence[Texts], tell: Callable[[str], None] = say
) -> dict[str, Documents]:
    """The documents to evaluate on, by the name that tables give them; without those that are none.

    InputError where nothing is left of the held-out text. Where nothing is left of an old text, it
    is said: forgetting is not measured on it.
    """
    texts = [text, *old]
    found = [clear(each, texts, tell) for each in texts]
    if text.apart and not found[0]:
        raise InputError(f"{nothing_left(text)}; give another text, or --held-out 0")
    for each, documents in zip(old, found[1:], strict=True):
        if each.apart and not documents:
            tell(f"{nothing_left(each)}: no forgetting is measured on it")
    named = {"held out": found[0], "old text": Documents.joined(found[1:])}
    return {name: documents for name, documents in named.items() if documents}


def clear(text: Texts, texts: Sequence[Texts], tell: Callable[[str], None] = say) -> Documents:
    """The held-out part of a text, without what stands in the training part of any of ``texts``.

    What is left out is said, and that it leaves too little, if it does. Empty: nothing is left.
    """
    found = text.held_out
    for other in texts:
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


def check_held_out(held_out: dict[str, Documents], recorded: dict[str, str] | None) -> None:
    """Says where the held-out text is not the one that a checkpoint was evaluated on.

    recorded  SHA-256 of each, as a record has them; None: it does not say
    """
    for name, sha256 in (recorded or {}).items():
        if name not in held_out or held_out[name].sha256 != sha256:
            say(f"{name}: not the text on which this run was evaluated, so losses may differ")


def corpora(
    text: Texts, held_out: dict[str, Documents], tokenizer: Tokenizer
) -> tuple[Corpus, dict[str, Corpus]]:
    """The corpus to train on, and the held-out ones by the name that tables give them."""
    return corpus(text.training, tokenizer), {
        name: corpus(documents, tokenizer) for name, documents in held_out.items()
    }


def corpus(documents: Documents, tokenizer: Tokenizer) -> Corpus:
    """The corpus of some documents, from the cache if it was tokenised before."""
    return cache.corpus(documents, tokenizer, progress=True, say=say)
