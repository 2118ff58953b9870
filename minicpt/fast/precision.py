"""The number format of a product of matrices, for forms that autocast cannot look into."""

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """The format in which a product with ``x`` is computed: autocast's where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
