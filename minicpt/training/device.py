"""Where and in which precision a model runs: device, number format, compilation, threads.

The models know none of it. They make every tensor on the device of their inputs, so moving the
weights moves the model. Autocast is a context around forward and loss. ``torch.compile`` wraps the
learner, which the training step calls.

What this machine lacks is found by trying it on one number, before long work begins. Several
processes: ``distributed``.
"""

import ctypes
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.models.recomputing import recompute_layers

# Numbers of mallopt(3): M_MMAP_MAX, no mappings; M_TRIM_THRESHOLD, nothing is given back.
GLIBC = {-4: 0, -1: 2**31 - 1}
LARGE = {-3: 2**17}  # M_MMAP_THRESHOLD: from so many bytes on, memory is mapped by itself


@dataclass(frozen=True)
class Machine(Checked):
    device: str = setting("cpu", "where the model runs: cpu, cuda, cuda:1, mps", metavar="DEVICE")
    dtype: Literal["float32", "bfloat16", "auto"] = setting(
        "float32",
        "numbers of forward pass and loss; bfloat16: matrix products in 16 bits (autocast), the"
        " weights and the optimizer as before; auto: bfloat16 where the processor has instructions"
        " for it, which the run's config then says",
    )
    compile: bool = setting(
        False,
        "translate the model for the training steps (torch.compile): a minute or two at first, and"
        " no gain where it was measured, on a CPU",
    )
    checkpoint_activations: bool = setting(
        False,
        "keep of each layer its input alone, and compute it again for the backward pass: less"
        " memory, up to a third more time, the same numbers",
    )
    shard: Literal["none", "weights"] = setting(
        "none",
        "with several processes: none, each holds the model (DDP); weights, each holds a share of"
        " weights, gradients and moments (FSDP2)",
    )
    threads: int | None = setting(None, "CPU threads (default: torch's choice)", least=1, most=1024)

    @property
    def kind(self) -> str:
        """The device without its number: cpu, cuda, mps."""
        return torch.device(self.device).type

    def prepare(self, say: Callable[[str], None]) -> "Machine":
        """Readies this process; says what a user may not expect of the choice.

        Returns the machine with the number format that "auto" has become: a record of it repeats.
        Raises InputError for a device, a number format or a compiler that is not there.
        """
        chosen = replace(self, dtype="bfloat16" if self.sixteen() else "float32")
        if self.dtype == "auto":
            say(f"--dtype auto: {chosen.dtype}, since {self.device} has "
                f"{'' if self.sixteen() else 'no '}instructions for bfloat16")  # fmt: skip
        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            if self.kind != "cpu":
                self.sum_in_order()
            one = torch.ones(1, 1, device=self.device)
            with self.autocast():
                product = one @ one
            product.item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InputError(
                f"--device {self.device} cannot be used here ({reason(error)});"
                " use another one, or --device cpu"
            ) from None
        if product.dtype != getattr(torch, chosen.dtype):
            raise InputError(f"--device {self.device} has no {chosen.dtype}; use --dtype float32")
        if self.compile:
            self.check_compiler()
        if self.dtype == "bfloat16" and not self.fast_bfloat16():
            say("bfloat16 is only emulated on this machine; --dtype float32 may be faster")
        return chosen

    def sum_in_order(self) -> None:
        """Has an accelerator add in a fixed order, as the CPU does, so that a run repeats."""
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at its first product
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # it only costs time

    def check_compiler(self) -> None:
        """Compiles a sum: whatever torch.compile needs is there, or InputError says what is not."""
        try:
            torch.compile(lambda x: x + 1)(torch.zeros(1, device=self.device))
        except Exception as error:  # of the compiler, of Python's headers, of this Python's version
            raise InputError(
                f"--compile does not work here ({reason(error)}); on a CPU it needs a C++"
                " compiler and Python's headers; use --no-compile"
            ) from None

    def sixteen(self) -> bool:
        """Whether products are computed in 16 bits. By the instructions that are there, never by a
        timing: so the answer is the same tomorrow."""
        return self.dtype == "bfloat16" or self.dtype == "auto" and self.fast_bfloat16()

    def fast_bfloat16(self) -> bool:
        """Whether matrices of bfloat16 are multiplied in hardware."""
        if self.kind == "cpu":  # torch has no public question for this
            return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        if self.kind == "cuda":
            return torch.cuda.is_available() and torch.cuda.is_bf16_supported(False)
        return True

    def autocast(self) -> AbstractContextManager:
        """A context for forward and loss; backward, norm and optimizer stay outside of it."""
        return torch.autocast(self.kind, torch.bfloat16, enabled=self.sixteen())

    def compiled(self, model: nn.Module) -> nn.Module:
        """What a training step calls: the same weights, another forward where one is asked for.

        One translation serves all lengths (``dynamic``): else each new length would cost a minute,
        and which lengths come first would decide the last bits. On two CPU cores a step of GPT-2
        (width 256, 4 layers, 16 x 128) took 1.0 of the time without dropout, 1.2 to 1.3 with it.
        """
        if self.checkpoint_activations:
            recompute_layers(model)
        return torch.compile(model, dynamic=True) if self.compile else model


CPU = Machine()  # the default: float32, as written, on the CPU


def keep_freed_memory() -> bool:
    """Has the C library hand freed memory to the next tensors instead of back to the system.

    Else each large tensor is a fresh mapping, whose pages the system fills with zeros one by one at
    the first touch. Every program that uses torch pays for that, more so with larger tensors:
    benchmarks/README.md has both. Only glibc is asked; others stay as they are. The process keeps
    its highest level of memory to its end, so this is for programs whose work is training, and
    nothing in minicpt but the command calls it. Returns whether the library will do it.
    """
    told = tell_glibc(GLIBC)
    if told:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before this goes back
    return told


def return_freed_memory() -> bool:
    """The opposite, for what comes before the training: what is large leaves no hole behind.

    Holes between small things that stay are lost for larger ones. Returns and is called likewise.
    """
    return tell_glibc(LARGE)


def tell_glibc(parameters: dict[int, int]) -> bool:
    try:
        change = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return all([change(parameter, value) for parameter, value in parameters.items()])


def reason(error: Exception) -> str:
    """The first sentence of an error: some of torch's run to a page."""
    return (str(error) or type(error).__name__).strip().splitlines()[0].split(". ")[0].rstrip(".")
