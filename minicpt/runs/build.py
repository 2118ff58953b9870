"""From the settings of a run to the run, ready to go.

``build`` begins a run, ``resume.resumed`` goes on with one. Both come through ``assembled``, and
find all that can be wrong before the training starts.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from minicpt import checkpoint, models, objectives
from minicpt.checkpoint import Checkpoint
from minicpt.checkpoint.growing import grown
from minicpt.common.errors import InputError
from minicpt.common.parts import said, take_over
from minicpt.common.randomness import generator
from minicpt.common.registry import name_of
from minicpt.data.split import sample
from minicpt.data.tokenizer import SHOWN, LackingTokens, Tokenizer
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.remedies.base import Remedy
from minicpt.runs import parts
from minicpt.runs.assembly import (
    check_sizes,
    make_remedies,
    make_trainer,
    model_kind,
    new_model,
    objective_kind,
)
from minicpt.runs.config import Length, RunConfig, Text, Vocabulary, tuples
from minicpt.runs.console import say
from minicpt.runs.describe import describe, vocabulary, weights
from minicpt.runs.loop import Run
from minicpt.runs.measuring import beside, check_beside, refuse_parts, window_of
from minicpt.runs.reference import record_of, selection
from minicpt.runs.texts import (
    OldText,
    Texts,
    check_batch,
    check_plans,
    corpora,
    held_out,
    known_texts,
    settings_of,
    texts,
)
from minicpt.training.preparing import Preparing, Selecting
from minicpt.training.trainer import Trainer

USUAL = ("causal-lm", "masked-lm")  # where several objectives fit a folder of somebody else
TIMED_STEPS = 5  # steps that --minutes times, after two that it does not


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    text     the text that is trained on, and ``old`` those of the base, as far as they are known
    missing  why these are not all; "": they are
    split    how text is split that a remedy names itself
    read     what remedies have read of old text before this: see ``OldText``
    parts    the state of what learnt beside the base's model; {}: nothing did
    """

    model: Model
    objective: Objective
    text: Texts
    old: Sequence[Texts] = ()
    remedies: Sequence[Remedy] = ()
    missing: str = ""
    split: Text = Text()
    read: dict = field(default_factory=dict)
    parts: dict = field(default_factory=dict)


def build(config: RunConfig, folder: Path | None = None, quiet: bool = False) -> Run:
    """A new run, ready to go.

    folder  where its checkpoints go; None: nowhere
    quiet   prints nothing on the standard output
    """
    config.machine.prepare(say)
    if config.selecting.reference:
        checkpoint.find(config.selecting.reference)  # before any text is read
    start = continued(config) if config.base.init else from_scratch(config)
    size = weights(start.model)
    timed = config.length.epochs or config.length.minutes
    run = assembled(config, start, None if timed else config.length.count, folder, quiet)
    trainer = run.trainer
    if timed:
        trainer.steps = steps_of(config.length, trainer)
    run.record |= {"steps": trainer.steps, "vocabulary": {}, "before": {}, "base": None}
    if config.base.init:
        run.record["vocabulary"] = vocabulary(run.tokenizer, start.text, start.old)
        run.record["base"] = str(Path(config.base.init).resolve())
        if config.base.add_tokens:
            say_frozen(trainer.model)
    if not quiet:
        describe(run, start.text, size)
    return run


