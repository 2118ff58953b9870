"""Which loss for continued pre-training: what does each gain on new text, and forget of the old?

Two comparisons of ``minicpt compare``, each in a folder of its own below --out:

    strong  from prose (Python's language reference) to code (its library's source): bases of each
            main objective are continued with every objective of their role and measured by all of
            them, and every remedy is swept through its strengths with causal-lm
    weak    from code to code (the library's modules a to m, then n to z): the same sweeps

The learning rate of each objective is chosen by one rule. What is to be done, and about how long it
takes, is said first. A run that was stopped goes on with the same command, and more --seeds add to
what is done. Leaves out larger models and budgets, and other text: ``minicpt compare --corpus``.
"""

import sys
import sysconfig
from pathlib import Path

from timing import check_writable, machine, run, write_json

from minicpt import comparison
from minicpt.cli import compare, flags
from minicpt.cli.main import Parser
from minicpt.comparison.plan import Comparison
from minicpt.runs.console import tell
from minicpt.runs.signals import Interrupted
from minicpt.training.device import Machine

# Sizes with which all of it takes about an hour on a core.
SIZES = {
    "width": 64, "layers": 2, "base_steps": 1500, "steps": 150, "evaluate_passages": 192,
    "tune_rates": True,
}  # fmt: skip
QUICK = {
    "width": 16, "layers": 1, "window": 32, "vocab_size": 512, "base_steps": 20, "steps": 5,
    "seeds": 1, "evaluate_passages": 16, "characters": 300_000,
}  # fmt: skip
OUT = "runs/continued-pretraining"


def stages() -> dict[str, dict]:
    """What each comparison asks for, by its name."""
    library = Path(sysconfig.get_path("stdlib"))
    return {
        "strong": {"change": True, "sweep": ("all",)},
        "weak": {
            "old_corpus": str(library / "[a-m]*.py"), "corpus": str(library / "[n-z]*.py"),
            "sweep": ("all",),
        },
    }  # fmt: skip


def parser() -> Parser:
    top = Parser(prog="continued_pretraining.py", description=__doc__.splitlines()[0])
    top.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    top.add_argument(
        "--stages", nargs="+", choices=list(stages()), default=list(stages()), help="these alone"
    )
    top.add_argument("--sweep", nargs="+", metavar="REMEDY", help="sweep these alone")
    flags.add(top, "the budget and the sizes (defaults of this script apart)", Comparison)
    flags.add(top, "the machine", Machine)
    top.add_argument("--out", default=OUT, metavar="DIR", help=f"folder (default: {OUT})")
    top.add_argument("--json", metavar="PATH", help="write the results, with all intervals")
    top.add_argument("--plot", metavar="PATH", help="draw forgotten against gained (matplotlib)")
    return top


def picture(path: str, stage: str) -> str:
    """The file of one comparison's picture.

    >>> picture("front.png", "weak")
    'front-weak.png'
    """
    return str(Path(path).with_stem(f"{Path(path).stem}-{stage}"))


def main(words: list[str]) -> int:
    options = parser().parse_args(words)
    check_writable(options.json)
    tell(__doc__.splitlines()[0])
    tell(machine())
    given = SIZES | (QUICK if options.quick else {}) | flags.given(options, Comparison, Machine)
    results = {}
    for name in options.stages:
        settings = stages()[name] | given | {"out": str(Path(options.out, name))}
        if options.sweep:
            settings["sweep"] = tuple(options.sweep)
        plot = options.plot and picture(options.plot, name)
        tell(f"\n{name}:")
        try:
            results[name] = comparison.compare(plot=plot, tell=tell, **settings)
        except Interrupted as interrupted:
            return 128 + interrupted.number
        tell(f"\n{compare.shown(results[name])}")
        tell(f"\n{name}: all parts together took {results[name].seconds / 60:.1f} minutes")
    if options.json:
        found = {name: result.plain() for name, result in results.items()}
        write_json(options.json, found | {"machine": machine()})
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
