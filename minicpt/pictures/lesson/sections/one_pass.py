"""One pass or many? The runs over all prefixes beside the one pass, and what both take.

The numbers are computed in float64, so that what is left between the two is rounding alone. With
teacher forcing off, the model reads its own predictions: then no single pass has all its inputs
beforehand, and the losses are others.
"""

import copy

import torch

from minicpt.batch import Batch
from minicpt.pictures import counting
from minicpt.pictures.lesson.grid import draw_of, passage_of, short
from minicpt.pictures.lesson.pupils import Pupil
from minicpt.pictures.lesson.sections import Lesson, table
from minicpt.pictures.passage import labels, prefix_runs
from minicpt.proofs.steps import in_steps, reads_its_targets

ORDER = 1
TITLE = "One pass or many?"
LEAD = (
    "The loss of a whole text can be computed one prefix at a time, or in one pass. The numbers are"
    " the same."
)
MOST = 12  # tokens


def data(lesson: Lesson) -> dict:
    pupil = causal(lesson)
    if pupil is None:
        return {"missing": "It needs a model that reads from left to right (causal-lm)."}
    objective = pupil.objective
    draw = draw_of(passage_of(objective, lesson.text, 0), 0)
    batch = objective.batch([passage_of(objective, lesson.text, 0)], [draw])
    sees = objective.visibility(batch)["tokens"]
    read, predicted = labels(objective.tokenizer, batch, 1)
    runs = prefix_runs(pupil.model, pupil.parts, objective, batch, "tokens", sees, MOST)
    size = len(runs["positions"])
    model = copy.deepcopy(pupil.model).cpu().double().eval()
    tokens, targets = batch.inputs["tokens"][0], batch.targets["tokens"][0]
    free, written = in_steps(model, tokens[:size], targets[:size], own=True)
    words = lesson.words
    return {
        "objective": pupil.name,
        "read": [words(each) for each in read["tokens"][:size]],
        "targets": [words(predicted["tokens"][at]) for at in runs["positions"]],
        "alone": [[short(each) for each in row] for row in runs["alone"]],
        "together": [short(each) for each in runs["together"]],
        "difference": f"{max(runs['differences']):.0e}",
        "tolerance": f"{runs['tolerance']:.0e}",
        "free": {
            "read": [words(objective.tokenizer.token(id)) for id in written.tolist()],
            "losses": [short(each) for each in free.tolist()],
        },
        "operations": [operations(pupil, batch, size) for size in range(1, size + 1)],
    }


def causal(lesson: Lesson) -> Pupil | None:
    """The first pupil that reads a text from left to right and predicts each next token."""
    for pupil in lesson.pupils:
        if pupil.objective.role != "decoder" or len(pupil.parts):
            continue
        passage = passage_of(pupil.objective, lesson.text, 0)
        batch = pupil.objective.batch([passage], [draw_of(passage, 0)])
        if reads_its_targets(batch, pupil.objective.visibility(batch)):
            return pupil
    return None


def operations(pupil: Pupil, batch: Batch, size: int) -> list[int]:
    """Multiplications and additions of one pass over the first ``size`` tokens, and of a run for
    each prefix."""
    inputs = {name: each[:, :size] for name, each in batch.inputs.items()}
    part = Batch(inputs, {"tokens": batch.targets["tokens"][:, :size]})
    whole = counting.whole(pupil.model, part)
    seen = {"tokens": {"tokens": torch.ones(1, size, size, dtype=torch.bool).tril()}}
    return [whole, counting.separate(pupil.model, part, seen)]


def tables(lesson: Lesson, data: dict) -> str:
    if "missing" in data:
        return ""
    words = lesson.words.all
    targets = [words[each] for each in data["targets"]]
    blank = [""] * len(targets)
    rows = [
        [f"first {size}", *row, *blank[len(row) :]] for size, row in enumerate(data["alone"], 1)
    ]
    rows.append(["one pass", *data["together"]])
    rows.append(["reading its own predictions", *data["free"]["losses"]])
    ways = [
        [size, f"{one:,}", f"{many:,}", f"{many / one:.1f}"]
        for size, (one, many) in enumerate(data["operations"], 1)
    ]
    return table(
        "Loss of each target in nats: a run for each prefix, and one pass over all",
        ["reads", *targets],
        rows,
    ) + table(
        "Multiplications and additions", ["tokens", "one pass", "all prefixes", "times"], ways
    )
