"""Settings classes <-> flags: every flag comes from a dataclass field, its default shown."""

import argparse
import dataclasses
import sys
import typing

from minicpt.common.errors import InputError
from minicpt.common.settings import flag


def summary(kind: type) -> str:
    """The first line of what a class's file says of itself."""
    return (sys.modules[kind.__module__].__doc__ or kind.__name__).splitlines()[0]


def add(
    parser: argparse.ArgumentParser,
    title: str,
    *classes: type,
    but: tuple = (),
    default: str | None = None,
    alternatives: bool = False,
):
    """A group of flags for the fields of ``classes`` that have help, those in ``but`` apart.

    A flag that is not given leaves no trace in the namespace, so that the caller can tell a value
    that was asked for from a default; ``default`` is shown where that is not the field's own.
    With ``alternatives``, one of the classes will be used: a name that several of them have becomes
    one flag. Returns the group.
    """
    group = parser.add_argument_group(title)
    known, added = {action.dest for action in parser._actions}, set()
    for settings in classes:
        hints = typing.get_type_hints(settings)
        for field in dataclasses.fields(settings):
            if "help" not in field.metadata or field.name in but:
                continue
            if alternatives and field.name in added:
                continue
            if field.name in known | added:
                raise TypeError(f"two settings of one verb are called {field.name}")
            added.add(field.name)
            add_flag(group, field, hints[field.name], default or defaults(field.name, classes))
    return group


def defaults(name: str, classes: tuple) -> str:
    """What the classes that have a field of that name take for it: "0.1 or 0.0"."""
    each = [field for kind in classes for field in dataclasses.fields(kind) if field.name == name]
    return " or ".join(dict.fromkeys(map(default_text, each)))


def add_flag(group, field: dataclasses.Field, hint, default: str | None = None) -> None:
    help = field.metadata["help"]
    if default:
        help = help.partition(" (default:")[0]
    else:
        default = default_text(field)
    shown = f" (default: {default})" if default else ""
    options: dict = {"dest": field.name, "default": argparse.SUPPRESS}
    options["help"] = (help + shown).replace("%", "%%")
    choices = typing.get_args(hint)
    if hint is bool:
        group.add_argument(flag(field), action=argparse.BooleanOptionalAction, **options)
        return
    if typing.get_origin(hint) is typing.Literal:
        group.add_argument(flag(field), choices=choices, **options)
        return
    if typing.get_origin(hint) is tuple:
        metavar = field.metadata.get("metavar") or "SRC"
        group.add_argument(flag(field), nargs="+", action="extend", metavar=metavar, **options)
        return
    kind = next((each for each in (choices or (hint,)) if each in (int, float)), str)
    metavar = field.metadata.get("metavar") or {int: "N", float: "X", str: "PATH"}[kind]
    group.add_argument(flag(field), type=kind, metavar=metavar, **options)


def default_text(field: dataclasses.Field) -> str:
    if field.default is None:
        return ""
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    if isinstance(field.default, tuple):
        return " ".join(field.default)
    return str(field.default)


def given(arguments: argparse.Namespace, *classes: type) -> dict:
    """The fields of the settings classes whose flags were given.

    A field without a flag may have the name of another class's flag: a Llama's window is no setting
    of its training.
    """
    fields = [field for settings in classes for field in dataclasses.fields(settings)]
    names = {field.name for field in fields if "help" in field.metadata}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
        if name in names
    }


def build(arguments: argparse.Namespace, settings: type, **program):
    """An object of ``settings`` from the flags that were given and what the program sets."""
    return settings(**given(arguments, settings), **program)


def refuse(arguments: argparse.Namespace, settings: type, why: str, but: tuple = ()) -> None:
    """InputError if any flag of ``settings`` was given, those named in ``but`` apart."""
    fields = [field for field in dataclasses.fields(settings) if field.name not in but]
    for field in fields:
        if field.name in vars(arguments) and "help" in field.metadata:
            raise InputError(f"{flag(field)} cannot be used here: {why}")
