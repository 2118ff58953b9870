"""Models: hidden states from tokens. One published architecture a file, found by its name."""

from minicpt import models
from minicpt.common import registry
from minicpt.models.layers import Model


def known() -> dict[str, type[Model]]:
    """The models by the names of their files: "gpt2", "bert", "t5", …"""
    return registry.classes(models, Model)


def name_of(model: Model) -> str:
    """The name of a model's file."""
    return registry.name_of(type(model))
