"""Exercise in reverse: a step whose size depends on how it is split."""

from dataclasses import replace

import torch

from minicpt.batch import IGNORE
from minicpt.exercises.diagnosis import Diagnosis, table
from minicpt.proofs.partition import update, weights


class BrokenStep(Diagnosis):
    """A broken run: less memory, other numbers."""

    ORDER = 150
    FAULT = "mean-of-micro-batches"
    story = """
    This masked language model is trained with six passages a step. To save memory they are read in
    micro-batches. Here is one and the same step, from the same weights: how it was split, how many
    targets each part has, the loss of the step, and how far the weights moved. In the last line a
    part without any target was added. In a sound run all lines hold the same numbers.
    """
    hints = (
        "Compare the first two lines: the same passages, split into halves. Now find a split whose"
        " parts have equally many targets. Is it right?",
        "(x1/n1 + x2/n2) / 2 is the mean of all losses only where n1 = n2. And what does a part"
        " without targets do to the number of parts?",
    )

    def evidence(self, subject):
        passages = subject.passages(6)
        rows = [["passages", "targets", "loss", "moved by"]]
        before = weights(subject.learner())
        for sizes in ((6,), (3, 3), (1, 5), (1, 2, 3), (6, 0)):
            left, batches = iter(passages), []
            for size in sizes:
                part = [next(left) for _ in range(size)]
                batch = subject.batch(part or passages[:1])
                if not part:
                    batch = replace(batch, targets={
                        head: torch.full_like(each, IGNORE)
                        for head, each in batch.targets.items()
                    })  # fmt: skip
                batches.append(batch)
            after, loss = update(subject, batches)
            counts = [str(sum(each.counts().values())) for each in batches]
            moved = float((after - before).norm())
            shown = " + ".join(map(str, sizes)), " + ".join(counts), f"{float(loss):.4f}"
            rows.append([*shown, f"{moved:.4f}"])
        return table(rows)
