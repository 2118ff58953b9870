"""``minicpt export``: writes a checkpoint as a Hugging Face folder, and nothing else into it."""

import argparse
from pathlib import Path

from minicpt import checkpoint
from minicpt.common.errors import InputError
from minicpt.runs import parts
from minicpt.runs.console import print_json, say

EXAMPLES = """examples:
  minicpt export runs/first --to exported
  minicpt export runs/first/step-00000200 --to exported-200
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("folder", metavar="DIR", help="a checkpoint or the folder of a run")
    parser.add_argument("--to", metavar="DIR", required=True, help="the new folder")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    to = Path(arguments.to)
    checkpoint.check_export(to)  # before anything large is read
    base = checkpoint.load(arguments.folder)
    for note in base.notes:
        say(note)
    if base.tokenizer.size > base.model.config.vocabulary:
        raise InputError(
            f"the tokenizer in {base.folder} has {base.tokenizer.size} tokens, more than the"
            f" {base.model.config.vocabulary} of its model; use files that belong together"
        )
    checkpoint.export(to, base.model, base.tokenizer)
    told = [*parts.left_out(base), *read_causally(base)]
    for note in told:
        say(note)
    if arguments.json:
        print_json({"from": str(base.folder), "to": str(to), "notes": [*base.notes, *told]})
    else:
        print(f"{base.folder} is exported to {to}; transformers opens it with from_pretrained")
    return 0


def read_causally(base: checkpoint.Checkpoint) -> list[str]:
    """What to say of a decoder that was trained to look both ways: other tools do not."""
    names = [name for name, kind in parts.trainers(base).items() if kind.looks_ahead]
    if base.model.ROLE != "decoder" or not names:
        return []
    return [
        f"the model was trained with {' and '.join(names)}, in which positions also see"
        " what follows them; transformers reads it causally"
    ]
