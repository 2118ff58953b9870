"""A model that is not ours, borrowed: run as it is, and given back as it was.

``BlackBox`` works on a copy where one can be made. Else it works on the model itself, and puts its
weights, buffers, gradients and modes back at the end. Functions are read for the modules they use.

Leaves out all judgement: see ``verdict``.

B batch, T positions, V vocabulary.
"""

import copy
import functools
import inspect
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.proofs.black_box.loading import one_line
from minicpt.proofs.tracing import Tracer

JITTER = 1e-3  # how far parameters are moved, relative to themselves


class BlackBox:
    """A callable from ids (B, T) to logits (B, T, V).

    Use it inside ``with box.borrowed():``, which is also what puts everything back.
    """

    def __init__(self, model: Any) -> None:
        model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper: what it wraps
        self.model, self.copied = model, False
        if not (inspect.isroutine(model) or isinstance(model, functools.partial)):
            try:
                self.model, self.copied = copy.deepcopy(model), True
            except Exception:  # some hold what cannot be copied: then it is put back instead
                pass
        self.modules = modules_behind(self.model)
        self.parameters = parameters_of(self.modules)
        self.device = self.parameters[0].device if self.parameters else torch.device("cpu")
        self.extra = {"use_cache": False} if takes_cache(self.model) else {}
        self.default = torch.get_default_dtype()
        self.coarsest, self.fourier = 0.0, False  # of the last run: see Tracer
        self.buffers: list[tuple[Tensor, Tensor]] = []

    @contextmanager
    def borrowed(self) -> Iterator["BlackBox"]:
        """Whatever is not ours is afterwards as it was: weights, modes, random state."""
        devices = [self.device] if self.device.type == "cuda" else []
        state, default = random.getstate(), torch.get_default_dtype()
        numpy = numpy_random()
        numpy_state = numpy.get_state() if numpy else None
        saved = None if self.copied else Saved(self.modules)
        with torch.random.fork_rng(devices):
            try:
                yield self
            finally:
                random.setstate(state)
                if numpy:
                    numpy.set_state(numpy_state)
                torch.set_default_dtype(default)
                if saved:
                    saved.restore()

    def set_mode(self, training: bool) -> None:
        for module in self.modules:
            module.train(training)
        self.buffers = [(b, b.clone()) for m in self.modules for b in m.buffers()]

    def set_precision(self, dtype: torch.dtype, default: torch.dtype) -> None:
        """All floating-point weights as ``dtype``; tensors made on the way are of ``default``."""
        for module in self.modules:
            # Module.to(dtype) would take complex weights for real ones.
            module._apply(lambda each: each.to(dtype) if each.is_floating_point() else each)
        self.default = default
        self.parameters = parameters_of(self.modules)

    def wake(self) -> int:
        """Small random values where a trainable parameter is zero throughout: how many were.

        A projection that training starts from zero hides whatever stands before it, leaks as well.
        """
        woken = 0
        for place, parameter in enumerate(self.parameters):
            if parameter.requires_grad and parameter.is_floating_point() and not parameter.any():
                noise = torch.randn(parameter.shape, generator=generator("wake", place))
                parameter.data.copy_(0.02 * noise)
                woken += 1
        return woken

    @contextmanager
    def jittered(self, key: int) -> Iterator[None]:
        """Every parameter moved by about a thousandth of itself."""
        moving = [p for p in self.parameters if p.is_floating_point()]
        saved = [p.data.clone() for p in moving]
        try:
            for place, parameter in enumerate(moving):
                noise = torch.randn(parameter.shape, generator=generator("jitter", key, place))
                parameter.data.mul_((1 + JITTER * noise).to(parameter))
            yield
        finally:
            for parameter, before in zip(moving, saved, strict=True):
                parameter.data.copy_(before)

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, T, V). The same tokens give the same logits: same seed, same buffers, no dropout.

        Raises InputError for another shape, and whatever the model raises.
        """
        with torch.no_grad():
            for buffer, before in self.buffers:
                if not torch.equal(buffer, before):  # a graph may still need it as it is
                    buffer.copy_(before)
        # Not torch.manual_seed, which takes half a millisecond.
        torch.default_generator.manual_seed(0)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(0)
        random.seed(0)
        if numpy := numpy_random():
            numpy.seed(0)
        default = torch.get_default_dtype()
        torch.set_default_dtype(self.default)
        try:
            with Tracer() as tracer:
                output = self.model(tokens, **self.extra)
        finally:
            torch.set_default_dtype(default)
        self.coarsest, self.fourier = tracer.coarsest, tracer.fourier
        logits = logits_of(output)
        if logits is None or logits.dim() != 3 or logits.shape[:2] != tokens.shape:
            found = "no tensor" if logits is None else f"shape {tuple(logits.shape)}"
            raise InputError(
                f"the model gives {found} for token ids of shape {tuple(tokens.shape)}: it must "
                "give logits (B, T, V), or an object with .logits"
            )
        return logits


    def refusal(self, rows: int, length: int) -> str:
        """Why the model does not take rows of this length, "" where it does."""
        try:
            with torch.no_grad():
                self.logits(torch.ones(rows, length, dtype=torch.int64, device=self.device))
        except Exception as error:
            return one_line(error)
        return ""


class Saved:
    """Weights, buffers, gradients and modes of modules, to be put back."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.every = [each for module in modules for each in module.modules()]
        self.modes = [each.training for each in self.every]
        self.parameters = [
            (p, p.data, p.data.clone(), p.grad) for module in modules for p in module.parameters()
        ]
        self.buffers = [
            (each, name, buffer, buffer.clone())
            for each in self.every
            for name, buffer in each._buffers.items()
            if buffer is not None
        ]
        for parameter, *_ in self.parameters:
            parameter.grad = None

    def restore(self) -> None:
        with torch.no_grad():
            for parameter, data, values, gradient in self.parameters:
                parameter.data = data.copy_(values)
                parameter.grad = gradient
            for module, name, buffer, values in self.buffers:
                module._buffers[name] = buffer.copy_(values)
        for module, mode in zip(self.every, self.modes, strict=True):
            module.training = mode


