"""Predict first: questions whose answer is a number or some cells, checked on the page.

All numbers come from the other sections' data, so that an answer is what this page's models do. A
question that the page has no data for is left out.

A question is a function of ``Known`` that returns it, or None. ``number`` and ``cells`` make one:

    number  any number within half a percent, or half a unit of its last place, counts as right
    cells   exactly those of a row that are right
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from minicpt.pictures.lesson.sections import Lesson, table

ORDER = 6
TITLE = "Predict first"
LEAD = "Answer before you look. Each question has a second try, and then the reason."
CLOSE = 0.005  # relative


def number(ask: str, answer: float, unit: str, why: str, hint: str, places: int = 0) -> dict:
    """A question with a number as its answer, shown with so many decimal places."""
    within = max(CLOSE * abs(answer), 0.51 * 10**-places if places else 0.0)
    return {
        "kind": "number", "ask": ask, "answer": round(answer, places + 2), "unit": unit,
        "within": round(within, 6), "places": places, "why": why, "hint": hint,
    }  # fmt: skip


def cells(ask: str, row: list[int], answer: list[int], why: str, hint: str) -> dict:
    """A question whose answer are some cells of a row of words, by their positions."""
    return {"kind": "cells", "ask": ask, "row": row, "answer": answer, "why": why, "hint": hint}


@dataclass(frozen=True)
class Known:
    """The data that questions are made of."""

    lesson: Lesson
    runs: dict
    grids: dict[str, dict]
    halves: dict

    def grid(self, name: str, value: int = 0, seed: int = 0) -> dict | None:
        found = self.grids.get(name)
        if not found:
            return None
        return found["grids"][found["index"][min(value, len(found["index"]) - 1)][seed]]

    def words(self, grid: dict) -> list[int]:
        """What is read along the targets."""
        return grid["streams"][-1][1]

    def word(self, number: int) -> str:
        return self.lesson.words.all[number]


def data(lesson: Lesson) -> dict:
    nothing = {"missing": "no such section"}
    prepared = lesson.data("bench", {"objectives": []})["objectives"]
    known = Known(
        lesson,
        lesson.data("one-pass", nothing),
        {each["name"]: each for each in prepared},
        lesson.data("divisor", nothing),
    )
    return {"questions": [made for ask in QUESTIONS if (made := ask(known))]}


def positions(grid: dict, head: int = 0) -> list[int]:
    return [target[0] for target in grid["heads"][head][-1]]


# --- the questions ---------------------------------------------------------------------------


def uniform(known: Known) -> dict | None:
    first = next(iter(known.grids.values()), None)
    if first is None:
        return None
    _, _, classes, loss, *_ = first["grids"][0]["heads"][0]
    return number(
        f"A model knows nothing: it holds all {classes} classes alike. What is its loss at each"
        " target, in nats?",
        loss, "nats",
        f"Each class has the probability 1/{classes}, and -log(1/{classes}) = ln {classes}."
        " An untrained model starts near this number.",
        "The probability of the target is one over the number of classes.", 2,
    )  # fmt: skip


def half(known: Known) -> dict:
    return number(
        "A model gives the target the probability 1/2. What is the loss there, in nats?",
        math.log(2), "nats",
        "-log(1/2) = ln 2 = 0.693 nats, which is 1 bit.",
        "The loss is minus the natural logarithm of the probability.", 2,
    )  # fmt: skip


def causal_targets(known: Known) -> dict | None:
    grid = known.grid("causal-lm")
    return grid and cells(
        "Causal language modelling reads this row. Which positions have a target?",
        known.words(grid), positions(grid),
        "Every position predicts the token after it. The last one predicts the end of the text,"
        " or what follows the window.",
        "Does any position have nothing after it to predict?",
    )  # fmt: skip


def causal_sees(known: Known) -> dict | None:
    grid = known.grid("causal-lm")
    return grid and cells(
        "The same row. Which cells does the target of position 3 see?",
        known.words(grid), [0, 1, 2, 3],
        "Position t sees the positions 0 to t, itself included, and nothing later.",
        "A position may look at itself.",
    )  # fmt: skip


def later_change(known: Known) -> dict | None:
    grid = known.grid("causal-lm")
    if not grid:
        return None
    size = len(known.words(grid))
    return cells(
        "Somebody changes the word at position 5 of this row. At which positions can the loss of"
        " causal language modelling change?",
        known.words(grid), list(range(4, size)),
        "Position 4 has that word as its target. Position 5 and all later ones read it. Positions"
        " 0 to 3 neither read it nor predict it.",
        "Who reads the word, and who has to predict it?",
    )  # fmt: skip


def masked_targets(known: Known) -> dict | None:
    grid = known.grid("masked-lm", 2)
    row = known.words(grid) if grid else []
    hidden = [at for at, each in enumerate(row) if known.word(each) == "[MASK]"]
    return hidden and cells(
        "Masked language modelling reads this row. Which positions certainly have a target?",
        row, hidden,
        "The hidden ones. A chosen token that was replaced by another, or left as it is, has a"
        " target too, but the row does not show it.",
        "What does the row tell you, and what does it not?",
    )  # fmt: skip


def masked_count(known: Known) -> dict | None:
    grid = known.grid("masked-lm")
    if not grid:
        return None
    size = len(known.words(grid)) - 2
    count = len(positions(grid))
    return number(
        f"Masked language modelling chooses 15 % of the {size} tokens of a text. How many targets"
        " are there?",
        count, "targets",
        f"max(1, round(0.15 x {size})) = {count}. All other positions are IGNORE, -100, and count"
        " neither in the sum nor in the divisor.",
        "Round, and take at least one.",
    )  # fmt: skip


def ignored(known: Known) -> dict | None:
    grid = known.grid("masked-lm")
    if not grid:
        return None
    size, count = len(known.words(grid)), len(positions(grid))
    return number(
        f"The same row has {size} positions, [CLS] and [SEP] included. How many of its labels are"
        " -100?",
        size - count, "labels",
        f"{size} positions less {count} targets. The labels are as long as the row.",
        "Labels are as long as the row, and only targets are another number.",
    )  # fmt: skip


def masked_sees(known: Known) -> dict | None:
    grid = known.grid("masked-lm")
    if not grid or not positions(grid):
        return None
    return cells(
        "An encoder reads this row. Which cells does its first target see?",
        known.words(grid), list(range(len(known.words(grid)))),
        "All of them: an encoder looks in both directions. That is why the token has to be hidden"
        " at its own position.",
        "Is there a causal mask in an encoder?",
    )  # fmt: skip


def passes(known: Known) -> dict | None:
    if "missing" in known.runs:
        return None
    size = len(known.runs["targets"])
    one, many = known.runs["operations"][-1]
    return size > 2 and number(
        f"A text of {size} tokens. How many times the operations of the one pass do the runs over"
        " all prefixes take?",
        many / one, "times",
        f"1 + 2 + ... + {size} = {size * (size + 1) // 2} positions in place of {size} would be"
        f" {(size + 1) / 2:.1f} times. The head runs {size} times either way, so it is a little"
        f" less: {many / one:.1f}.",
        f"The prefixes have 1, 2, ... {size} positions.", 1,
    )  # fmt: skip


def forward_passes(known: Known) -> dict | None:
    if "missing" in known.runs:
        return None
    size = len(known.runs["targets"])
    return number(
        f"Teacher forcing is off: the model reads its own predictions. How many forward passes do"
        f" the losses of {size} tokens take?",
        size, "passes",
        "Position t cannot begin before the prediction of position t-1 is there. With teacher"
        " forcing all inputs are known beforehand, and one pass is enough.",
        "When is the input of position 2 known?",
    )  # fmt: skip


def means(known: Known) -> dict | None:
    if "missing" in known.halves:
        return None
    return number(
        "Micro-batch A has 1 target with the loss 6. Micro-batch B has 3 targets with the losses"
        " 2, 2 and 2. What is the mean loss of a target?",
        3.0, "nats",
        "(6 + 6) / (1 + 3) = 3. The mean of the means is (6 + 2) / 2 = 4: there the one target of"
        " A counts as much as the three of B together.",
        "Add the sums and the counts first.", 1,
    )  # fmt: skip


def pads(known: Known) -> dict:
    return number(
        "A row has 4 targets with the losses 1, 2, 3 and 2, and 4 pads. The model has learnt to"
        " predict pads: they cost 0. Somebody counts them as targets. What mean is reported?",
        1.0, "nats",
        "8 / 8 = 1 in place of 8 / 4 = 2. The number looks twice as good, and depends on how long"
        " the other rows of the batch are. Pads must be IGNORE.",
        "What changes: the sum, the divisor, or both?", 1,
    )  # fmt: skip


def twice_shifted(known: Known) -> dict | None:
    grid = known.grid("causal-lm")
    if not grid or len(known.words(grid)) < 6:
        return None
    row = known.words(grid)
    return cells(
        "The batch shifts the targets, and the model shifts them again. Which token is then the"
        " target of position 1? Mark it.",
        row, [3],
        "One shift makes the token at 2 the target of position 1, the second one that at 3. The"
        " model learns to skip a token, and its loss still falls.",
        "A shift moves a target one position to the left.",
    )  # fmt: skip


def diffusion_weight(known: Known) -> dict | None:
    grid = known.grid("masked-diffusion")
    if not grid or not grid["heads"][0][-1]:
        return None
    weight = grid["heads"][0][-1][0][4]
    return number(
        "Masked diffusion hides each token with the probability t = 0.25. How much does a hidden"
        " token weigh?",
        weight, "",
        "1/t = 4. A quarter of the tokens is predicted, and stands for all of them; the divisor is"
        " the number of all tokens.",
        "On average, the weights must add up to the number of all tokens.", 1,
    )  # fmt: skip


def prefix_first(known: Known) -> dict | None:
    grid = known.grid("prefix-lm")
    if not grid or grid["ahead"] != 1 or len(grid["streams"]) > 1 or not positions(grid):
        return None
    first = positions(grid)[0]
    return cells(
        f"Prefix language modelling reads this row in both directions up to position {first}, and"
        " from left to right behind it. Which positions have a target?",
        known.words(grid), positions(grid),
        f"Position {first} is the last one that the prefix reads, and it predicts the first token"
        " of the rest. A position before it can already see the token it would predict.",
        "Which positions do not see the token after them?",
    )  # fmt: skip


def bits(known: Known) -> dict:
    return number(
        "A text has 40 tokens and 160 bytes. The mean loss is 2.773 nats a token. How many bits a"
        " byte are that?",
        2.773 * 40 / 160 / math.log(2), "bits a byte",
        "2.773 x 40 = 110.9 nats; / ln 2 = 160 bits; / 160 bytes = 1. Bits a byte compare models"
        " with different tokenizers; nats a token do not.",
        "A bit is ln 2 = 0.693 nats.", 2,
    )  # fmt: skip


QUESTIONS: tuple[Callable[[Known], dict | None], ...] = (
    half, uniform, causal_targets, causal_sees, later_change, twice_shifted, masked_targets,
    masked_count, ignored, masked_sees, passes, forward_passes, prefix_first, diffusion_weight,
    means, pads, bits,
)  # fmt: skip


def tables(lesson: Lesson, data: dict) -> str:
    words = lesson.words.all
    rows = []
    for place, each in enumerate(data["questions"], 1):
        ask = each["ask"]
        if each["kind"] == "cells":
            row = " ".join(f"{at}:{words[number]}" for at, number in enumerate(each["row"]))
            answer = "positions " + " ".join(map(str, each["answer"]))
            ask += f" Row: {row}"
        else:
            answer = f"{each['answer']:.{each['places']}f} {each['unit']}"
        rows.append([place, ask, answer, each["why"]])
    return table("Questions", ["", "question", "answer", "reason"], rows)
