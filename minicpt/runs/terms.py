"""The regularizers on the command line: flags, records and old text -> terms of a run."""

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

from torch import nn
from tqdm import tqdm

from minicpt import remedies
from minicpt.batch import Batch
from minicpt.cli import flags
from minicpt.common import registry
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.common.settings import flag
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Documents
from minicpt.data.order import planned
from minicpt.runs import build
from minicpt.training.evaluation import spread


def modules() -> dict[str, ModuleType]:
    """The regularizers by name."""
    return registry.modules(remedies)


def classes() -> list[type]:
    """The settings of every regularizer."""
    return [module.Settings for module in modules().values()]


def asked(arguments: argparse.Namespace) -> dict:
    """The settings of the terms whose weight is not 0, by name.

    Raises InputError for a detail of a term that is left out.
    """
    result = {}
    for name, module in modules().items():
        settings = flags.build(arguments, module.Settings)
        if getattr(settings, name):
            result[name] = settings
        else:
            why = f"--{name} is not given, or 0"
            flags.refuse(arguments, module.Settings, why, but=(name,))
    return result


def built(settings: dict, model: nn.Module, device: str) -> dict[str, nn.Module]:
    """The terms by name, with the model as it is now as their common base."""
    if not settings:
        return {}
    base = remedies.frozen(model).to(device)
    found = modules()
    return {name: found[name].Regularizer(each, base) for name, each in settings.items()}


def recorded(record: dict) -> dict:
    """The settings of a run's terms, by name, from its record."""
    return {name: modules()[name].Settings(**values) for name, values in record.items()}


def check_old_text(settings: dict, old: Sequence) -> None:
    """InputError if a term has to learn from old text and there is none."""
    for name in settings:
        if hasattr(modules()[name].Regularizer, "learn") and not old:
            field = next(f for f in dataclasses.fields(settings[name]) if f.name == name)
            raise InputError(
                f"{flag(field)} needs text that the base was trained on, and there is none to be"
                " read; name it with --old-corpus"
            )


def check_lora(settings: dict) -> None:
    """InputError for a term on the weights: LoRA's factors have no place in the base."""
    for name in settings:
        if modules()[name].Regularizer.on == "weights":
            raise InputError(
                f"--{name} and --lora exclude each other: the weights stay as they are, beside"
                " LoRA's factors; use --kl, or a smaller --lora"
            )


def learn(terms: dict[str, nn.Module], objective, old: Sequence, seed: int, device: str) -> None:
    """Lets the terms read the training part of the old texts, with a progress bar."""
    for name, term in terms.items():
        if hasattr(term, "learn"):
            documents = Documents.joined(each.training for each in old)
            corpus = build.corpus(documents, objective.tokenizer)
            build.check_plans(objective, {"old": corpus})
            term.learn(reader(name, objective, corpus, seed, device))


def reader(
    name: str, objective, corpus: Corpus, seed: int, device: str
) -> Callable[[int], Iterable[Batch]]:
    """From a number of passages of old text to batches of one passage each, under a bar.

    They are spread over the plan, whose first passages would be all of a length.
    """

    def read(count: int) -> Iterable[Batch]:
        plan = planned(objective, corpus, seed, 0)
        places = spread(plan, min(count, len(plan)))
        for place in tqdm(places, desc=f"{name}: old text", disable=None, dynamic_ncols=True):
            noise = [generator("old text", seed, place)]
            yield objective.batch([plan[place]], noise).to(device)

    return read
