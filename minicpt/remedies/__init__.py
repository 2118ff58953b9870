"""Remedies against forgetting: what keeps a continued model near its base. One file each.

``base`` holds the contract. Nothing else knows the names of the remedies.
"""

from minicpt import remedies
from minicpt.common import registry
from minicpt.remedies.base import Remedy


def known() -> dict[str, type[Remedy]]:
    """The remedies by their names on the command line: "kl", "lora", "replay", …"""
    return registry.classes(remedies, Remedy)
