"""``minicpt train``: trains a model from scratch, or continues one with ``--init``."""

import argparse
import contextlib
import itertools
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minicpt import checkpoint, remedies
from minicpt.cli import flags
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.common.terminal import duration
from minicpt.remedies.base import details
from minicpt.runs import metrics
from minicpt.runs.assembly import fitting, objective_kind, trainable
from minicpt.runs.build import build
from minicpt.runs.config import Base, Length, RunConfig, Text, Vocabulary, Watch
from minicpt.runs.config_file import settings_in
from minicpt.runs.console import command, print_json, say, tell
from minicpt.runs.forecast import forecast
from minicpt.runs.lock import locked, missing
from minicpt.terms import Terms
from minicpt.training.device import Machine, return_freed_memory
from minicpt.training.distributed import current
from minicpt.training.mixing import Mixing
from minicpt.training.preparing import Selecting
from minicpt.training.trainer import Training

EXAMPLES = """examples:
  minicpt train {name} --steps 200 --out runs/first
  minicpt train {name} --init runs/first --corpus builtin:code --replay base --out runs/second
"""
LOGGED = f"""every step and every evaluation is a line of {metrics.NAME} in the folder of the run
"""
# Names in the folder of a run, and those that a run leaves that was killed before its first save.
OURS = rf"\.lock|\.?step-\d+.*|{re.escape(metrics.NAME)}"
LEFT = OURS.replace(r"\.?step", r"\.step")
PROCESSES = True  # torchrun may start it
SEVERAL = """several processes train one model with: torchrun --nproc-per-node 2 -m minicpt train …
where torchrun --standalone hangs, the host's name does not resolve; say instead:
torchrun --nproc-per-node 2 --local-addr 127.0.0.1 --rdzv-backend c10d
--rdzv-endpoint 127.0.0.1:0 -m minicpt train …
"""
SENTENCES = "It rained. The cat slept."  # a text for a model that needs one


@dataclass(frozen=True)
class Where(Checked):
    out: str | None = setting(
        None, "folder for the checkpoints (default: a new one in runs/)", metavar="DIR"
    )


def add(train: argparse.ArgumentParser) -> None:
    train.epilog = (
        "`minicpt train OBJECTIVE --help` lists the flags of an objective\n"
        "long text is kept tokenised in ~/.cache/minicpt; MINICPT_CACHE names another folder\n"
        + LOGGED
        + SEVERAL
        + "\n"
        + EXAMPLES.format(name="causal-lm")
    )
    names = train.add_subparsers(dest="objective", metavar="OBJECTIVE", required=True)
    near = [kind.Settings for kind in remedies.known().values()]
    for name, kind in trainable().items():
        summary = flags.summary(kind)
        usage = f"minicpt train {name} [FLAG …]"
        parser = names.add_parser(name, help=summary, description=summary, usage=usage)
        parser.epilog = LOGGED + SEVERAL + "\n" + EXAMPLES.format(name=name)
        models = fitting(kind)
        flags.add(parser, "length", Length)
        flags.add(parser, "text", Text, Vocabulary)
        flags.add(parser, "where from and where to", Base, Where)
        flags.add(parser, f"the objective, {name}", kind.Settings)
        flags.add(parser, "a second objective", Mixing)
        configs = [model.Config for model in models.values()]
        group = flags.add(
            parser, f"the model, {' or '.join(kind.roles)}", *configs, alternatives=True
        )
        group.add_argument(
            "--model",
            metavar="NAME",
            default=argparse.SUPPRESS,
            help=f"its architecture: {', '.join(models)} (default: {next(iter(models))})",
        )
        flags.add(parser, "training", Training)
        flags.add(parser, "terms at each target, and which targets count", Terms, Selecting)
        flags.add(parser, "staying near the base, with --init", *near)
        flags.add(parser, "evaluation and saving", Watch)
        flags.add(parser, "the machine", Machine)
        parser.add_argument(
            "--config", metavar="FILE",
            help=f"settings of another run, from its folder, its {checkpoint.RECORD}, or JSON like"
            " that; flags win over it",
        )  # fmt: skip
        parser.add_argument(
            "--dry-run", action="store_true",
            help="set everything up, time two steps, say what the run will take, and stop; nothing"
            " stays but the tokenised text in the cache",
        )  # fmt: skip
        parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    if arguments.config is not None:
        from_file = settings_in(arguments.config, arguments.objective, vars(arguments))
        arguments = argparse.Namespace(**from_file | vars(arguments))
    config = config_of(arguments)
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)):
        raise InputError(
            "torchrun has started this run anew, perhaps with other processes; start it without"
            " --max-restarts, and go on with: minicpt resume"
        )
    if arguments.dry_run:
        return rehearsed(config, flags.build(arguments, Where).out, arguments.json)
    with own_folder(flags.build(arguments, Where).out, arguments.objective) as folder:
        return_freed_memory()
        run = build(config, folder, quiet=arguments.json)
        status = run.go()
    without = run.trainer.steps_without_targets
    if without:
        say(f"{without} of {run.trainer.step} steps had no target and changed nothing")
    if arguments.json:
        print_json(run.record | {"out": str(run.folder), "evaluations": run.history})
    elif status == 0:
        text = [SENTENCES] if run.trainer.objective.needs_text else []
        tell(f"saved in {run.folder}; try: {command('generate', run.folder, *text)}")
    return status


