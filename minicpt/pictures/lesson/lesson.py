"""From a text, and perhaps checkpoints, to the page."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch

from minicpt.common.errors import InputError
from minicpt.common.threads import one_thread
from minicpt.pictures.lesson import paper, primer, pupils
from minicpt.pictures.lesson.sections import Lesson
from minicpt.pictures.lesson.sections.plane import rows_of
from minicpt.runs.console import bar_over

LONGEST = 2000  # characters of a text: the page shows its first passage alone
BUILT_IN = "comparison.json"


def page(
    text: str | None = None,
    init: Sequence[str] = (),
    objectives: Sequence[str] = (),
    compare: Sequence[str] = (),
    steps: int = pupils.STEPS,
) -> str:
    """The page, as HTML that asks nothing of any network.

    text        that is shown; None: the lesson's own
    init        checkpoint folders, whose models are taken; none: small ones are trained on the spot
    objectives  their names; none: all that fit
    compare     files of ``minicpt compare --json``; none: a small result that comes with minicpt
    steps       how long each small model learns

    The same input gives the same bytes on one machine with one number of threads. Raises InputError
    with one line for what makes no sense, before long work starts.
    """
    if text is not None and not text.strip():
        raise InputError("--text is empty; give some words")
    shown = primer.TEXT if text is None else text[:LONGEST]
    compared = results(compare)
    names = pupils.chosen(objectives)
    with one_thread(), torch.random.fork_rng(devices=[]):
        found = pupils.loaded(init, objectives) if init else pupils.trained(text, names, steps)
        lesson = Lesson(shown, found, compared)
        return paper.html(lesson, lambda each: bar_over(each, "the page"))


def results(paths: Sequence[str]) -> list[dict]:
    """What the files hold, or the built-in comparisons. InputError where it is none."""
    if not paths:
        file = resources.files("minicpt") / "pictures" / "page" / BUILT_IN
        return json.loads(file.read_text("utf-8"))
    found = []
    for path in paths:
        try:
            result = json.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise InputError(f"--compare {path} cannot be read ({error.strerror})") from None
        except ValueError:
            raise InputError(
                f"--compare {path} is not JSON; give what `minicpt compare --json` printed"
            ) from None
        rows_of(result)
        found.append(result)
    return found
