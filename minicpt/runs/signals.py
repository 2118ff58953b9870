"""SIGINT and SIGTERM, from the first line of minicpt to its last.

    while Python and torch are loaded, and at the very end    the program ends at once
    while a verb works                                        it unwinds, and says that it stopped
    while a run trains (``Signals``)                          the step is finished and saved

A second signal ends the program at once in all three; what was saved before is whole then, since
folders are renamed only when they are complete. Exit status: 130 and 143. A signal that was ignored
when the program began, as under nohup, stays so.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Stop(KeyboardInterrupt):
    """SIGINT or SIGTERM came; ``number`` is the signal's."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Interrupted(Exception):
    """The same while a run trains: it stands after a whole step, and can be saved."""

    def __init__(self, number: int):
        self.number = number


def install(handler: Callable) -> None:
    for number in CAUGHT:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def leave(number: int, frame=None) -> None:
    """Ends the program now. Nothing is unwound, so nothing can hold it up."""
    words = f"minicpt: {signal.Signals(number).name}: stopped at once; what was saved is whole\n"
    try:
        os.write(2, words.encode())
    except OSError:
        pass  # nobody is left to be told
    os._exit(128 + number)


def stop(number: int, frame) -> None:
    """Unwinds what the program is doing; a second signal finds ``leave``."""
    install(leave)
    # Where exceptions cannot pass, as in a destructor, Python would only print this one.
    sys.unraisablehook = unraisable
    raise Stop(number)


def unraisable(lost) -> None:
    if isinstance(lost.exc_value, Stop):
        leave(lost.exc_value.number)
    sys.__unraisablehook__(lost)


class Signals:
    """Remembers SIGINT and SIGTERM, so that a step is finished before they take effect.

    Several processes stop together: after the step in which the first of them got the signal.
    """

    def __init__(self, world=None):
        self.world = world

    def __enter__(self) -> "Signals":
        self.number: int | None = None
        self.before = {number: signal.getsignal(number) for number in CAUGHT}
        install(self.remember)
        return self

    def remember(self, number: int, frame) -> None:
        self.number = number
        install(leave)

    def __exit__(self, *exception) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        number = self.number or 0
        if self.world:
            number = max(self.world.gathered(number))
        if number:
            raise Interrupted(number)

    def watching(self, iterable: Iterable) -> Iterable:
        """The same items, with a stop between them when a signal has come."""
        for item in iterable:
            self.check()
            yield item
