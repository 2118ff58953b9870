"""The mistakes that people make, each as a small patch of one piece of a sound subject.

Each has a number of its own, and the number of the known mistake that it is an example of: several
faults can be examples of one. Numbers 10 (sentinels in the wrong order) and 17 to 23 come with what
they belong to. To add one: write a function from a sound subject to a mistaken one, and name the
mistake above it.
"""

import copy
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from minicpt import checkpoint
from minicpt.batch import IGNORE, Batch, shift
from minicpt.common.randomness import generator
from minicpt.data.order import Plan
from minicpt.loss import Loss, TargetLosses, target_losses, whole_sequence_loss
from minicpt.models import bert
from minicpt.proofs.subject import Subject, small_model
from minicpt.training import evaluation
from minicpt.training.trainer import Stream


@dataclasses.dataclass(frozen=True)
class Fault:
    """A mistake, and the subject on which it is made.

    number   its own, counted from 1
    mistake  the number of the known mistake that it is an example of
    """

    name: str
    number: int
    mistake: int
    subject: str
    what: str
    make: Callable[[Subject], Subject]


FAULTS: dict[str, Fault] = {}


def fault(mistake: int, subject: str, what: str):
    """Registers a function from a sound subject to a mistaken one under its name."""

    def register(make):
        name = make.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, len(FAULTS) + 1, mistake, subject, what, make)
        return make

    return register


# --- the four places where a patch goes


class Mistaken:
    """An objective with another ``batch`` or ``plan``; all else is the real one's."""

    def __init__(self, objective, batch=None, plan=None):
        self.objective = objective
        if batch:
            self.batch = lambda passages, noise: batch(objective, passages, noise)
        if plan:
            self.plan = lambda *key: as_plan(plan(objective.plan(*key)))

    def __getattr__(self, name: str):
        return getattr(self.objective, name)


def as_plan(passages: list) -> Plan:
    rows = torch.arange(len(passages))[:, None]
    return Plan(rows, passages.__getitem__, lengths=torch.zeros(len(passages)))


def objective(subject: Subject, **changes) -> Subject:
    return dataclasses.replace(subject, objective=Mistaken(subject.objective, **changes))


def targets(subject: Subject, change: Callable[[Batch], Batch]) -> Subject:
    """The same objective, its batches changed afterwards."""
    return objective(
        subject, batch=lambda real, passages, noise: change(real.batch(passages, noise))
    )


def model(subject: Subject, forward: Callable) -> Subject:
    """The same model with another forward: ``forward(real forward, inputs) -> hidden``."""
    mistaken = subject.copy_of_model()
    real = type(mistaken)

    def patched(self, **inputs):
        return forward(lambda **given: real.forward(self, **given), inputs)

    mistaken.__class__ = type("Mistaken", (real,), {"forward": patched})
    return dataclasses.replace(subject, model=mistaken)


def pattern(subject: Subject, allowed: Callable[[int], torch.Tensor]) -> Subject:
    """The decoder with another pattern of who may look at whom, (T, T) bool."""

    def forward(real, inputs):
        length = inputs["tokens"].shape[1]
        mask = inputs["mask"][:, None, :] & allowed(length)
        return real(**inputs | {"mask": mask})

    return model(subject, forward)


def ones(length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool)


# --- 1 to 4: shifts, masks, padding


@fault(1, "causal-lm", "the targets are shifted twice: each is the token after the next")
def shift_twice(subject):
    def again(batch):
        rows = [shift(row) for row in batch.targets["tokens"]]
        return Batch(batch.inputs, {"tokens": torch.stack(rows)})

    return targets(subject, again)


@fault(2, "causal-lm", "there is no causal mask")
def no_mask(subject):
    return pattern(subject, ones)


@fault(2, "causal-lm", "the causal mask is off by one: each position sees the next")
def mask_off_by_one(subject):
    return pattern(subject, lambda length: ones(length).tril(diagonal=1))


