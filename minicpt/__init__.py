"""minicpt: the loss functions of (continued) pre-training, from scratch in PyTorch.

What a notebook needs is found here, and imported when it is first used:

>>> import minicpt
>>> minicpt.Tokenizer.train(["to be"], 256).size > 256
True
"""

import importlib

__version__ = "0.1.0"

# name -> the module that holds it
_NAMES = {
    "read": "minicpt.data.sources",
    "split": "minicpt.data.split",
    "Tokenizer": "minicpt.data.tokenizer",
    "Corpus": "minicpt.data.corpus",
    "CausalLM": "minicpt.objectives.causal_lm",
    "GPT2": "minicpt.models.gpt2",
    "GPT2Config": "minicpt.models.gpt2",
    "Trainer": "minicpt.training.trainer",
    "Training": "minicpt.training.trainer",
    "evaluate": "minicpt.training.evaluation",
    "load": "minicpt.checkpoint.folder",
    "explain": "minicpt.pictures",
    "verify": "minicpt.proofs",
    "compare": "minicpt.comparison",
}
__all__ = list(_NAMES)


def __getattr__(name: str):
    if name not in _NAMES:
        raise AttributeError(f"minicpt has no {name!r}; it has {', '.join(_NAMES)}")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
