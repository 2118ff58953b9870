"""``minicpt toy-verb``: says how many objectives there are (of this test alone)."""

from minicpt import objectives


def add(verbs):
    verbs.add_parser("toy-verb", help="count the objectives of the toy house")


def run(arguments):
    print(f"{len(objectives.known())} objectives")
    return 0
