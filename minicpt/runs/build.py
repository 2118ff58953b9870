"""From the settings of a run to the run, ready to go.

``build`` begins a run, ``resume.resumed`` goes on with one. Both come through ``assembled``, and
find all that can be wrong before the training starts.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minicpt import checkpoint, models, objectives
from minicpt.common.disk import digest
from minicpt.common.errors import InputError
from minicpt.common.parts import said, take_over
from minicpt.data.split import sample
from minicpt.data.tokenizer import Tokenizer
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.remedies.base import Remedy
from minicpt.runs import parts
from minicpt.runs.added_tokens import asking, extended, lacking, say_added, say_frozen
from minicpt.runs.assembly import (
    check_sizes,
    make_objective,
    make_remedies,
    make_trainer,
    model_kind,
    new_model,
    objective_kind,
)
from minicpt.runs.config import Length, RunConfig, Text, Vocabulary
from minicpt.runs.console import say, tell
from minicpt.runs.describe import describe, vocabulary, weights
from minicpt.runs.fitting import fitted
from minicpt.runs.forecast import seconds_per_step
from minicpt.runs.loop import Run, versions
from minicpt.runs.measuring import beside, check_beside
from minicpt.runs.mixing import check_mix, mixed, second_of
from minicpt.runs.moments import moments_of
from minicpt.runs.needs import check_needs
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
from minicpt.training.distributed import check_same, current
from minicpt.training.preparing import Preparing, Selecting
from minicpt.training.trainer import Trainer
from minicpt.training.usual_rate import settled

ASKED = "objective settings mixing model sizes length training terms remedies".split()


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    text     the text that is trained on, and ``old`` those of the base, as far as they are known
    missing  why these are not all; "": they are
    split    how text is split that a remedy names itself
    read     what remedies have read of old text before this: see ``OldText``
    parts    the state of what learnt beside the base's model; {}: nothing did
    moments  of Adam, by name, for a remedy that goes on with them
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
    moments: dict = field(default_factory=dict)


def build(config: RunConfig, folder: Path | None = None, quiet: bool = False) -> Run:
    """A new run, ready to go.

    folder  where its checkpoints go; None: nowhere
    quiet   prints nothing on the standard output
    """
    world = current()
    machine = world.machine(config.machine, config.training).prepare(say)
    config = dataclasses.replace(config, machine=machine)
    world.check_sum(machine)
    if config.selecting.reference:
        checkpoint.find(config.selecting.reference)  # before any text is read
    start = continued(config) if config.base.init else from_scratch(config)
    width, continuing = start.model.config.width, bool(config.base.init)
    config = dataclasses.replace(config, training=settled(config.training, width, continuing))
    size = weights(start.model)
    timed = config.length.epochs or config.length.minutes
    run = assembled(config, start, None if timed else config.length.count, folder, quiet)
    trainer = run.trainer
    if timed:
        trainer.steps = world.told(steps_of(config.length, trainer))
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
    second = second_of(config, objective, start.model)
    both = mixed(config, objective, second, config.machine)
    apart = held_out(start.text, start.old)
    corpus, evaluated = corpora(start.text, apart, tokenizer)
    check_plans(objective, {"training": corpus} | evaluated)
    if state is None:
        check_batch(config.training.batch_size, objective, corpus)
    also = beside(config.watch.also, objective, start.model)
    if second:
        check_plans(second, {"training": corpus} | evaluated)
        also = {config.mixing.name: second} | also
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
        both,
        corpus,
        config.training,
        steps,
        config.machine,
        start.remedies,
        old_text,
        state,
        Preparing(config.terms.strengths(), chosen, config.machine),
        start.parts,
        start.moments,
    )
    if state is None and config.base.init:
        if new := take_over(trainer.parts, start.parts, checkpoint.put):
            say(said(new))
    check_same(trainer.world, facts(record, trainer.step))
    if (needed := check_needs(trainer)) and not quiet:
        tell(f"memory    {needed}")
    return Run(trainer, tokenizer, evaluated, config.watch, record, folder, quiet, also)


def facts(record: dict, step: int) -> dict[str, object]:
    """What all processes of a run must agree on, by the words for it."""
    texts = [each["sha256"] for each in (*record["texts"], *record["old_texts"])]
    own = versions()
    return {
        "the version of minicpt": own["minicpt"],
        "the version of torch": own["torch"],
        "the corpus": digest([texts, record["held_out"]]),
        "the tokenizer": record["tokenizer"],
        "the reference": digest(record["reference"]),
        "the step to go on from": step,
        "what is asked for": digest([record["config"][each] for each in ASKED]),
    }


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
    check_mix(config, model.ROLE)
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
    if config.base.add_tokens or not path:

        def make(names: list[str]) -> Objective:
            larger = tokenizer.with_tokens(names)
            own = make_objective(kind, larger, settings, model)
            second_of(config, own, model)
            return own

        tokenizer = tokenizer.with_tokens(added := lacking(asking(config), make))
        if path:
            say_added(config.objective, added, tokenizer)
    objective = make_objective(kind, tokenizer, settings, model)
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
    check_mix(config, base.model.ROLE)
    if config.base.add_tokens:
        base = extended(base, config)
    objective = fitted(base, config.objective, config.settings)
    check_beside(config.watch.also, config.objective, base.model.ROLE)
    trained = [objective, *filter(None, [second_of(config, objective, base.model)])]
    for each in trained:
        remedies = make_remedies(config.remedies, base.model.ROLE, each)
    moments = moments_of(base, remedies)
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
    text, learnt = texts(config.text), parts.kept(base, *trained)
    kept = {}, learnt, moments
    return Start(base.model, objective, text, old, remedies, missing, split, *kept)


def refuse(names: Sequence[str], why: str) -> None:
    """InputError for the first of some settings that were given and cannot be used."""
    for name in names:
        raise InputError(f"--{name.replace('_', '-')} cannot be used here: {why}")


def steps_of(length: Length, trainer: Trainer) -> int:
    """The length of a run in epochs or minutes, in steps, fixed once."""
    if length.minutes:
        seconds = current().told(seconds_per_step(trainer))
        steps = max(1, round(length.minutes * 60 / seconds))
        say(f"{seconds:.3f} s a step: {length.minutes:g} minutes are {steps} steps")
        return steps
    whole, part = divmod(length.epochs, 1)
    passages = sum(trainer.stream.epoch_length(epoch) for epoch in range(int(whole)))
    passages += part * trainer.stream.epoch_length(int(whole)) if part else 0
    return max(1, math.ceil(passages / trainer.settings.batch_size))
