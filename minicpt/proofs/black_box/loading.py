"""Finding the model that ``--model MODULE:NAME`` names."""

import functools
import importlib
import inspect
import os
import sys
from typing import Any

import torch

from minicpt.common.errors import InputError


def load_model(spec: str) -> Any:
    """What MODULE:NAME names; the current folder can be imported from, as with ``python -m``.

    Raises InputError where the module cannot be imported, lacks the name, or names no model.
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        raise InputError(f"--model {spec}: write MODULE:NAME, such as my_package.my_file:Model")
    if module_name.endswith(".py") or "/" in module_name or "\\" in module_name:
        plain = module_name.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
        raise InputError(
            f"--model {spec}: write the module's name without .py and without a path, such as "
            f"{plain}:{name}, and start where it can be imported"
        )
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        with torch.random.fork_rng(devices=[]):
            found = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"--model {spec}: cannot import {module_name}: {one_line(error)}"
        ) from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"--model {spec}: {module_name} has no {name}")
        found = getattr(found, part)
    return resolve(found, f"--model {spec}")


def resolve(model: Any, called: str = "the model") -> Any:
    """The model itself, or what a class or a function without required arguments returns.

    Raises InputError where there is no callable in the end.
    """
    for _ in range(2):  # a function may return a class
        if not callable(model):
            raise InputError(f"{called} is of type {type(model).__name__}: it must be callable")
        made_by = inspect.isroutine(model) or isinstance(model, functools.partial)
        if not (inspect.isclass(model) or made_by):
            return takes_tokens_alone(model, called)
        required, any_number = arguments(model)
        if inspect.isclass(model) and required:
            raise InputError(f"{called}: the class {model.__name__} needs {', '.join(required)}: "
                             "name an instance, or a function that returns one")  # fmt: skip
        if made_by and (required or any_number):
            return takes_tokens_alone(model, called)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                made = model()
        except Exception as error:
            raise InputError(f"{called}: calling it failed: {one_line(error)}") from None
        if not callable(made):
            raise InputError(
                f"{called} returns type {type(made).__name__} when called without arguments: "
                "it must return a model, or itself take the tokens"
            )
        model = made
    return model


def takes_tokens_alone(model: Any, called: str) -> Any:
    """The model again. Raises InputError where it needs more than one argument."""
    call = model.forward if isinstance(model, torch.nn.Module) else model
    required, _ = arguments(call)
    if len(required) > 1:
        raise InputError(
            f"{called} needs {', '.join(required[1:])} besides the token ids ({required[0]}): "
            "wrap it in a function of the token ids alone"
        )
    return model


def arguments(function: Any) -> tuple[list[str], bool]:
    """The names of the arguments that must be given, and whether any number is taken."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in: takes the tokens, if anything
        return [], True
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD,
             inspect.Parameter.KEYWORD_ONLY)  # fmt: skip
    required = [p.name for p in parameters if p.kind in plain and p.default is p.empty]
    return required, any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)


def one_line(error: BaseException) -> str:
    """An exception as one short line.

    >>> one_line(ValueError("no\\nmore"))
    'ValueError: no'
    """
    first = (str(error).strip().splitlines() or [""])[0]
    first = first if len(first) <= 160 else first[:157] + "..."
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
