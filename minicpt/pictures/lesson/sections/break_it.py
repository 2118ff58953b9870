"""Break it: mistakes that people make, wrong beside right, and the proof that catches each.

The faults are those of ``minicpt verify --break``. What each changes is computed with the models
of this page (``pictures/broken.py``). Which proof catches it, and with what message, stands in a
packaged table, since the proofs take minutes: ``verify --break all --json`` renews it.
"""

import json
from dataclasses import replace
from importlib import resources

from minicpt.common.errors import InputError
from minicpt.pictures.broken import broken_in, made_in
from minicpt.pictures.lesson.grid import pack
from minicpt.pictures.lesson.pupils import Pupil
from minicpt.pictures.lesson.sections import Lesson, table
from minicpt.pictures.picture import Scene
from minicpt.proofs import faults
from minicpt.proofs.faults.base import Fault
from minicpt.runs.assembly import model_kind, objective_kind

ORDER = 4
TITLE = "Break it"
LEAD = "Mistakes that people make: right beside wrong, and which proof notices."
TABLE = "caught.json"


def caught() -> dict[str, dict[str, str]]:
    """fault -> proof -> message, as ``verify --break all --json`` gave them."""
    file = resources.files("minicpt") / "pictures" / "page" / TABLE
    return json.loads(file.read_text("utf-8"))


def data(lesson: Lesson) -> dict:
    """Each fault of an objective that the page shows.

    ``right`` and ``wrong`` are packed grids, the former by its number in ``rights``; a fault that
    changes nothing in a picture has ``reason`` instead. ``leaks`` and ``lost``: [head, stream,
    position of the target, position that it sees, or no longer sees].
    """
    pupils = {pupil.name: pupil for pupil in lesson.pupils}
    messages = caught()
    rights: list[dict] = []
    found = []
    for fault in faults.known().values():
        if fault.objective not in pupils:
            continue
        row = {
            "name": fault.name,
            "number": fault.number,
            "objective": fault.objective,
            "subject": fault.subject,
            "what": fault.what,
            "caught": list(map(list, messages.get(fault.name, {}).items())),
        }
        found.append(row | picture(lesson, pupils[fault.objective], fault, rights))
    return {"faults": found, "rights": rights}


def picture(lesson: Lesson, pupil: Pupil, fault: Fault, rights: list[dict]) -> dict:
    """What the fault changes in a picture of the text; else why it changes nothing there."""
    try:
        shown = broken_in(scene_of(lesson, pupil, fault), fault, lesson.text, triangle=0)
    except InputError as error:
        return {"reason": str(error)}
    if shown.wrong is None:
        return {"reason": shown.reason}
    right, wrong = (pack(each, lesson.words) for each in (shown.right, shown.wrong))
    if right not in rights:
        rights.append(right)
    streams = [*shown.right["streams"]]
    order = sorted(streams, key=lambda name: name == shown.right["target_stream"])
    heads = [*shown.right["heads"]]
    return {
        "right": rights.index(right),
        "wrong": wrong,
        "padded": shown.padded,
        **{
            kind: [
                [heads.index(each.head), order.index(each.stream), each.position, each.seen]
                for each in places
            ]
            for kind, places in (("leaks", shown.leaks), ("lost", shown.lost))
        },
    }


def scene_of(lesson: Lesson, pupil: Pupil, fault: Fault) -> Scene:
    """The pupil with the settings in which the fault shows. Where it shows in a model of another
    kind or role, that of a pupil that has one. InputError where none has."""
    variant, needed = made_in(fault)
    kind = model_kind(needed, objective_kind(fault.objective))
    hosts = [
        each
        for each in [pupil, *lesson.pupils]
        if (type(each.model) is kind if needed else each.model.ROLE == kind.ROLE)
    ]
    if not hosts:
        raise InputError(f"it shows in a model of the role {kind.ROLE}, and none is here")
    if hosts[0] is pupil:
        objective = pupil.with_settings(**variant.settings)
        return Scene(pupil.model, pupil.parts, objective, pupil.notes)
    objective = replace(pupil, model=hosts[0].model).with_settings(**variant.settings)
    return Scene(hosts[0].model, objective.parts(hosts[0].model), objective, hosts[0].notes)


def tables(lesson: Lesson, data: dict) -> str:
    rows = [
        [
            each["name"],
            each["objective"],
            each["what"],
            "; ".join(f"{proof}: {message}" for proof, message in each["caught"][:1]),
        ]
        for each in data["faults"]
    ]
    head = ["fault", "objective", "the mistake", "caught by"]
    return table("The faults of minicpt verify --break", head, rows)
