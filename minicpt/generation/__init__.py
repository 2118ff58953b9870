"""What a trained model does with a text: continue it, fill its gaps, or write another one.

It works with any model through its ``forward`` or ``step``, and its head "tokens".
"""

from minicpt.generation.filling import bracketed, fill_gaps, predict, with_gaps, with_spans
from minicpt.generation.roles import BY_ROLE, SPECIAL
from minicpt.generation.sampling import Sampling, check_length
from minicpt.generation.unmasking import unmask
from minicpt.generation.writing import continue_prefix, continue_tokens, rewrite_tokens, write_after

__all__ = [
    "BY_ROLE",
    "SPECIAL",
    "Sampling",
    "bracketed",
    "check_length",
    "continue_prefix",
    "continue_tokens",
    "fill_gaps",
    "predict",
    "rewrite_tokens",
    "unmask",
    "with_gaps",
    "with_spans",
    "write_after",
]
