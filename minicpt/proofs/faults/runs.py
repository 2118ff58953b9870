"""Mistakes in what is added up, trained, evaluated and saved: means of means, ties, going on."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from minicpt.batch import IGNORE, Batch
from minicpt.checkpoint import folder as checkpoint
from minicpt.common.randomness import generator
from minicpt.data.order import Draw
from minicpt.loss import Loss, whole_sequence_loss
from minicpt.proofs.faults.base import fault
from minicpt.proofs.subject import Mean
from minicpt.training.evaluation import Evaluation
from minicpt.training.stream import Stream

# --- 7: means of means


def step_with(divide: Callable[[Loss, list[Batch]], float]):
    """A training step whose micro-batches are each divided by ``divide(loss, batches)``."""

    def step(learner, optimizer, batches, *rest, **more):
        optimizer.zero_grad()
        total = []
        for batch in batches:
            loss = sum(
                each.sum / divide(each, batches)
                for each in whole_sequence_loss(learner.model, batch).values()
            )
            loss.backward()
            total.append(loss.detach())
        optimizer.step()
        return {"": {"tokens": Loss(torch.stack(total).sum(), 1)}}

    return step


@fault(7, "masked-lm", "each micro-batch is divided by its own count: a mean of means")
def mean_of_micro_batches(subject):
    step = step_with(lambda loss, batches: max(loss.count, 1) * len(batches))
    return dataclasses.replace(subject, step=step)


@fault(7, "masked-lm", "a last, partial window of micro-batches is scaled like a full one of four")
def partial_window(subject):
    step = step_with(lambda loss, batches: max(loss.count, 1) * 4)
    return dataclasses.replace(subject, step=step)


@fault(7, "causal-lm", "the evaluation averages the means of its batches")
def mean_of_evaluation_batches(subject):
    def evaluate(model, objective, corpus, batch_size, parts):
        plan, means = objective.plan(corpus, 0, 0), []
        with torch.no_grad():
            for begin in range(0, len(plan), batch_size):
                passages = plan[begin : begin + batch_size]
                draws = [Draw(i, generator("evaluation", 0, i)) for i in range(begin, len(plan))]
                batch = objective.batch(passages, draws[: len(passages)])
                losses = whole_sequence_loss(model, batch)
                means.append(sum(each.mean for each in losses.values()))
        whole = Loss(torch.stack(means).sum(), len(means))
        return Evaluation({"tokens": whole}, 0.0, 0, 0)

    return dataclasses.replace(subject, evaluate=evaluate)


# --- 8 and 13: targets that are lost


@fault(8, "next-sentence", "class 0 is swallowed by ignore_index=0")
def class_zero_ignored(subject):
    def losses(learner, batch):
        result = {}
        for head, each in subject.losses(learner, batch).items():
            kept = each.targets != 0
            names = ("losses", "targets", "rows", "positions", "weights", "hidden")
            parts = {name: getattr(each, name)[kept] for name in names}
            result[head] = dataclasses.replace(each, **parts, count=int(kept.sum()))
        return result

    return dataclasses.replace(subject, losses=losses)


@fault(13, "masked-lm", "the loss of a micro-batch without targets is NaN")
def no_targets_is_nan(subject):
    def step(learner, optimizer, batches, *rest, **more):
        model = learner.model
        optimizer.zero_grad()
        total = sum(batch.counts()["tokens"] for batch in batches)
        sums = []
        for batch in batches:
            found = batch.targets["tokens"].flatten()
            logits = model.heads["tokens"](model(**batch.inputs).flatten(0, 1))
            mean = F.cross_entropy(logits, found, ignore_index=IGNORE)  # NaN where all are ignored
            sums.append(mean * batch.counts()["tokens"])
            (sums[-1] / max(total, 1)).backward()
        optimizer.step()
        return {"": {"tokens": Loss(torch.stack(sums).sum().detach(), total)}}

    return dataclasses.replace(subject, step=step)


# --- 15 and 16: what is saved, and going on


def resaved(folder: Path, change: Callable[[dict], dict]) -> None:
    """Writes a checkpoint's tensors again, and a manifest that holds for them."""
    weights = folder / checkpoint.WEIGHTS
    torch.save(change(torch.load(weights, weights_only=True)), weights)
    (folder / checkpoint.MANIFEST).unlink()
    checkpoint.write_manifest(folder)


@fault(15, "causal-lm", "tied weights are saved twice")
def tied_saved_twice(subject):
    def save(folder, model, *rest):
        subject.save(folder, model, *rest)
        twice = {"lm_head.weight": model.heads["tokens"].weight.detach().clone()}
        resaved(folder, lambda found: found | twice)

    return dataclasses.replace(subject, save=save)


@fault(15, "causal-lm", "the tied weight is lost on the way")
def tied_lost(subject):
    def load(folder):
        found = subject.load(folder)
        nn.init.normal_(found.model.heads["tokens"].weight)
        return found

    return dataclasses.replace(subject, load=load)


@fault(15, "causal-lm", "loading unties what was tied")
def untied_by_loading(subject):
    def load(folder):
        found = subject.load(folder)
        head = found.model.heads["tokens"]
        head.weight = nn.Parameter(head.weight.detach().clone())
        return found

    return dataclasses.replace(subject, load=load)


@fault(16, "causal-lm", "a resumed run begins with the data from the start again")
def resume_repeats_data(subject):
    class FromTheStart(Stream):
        begun = None

        def passages(self, position, count):
            self.begun = position if self.begun is None else self.begun
            return super().passages(position - self.begun, count)

    return dataclasses.replace(subject, stream=FromTheStart)


@fault(16, "masked-lm", "every epoch repeats the noise of the first")
def noise_repeats(subject):
    class Repeating(Stream):
        def passages(self, position, count):
            passages, draws = super().passages(position, count)
            same = [generator("noise", passage.place) for passage in passages]
            pairs = zip(draws, same, strict=True)
            return passages, [Draw(draw.place, each) for draw, each in pairs]

    return dataclasses.replace(subject, stream=Repeating)


@fault(16, "causal-lm", "every epoch repeats the order of the first")
def order_repeats(subject):
    class Repeating(Stream):
        def plan(self, epoch):
            return super().plan(0)

    return dataclasses.replace(subject, stream=Repeating)


# --- 23: what is evaluated, and what is saved


@fault(23, "causal-lm", "a mean of weights is evaluated, and the last step's weights are saved")
def last_step_saved(subject):
    last = {}

    class Remembering(Mean):
        def at_end(self, model):
            last.update(copy.deepcopy(model.state_dict()))
            super().at_end(model)

    def save(folder, model, *rest):
        model = copy.deepcopy(model)
        model.load_state_dict(last or model.state_dict())
        subject.save(folder, model, *rest)

    return dataclasses.replace(subject, mean=Remembering, save=save)
