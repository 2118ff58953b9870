"""The bench: what an objective has the model read, see and predict, target by target.

Everything is prepared: each objective with 8 seeds and, where it has one, three values of a setting
that decides how much is hidden. ``minicpt explain OBJECTIVE --seed N`` shows the same.
"""

from collections.abc import Sequence

from minicpt.common.errors import InputError
from minicpt.pictures.lesson.grid import draw_of, grid, passage_of
from minicpt.pictures.lesson.pupils import Pupil
from minicpt.pictures.lesson.sections import Lesson, table
from minicpt.pictures.passage import summary

ORDER = 2
TITLE = "The bench"
LEAD = "What is read, what may be seen, what is the target, how much it weighs, and what it costs."
SEEDS = 8
# The setting that is turned, the first that an objective has, with three values.
KNOBS = {
    "span": (1.5, 3.0, 5.0),
    "rate": (0.15, 0.3, 0.5),
    "deletion": (0.1, 0.2, 0.4),
    "ahead": (2, 3, 4),
}
LEVELS = (0.25, 0.5, 0.75)  # t, where passages have one
# What transformers calls it, and where the shift happens there and here.
NAMES = {
    "decoder": (
        ("what is read", "input_ids"),
        ("what may be seen", "attention_mask tells padding; the causal mask is in the model"),
        ("target", "labels: the token of this position itself, not of the next one"),
        ("no target", "labels = -100"),
        ("the shift there", "in the loss: logits[:, :-1] are held against labels[:, 1:]"),
        ("the shift here", "in the batch, by batch.shift; model and loss never shift"),
    ),
    "encoder": (
        ("what is read", "input_ids"),
        ("what may be seen", "attention_mask: 1 for every real token, in both directions"),
        ("target", "labels: the token that was hidden at this position"),
        ("no target", "labels = -100"),
        ("the shift there", "none: a token is predicted where it stands"),
        ("the shift here", "none"),
    ),
    "encoder-decoder": (
        ("what the encoder reads", "input_ids"),
        ("what the decoder reads", "decoder_input_ids"),
        ("what may be seen", "attention_mask for the encoder's padding; the decoder is causal"),
        ("target", "labels: what the decoder has to write"),
        ("no target", "labels = -100"),
        ("the shift there", "in the model: decoder_input_ids are labels, moved right by one"),
        ("the shift here", "in the batch: the objective hands over both rows"),
    ),
}


def data(lesson: Lesson) -> dict:
    found = [each for pupil in lesson.pupils if (each := of_pupil(lesson, pupil))]
    return {"objectives": found, "names": {role: list(names) for role, names in NAMES.items()}}


def of_pupil(lesson: Lesson, pupil: Pupil) -> dict | None:
    """One objective's grids; None where the text is too short for it.

    ``index[k][s]``: the number of the grid, in ``grids``, of value k of the knob and seed s. Where
    nothing is drawn, all are the same.
    """
    knob, values = knob_of(lesson, pupil)
    grids: list[dict] = []
    index = []
    for value in values or (None,):
        row = []
        for seed in range(SEEDS):
            try:
                made = one(lesson, pupil, knob, value, seed)
            except InputError:
                return None
            if made not in grids:
                grids.append(made)
            row.append(grids.index(made))
        index.append(row)
    return {
        "name": pupil.name,
        "summary": summary(pupil.objective),
        "role": pupil.objective.role,
        "knob": knob,
        "values": list(values),
        "notes": list(pupil.notes),
        "index": index,
        "grids": grids,
    }


def one(lesson: Lesson, pupil: Pupil, knob: str, value: float | None, seed: int) -> dict:
    """The grid of one value of the knob and one seed."""
    turned = {} if knob in ("", "t") else {knob: value}
    objective = pupil.with_settings(**turned) if turned else pupil.objective
    passage = passage_of(objective, lesson.text, seed)
    draw = draw_of(passage, seed, value if knob == "t" else None)
    return grid(pupil, objective, passage, draw, lesson.words)


def knob_of(lesson: Lesson, pupil: Pupil) -> tuple[str, Sequence[float]]:
    """What is turned, and its values; "" and none where nothing is."""
    fields = type(pupil.objective.settings).__dataclass_fields__
    for name, values in KNOBS.items():
        if name in fields and not (name == "ahead" and len(pupil.parts)):
            return name, values
    passage = passage_of(pupil.objective, lesson.text, 0)
    return ("t", LEVELS) if hasattr(passage, "level") else ("", ())


def tables(lesson: Lesson, data: dict) -> str:
    """The first grid of each objective, and the names."""
    words = lesson.words.all
    found = [table_of(each, words) for each in data["objectives"]]
    roles = dict.fromkeys(each["role"] for each in data["objectives"])
    found += [
        table(f"What transformers calls it: {role}", ["here", "there"], NAMES[role])
        for role in roles
    ]
    return "\n".join(found)


def table_of(each: dict, words: Sequence[str]) -> str:
    """One grid, a row for each position of the stream of the targets."""
    first = each["grids"][each["index"][0][0]]
    reads = [words[number] for number in first["streams"][-1][1]]
    rows = []
    for head, sees in zip(first["heads"], first["sees"], strict=True):
        by_position = {target[0]: target for target in head[-1]}
        for position, read in enumerate(reads):
            target = by_position.get(position)
            seen = seen_at(sees[-1], position, len(reads))
            cells = [words[target[1]], target[4], target[3]] if target else ["no target", "", ""]
            rows.append([position, read, seen, *cells])
    others = "".join(
        f" The {reader} reads: {' '.join(words[number] for number in row)}."
        for reader, row in first["streams"][:-1]
    )
    caption = f"{each['name']}: {each['summary']}{others}"
    return table(caption, ["position", "reads", "sees", "target", "weight", "loss"], rows)


def seen_at(pattern: str | list[str], position: int, size: int) -> str:
    """What a position sees, in words.

    >>> seen_at("past", 2, 4), seen_at(["0110"], 0, 4)
    ('0 to 2', '1 to 2')
    """
    if pattern == "all":
        return f"0 to {size - 1}"
    row = "1" * (position + 1) if pattern == "past" else pattern[position]
    seen = [at for at, each in enumerate(row) if each == "1"]
    if not seen:
        return "nothing"
    if seen == list(range(seen[0], seen[-1] + 1)):
        return f"{seen[0]} to {seen[-1]}"
    return " ".join(map(str, seen))
