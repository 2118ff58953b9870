"""Toy piece: what it computes, worked out position by position."""

import torch

from minicpt import models


def test_each_position_adds_the_mean_of_what_it_sees():
    kind = models.known()["toy-piece"]
    sizes = {"vocabulary": 9, "width": 4, "num_heads": 1, "dropout": 0.0}
    torch.manual_seed(0)
    model = kind(kind.Config(toy_piece_gain=0.5, **sizes)).double()
    with torch.no_grad():
        model.layers[0].weight.copy_(torch.eye(4))  # the first layer passes the mean on,
        model.layers[1].weight.zero_()  # and the second adds nothing
        for layer in model.layers:
            layer.bias.zero_()
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    found = model(tokens)[0]
    for place in range(5):
        embedded = [model.tokens.weight[token] for token in tokens[0, : place + 1]]
        expected = embedded[-1] + 0.5 * torch.tanh(sum(embedded) / len(embedded))
        torch.testing.assert_close(found[place], expected)
