"""Losses that no honest model can go below. A loss below its floor is a leak.

Where the tokens are uniform and independent, nothing predicts them: the expected loss of any model
is at least ln K, K the number of tokens that occur. A Markov chain's next token has the chain's
entropy. Labels drawn at random cost ln 2. Models are trained on such data, so that one that can
look at its targets learns to, and then measured on fresh data.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from minicpt.batch import IGNORE, Batch, target_stream, valid_positions
from minicpt.common.randomness import generator
from minicpt.data.corpus import Passage
from minicpt.data.order import Draw
from minicpt.proofs.result import NotChecked, Proof, worse
from minicpt.proofs.subject import SEED, WINDOW, Subject
from minicpt.training.optimizer import Optimization, make_optimizer

ORDER = 100
TRAINS = True
STEPS = 250  # on a Markov chain; half as many on other data, where a leak is learnt sooner
ROWS = 16
FRESH = 12  # batches of fresh data on which the trained model is measured
ERRORS = 4  # standard errors by which a mean may lie below its floor by chance
CHAIN, UNIFORM = "Markov chain", "uniform tokens"
STATES = 8  # of the Markov chain; also the number of tokens of the uniform source


def entropy_floor(subject: Subject) -> Proof:
    """Trained on unpredictable data, no loss is below its floor.

    The objective's own batches are used, with tokens and labels drawn anew. Where the objective
    shows a target to the model by design (a kept token), that target is not counted. Raises
    NotChecked where no unpredictable batch can be made.
    """
    numbers, problems, below = {}, [], []
    for name, floor, draw in sources(subject):
        loss, error = trained(subject, draw, name)
        numbers[f"{name}: loss"] = loss
        numbers[f"{name}: floor"] = floor
        numbers[f"{name}: standard error"] = error
        below.append(((floor - loss) / max(error, 1e-300), ERRORS))
        if not loss >= floor - ERRORS * error:
            problems.append(f"{name}: a loss of {loss:.4f} lies below the floor of {floor:.4f}")
    worst, most = worse(below)
    return Proof(
        name="entropy floor",
        passed=not problems,
        compared="standard errors below the least possible loss on unpredictable data, after"
        " training on such data",
        numbers=numbers,
        why="What cannot be known beforehand cannot be predicted, unless it is seen.",
        not_covered="A leak that these few steps do not learn to use.",
        message="; ".join(problems),
        worst=worst,
        tolerance=most,
    )


def sources(subject: Subject) -> Iterator[tuple[str, float, Callable[..., Batch]]]:
    """The unpredictable data that an objective's batches can be made of, each with its floor.

    Raises NotChecked where there is none.
    """
    (passage,) = subject.passages(1)
    if all(hasattr(passage, part) for part in ("first", "second", "label")):
        yield "random labels", math.log(2), lambda draws: relabelled(subject, draws)
        return
    if not isinstance(passage, Passage):
        raise NotChecked("needs passages of one text each, so that their tokens can be drawn")
    draws = generator("floors", "a look")
    if predicts_what_follows(subject, causal(subject, draws, None)):
        # Two stacks take twice as long, and show no more.
        if subject.objective.role == "decoder" and reads_in_order(subject, draws):
            matrix = chain()
            yield CHAIN, entropy(matrix), lambda draws: causal(subject, draws, matrix)
        else:
            yield UNIFORM, math.log(STATES), lambda draws: causal(subject, draws, None)
    elif predicts_what_it_hides(subject, draws):
        yield UNIFORM, math.log(STATES), lambda draws: uniform_hidden(subject, draws)
    else:
        raise NotChecked(
            "needs targets that the model cannot read; this objective shows them by design, or"
            " tokenises anew what it reads"
        )


def predicts_what_follows(subject: Subject, batch: Batch) -> bool:
    """Whether each target that was drawn is the token that is read next, and not seen before."""
    if "tokens" not in batch.targets:
        return False
    own = target_stream(batch)
    target, tokens = batch.targets["tokens"][:, :-1], batch.inputs[own][:, 1:]
    seen = subject.objective.visibility(batch)["tokens"][own]
    real = valid_positions(batch.inputs[own.replace("tokens", "mask")])
    chosen = (target != IGNORE) & real[:, 1:]
    hidden = ~seen.diagonal(1, dim1=1, dim2=2)  # position t does not see t + 1
    if not (bool(chosen.any()) and bool(((target == tokens) & hidden)[chosen].all())):
        return False
    told = batch_of(subject, distinct_tokens(subject), generator("floors", "a look"))
    ordinary = torch.isin(told.targets["tokens"], subject.tokenizer.ordinary)
    return torch.equal(unreadable(subject, told), ordinary)


def predicts_what_it_hides(subject: Subject, draws) -> bool:
    """Whether there are targets whose token stands nowhere in what they may see."""
    if "tokens" not in subject.batch(subject.passages(1)).targets:
        return False
    return uniform_hidden(subject, draws).counts()["tokens"] > 0


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


def longest(subject: Subject) -> int:
    """The tokens of the longest passage that the objective reads, WINDOW at the most."""
    return min(WINDOW, max(len(passage.tokens) for passage in subject.passages(10**6)))


def batch_of(subject: Subject, rows: torch.Tensor, draws) -> Batch:
    """The objective's batch of these tokens (rows, length), each row with noise of its own."""
    passage = subject.passages(1)[0]
    seeds = torch.randint(2**31, (len(rows),), generator=draws).tolist()
    return subject.objective.batch(
        [passage_like(passage, row) for row in rows],
        [Draw(place, generator("floors", seed)) for place, seed in enumerate(seeds)],
    )


