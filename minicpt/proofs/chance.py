"""Text without order: nothing can be known there of what follows what, so nobody beats chance.

Documents are made of sentences that are drawn independently. The objective itself cuts them into
pairs. All that a model can learn about the class of such a pair lies in how the pair was cut or
tokenised: the space before a word, a length, the end of a document. A model is trained on many
pairs and then measured on others. If nothing tells the classes apart, its loss is not below the
logarithm of their number.

``entropy_floor`` makes pairs of its own, and so cannot see such a leak. Left out: text with order.
"""

import math
import random
from dataclasses import replace

import torch

from minicpt.batch import IGNORE
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.proofs.result import Proof, worse
from minicpt.proofs.subject import SEED, Subject
from minicpt.training.optimizer import Optimization, make_optimizer

ORDER = 110
TRAINS = True
STEPS = 250
RATE = 3e-3  # of learning; it falls to 0
ROWS = 16
FRESH = 16  # batches of fresh pairs, each four times as large
DOCUMENTS = 1500
ERRORS = 4  # standard errors by which a mean may lie below its floor by chance
LETTERS = "abcd"
SPACES = (" ", " ", "\n", "\n\n", "\n\n  ")  # between two sentences
EDGES = ("", "", "", "\n")  # before the first one and after the last one


def chance(subject: Subject) -> Proof | list[Proof]:
    """On text without order the loss of every head that judges a text is no lower than chance.

    Says nothing of objectives without such a head.
    """
    heads = judges(subject)
    if not heads:
        return []
    below = []
    numbers, problems = {}, []
    for head in heads:
        floor = math.log(len(subject.model.heads[head].weight))
        loss, error = trained(subject, head)
        numbers[f"{head}: loss"] = loss
        numbers[f"{head}: floor"] = floor
        numbers[f"{head}: standard error"] = error
        below.append(((floor - loss) / max(error, 1e-300), ERRORS))
        if not loss >= floor - ERRORS * error:
            problems.append(
                f"on text without order head {head!r} has a loss of {loss:.4f}, below"
                f" {floor:.4f}: how a text is cut or tokenised tells its class"
            )
    worst, most = worse(below)
    return Proof(
        name="chance",
        passed=not problems,
        compared=f"the loss after {STEPS} steps on pairs that the objective cuts from random"
        f" sentences, on {FRESH * 4 * ROWS} fresh ones, with the logarithm of the classes' number",
        numbers=numbers,
        why="Where sentences are independent, all that tells the class is a trace of the cutting.",
        not_covered="A trace that these few steps do not learn to use, or that needs real text.",
        message="; ".join(problems),
        worst=worst,
        tolerance=most,
    )


def judges(subject: Subject) -> list[str]:
    """The heads that judge a whole text: one target a row, and classes that are not the tokens."""
    batch = subject.batch(subject.passages(8))
    return [
        head
        for head, target in batch.targets.items()
        if bool(((target != IGNORE).sum(dim=1) == 1).all())
        and head in subject.model.heads
        and len(subject.model.heads[head].weight) < subject.tokenizer.size
    ]


def without_order(name: str, count: int) -> list[Document]:
    r"""Documents of sentences that know nothing of each other; some are short, some long.

    >>> [document.text for document in without_order("some", 2)]
    ['Ab c.\n\nC a b.\n\n  Ca c.', 'D. B.']
    """
    draws = random.Random(name)

    def words() -> str:
        sizes = [draws.randint(1, 2) for _ in range(draws.randint(1, 3))]
        return " ".join("".join(draws.choices(LETTERS, k=size)) for size in sizes)

    documents = []
    for number in range(count):
        text = draws.choice(EDGES) + words().capitalize() + "."
        for _ in range(draws.choice((1, 1, 2, 2, 3, 4, 7))):
            text += draws.choice(SPACES) + words().capitalize() + "."
        documents.append(Document(f"{name} {number + 1}", text + draws.choice(EDGES)))
    return documents


def trained(subject: Subject, head: str) -> tuple[float, float]:
    """The mean loss of a head on fresh pairs after training on others, and its standard error."""
    learner = subject.learner().float()
    optimizer = make_optimizer(learner, Optimization(learning_rate=RATE))
    for number, batch in enumerate(batches(subject, head, "train", STEPS)):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - number / STEPS)
        subject.step(learner, optimizer, [batch], 1.0)
    with torch.no_grad():
        losses = torch.cat(
            [
                subject.losses(learner, batch)[head].losses.double()
                for batch in batches(subject, head, "fresh", FRESH, 4 * ROWS)
            ]
        )
    return float(losses.mean()), float(losses.std() / math.sqrt(len(losses)))


def batches(subject: Subject, head: str, name: str, count: int, rows: int = ROWS):
    """The first batches of a training run on text without order, with the targets of one head."""
    corpus = Corpus.build(without_order(name, DOCUMENTS), subject.tokenizer)
    stream = subject.stream(subject.objective, corpus, SEED)
    for number in range(count):
        batch = subject.objective.batch(*stream.passages(number * rows, rows))
        yield replace(batch, targets={head: batch.targets[head]})