def assembled(
    config: RunConfig,
    start: Start,
    steps: int | None,
    folder: Path | None,
    quiet: bool,
    accept: bool = False,
    state: dict | None = None,
) -> Run:
    """A run and what its record says of its settings and texts.

    steps   None: not known yet
    accept  whether text that was read before may have changed
    state   of a run that goes on
    """
    objective, tokenizer = start.objective, start.objective.tokenizer
    apart = held_out(start.text, start.old)
    corpus, evaluated = corpora(start.text, apart, tokenizer)
    check_plans(objective, {"training": corpus} | evaluated)
    if state is None:
        check_batch(config.training.batch_size, objective, corpus)
    also = beside(config.watch.also, objective, start.model)
    for each in also.values():
        check_plans(each, evaluated)
    old_text = OldText(
        start.text, start.old, objective, start.missing, start.split, accept, dict(start.read)
    )
    reference = record_of(config.selecting)
    selecting = Selecting(config.selecting.select, reference.get("folder"))
    settled = dataclasses.replace(
        config,
        model=models.name_of(start.model),
        settings=dataclasses.asdict(objective.settings),
        remedies={each.name: dataclasses.asdict(each.settings) for each in start.remedies},
        selecting=selecting,
    )
    record = {
        "config": settled.plain(),
        "steps": steps,
        "fused": start.model.config.fused,
        "texts": [start.text.record],
        "old_texts": [each.record for each in start.old],
        "held_out": {name: documents.sha256 for name, documents in apart.items()},
        "read": old_text.record,
        "tokenizer": tokenizer.sha256,
        "reference": reference,
    }
    chosen = selection(selecting, objective, start.model, config.machine)
    trainer = make_trainer(
        start.model,
        objective,
        corpus,
        config.training,
        steps,
        config.machine,
        start.remedies,
        old_text,
        state,
        Preparing(config.terms.strengths(), chosen, config.machine),
        start.parts,
    )
    if state is None and config.base.init and (new := take_over(trainer.parts, start.parts)):
        say(said(new))
    return Run(trainer, tokenizer, evaluated, config.watch, record, folder, quiet, also)


# --- a new run -------------------------------------------------------------------------------


def from_scratch(config: RunConfig) -> Start:
    """A new model, its objective and tokenizer, and the text; there is no old text."""
    given = [name for settings in config.remedies.values() for name in settings]
    if config.base.old_corpus:
        given.append("old_corpus")
    refuse(given, "there is no base without --init")
    kind = objective_kind(config.objective)
    settings = kind.Settings(**config.settings)
    model = model_kind(config.model, kind)
    check_sizes(model, config.sizes)
    check_beside(config.watch.also, config.objective, model.ROLE)
    path = config.vocabulary.tokenizer
    if path and config.vocabulary != Vocabulary(tokenizer=path):
        refuse(["vocab_size"], "--tokenizer brings its own")
    if config.base.add_tokens and not path:
        refuse(["add_tokens"], "without --init a tokenizer is made that has the tokens")
    text = texts(config.text)
    if path:
        tokenizer = Tokenizer.load(path).bare()
    else:
        tokenizer = Tokenizer.train(
            sample(text.training), config.vocabulary.vocab_size, objectives.reserved()
        )
    if config.base.add_tokens:

        def make(names: list[str]) -> Objective:
            return kind(tokenizer.with_tokens(names), settings, model.ROLE)

        tokenizer = tokenizer.with_tokens(added := lacking(config.objective, make))
        say_added(config.objective, added, tokenizer)
    objective = kind(tokenizer, settings, model.ROLE)
    return Start(new_model(model, objective, config.sizes, config.training.seed), objective, text)


def continued(config: RunConfig) -> Start:
    """The base's model and tokenizer with the new objective, the new text and the old ones."""
    objective_kind(config.objective).Settings(**config.settings)  # before anything is read
    sizes = [name for name in config.sizes if name not in ("dropout", "fused")]
    refuse(["model"] * bool(config.model) + sizes, "the model comes from --init")
    given, usual = (dataclasses.asdict(each) for each in (config.vocabulary, Vocabulary()))
    own = [name for name in given if given[name] != usual[name]]
    refuse(own, "the tokenizer comes from --init")
    base = checkpoint.load(config.base.init, config.training.seed, **config.sizes)
    for note in base.notes:
        say(note)
    if config.base.add_tokens:
        base = extended(base, config)
    objective = fitted(base, config.objective, config.settings)
    check_beside(config.watch.also, config.objective, base.model.ROLE)
    remedies = make_remedies(config.remedies, base.model.ROLE, objective)
    old = known_texts(base, config.base.old_corpus, config.text)
    known = [*base.record["texts"], *base.record["old_texts"]] if base.record else []
    missing = ""
    if not old or not config.base.old_corpus and len(old) < len(known):
        missing = (
            f"a remedy needs the text that {base.folder} was trained on, and that is not known, or"
            " gone; name it with --old-corpus"
        )
    split = settings_of(known[0]) if known else config.text
    split = dataclasses.replace(split, errors=config.text.errors)
    text, learnt = texts(config.text), parts.kept(base, objective)
    return Start(base.model, objective, text, old, remedies, missing, split, parts=learnt)


