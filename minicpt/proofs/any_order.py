"""The bound of masked diffusion is the mean loss over all orders in which a text can be written.

A model that fills masked tokens can write L tokens in L! orders, one after the other. Take the loss
of each order, and their mean. A token that is written when l are still masked has seen the other
L - l. So the same mean is a sum over all subsets of the text: each subset of l masked tokens costs
the losses of its tokens, times 1 / (l C(L, l)). That is what the estimator draws from: l is uniform
in 1..L, the subset is uniform among the C(L, l), and the weight is L / l.

By Jensen's inequality the mean of the losses is no less than the loss of the mean probability. So
it bounds the loss of the text (Ou et al. 2024, arXiv 2406.03736; LLaDA, arXiv 2502.09992).
"""

import itertools
import math

import torch
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch
from minicpt.common.randomness import generator
from minicpt.data.order import Draw
from minicpt.proofs import rules
from minicpt.proofs.bounds import additions, gap, tolerance
from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.subject import Subject

ORDER = 75
LENGTH = 3  # tokens of the text: 7 subsets, 6 orders
DRAWS = 500  # of the estimator, among which each subset comes up


def any_order(subject: Subject) -> Proof | list[Proof]:
    """The estimator's exact mean on a short text against all orders, written one token at a time.

    Says nothing of objectives whose ``likelihood`` is no bound.
    """
    if subject.objective.likelihood != "bound":
        return []
    long = [each for each in subject.passages(DRAWS) if len(each.tokens) >= LENGTH]
    if not long:
        raise NotChecked(f"needs a passage of {LENGTH} tokens")
    passage = long[0].part(0, LENGTH)
    batches = subsets(subject, passage)
    learner, whole = subject.learner(), next(each for each in batches if hidden(each) == LENGTH)
    if len(batches) != 2**LENGTH - 1:
        raise NotChecked(f"{DRAWS} draws gave {len(batches)} of {2**LENGTH - 1} subsets")
    with torch.no_grad():
        estimate = sum(
            float(subject.losses(learner, each)["tokens"].total().mean)
            / (LENGTH * math.comb(LENGTH, hidden(each)))  # how probable this subset is
            for each in batches
        )
        orders = [
            written(subject, learner.model, whole, order)
            for order in itertools.permutations(range(LENGTH))
        ]
    exact = sum(orders) / len(orders) / LENGTH
    allowed = tolerance(additions(learner, whole, len(orders) * LENGTH))
    pair = torch.tensor([estimate, exact], dtype=torch.float64)
    apart = gap(pair[0], pair[1], exact)
    return Proof(
        name="any order",
        passed=apart <= allowed,
        compared=f"the estimator's mean over all {len(batches)} subsets of {LENGTH} tokens with the"
        f" mean loss over all {len(orders)} orders in which they can be written",
        numbers={"by subsets": estimate, "by orders": exact, "losses of the orders": orders},
        why="In a random order, the tokens that are still to be written are a random subset.",
        not_covered="Longer texts; how far the bound lies above the likelihood.",
        message="" if apart <= allowed else f"{estimate:.6f} nats a token, not {exact:.6f}",
        worst=apart,
        tolerance=allowed,
    )


def hidden(batch: Batch) -> int:
    """How many tokens of the one row are hidden."""
    return int((batch.weights["tokens"] > 0).sum())


def subsets(subject: Subject, passage) -> list[Batch]:
    """The estimator's batches of one passage, one for each subset that is hidden."""
    found = {}
    for number in range(DRAWS):
        draw = Draw(0, generator("any order", number))
        batch = subject.objective.likelihood_batch([passage], [draw])
        found[tuple(batch.inputs["tokens"][0].tolist())] = batch
    return list(found.values())


def written(subject: Subject, model: nn.Module, batch: Batch, order: tuple[int, ...]) -> float:
    """The loss in nats of writing the masked tokens of the one row in an order."""
    inputs = {name: value.clone() for name, value in batch.inputs.items()}
    target = batch.targets["tokens"][0]
    gaps = (inputs["tokens"][0] == subject.tokenizer.need("mask")).nonzero()[:, 0]
    places = (target != IGNORE).nonzero()[:, 0]  # where each of them is predicted
    total = 0.0
    for number in order:
        logits = model.heads["tokens"](model(**inputs)[0, places[number]][None])[0]
        token = int(target[places[number]])
        total -= float(log_probabilities(subject, logits)[token])
        inputs["tokens"][0, gaps[number]] = token
    return total


def log_probabilities(subject: Subject, logits: Tensor) -> Tensor:
    """Those of the classes (V,), -inf where the rule of the objective allows none."""
    rule = rules.known().get(subject.kind)
    for role in getattr(rule, "NEVER", {}).get("tokens", ()):
        logits[subject.tokenizer.need(role)] = -math.inf
    return logits.log_softmax(dim=0)
