"""Several processes make the gradient of one: DDP and FSDP2, however a step is dealt out.

``minicpt verify --processes N`` starts N processes for this proof. They read over their standard
input what to compare, make the subject anew from its name, and each takes its share of a step.

The counts of a step are added over all processes before the first backward pass, and the gradients
are added, not averaged. So a process without any target changes nothing, and one with many counts
as many. A mean of the processes' means is another number.

W processes; k micro-batches for each of them.
"""

import atexit
import datetime
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from minicpt.batch import Batch
from minicpt.proofs.bounds import additions, gap, largest, tolerance
from minicpt.proofs.result import Proof, worse
from minicpt.proofs.subject import Subject
from minicpt.training.distributed import World, whole, without_targets
from minicpt.training.joining import joined
from minicpt.training.trainer import train_step

ROUNDS = (1, 2, 4)  # micro-batches for each process
SHARDS = {"none": "DDP", "weights": "FSDP2"}
LONG, SHORT = 300.0, 5.0  # seconds that a process waits for another; one with a fault


@dataclass(frozen=True)
class Job:
    """What is compared: a subject, sound or with a fault, in one kind of sharing and numbers.

    kind   the objective's name on the command line
    model  that of the model that was asked for; "": the usual ones
    """

    subject: str
    kind: str
    fault: str = ""
    shard: str = "none"
    dtype: str = "float64"
    rounds: tuple[int, ...] = ROUNDS
    model: str = ""


def prove(subject: Subject, count: int, model: str = "") -> Proof:
    """The proof for a subject, with ``count`` processes; ``model`` as for a job."""
    jobs = [Job(subject.name, subject.kind, shard=shard, model=model) for shard in SHARDS]
    return proof(*pool(count).run(jobs), count)


def catch(fault: str, subject: Subject) -> list[Proof]:
    """The proof, if it fails on a subject with a fault, which two processes make anew."""
    jobs = [Job(subject.name, subject.kind, fault, shard, rounds=(1,)) for shard in SHARDS]
    found = proof(*pool(2).run(jobs, SHORT), 2)
    return [] if found.passed else [found]


def proof(found: Sequence[dict], error: str, count: int) -> Proof:
    """What the results of a subject's jobs say together, and what went wrong beside them."""
    pairs = [(each["worst"], each["tolerance"]) for each in found]
    worst, allowed = worse(pairs) if pairs else (None, None)
    problems = [
        f"{SHARDS[each['shard']]}, {each['place']}: a weight differs by {each['worst']:.1e}"
        for each in found
        if not each["worst"] <= each["tolerance"]
    ]
    problems += [each["loss"] for each in found if each["loss"]] + [error] * bool(error)
    return Proof(
        name="processes",
        passed=not problems,
        compared=f"a step of {count} processes with the step of one: weights and loss; DDP and"
        f" FSDP2, {' '.join(map(str, ROUNDS))} micro-batches each, one process without targets",
        numbers={f"{SHARDS[x['shard']]}, largest difference": x["worst"] for x in found},
        why="Targets are counted over all processes first, and gradients are added, not averaged.",
        not_covered="Several machines, accelerators, and number formats beside float64.",
        message="; ".join(dict.fromkeys(problems)),
        worst=worst,
        tolerance=allowed,
    )


# --- starting processes ------------------------------------------------------------------------


