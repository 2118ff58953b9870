"""Trains a byte-level BPE, in a way that a signal can end.

Sennrich et al. 2016; on bytes, Radford et al. 2019. Words come from GPT-2's pre-tokenisation. They
are cut after LONGEST_WORD characters, because the time of the training grows with the square of the
longest word. The cut is a rule in the tokenizer itself, so that other tools cut alike.

The library trains in Rust, and Python sees a signal only when Rust has finished. So a long text is
trained on in a second process, which ends when this one is interrupted, and when it dies.
"""

import contextlib
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from minicpt.common.errors import WorkError

BYTES = 256
LONGEST_WORD = 1024  # characters; the longest word of the built-in texts has 93
# GPT-2's own has + in place of the bounds.
WORDS = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}{1,n}| ?\p{N}{1,n}| ?[^\s\p{L}\p{N}]{1,n}"
    r"|\s{1,n}(?!\S)|\s{1,n}"
).replace("n}", f"{LONGEST_WORD}}}")
SHORT = 1 << 16  # characters: what is not longer is done in half a second, and needs no process
# The second process. It finds this module where the first one has found it.
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from minicpt.data import bpe; bpe.serve(*map(json.loads, sys.argv[2:]))"
)


def train(texts: Iterable[str], vocabulary: int, special: list[str]) -> str:
    """The content of a tokenizer.json.

    ``vocabulary`` counts the ordinary tokens; the special ones get the first ids. Deterministic.
    Raises WorkError where the second process is ended by somebody else.

    >>> definition = json.loads(train(["x" * 5000], 256, []))
    >>> [each["type"] for each in definition["pre_tokenizer"]["pretokenizers"]]
    ['Split', 'ByteLevel']
    """
    texts = iter(texts)
    held, characters = [], 0
    for text in texts:
        held.append(text)
        characters += len(text)
        if characters > SHORT:
            settings = [vocabulary, special, WORDS]
            return _in_a_second_process(itertools.chain(held, texts), settings)
    return _trained(held, vocabulary, special, WORDS)


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte -> the byte (``bytes_to_unicode`` in its code)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(BYTES) if byte not in shown]
    moved = {chr(BYTES + place): byte for place, byte in enumerate(hidden)}
    return {chr(byte): byte for byte in shown} | moved


def _trained(texts: Iterable[str], vocabulary: int, special: list[str], words: str) -> str:
    engine = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(words), "isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.pre_tokenizer = pre_tokenizers.Sequence([cut, in_bytes])
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary + len(special),
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    return engine.to_str()


def _in_a_second_process(texts: Iterable[str], settings: list) -> str:
    """``_trained``: the texts go there as lines of JSON, and an empty line ends them."""
    arguments = map(json.dumps, [sys.path, *settings])
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        with contextlib.suppress(BrokenPipeError):  # it has died: its status says so
            child.stdin.writelines(json.dumps(text).encode() + b"\n" for text in texts)
            child.stdin.write(b"\n")
            child.stdin.flush()
        definition = child.stdout.read()
        if status := child.wait():
            raise WorkError(
                f"the training of the tokenizer ended with status {status}; if memory ran out,"
                " give less text"
            )
        return definition.decode()
    finally:  # whatever happened: nothing of it is left
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def serve(vocabulary: int, special: list[str], words: str) -> None:
    """What the second process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the first one decides
    lines = sys.stdin.buffer

    def texts():
        for line in iter(lines.readline, b"\n"):
            if not line:  # the first process has died
                os._exit(1)
            yield json.loads(line)
        threading.Thread(target=end_with_the_first, daemon=True).start()

    def end_with_the_first():
        lines.read()  # it keeps the pipe open as long as it lives
        os._exit(1)

    definition = _trained(texts(), vocabulary, special, words).encode()
    sys.stdout.buffer.write(definition)
    sys.stdout.buffer.flush()
    os._exit(0)  # the thread still reads
