"""Finds what a room holds: a new model, objective, remedy, verb or proof is one new file."""

import importlib
import pkgutil
from types import ModuleType


def modules(package: ModuleType, *others: ModuleType) -> dict[str, ModuleType]:
    """Every public module of ``package`` by its command-line name (hyphens for underscores).

    A module that builds on another one of the same package, or of one of the ``others`` (``from
    PACKAGE.OTHER import …``), is left out where that one is not there.
    """
    found, rooms = {}, tuple(f"{each.__name__}." for each in (package, *others))
    for name in sorted(each.name for each in pkgutil.iter_modules(package.__path__)):
        if name.startswith("_"):
            continue
        try:
            module = importlib.import_module(f"{package.__name__}.{name}")
        except ModuleNotFoundError as missing:
            if not (missing.name or "").startswith(rooms):
                raise
        else:
            found[name.replace("_", "-")] = module
    return found


def classes(package: ModuleType, base: type, *others: ModuleType) -> dict[str, type]:
    """The subclass of ``base`` that each module of ``package`` defines, by the module's name.

    Modules without one, such as the base's own, are left out. ``others`` as in ``modules``.
    """
    found = {}
    for name, module in modules(package, *others).items():
        for each in vars(module).values():
            own = isinstance(each, type) and each.__module__ == module.__name__
            if own and issubclass(each, base) and each is not base:
                found[name] = each
    return found


def name_of(kind: type) -> str:
    """The name under which ``classes`` finds a class."""
    return kind.__module__.rpartition(".")[2].replace("_", "-")
