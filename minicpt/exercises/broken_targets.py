"""Exercise in reverse: what a batch asks for, where one kind of target is lost."""

from minicpt.batch import IGNORE
from minicpt.exercises.diagnosis import Diagnosis, table

COLUMNS = 12
LEAST = 10  # tokens of a passage that is shown


class BrokenTargets(Diagnosis):
    """A broken run: a model that writes well, and never stops."""

    ORDER = 140
    FAULT = "end-is-padding"
    story = """
    This causal language model was trained until its loss was low. It writes good sentences, but
    goes on and on: it never stops. Here is the last part of two rows of one batch: what is read,
    which positions are real (1), and what is predicted. A dot is a position without a target.
    """
    hints = (
        "Go through the targets of the first row from the left. What should stand behind the last"
        " token of a text?",
        "The end-of-text token fills up the rows as well. Somebody has thrown out its targets by"
        " its id, where the mask tells what is padding.",
    )

    def evidence(self, subject):
        passages = [each for each in subject.passages(10**6) if each.last]
        lengths = {len(each.tokens): each for each in passages if len(each.tokens) >= LEAST}
        batch = subject.batch([lengths[length] for length in sorted(lengths)[:2]])
        lines = []

        def token(index: int) -> str:
            return subject.tokenizer.token(index).replace("<|endoftext|>", "<end>")

        columns = batch.inputs["tokens"], batch.inputs["mask"], batch.targets["tokens"]
        for read, real, found in zip(*columns, strict=True):
            rows = [
                ["read", *map(token, read.tolist()[-COLUMNS:])],
                ["real", *(str(int(each)) for each in real.tolist()[-COLUMNS:])],
                ["target", *("." if each == IGNORE else token(each)
                             for each in found.tolist()[-COLUMNS:])],
            ]  # fmt: skip
            lines += [*table(rows), ""]
        return lines[:-1]
