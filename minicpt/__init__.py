"""minicpt: the loss functions of (continued) pre-training, from scratch in PyTorch."""

__version__ = "0.1.0"
