"""The rule of next-sentence prediction: the class says whether the second text follows."""

from collections.abc import Iterator, Sequence

from minicpt.batch import IGNORE, Batch
from minicpt.proofs.subject import Subject, Variant

VARIANTS = {
    "next-sentence with masked-lm": Variant({"masked": True}),
    "sentence order": Variant({"order": True}),
}


def rule(subject: Subject, pair, batch: Batch) -> Iterator[str]:
    """The layout of the pair, its label, and where its second text comes from."""
    tokenizer = subject.tokenizer
    read = batch.inputs["tokens"][0].tolist()
    cls, sep = tokenizer.need("cls"), tokenizer.need("sep")
    edges = [place for place, token in enumerate(read) if token == sep]
    if read[0] != cls or len(edges) != 2 or edges[1] != len(read) - 1:
        yield "a pair is not read as [CLS] A [SEP] B [SEP]"
        return
    segments = [0] * (edges[0] + 1) + [1] * (len(read) - edges[0] - 1)
    if ("segments" in batch.inputs) != ("segments" in subject.model.INPUTS):
        yield "segments are not given to just the models that take them"
    elif "segments" in batch.inputs and batch.inputs["segments"][0].tolist() != segments:
        yield "segments are not 0 up to the first [SEP] and 1 behind it"
    label, *others = batch.targets["pair"][0].tolist()
    if label not in (0, 1) or any(target != IGNORE for target in others):
        yield "the label does not stand at position 0 alone"
        return
    # Sentences of A and B as they stand in the text, whatever was cut off at the pair's ends.
    same = pair.first.document == pair.second.document
    follows = same and precedes(pair.first, pair.second)
    if follows and label != 0:
        yield "what follows is labelled as not following"
    if not follows and label != 1:
        yield "what does not follow is labelled as following"
    if subject.objective.settings.order:
        if not follows and not (same and precedes(pair.second, pair.first)):
            yield "the swapped texts do not follow each other"
    elif not follows and len(subject.documents) > 1 and same:
        yield "the wrong second text comes from the same document"
    rest = subject.source(pair.first)[pair.first.offset + len(pair.first.tokens) :]
    texts = [tokenizer.decode(ids).split() for ids in (rest, pair.second.tokens.tolist())]
    if label == 1 and texts[1] and texts[0][: len(texts[1])] == texts[1]:
        yield "the wrong second text reads like the true one"


def precedes(one, other) -> bool:
    return other.offset == one.offset + len(one.tokens)


def rule_of_epoch(subject: Subject, pairs: Sequence) -> Iterator[str]:
    """Half of the pairs are of each class."""
    ones = sum(pair.label for pair in pairs)
    if abs(2 * ones - len(pairs)) > 1:
        yield f"{ones} of {len(pairs)} pairs are of class 1 instead of half"
