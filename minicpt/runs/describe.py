"""What a run says before it starts: its texts, its model, and how well the tokenizer fits.

A model is continued with the tokenizer of its base. ``coverage`` says what that costs: tokens per
byte, words in pieces, unknown tokens. It is measured on a sample of bounded size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document, Documents
from minicpt.data.split import sample
from minicpt.data.tokenizer import Tokenizer
from minicpt.models.layers import Model
from minicpt.runs.console import say, tell
from minicpt.runs.loop import Run
from minicpt.runs.texts import Texts

SAMPLE = 1 << 18  # characters
# What takes many trained weights far from where they are, at the batches of one machine.
MANY, HIGH = 20_000_000, 1e-4  # weights that learn, and a learning rate


def weights(model: Model, learning: bool = False) -> int:
    """How many numbers the model's parameters hold; with ``learning``, those that learn."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not learning)


def describe(run: Run, text: Texts, size: int) -> None:
    """Tells what is about to be trained. ``size``: the weights of the model without remedies."""
    trainer = run.trainer
    learning = weights(trainer.model, learning=True)
    among = "beside" if weights(trainer.model) > size else "of"
    part = "" if learning == size else f", {learning:,} {among} them trained"
    rate = trainer.settings.learning_rate
    corpora = {"training": trainer.corpus} | run.held_out
    tell(
        f"text      {text.name}: {text.documents.bytes:,} bytes, SHA-256 "
        f"{text.record['sha256'][:16]}…"
    )
    for name, each in corpora.items():
        sizes = f"{len(each.documents):,} documents, {len(each.tokens):,} tokens"
        tell(f"{name:<9} {sizes}" + f" of {run.tokenizer.size:,}" * (name == "training"))
    tell(
        f"model     {size:,} parameters{part}, {trainer.steps:,} steps of "
        f"{trainer.settings.batch_size} passages, learning rate {rate:.3g}, into {run.folder}"
    )
    if mix := run.record["config"]["mixing"]["mix"]:
        tell(f"mix       {mix[0]} reads {float(mix[1]):g} of the passages")
    prepare = trainer.prepare
    if prepare.terms:
        tell(f"terms     {', '.join(f'{name} {value:g}' for name, value in prepare.terms.items())}")
    if prepare.selection:
        tell(
            f"targets   {prepare.selection.share:g} of each passage's: those whose loss exceeds by"
            f" most that of {run.record['reference']['folder']}"
        )
    if trainer.remedies:
        labels = (each.label(each.settings) for each in trainer.remedies)
        tell(f"remedies  {', '.join(labels)}")
    for name, read in run.record["read"].items():
        sizes = f"{read['documents']:,} documents, {read['tokens']:,} tokens"
        tell(f"          read again: {name or 'the text of the base'}, {sizes}")
    if run.record["base"] and learning >= MANY and rate > HIGH:
        say(
            f"--learning-rate {rate:.3g} is high for {learning:,} weights that were trained before:"
            " they may lose what they know; 1e-5 to 1e-4 is usual"
        )
    for line in vocabulary_lines(run.record["vocabulary"], run.tokenizer):
        tell(f"tokenizer {line}")


def vocabulary(tokenizer: Tokenizer, text: Texts, old: Sequence[Texts]) -> dict[str, dict]:
    """How well the base's tokenizer fits the new text and the old one: see ``coverage``."""
    sides = {"new text": [text], "old text": old}
    documents = {
        name: Documents.joined(each.apart or each.training for each in found)
        for name, found in sides.items()
    }
    return {
        name: coverage(found, tokenizer).summary() for name, found in documents.items() if found
    }


def vocabulary_lines(found: dict[str, dict], tokenizer: Tokenizer) -> list[str]:
    """The same for people, a line a text."""

    def unknown(each: dict) -> str:
        if tokenizer.unknown is None and not each["unknown"]:
            return "no unknown ones"
        return f"{each['unknown']:.2%} unknown, hiding {each['hidden_bytes']:.2%} of the bytes"

    return [
        f"{name}: {each['tokens_per_byte']:.3f} tokens a byte, {each['words_in_pieces']:.1%} of"
        f" words in pieces, {unknown(each)}"
        for name, each in found.items()
    ]


# --- how well a tokenizer fits ---------------------------------------------------------------


@dataclass(frozen=True)
class Coverage:
    """Counts over a sample of text. A tokenizer of bytes knows every text: ``unknown`` is 0.

    hidden  the share of the bytes that unknown tokens hide
    """

    tokens: int
    size: int
    unknown: int
    hidden: float
    words: int
    split: int

    def summary(self) -> dict[str, float]:
        """Tokens per byte; the shares of words in several pieces, unknown tokens, hidden bytes."""
        return {
            "tokens_per_byte": self.tokens / self.size,
            "words_in_pieces": self.split / self.words,
            "unknown": self.unknown / self.tokens,
            "hidden_bytes": self.hidden,
        }


def coverage(documents: Documents | Iterable[Document], tokenizer: Tokenizer) -> Coverage:
    """How the tokenizer cuts a sample of the documents, taken evenly from all of them.

    Its bytes are all those of the text, white space too where the tokenizer drops it.

    >>> tokenizer = Tokenizer.train([], 256)
    >>> coverage([Document("a", "to be a")], tokenizer)
    Coverage(tokens=7, size=7, unknown=0, hidden=0.0, words=3, split=3)
    """
    if not isinstance(documents, Documents):
        documents = Documents.of(documents)
    # A text without a place to cut is taken from its beginning.
    texts = list(sample(documents, SAMPLE)) or [next(iter(documents)).text[:SAMPLE]]
    corpus = Corpus.build([Document("sample", text) for text in texts], tokenizer)
    ends = torch.cat([corpus.words[1:], torch.tensor([len(corpus.tokens)])])
    return Coverage(
        tokens=len(corpus.tokens),
        size=sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
        unknown=len(corpus.unknown),
        hidden=corpus.hidden,
        words=len(corpus.words),
        split=int((ends - corpus.words > 1).sum()),
    )
