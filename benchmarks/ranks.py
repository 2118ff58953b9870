"""One process of several, for ``processes.py``: what it does, and what it prints as JSON.

    python ranks.py fault KIND WORD…      minicpt WORD…, with a fault in one of the processes
    python ranks.py digest FOLDER SHARD   a run as it is resumed: hashes of weights and moments
    python ranks.py memory SHARD WIDTH LAYERS
    python ranks.py cost TURNS WIDTH LAYERS VOCABULARY

The launcher's variables (RANK, WORLD_SIZE, …) say which one it is.
"""

import faulthandler
import hashlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import torch

from minicpt.__main__ import main as minicpt
from minicpt.common.memory import field
from minicpt.models.gpt2 import GPT2
from minicpt.runs.resume import resumed
from minicpt.training.distributed import whole
from minicpt.training.joining import joined
from minicpt.training.trainer import Learner, Trainer, Training, train_step

BATCH, WINDOW, LEARNING_RATE, CLIP = 16, 128, 1e-3, 1.0
BROKEN = "this process breaks down"


# --- faults ----------------------------------------------------------------------------------


def fault(kind: str, *words: str) -> None:
    """A command in which the last process has a fault; "none": it has none.

    A full disk is that of a process that writes: with DDP it is the first one.
    """
    faulthandler.register(signal.SIGUSR1)
    writes = "weights" in words or kind != "disk"
    chosen = int(os.environ["WORLD_SIZE"]) - 1 if writes else 0
    last = int(os.environ["RANK"]) == chosen
    advance = Trainer.advance

    def breaks(trainer: Trainer):
        if trainer.step == 12:
            raise RuntimeError(BROKEN)
        return advance(trainer)

    def full(trainer: Trainer):
        if trainer.step == 12:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))
        return advance(trainer)

    if last and kind in ("exception", "disk"):
        Trainer.advance = breaks if kind == "exception" else full
    sys.argv[1:] = words
    sys.exit(minicpt())


# --- what a run holds ------------------------------------------------------------------------


def digest(folder: str, shard: str) -> None:
    """Of a run that goes on: weights and moments, each whole, and the passages that come next."""
    with joined() as world:
        changes = {"shard": shard} if "RANK" in os.environ else {}
        trainer = resumed(folder, None, changes, quiet=True).trainer
        held = dict(trainer.alone.named_parameters())
        parameters = [each for group in trainer.optimizer.param_groups for each in group["params"]]
        for number, parameter in enumerate(parameters):
            for name, value in trainer.optimizer.state[parameter].items():
                held[f"{number} {name}"] = value
        found = hashlib.sha256()
        for name in sorted(held):
            numbers = whole(held[name].detach()).contiguous().flatten().view(torch.uint8)
            found.update(name.encode() + bytes(numbers.tolist()))
        size = trainer.settings.batch_size
        passages, _ = trainer.stream.passages(trainer.step * size, size)
        places = [each.place for each in passages]
        if world.is_first:
            print(json.dumps({"sha256": found.hexdigest(), "step": trainer.step, "next": places}))


# --- what a process holds --------------------------------------------------------------------


def random_tokens(number: int, rows: int, vocabulary: int) -> torch.Tensor:
    """The rows of step ``number``, with the token behind each."""
    draws = torch.Generator().manual_seed(number)
    return torch.randint(vocabulary, (rows, WINDOW + 1), generator=draws)


