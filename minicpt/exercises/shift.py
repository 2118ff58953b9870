"""Exercise: the shift by one."""

import torch

from minicpt.batch import IGNORE, Batch, pad, shift
from minicpt.exercises.base import Exercise, Mistake, ids, tokenizer
from minicpt.proofs.faults.base import targets


class Shift(Exercise):
    """Each position's target is the next token."""

    ORDER = 20
    minutes = 4
    task = """
    A causal language model reads a token and predicts the one after it. So its targets are its own
    text, one place further on:

        reads     a b c
        target    b c d

    Write the targets of one row of tokens. `following` is the token that comes after the row: the
    next token of the text, or end-of-text. Where nothing comes, it is IGNORE. Nothing behind your
    function shifts again.
    """
    stub = '''
    def next_tokens(tokens, following):
        """The targets (T,) of the tokens (T,), int64: at t the token at t + 1.

        >>> next_tokens(torch.tensor([5, 6, 7]), 8).tolist()
        [6, 7, 8]
        """
    '''
    inputs, outputs = ("tokens", "following"), ("targets",)
    tokens = frozenset({"tokens", "following", "targets"})
    hints = (
        "The target of the first position is the second token. Which token is never a target?",
        "tokens[1:] is right, and one too short. What belongs at its end?",
        "torch.cat joins tokens[1:] and a tensor that holds `following`.",
    )
    subject = "causal-lm"
    proofs = ("batch rules",)
    mistakes = (
        Mistake(
            "no-shift",
            "each position predicts the token that it reads, which it can simply copy",
            lambda tokens, following: tokens.clone(),
        ),
        Mistake(
            "shifted-backwards",
            "each position predicts the token before it, which it has read already",
            lambda tokens, following: torch.cat([torch.tensor([following]), tokens[:-1]]),
        ),
        Mistake(
            "shifted-backwards",
            "each position predicts the token before it, which it has read already",
            lambda tokens, following: torch.cat([torch.tensor([IGNORE]), tokens[:-1]]),
        ),
        Mistake(
            "rolled-across-the-end",
            "the last position predicts the first token; torch.roll does that",
            lambda tokens, following: tokens.roll(-1),
        ),
        Mistake(
            "last-target-dropped",
            "the last position has no target, although a token follows",
            lambda tokens, following: shift(tokens),
        ),
        Mistake(
            "one-too-short",
            "the last position has no place in the targets: they must be as long as the tokens",
            lambda tokens, following: tokens[1:],
        ),
        Mistake(
            "shift-twice",
            "two places further on",
            lambda tokens, following: shift(shift(tokens, following)),
        ),
    )

    def cases(self):
        end = tokenizer().need("end")
        for text, following in (("a", 70), ("ab", 71), ("abc", end), ("aba", IGNORE)):
            yield ids(text), following

    def reference(self, tokens, following):
        return shift(tokens, following)

    def patched(self, subject, function):
        def change(batch):
            rows = []
            columns = batch.inputs["tokens"], batch.inputs["mask"], batch.targets["tokens"]
            for tokens, real, found in zip(*columns, strict=True):
                rows.append(function(tokens[real], int(found[real][-1])))
            return Batch(batch.inputs, {"tokens": pad(rows, IGNORE)})

        return targets(subject, change)
