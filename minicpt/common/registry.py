"""Finding the modules of a package, so that a new objective or architecture is one new file."""

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
