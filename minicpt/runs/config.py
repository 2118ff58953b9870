"""All that decides a run, as one dataclass that is also one JSON file.

The command line, ``resume``, ``compare``, the demo, the proofs and the tests describe a run by a
``RunConfig``, and ``build`` makes it. What a checkpoint keeps about its run is the same, as JSON.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.data.bpe import LONGEST_WORD
from minicpt.terms import Terms
from minicpt.training.device import Machine
from minicpt.training.mixing import Mixing
from minicpt.training.preparing import Selecting
from minicpt.training.trainer import Training


@dataclass(frozen=True)
class Text(Checked):
    """Which text, and how it is split."""

    corpus: tuple[str, ...] = setting(
        ("builtin:docs",), "builtin:docs, builtin:code, or files, folders, globs"
    )
    blocks: bool = setting(False, "a document is a block between blank lines, not a whole file")
    errors: Literal["strict", "replace"] = setting(
        "strict", "what is not UTF-8: refuse it, or replace it and say how often"
    )
    held_out: float = setting(
        0.1, "share of the text that is kept for evaluation", least=0, most=0.5
    )


@dataclass(frozen=True)
class Vocabulary(Checked):
    vocab_size: int = setting(
        4096,
        "ordinary tokens of a tokenizer made from the text; 256: bytes (words are cut after"
        f" {LONGEST_WORD} characters)",
        least=256,
        most=2**20,
    )
    tokenizer: str | None = setting(None, "an existing tokenizer.json, or a folder that holds one")


@dataclass(frozen=True)
class Length(Checked):
    """How long to train: one of the three."""

    steps: int | None = setting(
        None, "how many steps (1000 if nothing is said)", least=1, most=10**9
    )
    epochs: float | None = setting(None, "how often to see the text instead", above=0, most=10_000)
    minutes: float | None = setting(
        None, "about how long instead, evaluations apart; fixes the steps once", above=0, most=10**6
    )

    def __post_init__(self):
        super().__post_init__()
        if sum(value is not None for value in (self.steps, self.epochs, self.minutes)) > 1:
            raise InputError("--steps, --epochs and --minutes exclude each other; give one")

    @property
    def count(self) -> int:
        """The steps, where neither epochs nor minutes decide."""
        return self.steps or 1000


@dataclass(frozen=True)
class Base(Checked):
    """What a run starts from."""

    init: str | None = setting(
        None, "start from this checkpoint, or Hugging Face folder", metavar="DIR"
    )
    old_corpus: tuple[str, ...] = setting(
        (), "the text that the base was trained on (default: what its folder says)"
    )
    add_tokens: bool = setting(
        False,
        "add the special tokens that the objective needs and the tokenizer of --init (or of"
        " --tokenizer) lacks; embedding and head grow with it",
    )


@dataclass(frozen=True)
class Watch(Checked):
    """What happens beside the steps."""

    evaluate_every: int = setting(0, "steps between evaluations; 0: ten in all", least=0)
    evaluate_passages: int = setting(
        256,
        "held-out passages of each evaluation, the same ones every time (the verb `evaluate` takes"
        " all of the text)",
        least=1,
    )
    also: tuple[str, ...] = setting(
        (), "other objectives by which each evaluation measures the model too", metavar="OBJECTIVE"
    )
    save_every: int = setting(500, "steps between checkpoints; 0: at the end alone", least=0)
    keep: int = setting(2, "how many checkpoints stay", least=1)


@dataclass(frozen=True)
class RunConfig:
    """A run.

    objective  its name, and ``settings``, those that were given
    model      the name of the architecture; "": the default of the objective's first role
    sizes      those of the model's config that were given
    remedies   name -> the settings that were given
    """

    objective: str
    settings: Mapping[str, object] = field(default_factory=dict)
    model: str = ""
    sizes: Mapping[str, object] = field(default_factory=dict)
    mixing: Mixing = Mixing()
    text: Text = Text()
    vocabulary: Vocabulary = Vocabulary()
    base: Base = Base()
    length: Length = Length()
    training: Training = Training()
    terms: Terms = Terms()
    selecting: Selecting = Selecting()
    watch: Watch = Watch()
    machine: Machine = Machine()
    remedies: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def plain(self) -> dict:
        """For JSON: the reverse of ``of``."""
        return dataclasses.asdict(self)

    @staticmethod
    def of(plain: dict) -> "RunConfig":
        """From JSON. Raises InputError for values that a setting does not take."""
        kinds = {each.name: each.type for each in dataclasses.fields(RunConfig)}
        values = {}
        for name, value in plain.items():
            if name == "remedies":
                values[name] = {remedy: tuples(each) for remedy, each in value.items()}
            elif dataclasses.is_dataclass(kinds[name]):
                values[name] = kinds[name](**tuples(value))
            else:
                values[name] = tuples(value) if isinstance(value, dict) else value
        return RunConfig(**values)


def tuples(values: Mapping[str, object]) -> dict[str, object]:
    """The same values; JSON knows no tuples, and settings no lists."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
