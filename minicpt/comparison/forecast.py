"""What a comparison consists of and how long it will take, said before it starts.

A step and the reading of a held-out passage are timed for each objective of each role, with the
sizes of the comparison, and counted up. What a remedy adds to a step is left out, and other work on
the machine is not known: it is said as "about".
"""

import copy
import time
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from minicpt.common.terminal import duration
from minicpt.comparison.arms import NOTHING, at_end
from minicpt.comparison.parts import Part
from minicpt.comparison.work import Work
from minicpt.runs import assembly
from minicpt.runs.forecast import TRIED, timed
from minicpt.training.device import keep_freed_memory
from minicpt.training.evaluation import evaluate

PASSAGES = 8  # of held-out text that are timed
SIDES = 2  # texts by which every part is measured


def counts(wanted: Sequence[Part], missing: Sequence[Part], work: Work) -> str:
    """How many of what, and how many are done already."""
    bases = sum(part.arm is None for part in wanted)
    ends = sum(part.arm is not None and at_end(part.arm) for part in wanted)
    evaluations = SIDES * sum(len(measured(work, part)) for part in wanted)
    trained = len(wanted) - bases - ends
    made = " (given)" if work.given else ""
    found = [counted(bases, "base") + made, counted(trained, "continuation")]
    found += [f"{counted(ends, 'change')} of finished ones"] if ends else []
    found.append(f"{evaluations:,} evaluations")
    return f"plan      {', '.join(found)}; {len(wanted) - len(missing)} of {len(wanted)} parts done"


def counted(number: int, name: str) -> str:
    """
    >>> counted(1, "base"), counted(2, "base")
    ('1 base', '2 bases')
    """
    return f"{number:,} {name}{'s' * (number != 1)}"


def measured(work: Work, part: Part) -> list[str]:
    """The objectives by which a part is measured."""
    return [word for word in work.measures(part) if (part.role, word) in set(words(work))]


def words(work: Work) -> Iterable[tuple[str, str]]:
    yield from ((role, name) for name, role in work.roles.items())
    yield from ((role, word) for role, each in work.changes.items() for word in each)


def estimate(missing: Sequence[Part], work: Work, base: nn.Module | None) -> float:
    """Seconds that the parts will take on this machine, from a short try of each objective."""
    keep_freed_memory()
    asked, total = work.asked.comparison, 0.0
    tried: dict[tuple[str, str], tuple[float, float]] = {}

    def costs(role: str, word: str) -> tuple[float, float]:
        if (role, word) not in tried:
            tried[role, word] = attempt(work, Part(role, 0, word, NOTHING), base)
        return tried[role, word]

    plain = {part.plain for part in missing if part.arm == NOTHING}
    for part in missing:
        own = part.first or _nearest(work, part)
        if part.arm is None or not at_end(part.arm):
            done = part.arm is None and work.folder(part).is_dir()
            total += 0 if done else part.steps(asked) * costs(part.role, own)[0]
        elif part.plain not in plain:  # its continuation is done already, and is not kept
            plain.add(part.plain)
            total += part.steps(asked) * costs(part.role, own)[0]
        for word in measured(work, part):
            total += SIDES * asked.evaluate_passages * costs(part.role, word)[1]
    return total


def _nearest(work: Work, part: Part) -> str:
    """The objective that is timed in place of a base's own, which need not be compared."""
    able = [word for role, word in words(work) if role == part.role]
    name = part.trained or part.way[0]
    return next((word for word in able if word.partition("+")[0] == name), able[0])


def attempt(work: Work, part: Part, base: nn.Module | None) -> tuple[float, float]:
    """Seconds of a step, and of a held-out passage."""
    config = work.config(part)
    model = copy.deepcopy(base) if base else work.new_model(part.from_base)
    objective, domain = work.objective(part, model), work.domains["old"]
    given = config.training, TRIED + 1, config.machine
    trainer = assembly.make_trainer(model, objective, domain.training, *given)
    step = timed(trainer, 1, TRIED)
    begun = time.perf_counter()
    evaluate(model, objective, domain.held_out, PASSAGES, parts=trainer.parts)
    return step, (time.perf_counter() - begun) / PASSAGES


def said(wanted: Sequence[Part], results: Mapping, work: Work, base: nn.Module | None) -> list[str]:
    """The lines about the plan."""
    missing = [part for part in wanted if results[part] is None]
    lines = [counts(wanted, missing, work)]
    if missing:
        seconds = estimate(missing, work, base)
        left = "" if len(missing) == len(wanted) else " for what is left"
        lines.append(
            f"time      about {duration(seconds)}{left}, from {TRIED} steps and {PASSAGES} passages"
            " of each objective, here and now"
        )
    return lines
