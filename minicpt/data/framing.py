"""What stands before a document and behind it, where text is read from left to right.

    read         <begin> a b c d
    predicted       a    b c d <end>

Behind it stands end-of-text, a target like any other: a model that does not learn it never stops.

Before it stands the token that the tokenizer's folder puts before a text, such as Llama's. So a
base reads a document as it did in its pre-training, whose stream was ``<begin> a b <end> <begin> c
d <end>``. A folder without such a token (GPT-2, Qwen, SmolLM2) had ``a b <end> c d <end>``: there
the end of the document before it takes that place. So the first token of a text is predicted too.
``<begin>`` itself is never a target: what follows the end is another text.

Windows never cross documents. A later window of one has nothing before it, and what follows a
window is the next token of its document.

T positions.
"""

import torch
from torch import Tensor

from minicpt.data.corpus import Passage
from minicpt.data.tokenizer import Tokenizer


def framed(passage: Passage, tokenizer: Tokenizer) -> tuple[Tensor, int]:
    """What is read of a passage (T,), and the token that follows the last one: ``shift(*framed)``
    are the targets of a model that predicts each token from those before it."""
    opening = passage.tokens.new_tensor([tokenizer.begin] if passage.first else [])
    following = tokenizer.need("end") if passage.last else passage.following
    return torch.cat([opening, passage.tokens]), following


def numbered(passage: Passage) -> tuple[Tensor, int]:
    """The same with the number of each token in the corpus; -1 for what is none of the text.

    A whole document of 3 tokens that begins at token 5: ``[-1 5 6 7]`` and ``-1``.
    """
    stop = passage.start + len(passage.tokens)
    opening = torch.tensor([-1] if passage.first else [], dtype=torch.int64)
    numbers = torch.cat([opening, torch.arange(passage.start, stop)])
    return numbers, -1 if passage.last else stop
