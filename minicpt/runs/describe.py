"""What a run says before it starts: its texts, its model, and how well the tokenizer fits."""

from collections.abc import Sequence

from minicpt.data.coverage import coverage
from minicpt.data.documents import Documents
from minicpt.data.tokenizer import Tokenizer
from minicpt.models.layers import Model
from minicpt.runs.console import tell
from minicpt.runs.loop import Run
from minicpt.runs.texts import Texts


def weights(model: Model, learning: bool = False) -> int:
    """How many numbers the model's parameters hold; with ``learning``, those that learn."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not learning)


def describe(run: Run, text: Texts, size: int) -> None:
    """Tells what is about to be trained. ``size``: the weights of the model without remedies."""
    trainer = run.trainer
    learning = weights(trainer.model, learning=True)
    among = "beside" if weights(trainer.model) > size else "of"
    part = "" if learning == size else f", {learning:,} {among} them trained"
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
        f"{trainer.settings.batch_size} passages, into {run.folder}"
    )
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
