"""``python -m minicpt`` and the ``minicpt`` command."""

import os
import sys
import warnings


def main() -> int:
    # torch looks for NumPy when it is imported; minicpt needs none, and says nothing about it.
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    # Threads that wait must not spin: beside another busy program, spinning made a step of two
    # threads on two cores seven times slower. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from minicpt.cli.main import main as command

        return command(sys.argv[1:])
    except KeyboardInterrupt:  # also while torch is being imported
        print("minicpt: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