@fault(2, "causal-lm", "the mask has the wrong polarity: True hides")
def mask_polarity(subject):
    return pattern(subject, lambda length: ~ones(length).tril())


@fault(2, "reconstruction", "the decoder side has no causal mask")
def no_decoder_mask(subject):
    def forward(real, inputs):
        length = inputs["decoder_tokens"].shape[1]
        return real(**inputs | {"decoder_mask": inputs["decoder_mask"][:, None, :] & ones(length)})

    return model(subject, forward)


@fault(3, "causal-lm", "padding counts as a target")
def pad_targets(subject):
    pad = subject.tokenizer.need("pad")
    return targets(
        subject,
        lambda batch: Batch(
            batch.inputs,
            {"tokens": torch.where(batch.inputs["mask"], batch.targets["tokens"], pad)},
        ),
    )


@fault(3, "masked-lm", "positions look at padding")
def look_at_padding(subject):
    return model(subject, lambda real, inputs: real(**inputs | {"mask": None}))


@fault(4, "causal-lm", "padding is told by the end-of-text id, so the end is never a target")
def end_is_padding(subject):
    end = subject.tokenizer.need("end")

    def drop(batch):
        found = batch.targets["tokens"]
        return Batch(batch.inputs, {"tokens": torch.where(found == end, IGNORE, found)})

    return targets(subject, drop)


# --- 5 and 6: masked LM, and who owns the tensors


@fault(5, "masked-lm", "special tokens are masked too")
def mask_special(subject):
    def cover(batch):
        tokens, found = batch.inputs["tokens"].clone(), batch.targets["tokens"].clone()
        found[:, 0] = tokens[:, 0]
        tokens[:, 0] = subject.tokenizer.need("mask")
        return Batch(batch.inputs | {"tokens": tokens}, {"tokens": found})

    return targets(subject, cover)


@fault(5, "masked-lm", "padding may be chosen")
def mask_padding(subject):
    def cover(batch):
        tokens, found = batch.inputs["tokens"].clone(), batch.targets["tokens"].clone()
        padding = ~batch.inputs["mask"]
        found[padding] = tokens[padding]
        tokens[padding] = subject.tokenizer.need("mask")
        return Batch(batch.inputs | {"tokens": tokens}, {"tokens": found})

    return targets(subject, cover)


@fault(5, "masked-lm", "the loss runs over all positions, not the chosen ones")
def loss_everywhere(subject):
    def fill(batch):
        found, tokens = batch.targets["tokens"], batch.inputs["tokens"]
        every = torch.where(found == IGNORE, tokens, found)
        return Batch(batch.inputs, {"tokens": torch.where(batch.inputs["mask"], every, IGNORE)})

    return targets(subject, fill)


@fault(6, "masked-lm", "the collator masks the caller's own tensor")
def change_in_place(subject):
    def batch(real, passages, noise):
        for passage in passages:
            passage.tokens[0] = subject.tokenizer.need("mask")
        return real.batch(passages, noise)

    return objective(subject, batch=batch)


# --- 7: means of means


def step_with(divide: Callable[[Loss, list[Batch]], float]):
    """A training step whose micro-batches are each divided by ``divide(loss, batches)``."""

    def step(model, optimizer, batches, clip):
        optimizer.zero_grad()
        total = []
        for batch in batches:
            loss = sum(
                each.sum / divide(each, batches)
                for each in whole_sequence_loss(model, batch).values()
            )
            loss.backward()
            total.append(loss.detach())
        optimizer.step()
        return {"tokens": Loss(torch.stack(total).sum(), 1)}

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
    def evaluate(model, objective, corpus, batch_size):
        plan, means = objective.plan(corpus, 0, 0), []
        with torch.no_grad():
            for begin in range(0, len(plan), batch_size):
                passages = plan[begin : begin + batch_size]
                noise = [generator("evaluation", 0, begin + i) for i in range(len(passages))]
                losses = whole_sequence_loss(model, objective.batch(passages, noise))
                means.append(sum(each.mean for each in losses.values()))
        whole = Loss(torch.stack(means).sum(), len(means))
        return evaluation.Evaluation({"tokens": whole}, 0.0, 0)

    return dataclasses.replace(subject, evaluate=evaluate)


