"""The base class of an exercise in reverse: a broken run is given, and its fault is asked for.

A new one is one new file in this folder: a class that derives from ``Diagnosis``, names the
``FAULT`` (one that ``verify --break`` knows) and says what is shown of the broken run. The fault is
really made, and what is shown is computed. A wrong answer is made too: the learner sees what it
would have looked like.
"""

import copy
import difflib
import textwrap
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from minicpt.exercises.base import Exercise
from minicpt.proofs import faults
from minicpt.proofs.subject import Subject
from minicpt.proofs.suite import sound


class Diagnosis(Exercise):
    """Name the fault of a broken run.

    FAULT    its name
    story    what is shown, and how to read it
    """

    FAULT: ClassVar[str]
    story: ClassVar[str]
    outputs = ("fault",)
    inputs = ()
    minutes = 4
    stub = '''
    def fault():
        """The name of the fault, one of the list above: a text such as "left-padding"."""
    '''

    @abstractmethod
    def evidence(self, subject: Subject) -> list[str]:
        """What is shown of a subject, in lines."""

    @property
    def task(self) -> str:
        """The story, what is shown, and the possible answers."""
        shown = textwrap.indent("\n".join(self.shown(self.FAULT)), "    ")
        answers = self.answers()
        width = max(map(len, answers))
        listed = "\n".join(f"    {name:<{width}}  {what}" for name, what in answers.items())
        asked = "Which fault is it? Write its name into the function below. It is one of these:"
        return "\n\n".join([textwrap.dedent(self.story).strip(), shown, asked, listed])

    def answers(self) -> dict[str, str]:
        """The faults that can be made in this run, with what each is, in the order of the names.

        The run is one process: mistakes of several are not among them.
        """
        known = faults.known()
        subject = known[self.FAULT].subject
        found = {
            name: each.what
            for name, each in known.items()
            if each.subject == subject and not each.processes
        }
        return dict(sorted(found.items()))

    def is_possible(self) -> bool:
        return self.FAULT in faults.known()

    def shown(self, name: str) -> list[str]:
        """What is shown where this fault is made; "": of the sound subject."""
        known = faults.known()
        subject = copy.deepcopy(sound(known[self.FAULT].subject))
        return self.evidence(known[name].make(subject) if name else subject)

    def cases(self):
        yield ()

    def reference(self) -> str:
        return self.FAULT

    def remark(self, answer) -> str:
        """What the run would look like with the fault that was named; it is shown where wrong."""
        answers = self.answers()
        if answer == self.FAULT:
            return f"Yes, it is `{answer}`: {answers[answer]}."
        if not isinstance(answer, str) or answer not in answers:
            near = difflib.get_close_matches(str(answer), answers, 1)
            return "That is not a name of the list." + (f" Perhaps {near[0]}?" if near else "")
        lines = self.shown(answer)
        if lines == self.shown(""):
            return f"With `{answer}` ({answers[answer]}) the run would look right here:\n" + (
                "\n".join(lines)
            )
        return f"With `{answer}` ({answers[answer]}) it would look like this:\n" + "\n".join(lines)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines; the first column stands on the left, the others on the right.

    >>> table([["a", "1"], ["bc", "10"]])
    ['a    1', 'bc  10']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
