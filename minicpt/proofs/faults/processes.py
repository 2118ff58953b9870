"""Mistakes that several processes make together: what they add up, and what they average."""

import dataclasses
from collections import Counter

from torch import distributed, nn

from minicpt.proofs.faults.base import fault
from minicpt.training.distributed import Processes, sharded
from minicpt.training.trainer import train_step

# --- 7: a mean of means across processes


@fault(
    7,
    "causal-lm",
    "each process divides by its own targets, and the processes' means are averaged",
    processes=True,
)
def mean_of_processes(subject):
    class Own(Processes):
        def added(self, counts):
            return Counter(tokens=self.size * max(1, counts["tokens"]))

    return dataclasses.replace(subject, world=Own)


# --- 22: the sum of the gradients


def reduced(factor):
    """A world in which the sum of the gradients is multiplied by ``factor(processes)``."""

    class Reducing(Processes):
        def wrapped(self, learner, shard="none"):
            if shard == "weights":
                module = sharded(learner)
                for each in module.modules():
                    if hasattr(each, "set_gradient_divide_factor"):
                        each.set_gradient_divide_factor(1 / factor(self.size))
                return module

            def exchange(state, bucket):
                work = distributed.all_reduce(bucket.buffer(), async_op=True)
                return work.get_future().then(lambda sum: sum.value()[0] * factor(self.size))

            module = nn.parallel.DistributedDataParallel(learner, find_unused_parameters=True)
            module.register_comm_hook(None, exchange)
            return module

    return Reducing


@fault(22, "masked-lm", "the processes' gradients are averaged, as DDP does it", processes=True)
def averaged_gradient(subject):
    return dataclasses.replace(subject, world=reduced(lambda processes: 1 / processes))


@fault(
    22,
    "causal-lm",
    "the gradient is counted twice: added up, and multiplied by the number of processes",
    processes=True,
)
def gradient_counted_twice(subject):
    return dataclasses.replace(subject, world=reduced(lambda processes: processes))


@fault(
    22,
    "masked-lm",
    "a process without targets leaves out the step, and the others wait for it",
    processes=True,
)
def process_left_out(subject):
    def step(learner, optimizer, batches, *rest, **more):
        if not any(sum(batch.counts().values()) for batch in batches):
            return {"": {}}
        return train_step(learner, optimizer, batches, *rest, **more)

    return dataclasses.replace(subject, step=step)
