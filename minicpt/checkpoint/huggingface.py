"""Hugging Face's weights and configs <-> our models, read from the tables in ``tables/``.

One engine for all models, in both directions. What differs between models is data: one table a
model, in a file of the model's name. Every tensor of a folder must find its place and every
parameter its tensor: only a whole head may be missing, and then a note says so. A model without a
table keeps our own names, and no other tool opens its folders.

A table has ``MODEL_TYPE`` (several: with spaces between), ``to_foreign`` (from our config to
the content of config.json), ``from_foreign`` (back, as plain values), ``from_weights`` where these
tell what a config.json does not (that, as plain values), and ``NAMES``, which holds
    prefix      what a folder of the bare model, without heads, leaves out of its names
    weights     our name -> their name, or a tuple of them: our matrix is theirs, one below the
                other; ``{i}`` stands for the number of a layer
    transposed  our names of the matrices that they keep as (in, out)
    optional    the heads that may be missing: description -> parts, each a pattern of our names;
                a part is missing as a whole or not at all
    copies      their second names of tied weights -> the name that counts
    ignored     patterns of their names that hold no weight
    renamed     patterns in the spelling of old versions -> today's
"""

import dataclasses
import re
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from minicpt import models
from minicpt.checkpoint import tables
from minicpt.checkpoint.draft import Undrawn, without_memory
from minicpt.checkpoint.filling import fill
from minicpt.common import registry
from minicpt.common.errors import InputError
from minicpt.common.merging import merged_weights
from minicpt.models.layers import Model

SHOWN = 5  # names in an error message
ROOM = 64 << 20  # bytes that a file may have beside four copies of each weight in float64


def build(config: dict[str, Any], **changes) -> nn.Module:
    """A model, initialised at random, from the content of a config.json.

    ``changes`` replace values of our config that no weight depends on; ``dropout`` replaces the
    rate of every kind of dropout. Raises InputError for a model type, or a variant of one, that is
    not implemented.
    """
    kind, ours = read_config(config, **changes)
    return kind(ours)


def read_config(
    config: dict[str, Any], tensors: dict[str, Tensor] | None = None, **changes
) -> tuple[type[nn.Module], Any]:
    """The class of a config.json's model, and its Config in our terms. Raises as ``build`` does.

    tensors  the weights beside it, where they are known
    """
    of_each = {name: table.MODEL_TYPE.split() for name, table in all_tables().items()}
    families = {each: name for name, several in of_each.items() for each in several}
    found = config.get("model_type")
    if not isinstance(found, str) or found not in families:
        raise InputError(
            f"config.json: model_type {found!r:.60} is not implemented: use one of "
            + ", ".join(sorted(families))
        )
    kind, table = models.known()[families[found]], all_tables()[families[found]]
    try:
        values = table.from_foreign(config)
        if tensors is not None and hasattr(table, "from_weights"):
            values |= table.from_weights(config, tensors)
        ours = kind.Config(**values)
    except InputError as error:
        text = str(error)
        raise InputError(text if "config.json" in text else f"config.json: {text}") from None
    except TypeError as error:  # a null or a text where a number belongs
        raise InputError(f"config.json: a value is not of the right type: {error}") from None
    if "dropout" in changes:  # the kinds that have a rate of their own lose it
        kinds = [each.name for each in dataclasses.fields(ours) if each.name.endswith("_dropout")]
        changes = dict.fromkeys(kinds) | changes
    return kind, dataclasses.replace(ours, **changes)


def all_tables() -> dict[str, Any]:
    """The table of each model, by the model's name."""
    found = registry.modules(tables)
    return {name: found.get(name) or OwnNames(name, kind) for name, kind in models.known().items()}


class OwnNames:
    """The table of a model that has none: its folders hold our own names."""

    def __init__(self, name: str, kind: type[Model]) -> None:
        self.MODEL_TYPE, self.kind = f"minicpt-{name}", kind
        parts = ("weights", "transposed", "optional", "copies", "renamed")
        self.NAMES = {part: {} for part in parts} | {"prefix": "", "ignored": ()}

    def to_foreign(self, config: Any) -> dict[str, Any]:
        return {"model_type": self.MODEL_TYPE, **dataclasses.asdict(config)}

    def from_foreign(self, foreign: dict[str, Any]) -> dict[str, Any]:
        fields = {field.name for field in dataclasses.fields(self.kind.Config)}
        return {name: value for name, value in foreign.items() if name in fields}