# --- 8: next sentence


@fault(8, "next-sentence", "the random second text happens to be the true next one")
def random_is_next(subject):
    def plan(pairs):
        after = {(p.first.place, len(p.first.tokens)): p.second for p in pairs if p.label == 0}
        true = next(pair for pair in pairs if pair.label == 0)
        assert after
        return [pair if pair.label == 0 else dataclasses.replace(true, label=1) for pair in pairs]

    return objective(subject, plan=plan)


@fault(8, "next-sentence", "class 0 is swallowed by ignore_index=0")
def class_zero_ignored(subject):
    def losses(model, batch):
        result = {}
        for head, each in target_losses(model, batch).items():
            kept = each.targets != 0
            parts = (each.losses, each.targets, each.rows, each.positions)
            result[head] = TargetLosses(*(part[kept] for part in parts))
        return result

    return dataclasses.replace(subject, losses=losses)


@fault(8, "next-sentence", "the labels are the other way round")
def labels_reversed(subject):
    def reverse(batch):
        found = batch.targets["pair"]
        return Batch(
            batch.inputs, batch.targets | {"pair": torch.where(found == IGNORE, found, 1 - found)}
        )

    return targets(subject, reverse)


# --- 9: what the decoder reads


def decoder_rows(subject: Subject, change: Callable) -> Subject:
    """Another ``(decoder_tokens, targets)`` for each row."""

    def rows(batch):
        read, found = change(batch.inputs["decoder_tokens"], batch.targets["tokens"])
        return Batch(batch.inputs | {"decoder_tokens": read}, {"tokens": found})

    return targets(subject, rows)


@fault(9, "reconstruction", "the decoder reads its own targets")
def decoder_reads_targets(subject):
    pad = subject.tokenizer.need("pad")
    return decoder_rows(
        subject, lambda read, found: (torch.where(found == IGNORE, pad, found), found)
    )


@fault(9, "reconstruction", "the decoder reads two start tokens")
def two_start_tokens(subject):
    return decoder_rows(
        subject, lambda read, found: (torch.cat([read[:, :1], read[:, :-1]], dim=1), found)
    )


@fault(9, "reconstruction", "the first target is dropped")
def first_target_dropped(subject):
    def drop(read, found):
        found = found.clone()
        found[:, 0] = IGNORE
        return read, found

    return decoder_rows(subject, drop)


# --- 11 to 14: packing, left padding, NaN, dropout


@fault(11, "packed causal-lm", "packed texts look at each other; only their positions restart")
def packed_together(subject):
    def forward(real, inputs):
        return real(**inputs | {"mask": ones(inputs["tokens"].shape[1]).tril()[None]})

    return model(subject, forward)


@fault(11, "packed causal-lm", "positions do not restart with each packed text")
def positions_go_on(subject):
    def count(batch):
        positions = batch.inputs["positions"]
        through = torch.arange(positions.shape[1]).expand_as(positions)
        return Batch(batch.inputs | {"positions": through}, batch.targets)

    return targets(subject, count)


@fault(12, "causal-lm", "padding on the left, and positions that count it")
def left_padding(subject):
    def left(batch):
        mask = batch.inputs["mask"]
        order = mask.long().argsort(dim=1, stable=True)  # padding first, then the text in order
        inputs = {name: value.gather(1, order) for name, value in batch.inputs.items()}
        return Batch(inputs, {"tokens": batch.targets["tokens"].gather(1, order)})

    return targets(subject, left)


