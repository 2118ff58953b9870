"""The settings of a run from a file: what the record of another run holds, or a part of it.

Such a file is JSON, as ``RunConfig.plain`` gives it: ``{"training": {"learning_rate": 0.0005}}``.
``training.json`` in a checkpoint holds it under "config". Leaves out where the run is saved.
"""

import dataclasses
import difflib
import typing
from collections.abc import Collection
from pathlib import Path

from minicpt import checkpoint, remedies
from minicpt.checkpoint.folder import MOST_RECORD
from minicpt.common.disk import read_json
from minicpt.common.errors import InputError
from minicpt.common.settings import check
from minicpt.runs.assembly import fitting, objective_kind
from minicpt.runs.config import Length, RunConfig, Vocabulary, tuples

# Settings that exclude each other: one that is given replaces all of the file's.
ALTERNATIVES = (Length, Vocabulary)


def settings_in(path: str, objective: str, given: Collection[str]) -> dict[str, object]:
    """The settings in a file by the names of their flags, less those that ``given`` ones replace.

    objective  the name of the run's: a file with another one is refused
    given      the names of the settings that were given otherwise

    Raises InputError, which names the file, for an unknown setting, and for a value that a setting
    does not take.
    """
    config = read(path)
    named = config.get("objective", objective)
    if named != objective:
        raise InputError(f"{path} is of the objective {named}; use it with: minicpt train {named}")
    kind = objective_kind(objective)
    fields = {each.name: each for each in dataclasses.fields(RunConfig)}
    of_section = {
        "settings": (kind.Settings,),
        "sizes": tuple(model.Config for model in fitting(kind).values()),
    }
    found: dict[str, object] = {}
    for section, values in config.items():
        known(path, "it", section, fields)
        if section in ("objective", "model"):
            if not isinstance(values, str):
                raise InputError(f"{path}: {section} must be a text, but is {values!r:.60}")
            if section == "model" and values:
                found["model"] = values
        elif section == "remedies":
            for name, each in table(path, section, values).items():
                known(path, "remedies", name, remedies.known())
                found |= checked(path, name, each, remedies.known()[name].Settings)
        else:
            classes = of_section.get(section) or (fields[section].type,)
            found |= checked(path, section, values, *classes)
    without = replaced(config, given)
    return {name: value for name, value in found.items() if name not in without}


def read(path: str) -> dict:
    """The config in a file, or in a run's newest checkpoint."""
    file = Path(path)
    if file.is_dir():
        file = checkpoint.find(path)[0] / checkpoint.RECORD
    if not file.is_file():
        raise InputError(f"--config {path} is no file; give the {checkpoint.RECORD} of a run")
    content = read_json(file, MOST_RECORD, f"give the {checkpoint.RECORD} of a run")
    return table(path, "config", content.get("config", content))


def replaced(config: dict, given: Collection[str]) -> set[str]:
    """The names of the file's settings that do not count beside those that are given."""
    names = set(given)
    for kind in ALTERNATIVES:
        own = {*vars(kind())}
        names |= own if own & names else set()
    if "init" in given:  # the base brings its own
        names |= {*vars(Vocabulary()), *config.get("sizes", {})}
    if "init" in given or config.get("base", {}).get("init"):
        names.add("model")
    return names


def checked(path: str, section: str, values: object, *classes: type) -> dict[str, object]:
    """The settings of a section. InputError for one that none of the classes has, or takes."""
    fields = {
        field.name: (field, typing.get_type_hints(kind)[field.name])
        for kind in reversed(classes)
        for field in dataclasses.fields(kind)
        if "help" in field.metadata
    }
    found = tuples(table(path, section, values))
    for name, value in found.items():
        known(path, section, name, fields)
        try:
            check(*fields[name], value)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    return found


def known(path: str, section: str, name: str, names: Collection[str]) -> None:
    """InputError for a name that is not among those that there are; says which one is near."""
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        meant = f", perhaps {near[0]}" if near else f"; it may have {', '.join(names)}"
        raise InputError(f"{path}: {section} has no setting {name!r}{meant}")


def table(path: str, section: str, value: object) -> dict:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {section} must be a JSON object, but is {value!r:.60}")
    return value
