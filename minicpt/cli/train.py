"""``minicpt train``: trains a model from scratch, or continues one with ``--init``."""

import argparse
import contextlib
import copy
import dataclasses
import itertools
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from minicpt import checkpoint
from minicpt.cli import flags
from minicpt.cli.hints import command
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.data.split import sample
from minicpt.data.tokenizer import Tokenizer
from minicpt.remedies import replay
from minicpt.remedies.adapters import Partial, factors, restrict, trained
from minicpt.runs import build, continuing, metrics, terms
from minicpt.runs.lock import locked, missing
from minicpt.runs.loop import Run, Watch, print_json, say, summary_of, tell
from minicpt.training.device import Machine
from minicpt.training.trainer import Trainer, Training

EXAMPLES = """examples:
  minicpt train {name} --steps 200 --out runs/first
  minicpt train {name} --init runs/first --corpus builtin:code --replay base --out runs/second
"""
LOGGED = f"""every step and every evaluation is a line of {metrics.NAME} in the folder of the run
"""
SENTENCES = "It rained. The cat slept."  # a text for a model that needs one
TIMED_STEPS = 5  # steps that --minutes times, after two that it does not


@dataclass(frozen=True)
class Length(Checked):
    """How long to train: one of the three."""

    steps: int | None = setting(
        None, "how many steps (1000 if nothing is said)", least=1, most=10**9
    )
    epochs: float | None = setting(None, "how often to see the text instead", above=0, most=10_000)
    minutes: float | None = setting(
        None, "about how long instead, evaluations apart; fixes the steps once", above=0, most=10**6
    )

    def __post_init__(self):
        super().__post_init__()
        if sum(value is not None for value in (self.steps, self.epochs, self.minutes)) > 1:
            raise InputError("--steps, --epochs and --minutes exclude each other; give one")

    @property
    def count(self) -> int:
        """The steps, where neither epochs nor minutes decide."""
        return self.steps or 1000


@dataclass(frozen=True)
class Places(Checked):
    init: str | None = setting(
        None, "start from this checkpoint, or Hugging Face folder", metavar="DIR"
    )
    old_corpus: tuple[str, ...] = setting(
        (), "the text that the base was trained on (default: what its folder says)"
    )
    out: str | None = setting(
        None, "folder for the checkpoints (default: a new one in runs/)", metavar="DIR"
    )


def add(verbs) -> None:
    train = verbs.add_parser(
        "train", help="train a model, or continue one", description=summary_of(__doc__)
    )
    train.epilog = (
        "`minicpt train OBJECTIVE --help` lists the flags of an objective\n"
        "long text is kept tokenised in ~/.cache/minicpt; MINICPT_CACHE names another folder\n"
        + LOGGED
        + "\n"
        + EXAMPLES.format(name="causal-lm")
    )
    names = train.add_subparsers(dest="objective", metavar="OBJECTIVE", required=True)
    for name, module in build.objective_modules().items():
        summary = module.__doc__.splitlines()[0]
        usage = f"minicpt train {name} [FLAG …]"
        parser = names.add_parser(name, help=summary, description=summary, usage=usage)
        parser.epilog = LOGGED + "\n" + EXAMPLES.format(name=name)
        config = build.model_module(module.Objective.role).Config
        flags.add(parser, "length", Length)
        flags.add(parser, "text", build.Text, build.Vocabulary)
        flags.add(parser, "where from and where to", Places)
        flags.add(parser, f"the objective, {name}", module.Settings)
        flags.add(parser, f"the model, {module.Objective.role}", config)
        flags.add(parser, "training", Training)
        near = replay.Settings, Partial, *terms.classes()
        flags.add(parser, "staying near the base, with --init", *near)
        flags.add(parser, "evaluation and saving", Watch)
        flags.add(parser, "the machine", Machine)
        parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    places = flags.build(arguments, Places)
    with own_folder(places.out, arguments.objective) as folder:
        run = prepare(arguments, places, folder)
        status = run.go()
    without = run.trainer.steps_without_targets
    if without:
        say(f"{without} of {run.trainer.step} steps had no target and changed nothing")
    if arguments.json:
        print_json(run.record | {"out": str(run.folder), "evaluations": run.history})
    elif status == 0:
        text = [] if run.trainer.objective.role == "decoder" else [SENTENCES]
        tell(f"saved in {run.folder}; try: {command('generate', run.folder, *text)}")
    return status


