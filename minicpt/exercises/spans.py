"""Exercise: T5's span corruption."""

import torch

from minicpt.exercises.base import Exercise, Mistake, ids, tokenizer
from minicpt.objectives.span_corruption import corrupt
from minicpt.proofs.faults.spans import marked, other_cut


def begins_of(noise):
    return noise & ~torch.cat([noise.new_zeros(1), noise[:-1]])


def apart(tokens, noise, sentinels):
    """A sentinel for each token that is cut out."""
    marks = sentinels[noise.cumsum(0) - 1]
    written = torch.stack([marks, tokens], dim=1)[noise].flatten()
    return torch.where(noise, marks, tokens), written


def closed(tokens, noise, sentinels):
    """One sentinel more at the end of what is written."""
    read, written = corrupt(tokens, noise, sentinels)
    return read, torch.cat([written, sentinels[begins_of(noise).sum()][None]])


def still_there(tokens, noise, sentinels):
    """The sentinels stand before what should have been cut out."""
    marks = sentinels[begins_of(noise).cumsum(0) - 1]
    keep = torch.stack([begins_of(noise), torch.ones_like(noise)], dim=1)
    return torch.stack([marks, tokens], dim=1)[keep], corrupt(tokens, noise, sentinels)[1]


class Spans(Exercise):
    """Span corruption: runs of tokens are cut out, and written."""

    ORDER = 100
    minutes = 10
    task = """
    T5 cuts runs of tokens (spans) out of a text. Each span leaves one sentinel in what is read.
    What is written is each sentinel, followed by the tokens that it stands for:

        tokens    Thank you for inviting me to your party
        noise               x   x                   x
        read      Thank you <0> me to your <1>
        written   <0> for inviting <1> party

    Write both. The first span gets the first sentinel. End-of-text is added later, by others.
    """
    stub = '''
    def corrupt(tokens, noise, sentinels):
        """What is read, and what is written: int64 both.

        tokens     (L,), int64
        noise      (L,), bool: True where a token is cut out
        sentinels  (S,), int64: at least one for each span; T5's count down

        >>> read, written = corrupt(torch.arange(10, 16),
        ...                         torch.tensor([0, 0, 1, 1, 0, 1], dtype=torch.bool),
        ...                         torch.tensor([999, 998, 997]))
        >>> read.tolist(), written.tolist()
        ([10, 11, 999, 14, 998], [999, 12, 13, 998, 15])
        """
    '''
    inputs, outputs = ("tokens", "noise", "sentinels"), ("read", "written")
    tokens = frozenset({"tokens", "sentinels", "read", "written"})
    hints = (
        "A span begins where noise is True and the position before it is not (or there is none).",
        "A loop over the positions is fine: two lists, and the number of spans so far.",
        "In the loop: a token that stays goes to `read`. A token that is cut out goes to `written`;"
        " if it begins a span, its sentinel goes to both before it.",
    )
    subject = "rolled span-corruption"
    proofs = ("batch rules",)
    mistakes = (
        Mistake(
            "sentinel-for-each-token",
            "every token that is cut out has a sentinel of its own, so that the number of lost"
            " tokens is told",
            apart,
        ),
        Mistake(
            "ascending-sentinels",
            "the last sentinel of the list comes first",
            lambda tokens, noise, sentinels: corrupt(tokens, noise, sentinels.flip(0)),
        ),
        Mistake(
            "ascending-sentinels",
            "the sentinels that are used stand in rising order",
            lambda tokens, noise, sentinels: corrupt(
                tokens, noise, sentinels[: begins_of(noise).sum()].flip(0)
            ),
        ),
        Mistake(
            "closing-sentinel",
            "one more sentinel stands behind the last span; end-of-text takes its place",
            closed,
        ),
        Mistake(
            "nothing-marks-the-gap",
            "what is read has no sentinels, so that nobody knows where something is missing",
            lambda tokens, noise, sentinels: (
                tokens[~noise], corrupt(tokens, noise, sentinels)[1]),
        ),
        Mistake(
            "nothing-marks-the-spans",
            "what is written has no sentinels, so that nobody knows which gap it fills",
            lambda tokens, noise, sentinels: (
                corrupt(tokens, noise, sentinels)[0], tokens[noise]),
        ),
        Mistake(
            "spans-can-be-read",
            "the sentinels are there, but what they stand for was not cut out",
            still_there,
        ),
        Mistake(
            "misaligned-sentinels",
            "the runs that stay are written, as if the noise were the other way round",
            lambda tokens, noise, sentinels: (
                corrupt(tokens, noise, sentinels)[0], marked(tokens, ~noise, sentinels)),
        ),
        Mistake(
            "one-sentinel",
            "all spans have the same sentinel",
            lambda tokens, noise, sentinels: corrupt(
                tokens, noise, sentinels[:1].expand(len(sentinels))),
        ),
    )  # fmt: skip

    def cases(self):
        sentinels = torch.tensor(
            [tokenizer().special_id(f"<extra_id_{number}>") for number in range(8)]
        )
        for text, noise in (
            ("ab", ".x"), ("abc", "x.."), ("abcd", ".xx."), ("abcdef", "..xx.x"),
            ("a red cat", "x.xx..x.x"),
        ):  # fmt: skip
            yield ids(text), torch.tensor([each == "x" for each in noise]), sentinels

    def reference(self, tokens, noise, sentinels):
        return corrupt(tokens, noise, sentinels)

    def patched(self, subject, function):
        return other_cut(
            subject, lambda noise, both, tokens, sentinels: function(tokens, noise, sentinels)
        )