def numpy_random() -> Any:
    """numpy.random where somebody has imported numpy, else None: nothing here needs it."""
    return getattr(sys.modules.get("numpy"), "random", None)


def parameters_of(modules: list[nn.Module]) -> list[nn.Parameter]:
    """Each parameter once, however often it is tied."""
    return list({id(p): p for module in modules for p in module.parameters()}.values())


def logits_of(output: Any) -> Tensor | None:
    """The logits of what a model gives: itself, ``.logits``, ["logits"], or the first of several.

    >>> logits_of((torch.zeros(1, 2, 3), None)).shape
    torch.Size([1, 2, 3])
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict) and "logits" in output:
        return output["logits"]
    if hasattr(output, "logits"):
        return output.logits if isinstance(output.logits, Tensor) else None
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def takes_cache(model: Any) -> bool:
    """Whether ``use_cache=False`` may be said: it is named, or a transformers model has it."""
    call = model.forward if isinstance(model, nn.Module) else model
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return False
    if any(each.name == "use_cache" for each in parameters):
        return True
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    return takes_any and hasattr(getattr(model, "config", None), "use_cache")


def modules_behind(model: Any, depth: int = 3) -> list[nn.Module]:
    """The modules that a callable is, holds, or refers to; none inside another one."""
    if isinstance(model, nn.Module):
        return [model]
    if depth == 0 or inspect.isclass(model) or inspect.ismodule(model):
        return []
    if isinstance(model, functools.partial):
        held = [model.func, *model.args, *model.keywords.values()]
    elif inspect.ismethod(model):
        held = [model.__self__, *modules_behind(model.__func__, depth - 1)]
    elif inspect.isfunction(model):
        try:
            names = inspect.getclosurevars(model)
        except ValueError:  # a name that has no value yet
            return []
        held = [*names.nonlocals.values(), *names.globals.values()]
    elif isinstance(model, list | tuple):
        held = list(model)
    elif isinstance(model, dict):
        held = list(model.values())
    else:
        held = list(getattr(model, "__dict__", {}).values())
    found = [module for each in held for module in modules_behind(each, depth - 1)]
    inner = {id(part) for module in found for part in module.modules() if part is not module}
    return [m for m in {id(m): m for m in found}.values() if id(m) not in inner]
