"""Selection by a reference: the right targets stay, however a step is split, and only they count.

What should stay is found here from the losses of both models, one passage after the other.
"""

import math

import torch
from torch import Tensor

from minicpt.batch import IGNORE, Batch
from minicpt.common.randomness import generator
from minicpt.loss import TargetLosses
from minicpt.proofs.bounds import additions, gap, largest, tolerance
from minicpt.proofs.partition import update, weights
from minicpt.proofs.result import NotChecked, Proof, worse
from minicpt.proofs.subject import Subject
from minicpt.training.trainer import Learner

ORDER = 64
PASSAGES = 4
SHARE = 0.5
FAR = 0.05  # how far the reference's weights lie from the model's


def selection(subject: Subject) -> Proof:
    """The targets of some passages that stay: in company, alone, and by definition."""
    passages = subject.enough(PASSAGES)
    learner, reference = subject.learner(), other(subject)
    whole = subject.batch(passages)
    if not any(whole.counts().values()):
        raise NotChecked("needs a target; the first passages have none")
    select = subject.select(SHARE, subject.objective, reference.model, reference.parts)

    def thinned(batch: Batch) -> Batch:
        return select(learner.model, learner.parts, batch)

    together, alone = thinned(whole), [thinned(subject.batch([each])) for each in passages]
    wrong, short = [], 0.0
    for row, (passage, one) in enumerate(zip(passages, alone, strict=True)):
        batch = subject.batch([passage])
        with torch.no_grad():
            own, base = (subject.losses(each, batch) for each in (learner, reference))
        for head, target in one.targets.items():
            if not torch.equal(together.targets[head][row, : target.shape[1]], target[0]):
                wrong.append(f"{passage.place} keeps other targets alone than in company")
            stays = target[0] != IGNORE  # (T,)
            expected = budget(own[head])
            if int(stays.sum()) != expected:
                wrong.append(f"{int(stays.sum())} targets of {passage.place}, not {expected}")
            short = max(short, shortfall(own[head], base[head], stays))
    before = weights(subject.learner())
    one, *each = (update(subject, batches)[0] for batches in (alone, *([some] for some in alone)))
    size = largest(before) + max(largest(after - before) for after in each)
    apart = gap(update(subject, [together])[0], one, size)
    allowed = tolerance(additions(learner, whole))
    problems = wrong[:2]
    if not short <= allowed:
        problems.append(f"one is dropped whose excess is larger by {short:.1e} than one that stays")
    if not apart <= allowed:
        problems.append(f"passage by passage, the gradient differs by {apart:.1e}")
    worst, limit = worse([(short, allowed), (apart, allowed), (len(wrong), 0)])
    return Proof(
        name="selection",
        passed=not problems,
        compared=f"the targets of {PASSAGES} passages that stay, in company and alone, with those"
        " whose loss exceeds a reference's by most; the gradient in both splits",
        numbers={
            "targets": sum(whole.counts().values()),
            "targets that stay": sum(together.counts().values()),
            "passages with wrong targets": len(wrong),
            "by how much a dropped excess is larger": short,
            "largest difference of a gradient": apart,
        },
        why="The excess of a target depends on its own passage alone, and what is dropped becomes"
        " IGNORE before anything is counted.",
        not_covered="Whether the reference is a good one.",
        message="; ".join(problems),
        worst=worst,
        tolerance=limit,
    )


def other(subject: Subject) -> Learner:
    """The reference: a learner near the subject's own, with noise added to its weights."""
    result, draws = subject.learner().requires_grad_(False), generator("reference")
    for weight in result.parameters():
        weight += FAR * torch.randn(weight.shape, generator=draws, dtype=weight.dtype)
    return result


def budget(own: TargetLosses) -> int:
    """How many targets of a passage should stay: SHARE of those of weight 0, and of the others."""
    weighed = len(own.losses)
    return (max(1, round(SHARE * weighed)) if weighed else 0) + round(SHARE * (own.count - weighed))


def shortfall(own: TargetLosses, base: TargetLosses, stays: Tensor) -> float:
    """By how much an excess that is dropped is larger than one that stays; 0 where none is.

    stays  (T,) bool. Targets of weight 0 have no excess.
    """
    excess, kept = own.losses - base.losses, stays[own.positions]  # (N,)
    least = float(excess[kept].min()) if kept.any() else math.inf
    most = float(excess[~kept].max()) if (~kept).any() else -math.inf
    return max(0.0, most - least)