def prepare(arguments: argparse.Namespace, places: Places, folder: Path) -> Run:
    """Everything that can be wrong is found here, before training starts."""
    length, watch = flags.build(arguments, Length), flags.build(arguments, Watch)
    settings = flags.build(arguments, Training)
    text_settings = flags.build(arguments, build.Text)
    machine = flags.build(arguments, Machine)
    near = terms.asked(arguments)
    machine.prepare(say)
    partial = flags.build(arguments, Partial)
    if not partial.lora:
        others = ("freeze", "train_last", "lora")
        flags.refuse(arguments, Partial, "it belongs to --lora", but=others)
    else:
        terms.check_lora(near)
    wanted = continuing.settings_of(arguments) if places.init else None
    begin = continued if places.init else from_scratch
    model, objective, text, old, base = begin(arguments, places, text_settings, settings.seed)
    restrict(model.to(machine.device), partial, settings.seed)
    tokenizer = objective.tokenizer
    apart = build.held_out(text, old)
    corpus, held_out = build.corpora(text, apart, tokenizer)
    build.check_plans(objective, {"training": corpus} | held_out)
    build.check_batch(settings.batch_size, objective, corpus)
    mixed = None
    if wanted:
        passages = None if length.epochs or length.minutes else length.count * settings.batch_size
        mixed = continuing.replayed(
            wanted, base, objective, text, old, places.old_corpus, passages, settings.seed
        )
    replayed = mixed and mixed.replay
    regularizers = terms.built(near, model, machine.device)
    trainer = Trainer(model, objective, corpus, settings, 1, machine, regularizers, replayed)
    trainer.steps = steps_of(length, trainer)
    terms.learn(regularizers, objective, old, settings.seed, machine.device)
    fit = continuing.vocabulary(tokenizer, text, old) if base else {}
    record = {
        "objective": arguments.objective,
        "objective_settings": dataclasses.asdict(objective.settings),
        "training": dataclasses.asdict(settings),
        "watch": dataclasses.asdict(watch),
        "machine": dataclasses.asdict(machine),
        "regularizers": {name: dataclasses.asdict(each) for name, each in near.items()},
        "fused": model.config.fused,
        "steps": trainer.steps,
        "minutes": length.minutes,
        "text": text.record,
        "old_texts": [each.record for each in old],
        "held_out": {name: documents.sha256 for name, documents in apart.items()},
        "replay": mixed and mixed.record,
        "partial": dataclasses.asdict(partial),
        "vocabulary": fit,
        "before": {},
        "base": str(Path(places.init).resolve()) if places.init else None,
        "tokenizer": tokenizer.sha256,
    }
    if not arguments.json:
        describe(trainer, text, corpus, held_out, folder)
        if mixed:
            tell(f"replay    {mixed}")
        for line in continuing.vocabulary_lines(fit, tokenizer):
            tell(f"tokenizer {line}")
    return Run(trainer, tokenizer, held_out, watch, record, folder, quiet=arguments.json)


def from_scratch(arguments: argparse.Namespace, places: Places, settings: build.Text, seed: int):
    """A new model, its objective and tokenizer, and the text; there is no old text."""
    for taken in (Places, replay.Settings, Partial, *terms.classes()):
        flags.refuse(arguments, taken, "there is no base without --init", but=("out",))
    module = build.objective_module(arguments.objective)
    objective_settings = flags.build(arguments, module.Settings)
    kind = build.model_module(module.Objective.role)
    sizes = flags.given(arguments, kind.Config)
    build.check_sizes(kind.Config, sizes)
    vocabulary = flags.build(arguments, build.Vocabulary)
    text = build.texts(settings)
    if vocabulary.tokenizer:
        flags.refuse(arguments, build.Vocabulary, "--tokenizer brings its own", ("tokenizer",))
        tokenizer = Tokenizer.load(vocabulary.tokenizer).bare()
    else:
        tokenizer = Tokenizer.train(sample(text.training), vocabulary.vocab_size)
    objective = module.Objective(tokenizer, objective_settings)
    torch.manual_seed(seed)
    return build.untrained(objective, **sizes), objective, text, [], None