def load(
    config: dict[str, Any], tensors: dict[str, Tensor], seed: int = 0, mapped: bool = False,
    **changes,
) -> tuple[nn.Module, list[str]]:
    """The model of a config.json with these weights, and one note for each part that they lack.

    Such a part is initialised at random from ``seed``. Nothing is allocated before every size of
    the config has been held against the weights. Raises InputError as ``build`` and
    ``import_state`` do.

    mapped  whether the weights lie in mapped files: see ``filling``
    """  # fmt: skip
    kind, ours = check(config, tensors, **changes)
    _, notes = _match(without_memory(kind, ours), tensors)
    with torch.random.fork_rng(devices=[]), nullcontext() if notes else Undrawn():
        torch.manual_seed(seed)
        model = kind(ours)
    return model, import_state(model, tensors, mapped)


def check(
    config: dict[str, Any], tensors: dict[str, Tensor], size: int | None = None, **changes
) -> tuple[type[nn.Module], Any]:
    """The class and Config of a model that these weights fit; nothing is allocated.

    Only shapes are read, so the tensors may lie on the meta device. ``size`` is the number of
    bytes that hold them on disk; more than that they cannot be. Raises InputError as ``load`` does.
    """
    kind, ours = read_config(config, tensors, **changes)
    check_layers(ours, len(tensors))
    draft = without_memory(kind, ours)
    values, _ = _match(draft, tensors)
    claimed = sum(part.numel() * part.itemsize for parts in values.values() for part in parts)
    if size is not None and claimed > size:
        raise InputError(f"the weights claim {claimed:,} bytes, and their files have {size:,}")
    return kind, ours


def check_layers(config: Any, tensors: int) -> None:
    """InputError where a config, in our terms, has more layers than there are tensors: one layer
    holds several."""
    layers = sum(getattr(config, name, 0) for name in ("layers", "decoder_layers"))
    if layers > tensors:
        raise InputError(
            f"the weights do not belong to this config: it has {layers} layers, and there are"
            f" {tensors} tensors in all"
        )


def check_size(config: dict[str, Any], size: int) -> None:
    """InputError where files of ``size`` bytes are far more than a model of this config needs."""
    draft = without_memory(*read_config(config))
    most = 4 * 8 * sum(parameter.numel() for parameter in draft.parameters()) + ROOM
    if size > most:
        raise InputError(f"the weights have {size:,} bytes; at most {most:,} belong to this config")


def export_config(model: nn.Module) -> dict[str, Any]:
    """The content of config.json. The ids of the tokenizer's tokens are the caller's to fill in."""
    return _table(model).to_foreign(model.config)


def feeding(model: nn.Module) -> dict[str, Any]:
    """How other tools feed this model: what ``Tokenizer.save`` writes into a tokenizer's files.

    From ``FED`` in the model's table, where it has one:

    inputs          the names of the inputs, as transformers calls them
    single, pair    what a text ($A) and a pair of texts ($A, $B) become: roles of special tokens
                    and, behind the colon, segments; left out: nothing stands around a text
    always          whether that counts more than what a loaded tokenizer does

    And from its config:

    most            the most tokens that the model reads at once; None: any number
    """
    usual = {"inputs": ["input_ids", "attention_mask"], "always": False}
    most = getattr(model.config, "positions", None)
    return usual | getattr(_table(model), "FED", {}) | {"most": most}


def export_state(model: nn.Module, copy: bool = True) -> dict[str, Tensor]:
    """Every weight under its foreign name, tied ones once, contiguous and on the CPU.

    copy  False: only where the layout asks for it. Others lie in the model's own memory, so that
          there is no second model: for writing them at once, not for keeping or changing them
    """
    state = {}
    for parameter, names, transposed in _rows(model).values():
        own = parameter.detach().cpu()
        alone = own.nbytes == own.untyped_storage().nbytes()  # else a file would get more than it
        for name, part in zip(names, own.chunk(len(names)), strict=True):
            part = part.t() if transposed else part
            ready = alone and part.is_contiguous() and not copy
            state[name] = part if ready else part.clone(memory_format=torch.contiguous_format)
    return state


def import_state(
    model: nn.Module, tensors: dict[str, Tensor], mapped: bool = False
) -> list[str]:
    """Copy a foreign state into the model; return one note for each part that it lacks.

    Nothing is copied unless everything fits. Raises InputError that names missing, left-over and
    misshapen tensors. ``mapped`` as in ``load``.
    """
    values, notes = _match(model, tensors)
    for ours, parts in values.items():
        fill(model.get_parameter(ours), parts, mapped)
    return notes


