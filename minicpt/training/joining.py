"""How a process joins the others that torchrun has started, and how it ends.

The first process that fails says so in one line. The others, which lose it, end without a word. So
one message reaches the user, whatever went wrong and wherever; torchrun adds its own report.
"""

import contextlib
import datetime
import os
import signal
import sys
import time
from collections.abc import Iterator

import torch

from minicpt.common.errors import InputError, WorkError
from minicpt.training.distributed import ALONE, Processes, World, worlds

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what it sets
LINGER = 1.0  # seconds by which the others end later: torchrun names the first that ends
PATIENCE = datetime.timedelta(days=1)  # one tokenises, the others wait; a lost one is noticed


def launched() -> bool:
    """Whether torchrun, or what does the same, has started this process."""
    return all(name in os.environ for name in LAUNCHER)


@contextlib.contextmanager
def joined(patience: datetime.timedelta = PATIENCE) -> Iterator[World]:
    """The world that torchrun has made; ``ALONE`` where it has not.

    Only the first process prints. Of those that fail, only the first to fail does.
    """
    if not launched():
        yield ALONE
        return
    speaks = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        store = None
        try:
            store = start(patience)
            ranks = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
            worlds.append(world := Processes(*ranks))
            if not world.is_first:
                sys.stdout = sys.stderr = nowhere
            yield world
            world.barrier()  # who is done waits for the others
            torch.distributed.destroy_process_group()
        except BaseException as error:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # torchrun ends all; this one ends already
            alone = told_first(store)
            sys.stdout, sys.stderr = speaks if alone else (open(os.devnull, "w"),) * 2
            if not alone:
                time.sleep(LINGER)
            # torchrun's SIGTERM may come while the loss of the other is still on its way here.
            first = error.__context__ if isinstance(error, KeyboardInterrupt) else error
            if is_lost(first):
                raise WorkError(
                    "another process of this run has ended, perhaps killed; what was saved is"
                    " whole: go on with minicpt resume"
                ) from None
            raise
        finally:
            worlds[1:] = []
        sys.stdout, sys.stderr = speaks


def start(patience: datetime.timedelta):
    """Joins the other processes; the store that all of them share."""
    have = torch.distributed
    if not have.is_available() or not have.is_gloo_available():
        raise InputError("this torch has no gloo, which several processes need; install another")
    accelerator = "gloo"
    several = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if have.is_nccl_available() and several <= torch.cuda.device_count():
        accelerator = "nccl"
    kinds = f"cpu:gloo,cuda:{accelerator}" if torch.cuda.is_available() else "gloo"
    have.init_process_group(kinds, timeout=patience)
    return have.distributed_c10d._get_default_store()


def told_first(store) -> bool:
    """Whether no other process has said before why the run ends."""
    try:
        return store is None or store.add("minicpt/failed", 1) == 1
    except RuntimeError:  # the store is gone, and torchrun with it
        return True


def is_lost(error: BaseException | None) -> bool:
    """Whether an error says that another process cannot be reached any more."""
    words = ("gloo", "nccl", "connection")
    told = any(word in str(error).lower() for word in words)
    return isinstance(error, torch.distributed.DistError) or type(error) is RuntimeError and told