def continued(arguments: argparse.Namespace, places: Places, settings: build.Text, seed: int):
    """The base's model and tokenizer with the new objective, the new text and the old ones."""
    module = build.objective_module(arguments.objective)
    given = flags.given(arguments, module.Settings)
    module.Settings(**given)  # refuses wrong values before anything is read
    config = build.model_module(module.Objective.role).Config
    flags.refuse(arguments, config, "the model comes from --init", but=("dropout", "fused"))
    flags.refuse(arguments, build.Vocabulary, "the tokenizer comes from --init")
    base = checkpoint.load(places.init, seed, **flags.given(arguments, config))
    for note in base.notes:
        say(note)
    objective = build.fitted(base, arguments.objective, given)
    old = continuing.known_texts(base, places.old_corpus, settings)
    terms.check_old_text(terms.asked(arguments), old)
    return base.model, objective, build.texts(settings), old, base


def steps_of(length: Length, trainer: Trainer) -> int:
    """The length of the run in steps, fixed once."""
    if length.minutes:
        seconds = seconds_per_step(trainer)
        steps = max(1, round(length.minutes * 60 / seconds))
        say(f"{seconds:.3f} s a step: {length.minutes:g} minutes are {steps} steps")
        return steps
    if length.epochs:
        whole, part = divmod(length.epochs, 1)
        passages = sum(trainer.stream.epoch_length(epoch) for epoch in range(int(whole)))
        passages += part * trainer.stream.epoch_length(int(whole)) if part else 0
        return max(1, math.ceil(passages / trainer.settings.batch_size))
    return length.count


def seconds_per_step(trainer: Trainer) -> float:
    """Times a few steps of a copy: the trainer and torch's generators stay as they were."""
    machine, corpus = trainer.machine, trainer.stream.corpus
    random = machine.random_states()
    model = copy.deepcopy(trainer.model)
    parts = model, trainer.objective, corpus, trainer.settings, trainer.steps, machine
    trial = Trainer(*parts, trainer.regularizers)
    trial.stream = trainer.stream
    for _ in range(2):
        trial.advance()
    begun = time.perf_counter()
    for _ in range(TIMED_STEPS):
        trial.advance()
    seconds = (time.perf_counter() - begun) / TIMED_STEPS
    machine.set_random_states(random)
    return seconds


def describe(trainer: Trainer, text, corpus, held_out, folder) -> None:
    learning, parameters = trained(trainer.model)
    among = "beside" if factors(trainer.model) else "of"
    part = "" if learning == parameters else f", {learning:,} {among} them trained"
    documents = len(corpus.documents)
    tell(
        f"text      {' '.join(text.settings.corpus)}: {text.documents.bytes:,} bytes, SHA-256 "
        f"{text.record['sha256'][:16]}…"
    )
    tell(
        f"training  {documents:,} documents, {len(corpus.tokens):,} tokens of "
        f"{trainer.objective.tokenizer.size:,}"
    )
    for name, each in held_out.items():
        tell(f"{name:<9} {len(each.documents):,} documents, {len(each.tokens):,} tokens")
    tell(
        f"model     {parameters:,} parameters{part}, {trainer.steps:,} steps of "
        f"{trainer.settings.batch_size} passages, into {folder}"
    )


@contextlib.contextmanager
def own_folder(out: str | None, objective: str) -> Iterator[Path]:
    """The run's folder, known to be writable and this run's alone; removed if it stays empty.

    Without ``out`` it is the first of runs/OBJECTIVE-1, -2, … that nobody has taken.
    """
    made = None
    if out is not None:
        folder = Path(out)
        # Nothing foreign, before it is touched.
        check_out(folder, ours=rf"\.lock|\.?step-\d+.*|{re.escape(metrics.NAME)}")
    for number in itertools.count(1) if out is None else ():
        folder = Path("runs", f"{objective}-{number}")
        made = missing(folder)
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"{folder} cannot be made ({error.strerror}); give --out") from None
    with locked(folder, made):
        checkpoint.clean(folder)
        metrics.clear(folder)
        check_out(folder, ours=r"\.lock")
        yield folder


def check_out(folder: Path, ours: str) -> None:
    """InputError unless all that the run's folder holds, if it is there, has a name of ours."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file; give a folder")
    try:
        names = os.listdir(folder) if folder.exists() else []
    except OSError as error:
        raise InputError(f"--out {folder} cannot be read ({error.strerror})") from None
    if not all(re.fullmatch(ours, name) for name in names):
        raise InputError(
            f"--out {folder} is not empty; give a new folder, or go on with:"
            f" {command('resume', folder)}"
        )
