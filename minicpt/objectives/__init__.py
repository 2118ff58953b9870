"""Objectives: what a model reads, and which positions have a target. One file each.

``base`` holds the contract. Nothing else knows the names of the objectives.
"""

from minicpt import objectives
from minicpt.common import registry
from minicpt.objectives.base import Objective


def known() -> dict[str, type[Objective]]:
    """The objectives by their names on the command line: "causal-lm", …"""
    return registry.classes(objectives, Objective)
