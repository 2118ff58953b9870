"""``python -m minicpt`` and the ``minicpt`` command."""

import sys


def main() -> int:
    from minicpt.cli.main import main as command

    return command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
