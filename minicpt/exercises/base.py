"""The base class of an exercise: one function to write, and how it is judged.

A new exercise is one new file in this folder: a class that derives from ``Exercise``. It says what
is to be written, on which inputs it is tried, and which function of minicpt is right. The smallest
one stands in tests/house/toy_exercise.py; ``shift`` is one with all that there is.

The solution is always minicpt's own function, and a mistake that has a name in ``verify --break``
keeps it. An exercise may also put the learner's function into a subject of the proofs, as a fault
is put there (``patched``): then the proofs run on it, and every known fault of that subject is
computed and compared with what the learner's function makes of it.
"""

import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from minicpt.batch import IGNORE
from minicpt.common import registry
from minicpt.data.input_output import SENTINELS
from minicpt.data.tokenizer import Tokenizer
from minicpt.proofs import suite
from minicpt.proofs.subject import Subject


@dataclass(frozen=True)
class Mistake:
    """A typical wrong solution.

    name  where ``verify --break`` knows the mistake, its name there
    why   one sentence: what is computed instead
    make  from the inputs of the function to what the wrong solution gives
    """

    name: str
    why: str
    make: Callable[..., Any]


class Exercise(ABC):
    """One function that a learner writes.

    ORDER     its place among the exercises
    minutes   that a student needs who has heard the lecture
    task      what to write, and why, in a few sentences; a blank line parts paragraphs
    stub      the function's head, and its docstring with a worked example
    inputs    the names of what the function is given, and ``outputs`` of what it gives back; more
              than one output is a tuple
    tokens    those of these names that hold token ids: they are shown with their letters
    hints     from a first thought to nearly the solution
    subject   the name of the subject of the proofs that the function is put into; "": none
    proofs    the names of the proofs that then run, as ``verify`` shows them
    measured  what the number is that is shown of the subject
    mistakes  the typical wrong solutions that are not among the faults of the subject
    """

    ORDER: ClassVar[int]
    minutes: ClassVar[int] = 5
    task: ClassVar[str]
    stub: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    tokens: ClassVar[frozenset[str]] = frozenset()
    hints: ClassVar[tuple[str, ...]]
    subject: ClassVar[str] = ""
    proofs: ClassVar[tuple[str, ...]] = ()
    measured: ClassVar[str] = "nats per target"
    mistakes: Sequence[Mistake] = ()

    @abstractmethod
    def cases(self) -> Iterator[tuple]:
        """The inputs of each call, from the smallest text to the largest."""

    @abstractmethod
    def reference(self, *inputs) -> Any:
        """The right answer: minicpt's own function."""

    def patched(self, subject: Subject, function: Callable) -> Subject:
        """A sound subject with the learner's function in the place of ours.

        function  from the inputs to what the learner's gives, of the right types and shapes
        """
        return subject

    def measure(self, subject: Subject) -> list[Tensor]:
        """The numbers that tell one mistaken subject from another; the first one is shown.

        By default the mean loss of a few passages, and each target's own loss and place.
        """
        batch = subject.batch(subject.passages(PASSAGES))
        with torch.no_grad():
            found = subject.losses(subject.learner(), batch)
        parts = [
            part
            for each in found.values()
            for part in (each.losses, each.targets, each.rows, each.positions, each.weights)
        ]
        sums, counts = zip(*((x.total().sum, x.count) for x in found.values()), strict=True)
        return [sum(sums) / max(sum(counts), 1), torch.tensor(counts), *parts]

    def is_possible(self) -> bool:
        """Whether the subject is there that it needs."""
        return not self.subject or self.subject in suite.kinds()

    def remark(self, answer: Any) -> str:
        """What else there is to say of an answer, right or wrong; "" where nothing."""
        return ""

    # --- what follows from the above

    @property
    def name(self) -> str:
        return registry.name_of(type(self))

    @property
    def title(self) -> str:
        """What it is about, in a line: the first of the class's docstring."""
        return type(self).__doc__.splitlines()[0]

    @property
    def function(self) -> str:
        """The name of the function that is written."""
        return re.search(r"^def (\w+)\(", self.source, re.MULTILINE)[1]

    @cached_property
    def source(self) -> str:
        return textwrap.dedent(self.stub).strip()

    def as_file(self, number: int, count: int) -> str:
        """The file that a learner fills in."""
        head = [f"{MARK} {self.name} ({number} of {count})", "", self.title, ""]
        for paragraph in textwrap.dedent(self.task).strip().split("\n\n"):
            drawn = paragraph.startswith("    ")  # kept as it is
            head += paragraph.split("\n") if drawn else wrapped(paragraph)
            head.append("")
        file = f"{self.name.replace('-', '_')}.py"
        head += [f"When you have written it:  minicpt exercise check {file}"]
        comment = "\n".join(f"# {line}".rstrip() for line in head)
        constant = f"\nIGNORE = {IGNORE}  # a position without a target\n"
        uses = "IGNORE" in self.source + self.task
        body = f"{self.source}\n    raise NotImplementedError  # your lines take the place of this"
        return f"{comment}\n\nimport torch\n{constant if uses else ''}\n\n{body}\n"


MARK = "minicpt exercise:"
PASSAGES = 4


def wrapped(text: str) -> list[str]:
    """A paragraph in lines that fit behind a comment's sign."""
    return textwrap.wrap(" ".join(text.split()), 97, break_on_hyphens=False)


@cache
def tokenizer() -> Tokenizer:
    """The bytes alone: each letter is a token. And T5's sentinels."""
    return Tokenizer.train([], 256, SENTINELS)


def ids(text: str) -> Tensor:
    """The tokens of a text, one a letter."""
    return torch.tensor(tokenizer().encode(text))


def letters(value: int) -> str:
    """A token with its letter; a position without a target as a dot.

    >>> letters(69), letters(4), letters(IGNORE)
    ('69 a', '4 [MASK]', '.')
    """
    if value == IGNORE:
        return "."
    if not 0 <= value < tokenizer().size:
        return str(value)
    return f"{value} {tokenizer().token(value)}"
