"""Adam's moments in a base, where a remedy goes on with them."""

from collections.abc import Iterable

from minicpt.checkpoint import Checkpoint
from minicpt.common.errors import InputError
from minicpt.remedies.base import Remedy
from minicpt.training.resuming import named_moments


def moments_of(base: Checkpoint, remedies: Iterable[Remedy]) -> dict[str, dict]:
    """The moments of a base by the names of its parameters; {}: no remedy asks for them.

    Raises InputError where the base has none.
    """
    asking = [each.name for each in remedies if each.reads_moments]
    if not asking:
        return {}
    flag = f"--{asking[0]} cannot be used here"
    if not base.record:
        raise InputError(f"{flag}: {base.folder} holds no moments of Adam; name a run of minicpt")
    try:
        return named_moments(base.state())
    except (LookupError, TypeError):
        raise InputError(
            f"{flag}: {base.folder} does not say whose moments it holds; train the base anew"
        ) from None
