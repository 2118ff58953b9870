"""Exercise: what T5's decoder reads, and what it writes."""

import torch

from minicpt.batch import IGNORE, pad, shift
from minicpt.data.input_output import input_output
from minicpt.exercises.base import Exercise, Mistake, ids, tokenizer
from minicpt.proofs.faults.batches import decoder_rows


def rows(text, start, end):
    """What is read, and what is written."""
    one, last = text.new_tensor([start]), text.new_tensor([end])
    return torch.cat([one, text]), torch.cat([text, last])


class DecoderInputs(Exercise):
    """What T5's decoder reads, and what it must write."""

    ORDER = 80
    minutes = 5
    task = """
    The decoder of an encoder-decoder writes a text from left to right. At each position it reads
    the token that it should have written just before (teacher forcing). Before the first one it
    has written nothing: there stands a start token. T5 takes the padding token for that. Behind the
    last one it must write end-of-text, else it never stops.

        reads    <start>  o  p
        writes      o     p  <end>

    Write both rows for a text.
    """
    stub = '''
    def decoder_rows(text, start, end):
        """What the decoder reads (T,), and its targets (T,), int64 both.

        text        (T - 1,), int64: what is to be written
        start, end  the ids of the start token and of end-of-text

        >>> read, targets = decoder_rows(torch.tensor([10, 11]), 0, 1)
        >>> read.tolist(), targets.tolist()
        ([0, 10, 11], [10, 11, 1])
        """
    '''
    inputs, outputs = ("text", "start", "end"), ("read", "targets")
    tokens = frozenset({"text", "start", "end", "read", "targets"})
    hints = (
        "Both rows have one token more than the text. Which one has it at the front?",
        "At each position the target is the token that is read at the next one.",
        "torch.cat([torch.tensor([start]), text]) is what is read.",
    )
    subject = "reconstruction"
    proofs = ("batch rules", "equivalence")
    mistakes = (
        Mistake(
            "decoder-reads-targets",
            "each position reads the token that it must write",
            lambda *given: (rows(*given)[1],) * 2,
        ),
        Mistake(
            "two-start-tokens",
            "what is read lies one place too far behind",
            lambda text, start, end: (
                torch.cat([text.new_tensor([start]), rows(text, start, end)[0][:-1]]),
                rows(text, start, end)[1],
            ),
        ),
        Mistake(
            "first-target-dropped",
            "the decoder never learns how to begin",
            lambda *given: (rows(*given)[0], torch.where(
                torch.arange(len(given[0]) + 1) > 0, rows(*given)[1], IGNORE)),
        ),
        Mistake(
            "end-is-no-target",
            "end-of-text is never written, so that the model never stops",
            lambda *given: (rows(*given)[0], shift(rows(*given)[0])),
        ),
        Mistake(
            "end-is-no-target",
            "end-of-text is never written, so that the model never stops",
            lambda *given: (rows(*given)[0][:-1], given[0]),
        ),
        Mistake(
            "shift-twice",
            "the decoder writes the token after the one that it should write",
            lambda *given: (rows(*given)[0], shift(rows(*given)[1])),
        ),
        Mistake(
            "end-is-read",
            "the decoder reads end-of-text, behind which there is nothing to write",
            lambda text, start, end: (
                torch.cat([text.new_tensor([start]), text, text.new_tensor([end])]),
                torch.cat([text, text.new_tensor([end, IGNORE])]),
            ),
        ),
        Mistake(
            "starts-with-the-end",
            "the decoder begins with end-of-text; T5's start token is another one",
            lambda text, start, end: rows(text, end, end),
        ),
    )  # fmt: skip

    def cases(self):
        start, end = tokenizer().need("pad"), tokenizer().need("end")
        yield from ((ids(text), start, end) for text in ("a", "ab", "a cat"))

    def reference(self, text, start, end):
        written = torch.cat([text, text.new_tensor([end])])
        batch = input_output("encoder-decoder", [text], [written], start)
        return batch.inputs["decoder_tokens"][0], batch.targets["tokens"][0]

    def patched(self, subject, function):
        start = subject.objective.start

        def change(read, found):
            made = []
            for row in found:
                written = row[row != IGNORE]
                made.append(function(written[:-1], start, int(written[-1])))
            both = zip(*made, strict=True)
            return tuple(pad(each, fill) for each, fill in zip(both, (start, IGNORE), strict=True))

        return decoder_rows(subject, change)
