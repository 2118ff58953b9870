"""The two errors that reach a user as one line: what is wrong, where, and what to do."""


class InputError(ValueError):
    """Bad usage or bad input, found before any work was done. Exit status 2."""


class WorkError(RuntimeError):
    """Work that was begun and could not be finished. Exit status 1."""
