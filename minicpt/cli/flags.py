"""Settings classes <-> flags: every flag comes from a dataclass field, its default shown."""

import argparse
import dataclasses
import typing

from minicpt.common.errors import InputError
from minicpt.common.settings import flag


def add(
    parser: argparse.ArgumentParser,
    title: str,
    *classes: type,
    but: tuple = (),
    default: str | None = None,
) -> None:
    """A group of flags for the fields of ``classes`` that have help, those in ``but`` apart.

    A flag that is not given leaves no trace in the namespace, so that the caller can tell a value
    that was asked for from a default; ``default`` is shown where that is not the field's own.
    """
    group = parser.add_argument_group(title)
    known = {action.dest for action in parser._actions}
    for settings in classes:
        hints = typing.get_type_hints(settings)
        for field in dataclasses.fields(settings):
            if "help" in field.metadata and field.name not in but:
                if field.name in known:
                    raise TypeError(f"two settings of one verb are called {field.name}")
                known.add(field.name)
                add_flag(group, field, hints[field.name], default)


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


def given(arguments: argparse.Namespace, settings: type) -> dict:
    """The fields of ``settings`` whose flags were given."""
    names = {field.name for field in dataclasses.fields(settings)}
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