def learner_of(width: int, layers: int, vocabulary: int) -> Learner:
    from minicpt.data.tokenizer import Tokenizer
    from minicpt.objectives.causal_lm import CausalLM

    torch.manual_seed(0)
    heads = max(1, width // 64)
    sizes = {"vocabulary": vocabulary, "positions": WINDOW, "width": width, "layers": layers}
    model = GPT2(GPT2.Config(**sizes, num_heads=heads, dropout=0.0))
    objective = CausalLM(Tokenizer.train([], 256), CausalLM.Settings(window=WINDOW), "decoder")
    return Learner(model, objective).train()


def ours(tokens: torch.Tensor):
    from minicpt.batch import Batch

    mask = torch.ones_like(tokens[:, :-1], dtype=torch.bool)
    return Batch({"tokens": tokens[:, :-1], "mask": mask}, {"tokens": tokens[:, 1:]})


def memory(shard: str, width: str, layers: str) -> None:
    """Bytes of weights, gradients and moments that this process holds, and its highest level."""
    from minicpt.training.optimizer import make_optimizer

    with joined() as world:
        learner = learner_of(int(width), int(layers), 4096)
        module = world.wrapped(learner, shard)
        optimizer = make_optimizer(learner, Training(learning_rate=LEARNING_RATE))
        for number in range(2):
            batch = ours(random_tokens(number * world.size + world.rank, 2, 4096))
            train_step(module, optimizer, [batch], CLIP, world=world)
        parameters = list(learner.parameters())
        kinds = {
            "weights": parameters,
            "gradients": [each.grad for each in parameters],
            "moments": [x for each in optimizer.state.values() for x in each.values() if x.dim()],
        }
        held = {
            name: sum(getattr(each, "_local_tensor", each).nbytes for each in tensors)
            for name, tensors in kinds.items()
        }
        held["highest"] = field("/proc/self/status", "VmHWM") or 0
        every = world.gathered(held)
        if world.is_first:
            print(json.dumps(every))


# --- what it costs ---------------------------------------------------------------------------


def sent() -> int:
    """Bytes that this process has written, to sockets as to files."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["wchar"])


def cost(turns: str, width: str, layers: str, vocabulary: str) -> None:
    """Steps of minicpt and of a plain DDP loop around ``transformers``, in turns.

    Each process reads BATCH / W rows of a step. Both clip, and use the fused AdamW.
    """
    import transformers

    from minicpt.training.device import keep_freed_memory
    from minicpt.training.optimizer import make_optimizer

    width, layers, vocabulary = int(width), int(layers), int(vocabulary)
    keep_freed_memory()
    with joined() as world:
        learner = learner_of(width, layers, vocabulary)
        module = world.wrapped(learner)
        optimizer = make_optimizer(learner, Training(learning_rate=LEARNING_RATE))

        def mine(number: int) -> torch.Tensor:
            return random_tokens(number, BATCH, vocabulary)[world.rank :: world.size]

        def one(number: int) -> None:
            batch = ours(mine(number))
            train_step(module, optimizer, [batch], CLIP, seed=number, world=world)

        torch.manual_seed(0)
        dropout = {name: 0.0 for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
        config = transformers.GPT2Config(
            vocab_size=vocabulary, n_positions=WINDOW, n_embd=width, n_layer=layers,
            n_head=max(1, width // 64), use_cache=False, **dropout,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config).train()
        theirs = torch.nn.parallel.DistributedDataParallel(model) if world.size > 1 else model
        adam = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

        def other(number: int) -> None:
            tokens = mine(number)
            logits = theirs(input_ids=tokens[:, :-1]).logits
            flat = logits.flatten(0, 1), tokens[:, 1:].flatten()
            torch.nn.functional.cross_entropy(*flat).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            adam.step()
            adam.zero_grad(set_to_none=True)

        found: dict[str, list] = {"minicpt": [], "plain DDP": []}
        for turn in range(int(turns) + 1):
            for name, step in zip(found, (one, other), strict=True):
                world.barrier()
                clock, cpu, bytes_ = time.perf_counter(), time.process_time(), sent()
                for number in range(4):
                    step(4 * turn + number)
                took = time.perf_counter() - clock, time.process_time() - cpu, sent() - bytes_
                if turn:  # the first warms up
                    found[name].append([each / 4 for each in took])
        every = world.gathered(found)
        if world.is_first:
            size = sum(each.numel() for each in learner.parameters())
            print(json.dumps({"weights": size, "processes": every}))


if __name__ == "__main__":
    if sys.argv[1] != "fault":
        torch.set_num_threads(1)
    {"fault": fault, "digest": digest, "memory": memory, "cost": cost}[sys.argv[1]](*sys.argv[2:])
    sys.stdout.flush()
    os._exit(0)  # as the command does: the library's threads may abort an end
