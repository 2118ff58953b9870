"""Finds what a room holds: a new model, objective, remedy, verb or proof is one new file."""

import importlib
import pkgutil
from types import ModuleType


def modules(package: ModuleType) -> dict[str, ModuleType]:
    """Every public module of ``package`` by its command-line name (hyphens for underscores)."""
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__))
    return {
        name.replace("_", "-"): importlib.import_module(f"{package.__name__}.{name}")
        for name in names
        if not name.startswith("_")
    }


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
