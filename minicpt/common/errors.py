"""The two errors that reach a user as one line: what is wrong, where, and what to do."""

from collections.abc import Sequence


class InputError(ValueError):
    """Bad usage or bad input, found before any work was done. Exit status 2."""


class WorkError(RuntimeError):
    """Work that was begun and could not be finished. Exit status 1."""


class NotFinite(WorkError):
    """A loss or gradient was NaN or infinite; the weights are as they were before the step."""

    def at(self, step: int, places: Sequence[str]) -> "NotFinite":
        """The same with the step, and the first of the passages that it read."""
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        return NotFinite(
            f"step {step} stopped before the weights changed: {self}; its batch is"
            f" {', '.join(places[:3])}{more}; lower --learning-rate, or look at that text"
        )