def extended(base: Checkpoint, config: RunConfig) -> Checkpoint:
    """The base with the special tokens that the objective needs as well; says which are new."""
    key = "added tokens", config.training.seed

    def larger(names: list[str]) -> Checkpoint:
        return grown(base, names, generator(*key)) if names else base

    def make(names: list[str]) -> Objective:
        return fitted(larger(names), config.objective, config.settings)

    found = larger(added := lacking(config.objective, make))
    before, after = (each.model.config.vocabulary for each in (base, found))
    say_added(
        config.objective,
        added,
        found.tokenizer,
        f"; embedding and head have {after:,} rows ({before:,} before), those of the new tokens"
        " drawn with mean and covariance of the others",
    )
    return found


def lacking(name: str, make: Callable[[list[str]], object]) -> list[str]:
    """The special tokens that an objective needs and a tokenizer lacks, in the order of their ids.

    make  makes the objective with the tokens that it is handed besides; raises LackingTokens
    """
    order, added = objective_kind(name).reserved, []
    while True:
        try:
            make(added)
            return added
        except LackingTokens as error:
            if set(error.names) & set(added):
                raise
            added += sorted(error.names, key=lambda token: [*order, token].index(token))


def say_added(name: str, added: list[str], tokenizer: Tokenizer, more: str = "") -> None:
    """Says which tokens an objective needed that the tokenizer has now."""
    if not added:
        say(f"--add-tokens adds none: the tokenizer has all that {name} needs")
        return
    ids = tokenizer.need_special(added, name)
    shown = ", ".join(added[:SHOWN]) + ", …" * (len(added) > SHOWN)
    say(f"--add-tokens for {name}: {len(added)} ({shown}), ids {min(ids)} to {max(ids)}{more}")


def say_frozen(model: Model) -> None:
    """Says so where a remedy keeps the rows of added tokens from learning."""
    rows = model.config.vocabulary
    if any(len(each) == rows and not each.requires_grad for each in model.parameters()):
        say("the rows of the added tokens stay as they were drawn: a remedy freezes them")


def refuse(names: Sequence[str], why: str) -> None:
    """InputError for the first of some settings that were given and cannot be used."""
    for name in names:
        raise InputError(f"--{name.replace('_', '-')} cannot be used here: {why}")


def steps_of(length: Length, trainer: Trainer) -> int:
    """The length of a run in epochs or minutes, in steps, fixed once."""
    if length.minutes:
        seconds = seconds_per_step(trainer)
        steps = max(1, round(length.minutes * 60 / seconds))
        say(f"{seconds:.3f} s a step: {length.minutes:g} minutes are {steps} steps")
        return steps
    whole, part = divmod(length.epochs, 1)
    passages = sum(trainer.stream.epoch_length(epoch) for epoch in range(int(whole)))
    passages += part * trainer.stream.epoch_length(int(whole)) if part else 0
    return max(1, math.ceil(passages / trainer.settings.batch_size))


