"""Finds what a room holds: a new model, objective, remedy, verb or proof is one new file."""

import importlib
import pkgutil
from types import ModuleType


def modules(package: ModuleType) -> dict[str, ModuleType]:
    """Every public module of ``package`` by its command-line name (hyphens for underscores).

    A module that builds on another one of the same package (``from PACKAGE.OTHER import …``) is
    left out where that one is not there.
    """
    found = {}
    for name in sorted(each.name for each in pkgutil.iter_modules(package.__path__)):
        if name.startswith("_"):
            continue
        try:
            module = importlib.import_module(f"{package.__name__}.{name}")
        except ModuleNotFoundError as missing:
            if not (missing.name or "").startswith(f"{package.__name__}."):
                raise
        else:
            found[name.replace("_", "-")] = module
    return found


def classes(package: ModuleType, base: type) -> dict[str, type]:
    """The subclass of ``base`` that each module of ``package`` defines, by the module's name.

    Modules without one, such as the base's own, are left out.
    """
    found = {}
    for name, module in modules(package).items():
        for each in vars(module).values():
            own = isinstance(each, type) and each.__module__ == module.__name__
            if own and issubclass(each, base) and each is not base:
                found[name] = each
    return found


def name_of(kind: type) -> str:
    """The name under which ``classes`` finds a class."""
    return kind.__module__.rpartition(".")[2].replace("_", "-")
