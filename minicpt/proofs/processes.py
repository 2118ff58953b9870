"""Several processes make the gradient of one: DDP and FSDP2, however a step is dealt out.

``minicpt verify --processes N`` starts N processes for this proof. Each of them makes the subjects
anew from their names, takes its share of a step, and reports over its standard output.

The counts of a step are added over all processes before the first backward pass, and the gradients
are added, not averaged. So a process without any target changes nothing, and one with many counts
as many. A mean of the processes' means is another number.

W processes; k micro-batches for each of them.
"""

import datetime
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
from minicpt.proofs.result import NotChecked, Proof, worse
from minicpt.proofs.subject import Subject
from minicpt.training.distributed import World, joined, whole, without_targets
from minicpt.training.trainer import train_step

ROUNDS = (1, 2, 4)  # micro-batches for each process
SHARDS = {"none": "DDP", "weights": "FSDP2"}
LIMIT = 600  # seconds that the processes have for everything


@dataclass(frozen=True)
class Job:
    """What is compared: a subject, sound or with a fault, in one kind of sharing and numbers."""

    subject: str
    fault: str = ""
    shard: str = "none"
    dtype: str = "float64"
    rounds: tuple[int, ...] = ROUNDS


def prove(names: Sequence[str], count: int) -> dict[str, Proof]:
    """The proof for each of these subjects, with ``count`` processes started once for all."""
    jobs = [Job(name, shard=shard) for name in names for shard in SHARDS]
    found, error = run(jobs, count)
    return {
        name: proof([each for each in found if each["subject"] == name], count, error)
        for name in names
    }


def proof(found: Sequence[dict], count: int, error: str = "") -> Proof:
    """What the results of a subject's jobs say together."""
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


def run(jobs: Sequence[Job], count: int, patience: float = LIMIT) -> tuple[list[dict], str]:
    """The results of the jobs, and what went wrong beside them; "": nothing.

    patience  seconds that a process waits for another
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    common |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1, "TORCH_CPP_LOG_LEVEL": "FATAL"}
    words = [sys.executable, "-m", "minicpt.proofs.processes", str(patience)]
    started = [
        subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {n: str(v) for n, v in (common | ranks).items()},
        )
        for ranks in ({"RANK": rank, "LOCAL_RANK": rank} for rank in range(count))
    ]
    plan = json.dumps([asdict(job) for job in jobs])
    try:
        for each in started:
            each.stdin.write(plan)
            each.stdin.close()
            each.stdin = None
        told = [each.communicate(timeout=LIMIT) for each in started]
    except subprocess.TimeoutExpired:
        return [], f"the processes did not end within {LIMIT} seconds"
    finally:
        for each in started:
            each.kill()
    found = [json.loads(line) for line in told[0][0].splitlines()]
    if any(each.returncode for each in started):
        said = [line for _, errors in told for line in errors.strip().splitlines()[-1:]]
        return found, f"a process failed: {(said or ['without a word'])[0]:.200}"
    return found, ""


def main() -> None:
    """One of the processes: does the jobs that stand on its standard input."""
    from minicpt.proofs import faults, suite

    patience = datetime.timedelta(seconds=float(sys.argv[1]))
    jobs = [Job(**job) for job in json.load(sys.stdin)]
    torch.set_num_threads(1)
    made: dict[tuple[str, str], Subject] = {}
    with joined(patience) as world:
        known = {each.name: each for each in suite.subjects()}
        for job in jobs:
            key = job.subject, job.fault
            if key not in made:
                sound = known[job.subject]
                made[key] = faults.known()[job.fault].make(sound) if job.fault else sound
            found = compared(made[key], job, world)
            print(json.dumps(asdict(job) | found), flush=True)


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
                for each in batches[:4]
            )
            rows = sum(len(next(iter(each.inputs.values()))) for each in batches)
            longest = max(batches, key=lambda x: next(iter(x.inputs.values())).shape[1])
            allowed = max(allowed, tolerance(additions(subject.learner(), longest, rows), dtype))
            here = f"{rounds} micro-batches each" + ", one process without targets" * silent
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
    if len(passages) < 2:
        raise NotChecked("needs two passages")
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


if __name__ == "__main__":
    main()
