"""``minicpt toy-verb``: says how many objectives there are (of this test alone)."""

from minicpt import objectives


def add(parser):
    parser.epilog = "it counts the toys too"


def run(arguments):
    print(f"{len(objectives.known())} objectives")
    return 0
