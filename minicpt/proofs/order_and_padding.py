"""What holds for every objective: nothing is changed, repeated, skipped, or put on padding."""

from collections.abc import Iterator

import torch

from minicpt.batch import IGNORE, Batch, target_stream, valid_positions
from minicpt.data.order import Draw
from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.subject import SEED, Subject

ORDER = 10
EPOCHS = 3
LEAST = 4  # passages an epoch, without which its order and noise say little


def order_and_padding(subject: Subject) -> Proof:
    """A few epochs, each passage as a batch of its own; and the stream of a run."""
    problems = [*changed_inputs(subject), *order_and_noise(subject)]
    checked = 0
    for epoch in range(EPOCHS):
        for passage in subject.passages(10**6, epoch):
            problems += pads(subject, subject.batch([passage], epoch), passage.place)
            checked += 1
    return Proof(
        name="order and padding",
        passed=not problems,
        compared=f"{checked} batches of {EPOCHS} epochs with each other: order, noise, padding, and"
        " what they are made from",
        numbers={"batches": checked, "mistakes": len(problems)},
        why="Each epoch has an order and noise of its own, the same again when a run goes on;"
        " padding has no target; what a batch is made from stays as it is.",
        not_covered="What the targets are: the batch rules.",
        message="; ".join(dict.fromkeys(problems[:2])),
        worst=len(problems),
        tolerance=0,
    )


# --- each yields, in words, what is wrong


def changed_inputs(subject: Subject) -> Iterator[str]:
    """An objective changes nothing that it is given."""
    before = [tensor.clone() for tensor in tensors(subject.passages(10**6))]
    corpus = subject.corpus.tokens.clone()
    passages = subject.passages(10**6)
    subject.batch(passages)
    for one, other in zip(before, tensors(passages), strict=True):
        if not torch.equal(one, other):
            yield "a passage was changed in place"
            return
    if not torch.equal(corpus, subject.corpus.tokens):
        yield "the corpus was changed in place"


def tensors(passages) -> Iterator[torch.Tensor]:
    for passage in passages:
        for part in vars(passage).values():
            if isinstance(part, torch.Tensor):
                yield part
            elif hasattr(part, "tokens"):
                yield part.tokens
            elif isinstance(part, tuple):
                yield from tensors(part)


def order_and_noise(subject: Subject) -> Iterator[str]:
    """The stream: new order and noise each epoch, the same again for the same place."""
    stream = subject.stream(subject.objective, subject.corpus, SEED)
    length = stream.epoch_length(0)
    if length < LEAST:
        raise NotChecked(f"needs {LEAST} passages an epoch; the objective makes {length} here")
    passages, drawn = stream.passages(0, 2 * length)
    places = [passage.place for passage in passages]
    draws = [numbers(each) for each in drawn]
    if places[:length] == places[length:]:
        yield "the second epoch has the order of the first"
    if draws[0] == draws[length] or len({tuple(draw) for draw in draws}) < len(draws):
        yield "the same noise comes again"
    again = subject.stream(subject.objective, subject.corpus, SEED)
    passages, drawn = again.passages(length - 2, 4)
    if [passage.place for passage in passages] != places[length - 2 : length + 2]:
        yield "data are repeated or skipped when a run goes on in the middle"
    elif numbers(drawn[0]) != draws[length - 2]:
        yield "the noise of a passage is another one when a run goes on"


def numbers(draw: Draw) -> list[float]:
    """Two random numbers of a passage's own."""
    return torch.rand(2, generator=draw.generator, dtype=torch.float64).tolist()


def pads(subject: Subject, batch: Batch, place: str) -> Iterator[str]:
    read = valid_positions(batch.inputs[target_stream(batch).replace("tokens", "mask")])
    for head, target in batch.targets.items():
        if target.shape != read.shape:
            yield f"targets of {head!r} have another shape than what is read ({place})"
        elif bool((target != IGNORE)[~read].any()):
            yield f"padding has a target ({place})"