def rehearsed(config: RunConfig, out: str | None, as_json: bool) -> int:
    """Says what a run would take; its folder is neither made nor touched."""
    if out is not None:
        check_out(Path(out), LEFT)
    begun = time.perf_counter()
    run = build(config, Path(out or f"runs/{config.objective}-…"), quiet=as_json)
    ready = time.perf_counter() - begun
    found = forecast(run)
    if as_json:
        print_json({"config": run.record["config"], "set_up_seconds": ready} | found.plain())
    else:
        for line in found.lines():
            tell(line)
        tell(f"set up in {duration(ready)}; nothing was trained or saved: this was --dry-run")
    return 0


def config_of(arguments: argparse.Namespace) -> RunConfig:
    """The run that the flags ask for. InputError for a value that a setting does not take."""
    kind = objective_kind(arguments.objective)
    configs = [model.Config for model in fitting(kind).values()]
    return RunConfig(
        objective=arguments.objective,
        settings=flags.given(arguments, kind.Settings),
        model=getattr(arguments, "model", ""),
        sizes=flags.given(arguments, *configs),
        mixing=flags.build(arguments, Mixing),
        text=flags.build(arguments, Text),
        vocabulary=flags.build(arguments, Vocabulary),
        base=flags.build(arguments, Base),
        length=flags.build(arguments, Length),
        training=flags.build(arguments, Training),
        terms=flags.build(arguments, Terms),
        selecting=flags.build(arguments, Selecting),
        watch=flags.build(arguments, Watch),
        machine=flags.build(arguments, Machine),
        remedies=asked(arguments),
    )


def asked(arguments: argparse.Namespace) -> dict[str, dict]:
    """The settings of the remedies that are asked for, by name.

    Raises InputError for a detail of a remedy that is not.
    """
    found = {}
    for name, kind in remedies.known().items():
        given = flags.given(arguments, kind.Settings)
        details(kind, given)
        if kind.asked(kind.Settings(**given)):
            found[name] = given
    return found


@contextlib.contextmanager
def own_folder(out: str | None, objective: str) -> Iterator[Path]:
    """The run's folder, known to be writable and this run's alone; removed if it stays empty.

    The first process makes it, and the others are told.
    Without ``out`` it is the first of runs/OBJECTIVE-1, -2, … that nobody has taken.
    """
    world, made = current(), None
    if not world.is_first:
        yield Path(world.told(None))
        return
    if out is not None:
        folder = Path(out)
        # Nothing foreign, before it is touched.
        check_out(folder, OURS)
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
        yield Path(world.told(str(folder)))


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
