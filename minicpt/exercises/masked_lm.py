"""Exercise: masked language modelling's 80 %, 10 % and 10 %."""

import copy
import dataclasses

import torch

from minicpt.batch import IGNORE
from minicpt.exercises.base import Exercise, Mistake, ids, tokenizer
from minicpt.objectives.masked_lm import Masker, Masking


def made(where_read, where_target):
    """A wrong solution, from where it puts what: (tokens, chosen, fate, random, mask) -> (T,)."""
    return lambda *given: (where_read(*given), where_target(*given))


def right_read(tokens, chosen, fate, random, mask):
    read = torch.where(chosen & (fate < 0.8), mask, tokens)
    return torch.where(chosen & (fate >= 0.8) & (fate < 0.9), random, read)


def right_target(tokens, chosen, fate, random, mask):
    return torch.where(chosen, tokens, IGNORE)


class MaskedLM(Exercise):
    """Masked language modelling: 80 % hidden, 10 % replaced, 10 % kept."""

    ORDER = 60
    minutes = 8
    task = """
    An encoder sees both sides of a text, so its targets must be hidden from it. Of the chosen
    tokens 80 % become the mask token, 10 % a random token, and 10 % stay as they are. All chosen
    tokens are targets, those that stay too: else the model would learn that a token it can read is
    always right. All other positions have no target.

    What is drawn is given: `chosen` tells which tokens are predicted, and `fate`, a number in
    [0, 1) for each position, what becomes of it. Below 0.8: the mask token. From 0.8 to below 0.9:
    the token that stands in `random`. From 0.9 on: it stays.
    """
    stub = '''
    def hide(tokens, chosen, fate, random, mask):
        """What is read (T,), and the targets (T,), int64 both, IGNORE where nothing is predicted.

        tokens  (T,), int64; leave it as it is
        chosen  (T,), bool
        fate    (T,), floating point
        random  (T,), int64: the random token for each position, should it need one
        mask    the id of the mask token

        >>> read, targets = hide(torch.tensor([10, 11, 12, 13]),
        ...                      torch.tensor([True, False, True, True]),
        ...                      torch.tensor([0.3, 0.1, 0.85, 0.95]),
        ...                      torch.tensor([20, 21, 22, 23]), 4)
        >>> read.tolist(), targets.tolist()
        ([4, 11, 22, 13], [10, -100, 12, 13])
        """
    '''
    inputs, outputs = ("tokens", "chosen", "fate", "random", "mask"), ("read", "targets")
    tokens = frozenset({"tokens", "random", "mask", "read", "targets"})
    hints = (
        "Begin with the targets: they depend on `chosen` and on nothing else.",
        "chosen & (fate < 0.8) tells where the mask token stands.",
        "torch.where(condition, one, other) picks from two tensors, or from a tensor and a number.",
    )
    subject = "masked-lm"
    proofs = ("batch rules",)
    mistakes = (
        Mistake(
            "loss-everywhere",
            "most of what is predicted can simply be read",
            made(right_read, lambda tokens, *rest: tokens),
        ),
        Mistake(
            "always-hidden",
            "every chosen token becomes the mask token; no text that the model meets later has one",
            made(lambda tokens, chosen, fate, random, mask: torch.where(chosen, mask, tokens),
                 right_target),
        ),
        Mistake(
            "never-kept",
            "no chosen token stays as it is: 80 % are hidden, and 20 % replaced",
            made(lambda tokens, chosen, fate, random, mask: torch.where(
                chosen & (fate >= 0.8), random, torch.where(chosen, mask, tokens)), right_target),
        ),
        Mistake(
            "never-replaced",
            "no chosen token is replaced by a random one",
            made(lambda tokens, chosen, fate, random, mask: torch.where(
                chosen & (fate < 0.8), mask, tokens), right_target),
        ),
        Mistake(
            "kept-is-no-target",
            "a chosen token that stays as it is has no target, so that the model learns to trust"
            " whatever it can read",
            made(right_read, lambda tokens, chosen, fate, random, mask: torch.where(
                chosen & (fate < 0.9), tokens, IGNORE)),
        ),
        Mistake(
            "hidden-alone-are-targets",
            "a chosen token that is replaced or stays has no target",
            made(right_read, lambda tokens, chosen, fate, random, mask: torch.where(
                chosen & (fate < 0.8), tokens, IGNORE)),
        ),
        Mistake(
            "target-is-what-is-read",
            "the targets are taken from the text after it was damaged, so that the mask token is"
            " to be predicted",
            made(right_read, lambda tokens, chosen, *rest: torch.where(
                chosen, right_read(tokens, chosen, *rest), IGNORE)),
        ),
        Mistake(
            "nothing-was-chosen",
            "`fate` decides of all tokens, and not of the chosen ones alone",
            made(lambda tokens, chosen, *rest: right_read(
                tokens, torch.ones_like(chosen), *rest), right_target),
        ),
        Mistake(
            "mask-is-the-target",
            "positions without a target hold the mask token's id, or 0, instead of IGNORE",
            made(right_read, lambda tokens, chosen, fate, random, mask: torch.where(
                chosen, tokens, mask)),
        ),
        Mistake(
            "mask-is-the-target",
            "positions without a target hold the mask token's id, or 0, instead of IGNORE",
            made(right_read, lambda tokens, chosen, *rest: torch.where(chosen, tokens, 0)),
        ),
    )  # fmt: skip

    def cases(self):
        mask = tokenizer().need("mask")
        for text, chosen, fate in (
            ("a", "x", [0.2]),
            ("ab", ".x", [0.5, 0.85]),
            ("cat", "x.x", [0.95, 0.1, 0.4]),
            ("the cat", "x.x..xx", [0.81, 0.3, 0.92, 0.85, 0.95, 0.79, 0.0]),
        ):
            tokens = ids(text)
            random = (tokens + 7).roll(1)
            yield (tokens, torch.tensor([each == "x" for each in chosen]),
                   torch.tensor(fate, dtype=torch.float64), random, mask)  # fmt: skip

    def reference(self, tokens, chosen, fate, random, mask):
        masker = Masker(tokenizer(), Masking(), mask)
        return masker.hide(tokens, chosen.nonzero()[:, 0], fate[chosen], random.__getitem__)

    def patched(self, subject, function):
        mistaken = copy.copy(subject.objective)
        mistaken.masker = real = copy.copy(mistaken.masker)

        def hide(tokens, places, fates, draw):
            chosen = torch.zeros(len(tokens), dtype=torch.bool)
            chosen[places] = True
            fate = torch.zeros(len(tokens), dtype=torch.float64)
            fate[places] = fates.double()
            random = tokens.clone()
            replaced = places[(fates >= 0.8) & (fates < 0.9)]
            random[replaced] = draw(replaced)
            return function(tokens, chosen, fate, random, real.mask)

        real.hide = hide
        return dataclasses.replace(subject, objective=mistaken)
