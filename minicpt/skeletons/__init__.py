"""The smallest piece of each kind, with its rule and its test: what ``minicpt new`` writes.

Each file here works as it stands, once its names are replaced and it lies in its room. The tests
of the house put one of each kind into a copy of the package and use it there. ``toy_piece``,
``ToyPiece``, ``toy-piece`` and ``Toy piece`` stand for the name.
"""

import io
import keyword
import re
import tokenize
from pathlib import Path

from minicpt.common.errors import InputError

# kind -> the file here -> where it goes, from the root of a checkout
KINDS = {
    "objective": {
        "objective.py": "minicpt/objectives/{}.py",
        "objective_rule.py": "minicpt/proofs/rules/{}.py",
        "objective_check.py": "tests/test_{}.py",
    },
    "model": {"model.py": "minicpt/models/{}.py", "model_check.py": "tests/test_{}.py"},
    "remedy": {"remedy.py": "minicpt/remedies/{}.py", "remedy_check.py": "tests/test_{}.py"},
    "proof": {"proof.py": "minicpt/proofs/{}.py", "proof_check.py": "tests/test_{}.py"},
}
NAME = r"[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*"
LONGEST = 20  # characters of a name: no line gets too long


def written(kind: str, name: str, root: Path) -> list[Path]:
    """Writes the files of a new piece into a checkout; returns their places.

    Raises InputError, and writes nothing, for a name that cannot be used, for a folder that is no
    checkout, and where one of the files is there already.
    """
    texts = {root / place: text for place, text in files(kind, name).items()}
    if not (root / "minicpt" / "objectives" / "base.py").is_file():
        raise InputError(f"{root} is no checkout of minicpt: it has no minicpt/objectives/base.py")
    for path in texts:
        if path.exists():
            raise InputError(f"{path} exists already, and nothing is overwritten; use another name")
    done: list[Path] = []
    try:
        for path, text in texts.items():
            path.parent.mkdir(exist_ok=True)
            with open(path, "x", encoding="utf-8") as file:
                done.append(path)
                file.write(text)
    except OSError as error:
        for path in done:
            path.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written ({error.strerror})") from None
    return done


def files(kind: str, name: str) -> dict[str, str]:
    """The files of a new piece by their places in a checkout. InputError for an unusable name."""
    if not re.fullmatch(NAME, name) or len(name) > LONGEST:
        raise InputError(
            f"{name!r} cannot be a name; give small letters, digits and hyphens, such as"
            f" next-word, {LONGEST} at most"
        )
    words = name.split("-")
    snake = "_".join(words)
    names = {
        "toy_piece": snake,
        "ToyPiece": "".join(word.capitalize() for word in words),
        "toy-piece": name,
        "Toy piece": " ".join(words).capitalize(),
        "toy piece": " ".join(words),
    }
    found = {}
    for file, place in KINDS[kind].items():
        text = Path(__file__).with_name(file).read_text("utf-8")
        if keyword.iskeyword(snake) or {snake, names["ToyPiece"]} & identifiers(text):
            raise InputError(f"{name} has a meaning in the code already; use another name")
        for toy, own in names.items():
            text = text.replace(toy, own)
        found[place.format(snake)] = text
    return found


def identifiers(text: str) -> set[str]:
    """The names in a file of Python."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


def settings(kind: str, name: str) -> list[str]:
    """The settings of a new piece that bear its name: each becomes a flag."""
    snake = name.replace("-", "_")
    return re.findall(rf"^    ({snake}\w*): \w+ = setting\(", "\n".join(files(kind, name).values()),
                      re.MULTILINE)  # fmt: skip
