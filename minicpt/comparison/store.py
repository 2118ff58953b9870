"""The folder of a comparison: each part's result once it is done, and the bases.

    comparison.json   the settings; another comparison in the same folder is refused
    parts/NAME.json   a part's result, the hash of its settings, and the versions it ran on
    bases/ROLE-N      checkpoints of the bases, for any other use as well

A file is written under a temporary name, synced and renamed, so that a part is either done or not
there, whenever the program is killed.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from minicpt.common.disk import digest, read_json, write_file
from minicpt.common.errors import InputError
from minicpt.comparison.parts import Part

FILE = "comparison.json"
REMEDIES = "remedies"  # in that file: the settings of each
MOST = 1 << 26  # bytes of a part's file


class Store:
    """A comparison's folder.

    settings   all that every part's result depends on; ``open`` sets it
    strengths  the settings of each remedy, on which its own parts depend too
    """

    def __init__(self, folder: str | os.PathLike, versions: dict, say: Callable[[str], None]):
        self.folder, self.versions, self.say = Path(folder), versions, say
        self.settings: dict = {}
        self.strengths: Mapping[str, dict] = {}
        self.warned = False

    def check(self) -> None:
        """InputError where ``folder`` holds something else than a comparison, before any work."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"--out {self.folder} is a file; give a folder")
        found = self.folder.iterdir() if self.folder.is_dir() else []
        used = any(not path.name.startswith(".") for path in found)
        if used and not (self.folder / FILE).exists():
            raise InputError(f"--out {self.folder} holds no comparison; give a new folder")

    def open(self, settings: dict, strengths: Mapping[str, dict]) -> None:
        """Takes the folder for this comparison. InputError, naming what differs, for another.

        A remedy that the folder does not know yet is added.
        """
        self.check()
        self.settings, self.strengths = settings, strengths
        path = self.folder / FILE
        known: dict = {}
        if path.exists():
            found = read_json(path)
            known = found.get(REMEDIES, {})
            pairs = [(name, found.get(name), settings[name]) for name in settings]
            pairs += [(name, known[name], strengths[name]) for name in strengths if name in known]
            for name, then, now in pairs:
                if then != json.loads(json.dumps(now)):
                    raise InputError(
                        f"--out {self.folder} holds a comparison with {name} {then}, and this one"
                        f" has {now}; give the same, or another folder"
                    )
        if not path.exists() or strengths.keys() - known.keys():
            write_json(path, settings | {REMEDIES: known | dict(strengths)})

    def load(self, part: Part, measures: Iterable[str] = ()) -> dict | None:
        """The result of a part that is done, else None; also where a measure is not in it."""
        path = self.path(part)
        if not path.exists():
            return None
        found = read_json(path, MOST)
        if found.get("key") != self.key(part):
            raise InputError(f"{path} is of other settings; give another folder with --out")
        result = found["result"]
        said = {*result.get("losses", ()), *(name for name, each in result.items() if each)}
        if set(measures) - said:
            return None
        self.hold(found["versions"])
        return result

    def hold(self, versions: dict) -> None:
        """Says, once, that parts were done with other versions than these."""
        changed = [name for name in self.versions if versions.get(name) != self.versions[name]]
        if changed and not self.warned:
            self.warned = True
            then = ", ".join(f"{name} {versions.get(name)}" for name in changed)
            now = ", ".join(f"{name} {self.versions[name]}" for name in changed)
            self.say(f"parts in {self.folder} were done with {then}; here it is {now}")

    def keep(self, part: Part, result: dict) -> None:
        record = {"key": self.key(part), "part": asdict(part), "versions": self.versions}
        write_json(self.path(part), record | {"result": result})

    def key(self, part: Part) -> str:
        """A hash of all that the part's result depends on."""
        remedy = self.strengths.get(part.arm)
        return digest({"part": asdict(part), "settings": self.settings, "remedy": remedy})

    def path(self, part: Part) -> Path:
        return self.folder / "parts" / f"{part.name}.json"

    def base(self, part: Part) -> Path:
        """The checkpoint of a base."""
        return self.folder / "bases" / part.name.removeprefix("base.").replace(".", "-")


def write_json(path: Path, content: dict) -> None:
    write_file(path, json.dumps(content) + "\n")
