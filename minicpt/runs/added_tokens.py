"""``--add-tokens``: the special tokens that an objective needs, where a tokenizer lacks them."""

from collections.abc import Callable, Iterable

from minicpt.checkpoint import Checkpoint
from minicpt.checkpoint.growing import grown
from minicpt.common.randomness import generator
from minicpt.data.tokenizer import SHOWN, LackingTokens, Tokenizer
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.runs.assembly import objective_kind
from minicpt.runs.config import RunConfig
from minicpt.runs.console import say
from minicpt.runs.fitting import fitted
from minicpt.runs.mixing import second_of


def extended(base: Checkpoint, config: RunConfig) -> Checkpoint:
    """The base with the special tokens that the objective needs as well; says which are new."""
    key = "added tokens", config.training.seed

    def larger(names: list[str]) -> Checkpoint:
        return grown(base, names, generator(*key)) if names else base

    def make(names: list[str]) -> Objective:
        own = fitted(larger(names), config.objective, config.settings)
        second_of(config, own, base.model)
        return own

    found = larger(added := lacking(asking(config), make))
    before, after = (each.model.config.vocabulary for each in (base, found))
    say_added(
        config.objective,
        added,
        found.tokenizer,
        f"; embedding and head have {after:,} rows ({before:,} before), those of the new tokens"
        " drawn with mean and covariance of the others",
    )
    return found


def asking(config: RunConfig) -> list[str]:
    """The names of the objectives that may need special tokens."""
    return [config.objective, *config.mixing.mix[:1]]


def lacking(asked: Iterable[str], make: Callable[[list[str]], object]) -> list[str]:
    """The special tokens that objectives need and a tokenizer lacks, in the order of their ids.

    asked  the names of the objectives
    make   makes them with the tokens that it is handed besides; raises LackingTokens
    """
    order, added = [token for name in asked for token in objective_kind(name).reserved], []
    while True:
        try:
            make(added)
            return added
        except LackingTokens as error:
            if set(error.names) & set(added):
                raise
            added += sorted(error.names, key=lambda token: [*order, token].index(token))


def say_added(name: str, added: list[str], tokenizer: Tokenizer, more: str = "") -> None:
    """Says which tokens an objective needed that the tokenizer has now."""
    if not added:
        say(f"--add-tokens adds none: the tokenizer has all that {name} needs")
        return
    ids = tokenizer.need_special(added, name)
    shown = ", ".join(added[:SHOWN]) + ", …" * (len(added) > SHOWN)
    say(f"--add-tokens for {name}: {len(added)} ({shown}), ids {min(ids)} to {max(ids)}{more}")


def say_frozen(model: Model) -> None:
    """Says so where a remedy keeps the rows of added tokens from learning."""
    rows = model.config.vocabulary
    if any(len(each) == rows and not each.requires_grad for each in model.parameters()):
        say("the rows of the added tokens stay as they were drawn: a remedy freezes them")