@fault(13, "masked-lm", "a row that may look at nothing gives NaN")
def empty_row_is_nan(subject):
    def forward(real, inputs):
        count = inputs["mask"].sum(dim=1)  # the softmax of a row of -inf is 0/0 as well
        return real(**inputs) * (count / count)[:, None, None]

    return model(subject, forward)


@fault(13, "masked-lm", "the loss of a micro-batch without targets is NaN")
def no_targets_is_nan(subject):
    def step(model, optimizer, batches, clip):
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
        return {"tokens": Loss(torch.stack(sums).sum().detach(), total)}

    return dataclasses.replace(subject, step=step)


@fault(14, "masked-lm", "dropout is on while losses are compared")
def dropout_left_on(subject):
    noisy = subject.copy_of_model()
    noisy.__class__ = type("Mistaken", (type(noisy),), {"eval": nn.Module.train})
    return dataclasses.replace(subject, model=noisy)


@fault(14, "causal-lm", "a bidirectional model is passed off as causal")
def bidirectional(subject):
    other = small_model(bert, subject.tokenizer, subject.objective.length)
    return dataclasses.replace(subject, model=other)


# --- 15 and 16: what is saved, and going on


def resaved(folder: Path, change: Callable[[dict], dict]) -> None:
    """Writes a checkpoint's tensors again, and a manifest that holds for them."""
    weights = folder / checkpoint.WEIGHTS
    torch.save(change(torch.load(weights, weights_only=True)), weights)
    (folder / checkpoint.MANIFEST).unlink()
    checkpoint.write_manifest(folder)


@fault(15, "causal-lm", "tied weights are saved twice")
def tied_saved_twice(subject):
    def save(folder, *rest):
        subject.save(folder, *rest)
        resaved(
            folder,
            lambda found: found | {"lm_head.weight": found["transformer.wte.weight"].clone()},
        )

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
            passages, _ = super().passages(position, count)
            return passages, [generator("noise", passage.place) for passage in passages]

    return dataclasses.replace(subject, stream=Repeating)


@fault(16, "causal-lm", "every epoch repeats the order of the first")
def order_repeats(subject):
    class Repeating(Stream):
        def plan(self, epoch):
            return super().plan(0)

    return dataclasses.replace(subject, stream=Repeating)


# --- 24: how a text is cut and tokenised tells its class


def as_in_the_document(subject: Subject) -> Subject:
    """The runs of a pair are read with the tokens that they have in their document."""
    careless = copy.copy(subject.objective)
    careless.read = list
    return dataclasses.replace(subject, objective=careless)


@fault(24, "sentence order", "the space before a word stays, which the first word does not have")
def white_space_tells(subject):
    return as_in_the_document(subject)


@fault(24, "next-sentence", "a wrong second text opens a document, which a true one never does")
def openings_are_wrong(subject):
    def opening(pairs):
        firsts = itertools.cycle([pair.first for pair in pairs if pair.first.first])
        for pair in pairs:
            own = pair.first.place.rsplit(", token", 1)[0] + ", token 0"
            yield next(first for first in firsts if first.place != own)

    return other_wrong_text(as_in_the_document(subject), opening)


@fault(24, "next-sentence", "a wrong second text is one sentence, a true one fills the window")
def lengths_tell(subject):
    def shorter(pairs):
        for pair in pairs:
            starts = [*pair.second.sentences.nonzero()[1:, 0].tolist(), len(pair.second.tokens)]
            yield pair.second.part(0, starts[0])

    return other_wrong_text(subject, shorter)


def other_wrong_text(subject: Subject, seconds: Callable) -> Subject:
    """Another B for the pairs of class 1: ``seconds(pairs)`` gives one for each pair."""

    def plan(pairs):
        return [
            dataclasses.replace(pair, second=second) if pair.label else pair
            for pair, second in zip(pairs, seconds(pairs), strict=True)
        ]

    return objective(subject, plan=lambda pairs: plan(pairs[:]))
