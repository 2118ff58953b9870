"""Evaluation mode for a while."""

from torch import nn


class evaluating:
    """Switches a model to evaluation (no dropout) for a while, and then each part back."""

    def __init__(self, model: nn.Module):
        self.model = model

    def __enter__(self):
        self.before = [(part, part.training) for part in self.model.modules()]
        self.model.eval()

    def __exit__(self, *exception):
        for part, training in self.before:
            part.training = training
