"""Whether an answer of a learner's function is the right one, and in words, how it differs.

Values are compared as far as rounding goes; types, shapes and dtypes must be those that are wanted.
"""

from typing import Any

import torch
from torch import Tensor

from minicpt.batch import IGNORE
from minicpt.exercises.base import Exercise
from minicpt.exercises.child import Strange
from minicpt.exercises.runner import Answer
from minicpt.proofs.bounds import largest, tolerance

ADDITIONS = 1000  # more than any of the sums that are compared has


def compare(
    exercise: Exercise, inputs: tuple, wanted: Any, answer: Answer
) -> tuple[str, bool]:
    """What is wrong with an answer, "" where nothing; and whether types and shapes are right."""
    parts = [("it", wanted, answer.value)]
    if isinstance(wanted, tuple):
        if len(as_parts(answer.value)) != len(wanted):
            names = ", ".join(exercise.outputs)
            return f"it gives {described(answer.value)}; wanted is a tuple ({names})", False
        names = (f"`{name}`" for name in exercise.outputs)
        parts = list(zip(names, wanted, answer.value, strict=True))
    found = [difference(*part) for part in parts]
    formed = all(well for _, well in found)
    if problem := next((problem for problem, _ in found if problem), ""):
        return problem, formed
    if answer.changed:
        names = " and ".join(f"`{exercise.inputs[place]}`" for place in answer.changed)
        return f"it changes {names}, which belongs to the caller; change a .clone()", True
    return "", True


def as_parts(value: Any) -> list:
    return list(value) if isinstance(value, tuple | list) else [value]


def difference(name: str, wanted: Any, got: Any) -> tuple[str, bool]:
    """In words, how one output differs; and whether its type and shape are right."""
    if not isinstance(wanted, Tensor):
        own = got if isinstance(got, str) else described(got)
        return ("" if wanted == got else f"your answer is `{own}`"), type(wanted) is type(got)
    got = as_tensor(wanted, got)
    if not isinstance(got, Tensor):
        return f"{name} is {described(got)}; wanted is {described(wanted)}", False
    if got.shape != wanted.shape:
        shapes = tuple(got.shape), tuple(wanted.shape)
        return f"{name} has the shape {shapes[0]}; wanted is {shapes[1]}", False
    both = got.dtype.is_floating_point and wanted.dtype.is_floating_point
    wide = both and got.dtype.itemsize >= wanted.dtype.itemsize
    if got.dtype != wanted.dtype and not wide:
        alike = "the values are right, but " if equal(wanted, got) else ""
        return f"{alike}{name} is of {got.dtype}; wanted is {wanted.dtype}", False
    if equal(wanted, got):
        return "", True
    places = [tuple(place) for place in (~close(wanted, got)).nonzero().tolist()]
    if wanted.dim() == 0:
        return f"{name} is {value(got.item())}; right is {value(wanted.item())}", True
    place = places[0] if len(places[0]) > 1 else places[0][0]
    more = f" (and at {len(places) - 1} more)" if len(places) > 1 else ""
    one, other = (value(each[places[0]].item()) for each in (got, wanted))
    return f"{name} is {one} at {place}, where {other} is right{more}", True


def as_tensor(wanted: Tensor, got: Any) -> Any:
    """A number of Python's as a tensor, where a single number is wanted."""
    if wanted.dim() == 0 and type(got) in (int, float):
        return torch.tensor(got, dtype=wanted.dtype)
    return got


def close(wanted: Tensor, got: Tensor) -> Tensor:
    """Where two tensors of one shape agree, as far as rounding goes."""
    one, other = wanted.double(), got.double()
    if not (wanted.dtype.is_floating_point and got.dtype.is_floating_point):
        return one == other
    finite = wanted[wanted.isfinite()]
    coarse = min(wanted.dtype, got.dtype, key=lambda each: each.itemsize)
    allowed = tolerance(ADDITIONS, coarse if coarse.itemsize > 2 else torch.float32)
    near = (one - other).abs() <= allowed * max(1.0, largest(finite))
    return near | (one == other) | (one.isnan() & other.isnan())


def equal(wanted: Any, got: Any) -> bool:
    """Whether two values are the same, whatever their types, as far as rounding goes."""
    if isinstance(wanted, tuple | list):
        pairs = zip(wanted, as_parts(got), strict=False)
        return len(wanted) == len(as_parts(got)) and all(equal(*pair) for pair in pairs)
    if not isinstance(wanted, Tensor):
        return type(wanted) is type(got) and wanted == got
    got = as_tensor(wanted, got)
    return isinstance(got, Tensor) and got.shape == wanted.shape and bool(close(wanted, got).all())


def described(value: Any) -> str:
    """What kind of value it is, in words."""
    if isinstance(value, Strange):
        return value.what
    if value is None:
        return "None, as without a return"
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r}, of the type {type(value).__name__}"


def value(number: Any) -> str:
    """A number as the answers show it.

    >>> value(0.125), value(IGNORE), value(True)
    ('0.125', 'IGNORE', 'True')
    """
    if isinstance(number, float):
        return f"{number:.6g}"
    return "IGNORE" if number is not True and number == IGNORE else str(number)


def is_finite(given: Any) -> bool:
    """Whether all numbers in a value are."""
    parts = (each for each in as_parts(given) if isinstance(each, Tensor))
    return all(bool(each.isfinite().all()) for each in parts)
