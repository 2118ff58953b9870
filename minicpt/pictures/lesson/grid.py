"""What an objective does with one passage, as data that is small enough to prepare hundreds of.

``grid`` takes what ``explain`` shows (``passage.as_data``), adds the likeliest classes of each
target, and packs it. Tokens are numbers of one list of words for the whole page (``Words``).
"""

import math
from collections.abc import Mapping

import torch

from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.order import Draw
from minicpt.loss import TargetLosses
from minicpt.objectives.base import Objective
from minicpt.pictures.lesson.pupils import Pupil
from minicpt.pictures.passage import as_data
from minicpt.pictures.picture import first_plan, in_order
from minicpt.possible import without

LIKELIEST = 5
DIGITS = 6  # of numbers on the page
PLACES = 500  # of a plan that are tried for a level


class Words:
    """Every text that the page shows in a cell, each once."""

    def __init__(self):
        self.numbers: dict[str, int] = {}

    def __call__(self, word: str) -> int:
        return self.numbers.setdefault(word, len(self.numbers))

    @property
    def all(self) -> list[str]:
        return list(self.numbers)


def short(value: float) -> float | None:
    """A number with as many digits as the page keeps; None for what is none, as in JSON.

    >>> short(2.123456789), short(float("nan"))
    (2.12346, None)
    """
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def passage_of(objective: Objective, text: str, seed: int):
    """The first passage of a text, as ``explain --seed`` takes it."""
    corpus = Corpus.build([Document("the text", text)], objective.tokenizer)
    plan = first_plan(objective, corpus, seed)[0]
    return plan[in_order(plan)[0]]


def draw_of(passage, seed: int, level: float | None = None) -> Draw:
    """What belongs to it; with a level, that of the place in a plan that comes nearest to it."""
    place = 0
    if level is not None:
        place = min(range(PLACES), key=lambda at: abs(passage.level(at) - level))
    return Draw(place, generator("explain", seed))


def grid(pupil: Pupil, objective: Objective, passage, draw: Draw, words: Words) -> dict:
    """The data of one passage, for ``pack``; the objective may have other settings."""
    found = {}

    def losses(model, parts, batch):
        found.update(objective.losses(model, parts, batch))
        return found

    data = as_data(
        pupil.model, objective, passage, draw, parts=pupil.parts, triangle=0, losses=losses
    )
    likeliest = {
        head: likeliest_of(pupil, objective, head, each, words) for head, each in found.items()
    }
    return pack(data, words, likeliest)


@torch.no_grad()
def likeliest_of(
    pupil: Pupil, objective: Objective, head: str, each: TargetLosses, words: Words
) -> list[list]:
    """For each target [word, probability, …] of the likeliest classes of the head."""
    own = objective.head_of(head, pupil.model, pupil.parts)
    logits = without(own, objective.never.get(head, ()))(each.hidden)  # (N, V)
    top = logits.double().softmax(dim=-1).topk(min(LIKELIEST, logits.shape[-1]), dim=-1)
    names = objective.classes.get(head)
    rows = []
    for shares, ids in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        shown = [names[id] if names else objective.tokenizer.token(id) for id in ids]
        pairs = zip(shown, shares, strict=True)
        rows.append([part for word, share in pairs for part in (words(word), round(share, 4))])
    return rows


def pack(data: dict, words: Words, likeliest: Mapping[str, list] | None = None) -> dict:
    """The data of ``passage.as_data`` in few bytes.

    streams  [reader, [word, …]] of each that is read, that of the targets last
    ahead    positions between a target and its token
    place    where the passage begins
    heads    [name, weight of the head, classes, ln classes, sum, divisor, mean, targets]; a target
             is [position, word, probability, loss, weight, fate, reads, likeliest]
    sees     for each head and stream: "all", "past" (each sees what stands up to itself), or rows
    """
    own = data["target_stream"]
    order = sorted(data["streams"], key=lambda name: name == own)
    heads, sees = [], []
    for head, found in data["heads"].items():
        tops = (likeliest or {}).get(head, [None] * len(found["targets"]))
        targets = [
            [
                each["position"],
                words(label(each)),
                short(math.exp(-each["loss"])),
                short(each["loss"]),
                short(each.get("weight", 1.0)),
                each.get("fate", ""),
                words(each["reads"]) if "reads" in each else -1,
                top or [],
            ]
            for each, top in zip(found["targets"], tops, strict=True)
        ]
        numbers = [found["uniform"], found["sum"]]
        heads.append([
            head, short(found["head_weight"]), found["classes"], *map(short, numbers),
            found["count"], short(found["mean"]), targets,
        ])  # fmt: skip
        sees.append([pattern(data["visibility"][head].get(name, [])) for name in order])
    return {
        "streams": [
            [
                data["streams"][name]["reader"],
                [words(each["token"]) for each in data["streams"][name]["positions"]],
            ]
            for name in order
        ],
        "ahead": data["ahead"],
        "heads": heads,
        "sees": sees,
    }


def label(target: dict) -> str:
    """What is predicted: a token, or a class by its name or number."""
    return target.get("token") or target.get("name") or f"class {target['class']}"


def pattern(rows: list[str]) -> str | list[str]:
    """Rows of visibility by name where they have one.

    >>> pattern(["11", "11"]), pattern(["10", "11"]), pattern(["01", "10"])
    ('all', 'past', ['01', '10'])
    """
    if all("0" not in row for row in rows):
        return "all"
    size = len(rows)
    past = ["1" * (at + 1) + "0" * (size - at - 1) for at in range(size)]
    return "past" if rows == past else rows


