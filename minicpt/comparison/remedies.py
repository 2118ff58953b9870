"""How a continuation is trained so that it forgets less: each arm as what it adds to a Trainer."""

from torch import nn

from minicpt.comparison.plan import CONTROL, SELF, Comparison
from minicpt.comparison.texts import Domain
from minicpt.remedies import frozen, kl, l2
from minicpt.remedies.adapters import Partial, restrict
from minicpt.remedies.replay import Replay
from minicpt.remedies.self_replay import Samples, sample
from minicpt.training.device import Machine
from minicpt.training.trainer import Trainer, Training


def trainer_of(
    arm: str,
    model: nn.Module,
    objective,
    domains: dict[str, Domain],
    comparison: Comparison,
    seed: int,
    machine: Machine,
) -> Trainer:
    """A Trainer that continues ``model``, the base, by one arm."""
    text = domains["wrong" if arm == CONTROL else "new"].training
    settings = Training(
        batch_size=comparison.batch_size, seed=seed, learning_rate=comparison.learning_rate
    )
    terms, replay = {}, None
    if arm == "kl":
        terms["kl"] = kl.KL(kl.Settings(kl=comparison.kl), frozen(model))
    if arm == "l2":
        terms["l2"] = l2.L2(l2.Settings(l2=comparison.l2), frozen(model))
    if arm == "replay":
        replay = Replay(domains["old"].training, comparison.replay_fraction)
    if arm == SELF:
        replay = Replay(own_text(model, objective, comparison, seed), comparison.replay_fraction)
    if arm == "lora":
        restrict(model, Partial(lora=comparison.lora), seed)
    steps = comparison.steps
    return Trainer(
        model, objective, text, settings, steps, machine, regularizers=terms, replay=replay
    )


def own_text(model: nn.Module, objective, comparison: Comparison, seed: int) -> Samples:
    """As many tokens as will be replayed, written by the base itself."""
    seen = comparison.steps * comparison.batch_size * comparison.window
    tokens = max(1, round(seen * comparison.replay_fraction))
    written = sample(model, objective.tokenizer, tokens, objective.length, seed)
    return Samples.of(written, objective.tokenizer.need("end"))
