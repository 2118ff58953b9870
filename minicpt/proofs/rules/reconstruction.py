"""The rule of sentence reconstruction: the decoder writes the sentence, the encoder reads words."""

from collections.abc import Iterator

from minicpt.batch import Batch
from minicpt.proofs.subject import Subject


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """The decoder's two sides, and the words that are left for the encoder."""
    tokenizer = subject.tokenizer
    sentence = subject.source(passage)[passage.offset :][: len(passage.tokens)]
    start, end = tokenizer.need("pad"), tokenizer.need("end")
    if batch.targets["tokens"][0].tolist() != [*sentence, end]:
        yield "the targets are not the sentence and its end"
    if batch.inputs["decoder_tokens"][0].tolist() != [start, *sentence]:
        yield "the decoder does not read the start token and the sentence"
    words = tokenizer.decode(sentence).split()
    kept = tokenizer.decode(batch.inputs["tokens"][0].tolist()).split()
    rest = list(words)
    for word in kept:
        if word not in rest:
            yield f"the encoder reads {word!r}, which is not left in the sentence"
            return
        rest.remove(word)
    if words and not kept:
        yield "no word is left"
