"""The divisor: a mean of means is not the mean.

Two micro-batches have different numbers of targets. Each target should count the same. Whoever
divides each micro-batch by its own number, and averages the two, counts the targets of the smaller
one more.
"""

from minicpt.pictures.lesson.grid import draw_of, grid, passage_of
from minicpt.pictures.lesson.sections import Lesson, table

ORDER = 3
TITLE = "The divisor"
LEAD = "Add sums and counts first, and divide once. A mean of two means is another number."
MOST = 12  # targets of a micro-batch


def data(lesson: Lesson) -> dict:
    """The losses of a text's targets, in two parts: [word, loss] each."""
    for pupil in lesson.pupils:
        if not pupil.objective.whole_text or pupil.objective.looks_ahead:
            continue
        passage = passage_of(pupil.objective, lesson.text, 0)
        made = grid(pupil, pupil.objective, passage, draw_of(passage, 0), lesson.words)
        targets = [[each[1], each[3]] for each in made["heads"][0][-1]]
        half = min(MOST, len(targets) // 2)
        if half >= 2:
            parts = [targets[:half], targets[half : 2 * half]]
            return {"objective": pupil.name, "parts": parts, "counts": [2, half]}
    return {"missing": "It needs a model whose targets are all of the text (causal-lm)."}


def tables(lesson: Lesson, data: dict) -> str:
    if "missing" in data:
        return ""
    rows, sums, counts = [], [], data["counts"]
    for name, part, count in zip("AB", data["parts"], counts, strict=True):
        sums.append(sum(loss for _, loss in part[:count]))
        rows.append([f"micro-batch {name}", sums[-1], count, sums[-1] / count])
    right = sum(sums) / sum(counts)
    wrong = sum(each / count for each, count in zip(sums, counts, strict=True)) / 2
    rows.append(["sum over sum: right", sum(sums), sum(counts), right])
    rows.append(["mean of means: wrong", "", "", wrong])
    return table("Two micro-batches", ["", "sum", "targets", "mean"], rows)
