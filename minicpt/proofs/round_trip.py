"""Save, load, go on: the same weights, ties, data position and losses, and what was evaluated.

The run ends with a mean of weights, as with the remedies that end so: that is what must be saved.
"""

import tempfile
from pathlib import Path

import torch

from minicpt.checkpoint.folder import WEIGHTS
from minicpt.proofs.result import Proof
from minicpt.proofs.subject import Subject
from minicpt.runs.assembly import make_trainer
from minicpt.training.resuming import state_of
from minicpt.training.trainer import Trainer, Training

ORDER = 90
TRAINS = True
STEPS, STOP = 6, 3


def round_trip(subject: Subject) -> Proof:
    """A short run, and the same run stopped, saved, loaded and gone on with."""
    settings = Training(batch_size=5, micro_batch_size=3, learning_rate=1e-2)
    problems = []
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        whole = trainer(subject, subject.learner().model.float(), settings)
        places = seen(whole)
        state = None
        for step in whole.run():
            if step.number == STOP:
                path = Path(folder, "checkpoint")
                record = {"fused": True}
                subject.save(path, whole.model, subject.tokenizer, record, state_of(whole))
                state = {name: value.clone() for name, value in whole.model.state_dict().items()}
        torch.manual_seed(1)  # another process
        loaded = subject.load(path)
        problems += different(state, loaded.model.state_dict(), "after loading")
        problems += untied(whole.model, loaded.model)
        names = list(torch.load(path / WEIGHTS, weights_only=True))
        parameters = list(whole.model.parameters())
        if parts(path) != sum(parameter.numel() for parameter in parameters):
            problems.append(f"the file of {len(names)} tensors does not hold each weight once")
        if not problems:
            resumed = trainer(subject, loaded.model, settings, loaded.state())
            more = seen(resumed)
            for _ in resumed.run():
                pass
            if places[STOP * settings.batch_size :] != more:
                problems.append("after resuming, other passages are read than without the stop")
            for of in (lambda trainer: trainer.model, lambda trainer: trainer.parts):
                end = of(whole).state_dict(), of(resumed).state_dict()
                problems += different(*end, "at the end")
            problems += other_than_evaluated(subject, resumed, Path(folder, "end"))
    return Proof(
        name="round trip",
        passed=not problems,
        compared=f"{STEPS} steps with {STOP}, then saved, loaded and resumed to the same end; there"
        " the loss of a mean of weights, evaluated before it was saved and after it was loaded",
        numbers={"steps": STEPS, "tensors in the file": len(names)},
        why="All that a step depends on is in the checkpoint: weights, optimizer, and the number of"
        " steps, from which data, noise and dropout follow.",
        not_covered="Another machine, another number of threads, a kill while saving.",
        message="; ".join(problems[:2]),
        worst=len(problems),
        tolerance=0,
    )


def trainer(subject: Subject, model, settings: Training, state: dict | None = None) -> Trainer:
    given = subject.objective, subject.corpus, settings, STEPS
    result = make_trainer(model, *given, chosen=[subject.mean()], state=state)
    result.stream = subject.stream(subject.objective, subject.corpus, settings.seed)
    return result


def seen(trainer: Trainer) -> list[str]:
    """The places of the passages, filled in as the trainer reads them."""
    places, passages = [], trainer.stream.passages

    def recorded(position, count):
        found = passages(position, count)
        places.extend(passage.place for passage in found[0])
        return found

    trainer.stream.passages = recorded
    return places


def other_than_evaluated(subject: Subject, ended: Trainer, path: Path) -> list[str]:
    """A run's end is evaluated, then saved: the model in the folder must have the same losses."""

    def evaluated(model) -> dict[str, float]:
        found = subject.evaluate(model, subject.objective, subject.corpus, 8, parts=ended.parts)
        return {head: float(loss.sum) for head, loss in found.losses.items()}

    said = evaluated(ended.model)
    subject.save(path, ended.model, subject.tokenizer, {"fused": True}, state_of(ended))
    kept = evaluated(subject.load(path).model)
    return [
        f"the {head} loss of what is saved at the end is {kept[head]:.6f}, not {value:.6f} as was"
        " evaluated"
        for head, value in said.items()
        if kept[head] != value
    ]


def different(expected: dict, found: dict, when: str) -> list[str]:
    for name, value in expected.items():
        if name not in found or not torch.equal(value, found[name].to(value.dtype)):
            return [f"{name} differs {when}"]
    return []


def untied(expected, found) -> list[str]:
    """Weights that are one parameter must stay one."""
    counts = [len(list(model.parameters())) for model in (expected, found)]
    if counts[0] != counts[1]:
        return [f"{counts[0]} parameters became {counts[1]}: a tie was lost or made"]
    return []


def parts(path: Path) -> int:
    tensors = torch.load(path / WEIGHTS, weights_only=True)
    return sum(tensor.numel() for tensor in tensors.values())
