"""Which loss for continued pre-training: what does each gain on new text, and forget of the old?

From bases that know the old text (by default Python's language reference), models are continued on
the new text (the standard library's source) with every objective, and with every remedy against
forgetting that the objective allows, under one budget and with several seeds. It is what ``minicpt
compare`` does, which describes the measurements: gained and forgotten in the objective's own
held-out loss, a probe that is the same for all objectives, intervals over seeds and held-out text,
and the control, the same budget on the wrong text.

A run that was stopped goes on with the same command. Leaves out larger models and budgets, and text
that is not in every Python: ``minicpt compare --corpus``.
"""

import sys

from timing import check_writable, machine, run, write_json

from minicpt.cli import compare
from minicpt.cli.main import Parser
from minicpt.runs.console import tell


def parser() -> Parser:
    top = Parser(prog="continued_pretraining.py", description=__doc__.splitlines()[0])
    compare.add_flags(top)
    top.add_argument("--json", metavar="PATH", help="write the result, with all intervals")
    return top


def main(words: list[str]) -> int:
    options = parser().parse_args(words)
    check_writable(options.json)
    tell(__doc__.splitlines()[0])
    result, status = compare.compared(options, tell)
    if result is None:
        return status
    tell(f"\n{machine()}")
    tell(f"all parts together: {result.seconds / 60:.1f} minutes\n")
    tell(compare.shown(result))
    if options.json:
        write_json(options.json, result.plain() | {"machine": machine()})
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
