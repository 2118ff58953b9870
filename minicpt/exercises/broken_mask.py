"""Exercise in reverse: one pass, and runs on prefixes, of a model whose mask is wrong."""

import torch

from minicpt.batch import IGNORE
from minicpt.exercises.diagnosis import Diagnosis
from minicpt.pictures import triangle
from minicpt.pictures.characters import tokens
from minicpt.pictures.passage import prefix_runs

TARGETS = 7
WIDTH = 70


class BrokenMask(Diagnosis):
    """A broken run: one pass does not give the losses of the prefixes."""

    ORDER = 130
    FAULT = "mask-off-by-one"
    story = """
    This causal language model was run on the prefixes of a text, each alone: a line each, with the
    losses of its targets. Below stand the losses of one pass over the whole text. In a sound model
    every column holds one number from top to bottom.

    Look at each column: which of its numbers differs from all the others? What could the model read
    in the other runs that was not there in that one?
    """
    hints = (
        "In each column the topmost number is furthest off: that of the run in which nothing was"
        " read behind the target's position. From the third on they agree.",
        "Some tokens more change a loss, and no further ones: each position uses what stands right"
        " behind it, and no more. The model has two layers, so it reaches two positions."
    )

    def evidence(self, subject):
        learner, objective = subject.learner(), subject.objective
        passage = subject.passages(1)[0]
        batch = subject.batch([passage])
        sees = objective.visibility(batch)["tokens"]
        model, parts = learner.model, learner.parts
        with torch.no_grad():
            runs = prefix_runs(model, parts, objective, batch, "tokens", sees, TARGETS)
        found = batch.targets["tokens"][0]
        labels = tokens(subject.tokenizer, found[found != IGNORE].tolist())
        return [line.rstrip() for line in triangle.lines(runs, labels, WIDTH, False, False)[:-1]]
