"""Objectives: what a model reads, and which positions have a target. One file each.

``base`` holds the contract. Nothing else knows the names of the objectives.
"""

from collections.abc import Iterable

from minicpt import objectives
from minicpt.common import registry
from minicpt.objectives.base import Objective


def known() -> dict[str, type[Objective]]:
    """The objectives by their names on the command line: "causal-lm", …"""
    return registry.classes(objectives, Objective)


def reserved(names: Iterable[str] | None = None) -> list[str]:
    """The special tokens that these objectives need, each once; None: all objectives."""
    kinds = known()
    chosen = kinds if names is None else names
    return list(dict.fromkeys(token for name in chosen for token in kinds[name].reserved))
