"""Settings: frozen dataclasses whose fields say what they mean and which values they take.

Each component has a small settings class of its own. A field made by ``setting`` carries its help
and its bounds, so that the command line can turn it into a flag, and so that a wrong value is
refused in one line wherever it comes from: the command line, Python, or a file.
"""

import dataclasses
import math
import typing

from minicpt.common.errors import InputError

MOST = 2**63 - 1  # the largest seed


def setting(
    default, help: str, *, least=None, above=None, most=None, below=None, metavar: str = ""
):
    """A dataclass field with its help and its bounds (inclusive: least, most; else above, below).

    A field without help gets no flag: it is set by the program. ``metavar`` is what the help
    calls the value of a text.
    """
    bounds = {"least": least, "above": above, "most": most, "below": below, "metavar": metavar}
    return dataclasses.field(default=default, metadata={"help": help, **bounds})


class Checked:
    """Base of every settings class: refuses a value of the wrong type, out of bounds, or NaN."""

    def __post_init__(self):
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            check(field, hints[field.name], getattr(self, field.name))


def check(field: dataclasses.Field, hint, value) -> None:
    """Raises InputError with one line when ``value`` is not one that the field takes."""
    choices = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        if value not in choices:
            refuse(field, value, f"one of {', '.join(map(str, choices))}")
        return
    if value is None and type(None) in choices:
        return
    if typing.get_origin(hint) is tuple:
        if not (isinstance(value, tuple) and all(isinstance(item, str) for item in value)):
            refuse(field, value, "a tuple of texts")
        return
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    wanted = next((kind for kind in (choices or (hint,)) if kind in (int, float, bool, str)), hint)
    if wanted is int and not (numeric and isinstance(value, int)):
        refuse(field, value, "a whole number")
    if wanted is float and not (numeric and math.isfinite(value)):
        refuse(field, value, "a finite number")
    if wanted in (bool, str) and not isinstance(value, wanted):
        refuse(field, value, f"a {wanted.__name__}")
    if not numeric:
        return
    least, above, most, below = map(field.metadata.get, ("least", "above", "most", "below"))
    if least is not None and value < least:
        refuse(field, value, f"at least {least}")
    if above is not None and value <= above:
        refuse(field, value, f"more than {above}")
    if most is not None and value > most:
        refuse(field, value, f"at most {most}")
    if below is not None and value >= below:
        refuse(field, value, f"less than {below}")


def refuse(field: dataclasses.Field, value, wanted: str):
    raise InputError(f"{flag(field)} must be {wanted}, but is {value!r}")


def flag(field: dataclasses.Field) -> str:
    """The field's name on the command line."""
    return "--" + field.name.replace("_", "-")