def causal(subject: Subject, draws, matrix) -> Batch:
    """Only the targets that were drawn: what an objective puts between them may be predictable."""
    rows = draw_tokens(subject, ROWS, longest(subject) + 1, draws, matrix)
    batch = batch_of(subject, rows, draws)
    drawn = subject.tokenizer.ordinary[:STATES]
    return replace(
        batch,
        targets={
            head: torch.where(torch.isin(target, drawn), target, IGNORE)
            for head, target in batch.targets.items()
        },
    )


def reads_in_order(subject: Subject, draws) -> bool:
    """Whether the targets of each row are a run of its text.

    A token that is read behind what follows it in the text depends on both of its sides: its
    entropy is not that of a Markov chain.
    """
    rows = draw_tokens(subject, ROWS, longest(subject) + 1, draws)
    for row, targets in zip(rows, batch_of(subject, rows, draws).targets["tokens"], strict=True):
        run, text = targets[targets != IGNORE].tolist(), row.tolist()
        if run not in [text[at : at + len(run)] for at in range(len(text))]:
            return False
    return True


def distinct_tokens(subject: Subject) -> torch.Tensor:
    """Texts (ROWS, length) in which no token comes twice."""
    return subject.tokenizer.ordinary[: longest(subject) + 1].expand(ROWS, -1)


def unreadable(subject: Subject, told: Batch) -> torch.Tensor:
    """The targets whose token is not among what they may see, (B, T) bool.

    told  a batch of ``distinct_tokens``. An encoder-decoder may tokenise its text anew: then it is
          not known what it shows, and there is no such target
    """
    target, ordinary = told.targets["tokens"], subject.tokenizer.ordinary
    if "decoder_tokens" in told.inputs:
        read = told.inputs["tokens"][told.inputs["mask"]]
        others = ordinary[~torch.isin(ordinary, distinct_tokens(subject))]
        if torch.isin(read, others).any():
            return torch.zeros_like(target, dtype=torch.bool)
    found = torch.isin(target, ordinary)
    for stream, seen in subject.objective.visibility(told)["tokens"].items():
        same = told.inputs[stream][:, None, :] == target[:, :, None]  # (B, T, S)
        found &= ~(same & seen).any(dim=2)
    return found


def uniform_hidden(subject: Subject, draws) -> Batch:
    """Only the targets that cannot be read: one that was kept stands there.

    Which these are is told by distinct tokens with the same noise.
    """
    rows = draw_tokens(subject, ROWS, distinct_tokens(subject).shape[1], draws)
    noise = draws.get_state()
    batch = batch_of(subject, rows, draws)
    told = batch_of(subject, distinct_tokens(subject), draws.set_state(noise))
    shown = ~unreadable(subject, told)
    if shown.shape != batch.targets["tokens"].shape:
        raise NotChecked("needs noise that does not depend on which tokens stand in a text")
    return replace(batch, targets={"tokens": batch.targets["tokens"].masked_fill(shown, IGNORE)})


def relabelled(subject: Subject, draws) -> Batch:
    """The objective's pairs of random tokens, with labels that have nothing to do with them."""
    pair = subject.passages(1)[0]
    half = min(subject.objective.length, WINDOW) // 3
    pairs = []
    for row in draw_tokens(subject, ROWS, 2 * half, draws):
        sides = passage_like(pair.first, row[:half]), passage_like(pair.second, row[half:])
        label = int(torch.randint(2, (1,), generator=draws))
        pairs.append(type(pair)(*sides, label))
    batch = subject.batch(pairs)
    judged = {
        head: target
        for head, target in batch.targets.items()
        if bool(((target != IGNORE).sum(dim=1) == 1).all())
    }
    return replace(batch, targets=judged)


def every(batch: Batch) -> Batch:
    """The batch with every target counted once: the floor is that of all of them."""
    return replace(batch, weights={})


def trained(subject: Subject, draw, name: str) -> tuple[float, float]:
    """The mean loss on fresh data after training, and its standard error: of the lowest head."""
    learner = subject.learner().float()
    optimizer = make_optimizer(learner, Optimization(learning_rate=1e-2))
    for number in range(STEPS if name == CHAIN else STEPS // 2):
        batch = every(draw(generator("floor", name, SEED, number)))
        subject.step(learner, optimizer, [batch], 1.0)
    heads: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad():
        for number in range(FRESH):
            batch = every(draw(generator("fresh", name, SEED, number)))
            for head, each in subject.losses(learner, batch).items():
                heads.setdefault(head, []).append(each.losses.double())
    # A token further on is no easier to predict than the next one: all heads have one floor.
    found = [torch.cat(losses) for losses in heads.values()]
    return min((float(x.mean()), float(x.std() / math.sqrt(len(x)))) for x in found)