def _match(
    model: nn.Module, tensors: dict[str, Tensor]
) -> tuple[dict[str, list[Tensor]], list[str]]:
    """Our name -> its parts among the tensors; the notes.

    Only shapes are read of the model. Raises InputError for all that ``import_state`` refuses.
    """
    table = _table(model).NAMES
    rows = _rows(model)
    wanted = {name for _, names, _ in rows.values() for name in names}
    tensors = _canonical(tensors, table, wanted)

    absent = {
        ours for ours, (_, names, _) in rows.items() if not any(name in tensors for name in names)
    }
    notes = []
    for head, parts in table["optional"].items():
        new = []
        for part, pattern in parts.items():
            whole = {ours for ours in rows if re.fullmatch(pattern, ours)}
            if whole and whole <= absent:
                new.append(part)
                rows = {ours: row for ours, row in rows.items() if ours not in whole}
        if new:
            notes.append(_note(head, new, [part for part in parts if part not in new]))

    wanted = {name for _, names, _ in rows.values() for name in names}
    refuse("missing", wanted - tensors.keys())
    refuse("left over", tensors.keys() - wanted)
    values, misshapen = {}, []
    for ours, (parameter, names, transposed) in rows.items():
        shape = (parameter.size(0) // len(names), *parameter.shape[1:])
        need = shape[::-1] if transposed else shape
        for name in names:
            found = tensors[name]
            if found.shape != need:
                misshapen.append(f"{name} {tuple(found.shape)} instead of {tuple(need)}")
            elif not found.is_floating_point():
                misshapen.append(f"{name} of {found.dtype} instead of floating-point numbers")
        values[ours] = [tensors[name].t() if transposed else tensors[name] for name in names]
    refuse("misshapen", misshapen)
    return values, notes


def _note(head: str, new: list[str], kept: list[str]) -> str:
    """What is new in a head of which the folder lacks some parts, and what is kept of it.

    >>> _note("head 'pair'", ["classifier"], ["pooler"])
    "the classifier of head 'pair' is not in the folder: initialised at random; its pooler is kept"
    """
    if not kept:
        return f"{head} is not in the folder: initialised at random"
    return (
        f"the {' and '.join(new)} of {head} is not in the folder: initialised at random; its"
        f" {' and '.join(kept)} is kept"
    )


def _table(model: nn.Module) -> Any:
    found = all_tables().get(models.name_of(model))
    if found is None:
        raise InputError(f"{type(model).__name__} is not one of minicpt.models: put it there")
    return found


def _rows(model: nn.Module) -> dict[str, tuple[Tensor, tuple[str, ...], bool]]:
    """Our name -> the weight, its foreign names, and whether they hold it transposed."""
    table = _table(model).NAMES
    rows = {}
    for ours, parameter in merged_weights(model):
        number = re.search(r"\.(\d+)\.", ours)
        template = re.sub(r"\.\d+\.", ".{i}.", ours)
        theirs = table["weights"].get(template, template)
        theirs = (theirs,) if isinstance(theirs, str) else theirs
        theirs = tuple(name.format(i=number and number[1]) for name in theirs)
        rows[ours] = (parameter, theirs, template in table["transposed"])
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
        name = prefix + name if bare else name
        if name in state:
            raise InputError(f"the weights hold {name} twice, in an old and in today's spelling")
        state[name] = tensor
    state = {
        name: tensor
        for name, tensor in state.items()
        if name in wanted or not any(re.fullmatch(pattern, name) for pattern in table["ignored"])
    }
    for copy, original in table["copies"].items():
        if copy in wanted or copy not in state:
            continue
        tensor = state.pop(copy)
        other = state.setdefault(original, tensor)
        same = other.shape == tensor.shape if tensor.is_meta else torch.equal(other, tensor)
        if not same:
            raise InputError(
                f"{copy} differs from {original}: the two are one weight in this architecture, so "
                "the folder holds another one"
            )
    return state


def refuse(problem: str, names: set[str] | list[str]) -> None:
    """Raise InputError that names the first few, if there are any."""
    if not names:
        return
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    raise InputError(
        f"the weights do not belong to this config: {problem}: "
        + ", ".join(sorted(names)[:SHOWN])
        + more
    )
