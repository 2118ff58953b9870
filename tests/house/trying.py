"""Uses the toys of a house with them, in the folder that holds it; prints what was found as JSON.

    python trying.py FOLDER
"""

import contextlib
import hashlib
import io
import json
import shutil
import sys
from pathlib import Path

TEXT = "\n\n".join(
    f"On day {day} the {animal} saw {day + 3} boats. It counted them twice. Then it rained."
    for day, animal in enumerate(["cat", "dog", "owl", "fox"] * 10)
)
TINY = "--width 8 --num-heads 1 --window 16 --batch-size 2 --blocks".split()


def called(*words: str) -> dict:
    """The exit status and the output of a command."""
    from minicpt.cli.main import main

    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status = main(list(words))
        except SystemExit as left:  # --help
            status = left.code
    return {"status": status, "out": out.getvalue(), "error": error.getvalue()}


def weights(folder: str) -> str:
    return hashlib.sha256(Path(folder, "pytorch_model.bin").read_bytes()).hexdigest()


def helps() -> dict:
    return {
        "top": called("--help"),
        "train": called("train", "--help"),
        "train toy-task": called("train", "toy-task", "--help"),
        "train causal-lm": called("train", "causal-lm", "--help"),
        "compare": called("compare", "--help"),
        "toy-verb": called("toy-verb", "--help"),
    }


def runs() -> dict:
    """A run of six steps, the same stopped after three and resumed, and a run that continues it."""
    import torch

    Path("text.txt").write_text(TEXT)
    words = ["train", "toy-task", "--corpus", "text.txt", *TINY, "--model", "toy", "--steps", "6"]
    words += ["--vocab-size", "256", "--save-every", "3", "--toy-task-share", "0.25", "--json"]
    found = {"train": called(*words, "--out", "run")}
    whole = weights("run/step-00000006")
    state = torch.load("run/step-00000003/state.pt", weights_only=True)
    found["parts"] = sorted(state["parts"])
    shutil.rmtree("run/step-00000006")
    found["resume"] = called("resume", "run", "--json")
    found["resumed bitwise"] = weights("run/step-00000006") == whole
    found["evaluate"] = called("evaluate", "run", "--corpus", "text.txt", "--json")
    words = ["train", "toy-task", "--init", "run", "--corpus", "text.txt", "--blocks"]
    words += ["--window", "16", "--batch-size", "2", "--steps", "2", "--toy-pull", "3", "--json"]
    found["continue"] = called(*words, "--out", "continued")
    return found


def compared() -> dict:
    Path("new.txt").write_text(TEXT.replace("boats", "ships"))
    words = ["compare", "--corpus", "new.txt", "--old-corpus", "text.txt", "--blocks"]
    words += "--objectives toy-task --remedies toy-pull --seeds 1 --steps 2 --base-steps 2".split()
    words += "--width 8 --layers 1 --window 16 --vocab-size 256 --batch-size 2".split()
    words += ["--evaluate-passages", "4", "--probe-passages", "4", "--out", "compared"]
    return called(*words)


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    print(json.dumps({
        "help": helps(),
        "verb": called("toy-verb"),
        "runs": runs(),
        "verify": called("verify", "toy-task", "--model", "toy"),
        "compare": compared(),
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
