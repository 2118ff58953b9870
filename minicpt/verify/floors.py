"""Losses that no honest model can go below. A loss below its floor is a leak.

Where the tokens are uniform and independent, nothing predicts them: the expected loss of any model
is at least ln K, K the number of tokens that occur. A Markov chain's next token has the chain's
entropy. Labels drawn at random cost ln 2. Models are trained on such data, so that one that can
look at its targets learns to, and then measured on fresh data.
"""

import copy
import math
from collections.abc import Iterator

import torch

from minicpt.batch import IGNORE, Batch
from minicpt.optimizer import Optimization, make_optimizer
from minicpt.randomness import generator
from minicpt.verify.bounds import additions, tolerance
from minicpt.verify.result import Proof
from minicpt.verify.subject import SEED, Subject

STEPS = 250
ROWS = 16
FRESH = 12  # batches of fresh data on which the trained model is measured
ERRORS = 4  # standard errors by which a mean may lie below its floor by chance
STATES = 8  # of the Markov chain; also the number of tokens of the uniform source


def floors(subject: Subject) -> Proof:
    """A zeroed head costs exactly ln V; trained on unpredictable data, no loss is below its floor.

    The objectives' own batches are used, with tokens and labels drawn anew: where the objective
    shows a target to the model by design (a kept token, the words of a sentence) those targets are
    left out.
    """
    numbers, problems = {}, []
    model = subject.copy_of_model()
    batch = subject.batch(subject.passages(4))
    allowed = tolerance(additions(model, batch))
    for head, layer in model.heads.items():
        if head in batch.targets:
            with torch.no_grad():
                layer.weight.zero_()
                if layer.bias is not None:
                    layer.bias.zero_()
                found = float(subject.losses(model, batch)[head].total().mean)
            exact = math.log(len(layer.weight))
            numbers[f"{head}: a zeroed head"] = found
            numbers[f"{head}: ln of its classes"] = exact
            if not abs(found - exact) <= allowed * exact:
                problems.append(f"with a zeroed head {head!r} costs {found:.6f}, not {exact:.6f}")
    trained_on = list(sources(subject))
    for name, floor, draw in trained_on:
        loss, error = trained(subject, draw, name)
        numbers[f"{name}: loss"] = loss
        numbers[f"{name}: floor"] = floor
        numbers[f"{name}: standard error"] = error
        if not loss >= floor - ERRORS * error:
            problems.append(f"{name}: a loss of {loss:.4f} lies below the floor of {floor:.4f}")
    return Proof(
        name="floors",
        passed=not problems,
        compared="the loss of a zeroed head with the logarithm of its classes"
        + (
            f"; the loss after {STEPS} steps on unpredictable data, on fresh data of the same"
            " source, with the least that it can be"
            if trained_on
            else ""
        ),
        numbers=numbers,
        why="What cannot be known beforehand cannot be predicted, unless it is seen.",
        not_covered="A leak that these few steps do not learn to use."
        if trained_on
        else "Training: this objective shows the model the words that it must write.",
        message="; ".join(problems),
    )


def sources(subject: Subject) -> Iterator[tuple[str, float, object]]:
    """The unpredictable data that an objective's batches can be made of, each with its floor."""
    batch = subject.batch(subject.passages(4))
    if subject.objective.architecture == "decoder":
        matrix = chain()
        yield "uniform tokens", math.log(STATES), lambda draws: causal(subject, draws, None)
        yield "Markov chain", entropy(matrix), lambda draws: causal(subject, draws, matrix)
    elif "pair" in batch.targets:
        yield "random labels", math.log(2), lambda draws: relabelled(subject, draws)
    elif subject.objective.architecture == "encoder":
        yield "uniform tokens", math.log(STATES), lambda draws: uniform_masked(subject, draws)


def chain() -> torch.Tensor:
    """Transition probabilities (STATES, STATES) of a chain whose next state is far from certain."""
    draws = torch.rand(STATES, STATES, generator=generator("chain"), dtype=torch.float64)
    return (3 * draws).softmax(dim=-1)


def entropy(matrix: torch.Tensor) -> float:
    """The chain's entropy in nats: that of each row, weighed by the stationary distribution."""
    stationary = torch.linalg.matrix_power(matrix, 100)[0]
    return float(-(stationary[:, None] * matrix * matrix.log()).sum())


def draw_tokens(subject: Subject, rows: int, length: int, draws, matrix=None) -> torch.Tensor:
    """Rows of tokens (rows, length) among STATES ordinary ones: independent, or of the chain."""
    if matrix is None:
        states = torch.randint(STATES, (rows, length), generator=draws)
    else:
        columns = [
            torch.multinomial(
                torch.linalg.matrix_power(matrix, 100)[0], rows, True, generator=draws
            )
        ]
        while len(columns) < length:
            columns.append(torch.multinomial(matrix[columns[-1]], 1, generator=draws)[:, 0])
        states = torch.stack(columns, dim=1)
    return subject.tokenizer.ordinary[states]


def passage_like(passage, tokens: torch.Tensor):
    """The passage with other tokens, in the middle of a text, so that no end is predictable."""
    return type(passage)(
        **vars(passage)
        | {"tokens": tokens[:-1], "first": False, "last": False, "following": int(tokens[-1])}
        | {name: torch.ones(len(tokens) - 1, dtype=torch.bool) for name in ("words", "sentences")}
    )


def causal(subject: Subject, draws, matrix) -> Batch:
    passage = subject.passages(1)[0]
    length = subject.objective.length + 1
    rows = draw_tokens(subject, ROWS, length, draws, matrix)
    return subject.batch([passage_like(passage, row) for row in rows])


def uniform_masked(subject: Subject, draws) -> Batch:
    """Only the targets whose token is hidden: one that was kept can be read."""
    passage = subject.passages(1)[0]
    rows = draw_tokens(subject, ROWS, subject.objective.length - 1, draws)
    noise = [generator("floors", int(torch.randint(2**31, (1,), generator=draws))) for _ in rows]
    batch = subject.objective.batch([passage_like(passage, row) for row in rows], noise)
    hidden = batch.inputs["tokens"] == subject.tokenizer.need("mask")
    targets = torch.where(hidden, batch.targets["tokens"], IGNORE)
    return Batch(batch.inputs, {"tokens": targets})


def relabelled(subject: Subject, draws) -> Batch:
    """The objective's pairs of random tokens, with labels that have nothing to do with them."""
    pair = subject.passages(1)[0]
    half = subject.objective.length // 3
    pairs = []
    for row in draw_tokens(subject, ROWS, 2 * half, draws):
        sides = passage_like(pair.first, row[:half]), passage_like(pair.second, row[half:])
        label = int(torch.randint(2, (1,), generator=draws))
        pairs.append(type(pair)(*sides, label))
    batch = subject.batch(pairs)
    return Batch(batch.inputs, {"pair": batch.targets["pair"]})


def trained(subject: Subject, draw, name: str) -> tuple[float, float]:
    """The mean loss on fresh data after training, and its standard error."""
    model = copy.deepcopy(subject.model).float().eval()
    optimizer = make_optimizer(model, Optimization(learning_rate=1e-2))
    for number in range(STEPS):
        batch = draw(generator("floor", name, SEED, number))
        subject.step(model, optimizer, [batch], 1.0)
    losses = []
    with torch.no_grad():
        for number in range(FRESH):
            batch = draw(generator("fresh", name, SEED, number))
            found = subject.losses(model, batch)
            losses.append(next(iter(found.values())).losses.double())
    losses = torch.cat(losses)
    return float(losses.mean()), float(losses.std() / math.sqrt(len(losses)))
