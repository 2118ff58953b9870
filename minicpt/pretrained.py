"""Hugging Face's weights and configs <-> our models, read from each model's table ``NAMES``.

One engine for all families, in both directions; what differs between families is data and stands
in the model's own file. Every tensor of a folder must find its place and every parameter its
tensor: only a whole head may be missing, and then a note says so. Leaves out files: see
``checkpoint``.

``NAMES`` holds
    prefix      what a folder of the bare model, without heads, leaves out of its names
    weights     our name -> their name, or a tuple of them: our matrix is theirs, one below the
                other; ``{i}`` stands for the number of a layer
    transposed  our names of the matrices that they keep as (in, out)
    optional    what may be missing as a whole: its description -> pattern of our names
    copies      their second names of tied weights -> the name that counts
    ignored     patterns of their names that hold no weight
    renamed     patterns in the spelling of old versions -> today's
"""

import dataclasses
import re
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from minicpt import discovery, models
from minicpt.errors import InputError

SHOWN = 5  # names in an error message


def build(config: dict[str, Any], **changes) -> nn.Module:
    """A model, initialised at random, from the content of a config.json.

    ``changes`` replace values of our config that no weight depends on, such as dropout.
    Raises InputError for a model type, or a variant of one, that is not implemented.
    """
    families = {module.MODEL_TYPE: module for module in discovery.modules(models).values()}
    found = config.get("model_type")
    if found not in families:
        raise InputError(
            f"config.json: model_type {found!r} is not implemented: use one of "
            + ", ".join(sorted(families))
        )
    family = families[found]
    try:
        ours = family.from_foreign(config)
    except TypeError as error:  # a null or a text where a number belongs
        raise InputError(f"config.json: a value is not of the right type: {error}") from None
    return family.Model(dataclasses.replace(ours, **changes))


def export_config(model: nn.Module) -> dict[str, Any]:
    """The content of config.json. The ids of the tokenizer's tokens are the caller's to fill in."""
    return _family(model).to_foreign(model.config)


def export_state(model: nn.Module) -> dict[str, Tensor]:
    """Every weight under its foreign name, tied ones once, as contiguous copies on the CPU."""
    state = {}
    for parameter, names, transposed in _rows(model).values():
        parts = parameter.detach().chunk(len(names))
        for name, part in zip(names, parts, strict=True):
            part = part.t() if transposed else part
            state[name] = part.clone(memory_format=torch.contiguous_format).cpu()
    return state


def import_state(model: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """Copy a foreign state into the model; return one note for each part that it lacks.

    Nothing is copied unless everything fits. Raises InputError that names missing, left-over and
    misshapen tensors.
    """
    table = _family(model).NAMES
    rows = _rows(model)
    wanted = {name for _, names, _ in rows.values() for name in names}
    tensors = _canonical(tensors, table, wanted)

    absent = {
        ours for ours, (_, names, _) in rows.items() if not any(name in tensors for name in names)
    }
    notes = []
    for part, pattern in table["optional"].items():
        whole = {ours for ours in rows if re.fullmatch(pattern, ours)}
        if whole and whole <= absent:
            notes.append(f"{part} is not in the folder: initialised at random")
            rows = {ours: row for ours, row in rows.items() if ours not in whole}

    wanted = {name for _, names, _ in rows.values() for name in names}
    _refuse("missing", wanted - tensors.keys())
    _refuse("left over", tensors.keys() - wanted)
    values, misshapen = {}, []
    for ours, (parameter, names, transposed) in rows.items():
        parts = [tensors[name].t() if transposed else tensors[name] for name in names]
        shape = (parameter.size(0) // len(names), *parameter.shape[1:])
        for name, part in zip(names, parts, strict=True):
            if part.shape != shape:
                need = shape[::-1] if transposed else shape
                misshapen.append(f"{name} {tuple(tensors[name].shape)} instead of {tuple(need)}")
        values[ours] = parts
    _refuse("misshapen", misshapen)
    with torch.no_grad():
        for ours, parts in values.items():
            rows[ours][0].copy_(torch.cat(parts))
    return notes


def _family(model: nn.Module) -> ModuleType:
    for module in discovery.modules(models).values():
        if isinstance(model, module.Model):
            return module
    raise InputError(f"{type(model).__name__} has no table of names: put it into minicpt.models")


def _rows(model: nn.Module) -> dict[str, tuple[nn.Parameter, tuple[str, ...], bool]]:
    """Our name -> the parameter, its foreign names, and whether they hold it transposed."""
    table = _family(model).NAMES
    rows = {}
    for ours, parameter in model.named_parameters():  # a tied parameter comes once
        number = re.search(r"\.(\d+)\.", ours)
        template = re.sub(r"\.\d+\.", ".{i}.", ours)
        names = table["weights"][template]
        names = (names,) if isinstance(names, str) else names
        names = tuple(name.format(i=number and number[1]) for name in names)
        rows[ours] = (parameter, names, template in table["transposed"])
    return rows


def _canonical(
    tensors: dict[str, Tensor], table: dict[str, Any], wanted: set[str]
) -> dict[str, Tensor]:
    """The same tensors in today's spelling, with the prefix, without copies and ignored ones."""
    prefix = table["prefix"]
    bare = not any(name.startswith(prefix) for name in tensors)
    state = {}
    for name, tensor in tensors.items():
        for pattern, spelling in table["renamed"].items():
            name = re.sub(pattern, spelling, name)
        state[prefix + name if bare else name] = tensor
    state = {
        name: tensor
        for name, tensor in state.items()
        if name in wanted or not any(re.fullmatch(pattern, name) for pattern in table["ignored"])
    }
    for copy, original in table["copies"].items():
        if copy in wanted or copy not in state:
            continue
        tensor = state.pop(copy)
        if not torch.equal(state.setdefault(original, tensor), tensor):
            raise InputError(
                f"{copy} differs from {original}: the two are one weight in this architecture, so "
                "the folder holds another one"
            )
    return state


def _refuse(problem: str, names: set[str] | list[str]) -> None:
    """Raise InputError that names the first few, if there are any."""
    if not names:
        return
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    raise InputError(
        f"the weights do not belong to this config: {problem}: "
        + ", ".join(sorted(names)[:SHOWN])
        + more
    )
