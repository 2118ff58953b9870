"""``python -m minicpt`` and the ``minicpt`` command."""

import contextlib
import os
import sys
import traceback
import warnings

from minicpt.runs import signals


def main() -> int:
    signals.install(signals.leave)  # also while torch is being imported
    # torch looks for NumPy when it is imported; minicpt needs none, and says nothing about it.
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    # Threads that wait must not spin: beside another busy program, spinning made a step of two
    # threads on two cores seven times slower. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "LOCAL_RANK" in os.environ:  # of many processes, each one's warnings would be said
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from minicpt.cli.main import main as command

    signals.install(signals.stop)
    try:
        status = command(sys.argv[1:])
    except Exception:
        if "LOCAL_RANK" not in os.environ:
            raise
        traceback.print_exc()  # a mistake of ours; the library's threads must not delay the end
        status = 1
    except signals.Stop as stopped:  # it came before the command could catch it, or after that
        signals.leave(stopped.number)
    finally:
        signals.install(signals.leave)
    # A thread that the library still holds must not delay the end of an interrupted program. Of
    # several processes, now and then such a thread aborts one whose work is done ("terminate called
    # without an active exception"), and torchrun would call the run failed.
    if status > 128 or "LOCAL_RANK" in os.environ:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
