"""Small tokenizers and a corpus that many tests read from."""

import os
import signal
import tempfile

# Corpora that tests build must neither be found by later runs nor stay.
CACHE = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.environ["MINICPT_CACHE"] = CACHE.name

# Before torch is imported: on tensors as small as these a second thread only costs time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore SIGINT, and all their children.
signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402

from minicpt import objectives  # noqa: E402
from minicpt.data.corpus import Corpus  # noqa: E402
from minicpt.data.text import Document  # noqa: E402
from minicpt.data.tokenizer import Tokenizer  # noqa: E402

# Distinct sentences, long and short documents, one of a single sentence.
DOCUMENTS = (
    "The cat sat on the mat. It was warm there. A bird came by, and the cat looked up. Nobody "
    "spoke. Then the bird flew off.",
    "Rain fell at noon. The old man went home. He slept until six.",
    "One sentence stands here alone.",
    "Bread is made of flour. Water makes it soft. Salt gives it taste. The oven does the rest.",
    "Go on. Stop.",
)


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """256 bytes without merges behind [PAD] 0, end 1, [CLS] 2, [SEP] 3, [MASK] 4: "a" is 69."""
    return Tokenizer.train([], 256)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A byte-level BPE with merges, so that a word has another token behind a space.

    Its last ids are special tokens that objectives need.
    """
    return Tokenizer.train(DOCUMENTS, 300, objectives.reserved())


@pytest.fixture(scope="session")
def corpus(tokenizer) -> Corpus:
    documents = [Document(f"text-{place}", text) for place, text in enumerate(DOCUMENTS)]
    return Corpus.build(documents, tokenizer)