def seconds_per_step(trainer: Trainer) -> float:
    """Times a few steps, and takes them back. Dropout is seeded by the step, so nothing stays."""
    before = copy.deepcopy((trainer.learner.state_dict(), trainer.optimizer.state_dict()))
    remedies, trainer.remedies = trainer.remedies, ()  # what they do after a step is not done
    for _ in range(2):
        trainer.advance()
    begun = time.perf_counter()
    for _ in range(TIMED_STEPS):
        trainer.advance()
    seconds = (time.perf_counter() - begun) / TIMED_STEPS
    trainer.learner.load_state_dict(before[0])
    trainer.optimizer.load_state_dict(before[1])
    trainer.remedies, trainer.step, trainer.steps_without_targets = remedies, 0, 0
    return seconds


# --- a checkpoint and an objective ------------------------------------------------------------


def objective_of(base: Checkpoint, name: str | None = None) -> Objective:
    """The objective that a checkpoint was trained with, or another one that fits its model.

    A folder of somebody else shows what it does with the usual objective of its role.
    """
    if name is None and base.record:
        name = base.record["config"]["objective"]
    elif name is None:
        role = base.model.ROLE
        fits = [each for each, kind in objectives.known().items() if role in kind.roles]
        name = min(fits, key=lambda each: each not in USUAL)  # the first of the usual ones
    return fitted(base, name, {})


def measures_of(
    base: Checkpoint, names: Sequence[str] = ()
) -> dict[str, tuple[Objective, nn.ModuleDict]]:
    """Objectives by which a checkpoint's model is measured, each with what learnt beside the model.

    names  none: the one that it was trained with. The others read windows of the same length

    Raises InputError for one that does not fit, or whose parts the checkpoint does not hold.
    """
    found = {}
    trained = base.record.get("config", {}).get("settings", {})
    for name in dict.fromkeys(names) or [name_of(type(objective_of(base)))]:
        objective = fitted(base, name, window_of(name, trained.get("window")))
        beside, new = parts.of_checkpoint(base, objective)
        refuse_parts("--objective", name, new)
        found[name] = objective, beside
    return found


def fitted(base: Checkpoint, name: str, given: Mapping[str, object]) -> Objective:
    """An objective for a checkpoint's model, with the settings that were given.

    What is not given is as in the checkpoint's own training, if that had the same objective; a
    window that nobody gave shrinks to the model's positions. InputError where the two do not fit.
    """
    kind = objective_kind(name)
    check_kind(base.model, name, base.folder)
    recorded = base.record.get("config", {})
    own = recorded["settings"] if recorded.get("objective") == name else {}
    settings = tuples(own) | dict(given)
    objective = kind(base.tokenizer, kind.Settings(**settings), base.model.ROLE)
    positions = getattr(base.model.config, "positions", objective.length)
    if "window" not in settings and objective.length > positions:
        settings["window"] = positions
        objective = kind(base.tokenizer, kind.Settings(**settings), base.model.ROLE)
    check_fit(base.model, objective, base.folder)
    return objective


def check_kind(model: Model, name: str, folder) -> None:
    """InputError unless the objective ``name`` trains models like the one that ``folder`` holds.

    Comes before the objective is made: that one would complain about the other kind's tokenizer.
    """
    roles = objective_kind(name).roles
    if model.ROLE not in roles:
        fits = [n for n, kind in objectives.known().items() if model.ROLE in kind.roles]
        own = described(model.ROLE, [models.name_of(model)])
        wanted = " or ".join(
            described(role, [n for n, kind in models.known().items() if kind.ROLE == role])
            for role in roles
        )
        raise InputError(
            f"{folder} holds {own}, and {name} trains {wanted}; use"
            f" {', '.join(fits)} or another folder"
        )


def described(role: str, names: Sequence[str]) -> str:
    """A role with its article and its models: "an encoder (BERT)"."""
    article = "an" if role[0] in "aeiou" else "a"
    return f"{article} {role} ({', '.join(names).upper()})"


def check_fit(model: Model, objective: Objective, folder) -> None:
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