class Pool:
    """Processes that do jobs together, one list of them after the other."""

    def __init__(self, count: int):
        known = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"}
        known |= {"OMP_NUM_THREADS": 1, "TORCH_CPP_LOG_LEVEL": "FATAL", "MASTER_PORT": 0}
        self.children = [
            subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {name: str(value) for name, value in (known | own).items()},
            )
            for own in ({"RANK": rank, "LOCAL_RANK": rank} for rank in range(count))
        ]
        atexit.register(self.close)

    def run(self, jobs: Sequence[Job], patience: float = LONG) -> tuple[list[dict], str]:
        """The results of the jobs, and what went wrong beside them; "": nothing.

        patience  seconds that a process waits for another
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        work = {"port": port, "patience": patience, "jobs": [asdict(job) for job in jobs]}
        for each in self.children:
            print(json.dumps(work), file=each.stdin, flush=True)
        gone = json.dumps({"found": [], "error": "one was killed"})
        lines = [each.stdout.readline() or gone for each in self.children]
        told = [json.loads(line) for line in lines]
        wrong = [each["error"] for each in told if each["error"]]
        if wrong:  # they may be half in a group of processes: the next run starts new ones
            self.close()
            pool.cache_clear()
        return told[0]["found"], f"a process waits for others in vain ({wrong[0]})" if wrong else ""

    def close(self) -> None:
        for each in self.children:
            each.kill()


@functools.cache
def pool(count: int) -> Pool:
    return Pool(count)


def main() -> None:
    """One of the processes: for each line of its standard input, does the jobs in it."""
    torch.set_num_threads(1)
    out = sys.stdout
    for line in sys.stdin:
        work, found, error = json.loads(line), [], ""
        os.environ["MASTER_PORT"] = str(work["port"])
        try:
            with joined(datetime.timedelta(seconds=work["patience"])) as world:
                for job in (Job(**each) for each in work["jobs"]):
                    subject = subject_of(job.subject, job.kind, job.model, job.fault)
                    done = compared(subject, job, world)
                    found.append(asdict(job) | done)
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"[:200]
        print(json.dumps({"found": found, "error": error}), file=out, flush=True)


@functools.cache
def subject_of(name: str, kind: str, model: str, fault: str) -> Subject:
    from minicpt.proofs import faults, suite

    sound = {each.name: each for each in suite.subjects((kind,), model)}[name]
    return faults.known()[fault].make(sound) if fault else sound


# --- what each process does --------------------------------------------------------------------


def compared(subject: Subject, job: Job, world: World) -> dict:
    """How far the step of all processes lies from that of one, at worst; and where."""
    dtype = getattr(torch, job.dtype)
    world = subject.world(world.rank, world.size, world.local)
    worst, place, loss, allowed = 0.0, "", "", 0.0
    for rounds in job.rounds:
        for silent in (False, True):
            batches = micro_batches(subject, rounds * world.size, world.size, silent)
            alone, before, expected = updated(subject, batches, dtype, train_step)
            mine = batches[world.rank :: world.size]
            after, _, found = updated(subject, mine, dtype, subject.step, world, job.shard)
            # What is added: the gradients of the micro-batches, which may cancel, and the weights.
            size = largest(before) + sum(
                largest(updated(subject, [each], dtype, train_step)[0] - before)
                for each in batches[:2]
            )
            rows = sum(len(next(iter(each.inputs.values()))) for each in batches)
            longest = max(batches, key=lambda x: next(iter(x.inputs.values())).shape[1])
            allowed = max(allowed, tolerance(additions(subject.learner(), longest, rows), dtype))
            here = f"micro-batches each: {rounds}" + ", one process without targets" * silent
            if (apart := gap(alone, after, size)) >= worst:
                worst, place = apart, here
            if not gap(expected, found, largest(expected)) <= allowed:
                loss = f"{here}: the step's own loss is {found.item():g}, not {expected.item():g}"
    return {"worst": worst, "place": place, "tolerance": allowed, "loss": loss}


def micro_batches(subject: Subject, count: int, processes: int, silent: bool) -> list[Batch]:
    """Those of a step, of one and of two passages in turns, so that targets are uneven.

    silent  whether the last process finds no target
    """
    passages = subject.passages(8)
    batches = []
    for number in range(count):
        some = [passages[(number + more) % len(passages)] for more in range(1 + number % 2)]
        batch = subject.batch(some)
        mute = silent and number % processes == processes - 1
        batches.append(without_targets(batch) if mute else batch)
    return batches


def updated(subject, batches, dtype, step, world=None, shard="none"):
    """The weights after a step of plain gradient descent and before it, and the step's loss."""
    learner = subject.learner().to(dtype)
    module = world.wrapped(learner, shard) if world else learner
    # A weight that no process uses has no gradient; it is compared as well.
    before = weights(learner)
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    more = {"world": world} if world else {}
    factors = subject.objective.head_weights
    found = step(module, optimizer, batches, 0.0, head_weights=factors, **more)
    loss = sum(each.mean.double() for each in found[""].values())
    return weights(learner), before, loss


def weights(learner: torch.nn.Module) -> torch.Tensor:
    """All of them in one row, whoever holds them."""
    return torch.cat([whole(each.detach()).flatten() for each in learner.parameters()])
