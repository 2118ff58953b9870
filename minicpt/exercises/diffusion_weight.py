"""Exercise: the weights of masked diffusion."""

import torch

from minicpt.batch import IGNORE
from minicpt.data.hiding import hide
from minicpt.exercises.base import Exercise, Mistake, ids, tokenizer
from minicpt.objectives.masked_diffusion import MaskedDiffusion
from minicpt.proofs.faults.base import objective


def weighing(weigh, target=None):
    """A wrong solution with other weights: ``weigh(maskable, hidden, t) -> (T,)``."""

    def make(tokens, maskable, hidden, t, mask):
        read, targets, _ = hide(tokens, maskable, hidden, 1 / t, mask)
        if target:
            targets = tokens.where(target(maskable, hidden), IGNORE)
        return read, targets, weigh(maskable, hidden, t)

    return make


def right(maskable, hidden, t):
    return hidden / t


class DiffusionWeight(Exercise):
    """Masked diffusion: what each target counts."""

    ORDER = 110
    minutes = 8
    task = """
    Masked diffusion hides any share t of a text: each token becomes the mask token with probability
    t. Every token that could be hidden is a target, so that the sum of losses is divided by the
    same number for each t. But only the hidden ones count, and each stands for those that were not
    hidden: it weighs 1/t, the others 0. In the mean over many draws each token then counts once.

        t = 0.5    read     [CLS] the [MASK] sat [MASK] [SEP]
                   target     .   the  cat   sat  down    .
                   weight     0    0    2     0    2      0

    Write the three rows. What is drawn is given.
    """
    stub = '''
    def diffuse(tokens, maskable, hidden, t, mask):
        """What is read (T,) and the targets (T,), int64, and the weights (T,), floating point.

        tokens    (T,), int64
        maskable  (T,), bool: no special token. These are the targets; the others are IGNORE
        hidden    (T,), bool: some of these
        t         the share that was asked for, in (0, 1]
        mask      the id of the mask token

        >>> for row in diffuse(torch.tensor([2, 10, 11, 3]),
        ...                    torch.tensor([False, True, True, False]),
        ...                    torch.tensor([False, False, True, False]), 0.25, 4):
        ...     print(row.tolist())
        [2, 10, 4, 3]
        [-100, 10, 11, -100]
        [0.0, 0.0, 4.0, 0.0]
        """
    '''
    inputs, outputs = ("tokens", "maskable", "hidden", "t", "mask"), ("read", "targets", "weights")
    tokens = frozenset({"tokens", "mask", "read", "targets"})
    hints = (
        "The three rows are three torch.where. Which condition belongs to which row?",
        "read asks `hidden`, the targets ask `maskable`, the weights ask `hidden`.",
        "hidden / t is 1/t where hidden is True, and 0 elsewhere.",
    )
    subject = "masked-diffusion"
    proofs = ("batch rules", "zeroed head")
    mistakes = (
        Mistake(
            "divided-by-the-hidden",
            "only the hidden tokens are targets, so that the divisor changes with t",
            weighing(right, lambda maskable, hidden: hidden),
        ),
        Mistake(
            "estimator-without-weights",
            "a hidden token counts 1, as in masked language modelling",
            weighing(lambda maskable, hidden, t: hidden.double()),
        ),
        Mistake(
            "weight-t",
            "a hidden token weighs t, not 1/t: the less is hidden, the less it counts",
            weighing(lambda maskable, hidden, t: hidden * t),
        ),
        Mistake(
            "weight-of-the-rest",
            "a hidden token weighs 1/(1 - t), as if t were the share that is not hidden",
            weighing(lambda maskable, hidden, t: hidden / (1 - t)),
        ),
        Mistake(
            "read-tokens-count",
            "tokens that can be read weigh as much as the hidden ones",
            weighing(lambda maskable, hidden, t: maskable / t),
        ),
        Mistake(
            "everything-counts",
            "special tokens, which are no targets, have a weight",
            weighing(lambda maskable, hidden, t: torch.full(hidden.shape, 1 / t)),
        ),
        Mistake(
            "special-tokens-are-targets",
            "special tokens are targets too, so that the sum is divided by more than the text",
            weighing(right, lambda maskable, hidden: torch.ones_like(hidden)),
        ),
        Mistake(
            "share-of-this-draw",
            "the weight is 1 over the share that happened to be hidden, not over t",
            weighing(lambda maskable, hidden, t: hidden * (
                maskable.sum() / hidden.sum().clamp(min=1))),
        ),
    )  # fmt: skip

    def cases(self):
        mask, cls, sep = (tokenizer().need(each) for each in ("mask", "cls", "sep"))
        for text, hidden, t in (
            ("a", "x", 0.5), ("ab", ".x", 0.25), ("abc", "...", 0.125), ("a cat", "x..xx", 0.75),
        ):  # fmt: skip
            tokens = torch.tensor([cls, *ids(text).tolist(), sep])
            maskable = torch.tensor([False, *[True] * len(text), False])
            chosen = torch.tensor([False, *(each == "x" for each in hidden), False])
            yield tokens, maskable, chosen, t, mask

    def reference(self, tokens, maskable, hidden, t, mask):
        return hide(tokens, maskable, hidden, 1 / t, mask)

    def patched(self, subject, function):
        def batch(real: MaskedDiffusion, passages, draws):
            sound = real.batch(passages, draws)
            rows = []
            for number, (passage, draw) in enumerate(zip(passages, draws, strict=True)):
                tokens = real.framed(passage.tokens)
                hidden = sound.weights["tokens"][number, : len(tokens)] > 0
                level = passage.level(draw.place)
                rows.append(
                    function(tokens, real.is_maskable[tokens], hidden, level, real.mask)
                )
            return real.batch_of([(a, b, weights.float()) for a, b, weights in rows])

        return objective(subject, batch=batch)
