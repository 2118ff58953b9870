"""What an objective hands over, held against the source text by rules written independently.

The rules below read the documents' own text and the tokenizer, never the objective's code: where
the objective says which token follows, the rule looks it up in the text.
"""

from collections.abc import Callable, Iterator

import torch

from minicpt.batch import IGNORE, Batch, valid_positions
from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.subject import SEED, Subject

Rule = Callable[[Subject, object, Batch], Iterator[str]]
EPOCHS = 3
LEAST = 4  # passages an epoch, without which its order and noise say little


def order_and_padding(subject: Subject) -> Proof:
    """What holds for every objective: nothing is changed, repeated, skipped, or put on padding."""
    problems = [*changed_inputs(subject), *order_and_noise(subject)]
    checked = 0
    for epoch in range(EPOCHS):
        for passage in subject.passages(10**6, epoch):
            problems += pads(subject, subject.batch([passage], epoch), passage.place)
            checked += 1
    return Proof(
        name="order and padding",
        passed=not problems,
        compared=f"{checked} batches of {EPOCHS} epochs: order, noise, padding, and what they are"
        " made from",
        numbers={"batches": checked, "mistakes": len(problems)},
        why="Each epoch has an order and noise of its own, the same again when a run goes on;"
        " padding has no target; what a batch is made from stays as it is.",
        not_covered="What the targets are: the batch rules.",
        message="; ".join(dict.fromkeys(problems[:2])),
        worst=len(problems),
        tolerance=0,
    )


def batch_rules(subject: Subject) -> Proof:
    """Every passage of a few epochs, each as a batch of its own, against the objective's rule.

    Raises NotChecked where no rule was written for the objective.
    """
    if subject.kind not in RULES:
        raise NotChecked(
            f"nobody wrote a rule for {subject.kind} (RULES in minicpt/verify/rules.py), so its"
            " targets were not looked up in the text"
        )
    problems = list(broken(subject, RULES[subject.kind]))
    checked = sum(len(subject.passages(10**6, epoch)) for epoch in range(EPOCHS))
    return Proof(
        name="batch rules",
        passed=not problems,
        compared=f"{checked} batches of {EPOCHS} epochs with the text they were made from",
        numbers={"batches": checked, "broken rules": len(problems)},
        why="Targets, labels, candidates and their order are looked up in the text itself.",
        not_covered="Whether the rule that is asked for is a good objective.",
        message="; ".join(dict.fromkeys(problems[:2])),
        worst=len(problems),
        tolerance=0,
    )


def broken(subject: Subject, rule: Rule) -> Iterator[str]:
    for epoch in range(EPOCHS):
        passages = subject.passages(10**6, epoch)
        for passage in passages:
            batch = subject.batch([passage], epoch)
            yield from (f"{what} ({passage.place})" for what in rule(subject, passage, batch))
        if subject.kind == "next-sentence":
            yield from halves(passages)


# --- rules for every objective


def changed_inputs(subject: Subject) -> Iterator[str]:
    """An objective changes nothing that it is given."""
    before = [tensor.clone() for tensor in tensors(subject.passages(10**6))]
    corpus = subject.corpus.tokens.clone()
    passages = subject.passages(10**6)
    subject.batch(passages)
    for one, other in zip(before, tensors(passages), strict=True):
        if not torch.equal(one, other):
            yield "a passage was changed in place"
            return
    if not torch.equal(corpus, subject.corpus.tokens):
        yield "the corpus was changed in place"


def tensors(passages) -> Iterator[torch.Tensor]:
    for passage in passages:
        for part in vars(passage).values():
            if isinstance(part, torch.Tensor):
                yield part
            elif hasattr(part, "tokens"):
                yield part.tokens
            elif isinstance(part, tuple):
                yield from tensors(part)


def order_and_noise(subject: Subject) -> Iterator[str]:
    """The stream: new order and noise each epoch, the same again for the same place."""
    stream = subject.stream(subject.objective, subject.corpus, SEED)
    length = stream.epoch_length(0)
    if length < LEAST:
        raise NotChecked(f"needs {LEAST} passages an epoch; the objective makes {length} here")
    passages, noise = stream.passages(0, 2 * length)
    places = [passage.place for passage in passages]
    draws = [torch.rand(2, generator=each, dtype=torch.float64).tolist() for each in noise]
    if places[:length] == places[length:]:
        yield "the second epoch has the order of the first"
    if draws[0] == draws[length] or len({tuple(draw) for draw in draws}) < len(draws):
        yield "the same noise comes again"
    again = subject.stream(subject.objective, subject.corpus, SEED)
    passages, noise = again.passages(length - 2, 4)
    if [passage.place for passage in passages] != places[length - 2 : length + 2]:
        yield "data are repeated or skipped when a run goes on in the middle"
    elif torch.rand(2, generator=noise[0], dtype=torch.float64).tolist() != draws[length - 2]:
        yield "the noise of a passage is another one when a run goes on"


def pads(subject: Subject, batch: Batch, place: str) -> Iterator[str]:
    stream = "decoder_mask" if "decoder_mask" in batch.inputs else "mask"
    read = valid_positions(batch.inputs[stream])
    for head, target in batch.targets.items():
        if target.shape != read.shape:
            yield f"targets of {head!r} have another shape than what is read ({place})"
        elif bool((target != IGNORE)[~read].any()):
            yield f"padding has a target ({place})"


# --- rules of each objective: generators of what is wrong with the batch of one passage


def source(subject: Subject, passage) -> list[int]:
    """All tokens of the passage's document, tokenised anew from its text."""
    name = passage.place.rsplit(", token", 1)[0]
    text = next(document.text for document in subject.documents if document.name == name)
    return subject.tokenizer.encode(text)


def offset(passage) -> int:
    return int(passage.place.rsplit(", token", 1)[1])


def causal_lm(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """A row holds a passage or, packed, several, one behind the other."""
    read = batch.inputs["tokens"][0].tolist()
    targets = batch.targets["tokens"][0].tolist()
    positions = batch.inputs.get("positions")
    begin = 0
    for text in getattr(passage, "passages", (passage,)):
        end = begin + len(text.tokens) + (offset(text) == 0)
        yield from next_tokens(subject, text, read[begin:end], targets[begin:end])
        if positions is not None and positions[0, begin:end].tolist() != [*range(end - begin)]:
            yield "positions do not restart with each text"
        begin = end
    if begin != len(read):
        yield "more is read than the text"


def next_tokens(
    subject: Subject, passage, read: list[int], targets: list[int]
) -> Iterator[str]:
    document = source(subject, passage)
    end = subject.tokenizer.need("end")
    begin = offset(passage)
    whole = [end, *document, end]  # what a reader of one text after the other would see
    first = 0 if begin == 0 else begin + 1
    if read != whole[first : first + len(read)]:
        yield "what is read is not the text"
    expected = whole[first + 1 : first + 1 + len(read)]
    if first + len(read) == len(whole) - 1 and targets[-1] != end:
        yield "the end of the text is not a target"
    elif targets != expected:
        yield "a target is not the next token of the text"


def masked_lm(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    tokenizer = subject.tokenizer
    window = source(subject, passage)[offset(passage) :][: len(batch.inputs["tokens"][0]) - 2]
    original = [tokenizer.need("cls"), *window, tokenizer.need("sep")]
    yield from masked(subject, original, batch)


def masked(subject: Subject, original: list[int], batch: Batch) -> Iterator[str]:
    tokenizer = subject.tokenizer
    read = batch.inputs["tokens"][0].tolist()
    targets = batch.targets["tokens"][0].tolist()
    chosen = [place for place, target in enumerate(targets) if target != IGNORE]
    special = [place for place, token in enumerate(original) if token in tokenizer.special]
    if set(chosen) & set(special):
        yield "a special token is a target"
    if any(read[place] != original[place] for place in special):
        yield "a special token was replaced"
    count = len(original) - len(special)
    budget = max(1, round(subject.objective.settings.rate * count))
    if len(chosen) != budget:
        yield f"{len(chosen)} of {count} tokens are targets instead of {budget}"
    if any(targets[place] != original[place] for place in chosen):
        yield "a target is not the token that stood there"
    left = [place for place in range(len(original)) if place not in chosen]
    if any(read[place] != original[place] for place in left):
        yield "a token that was not chosen was changed"


def next_sentence(subject: Subject, pair, batch: Batch) -> Iterator[str]:
    tokenizer = subject.tokenizer
    read = batch.inputs["tokens"][0].tolist()
    cls, sep = tokenizer.need("cls"), tokenizer.need("sep")
    edges = [place for place, token in enumerate(read) if token == sep]
    if read[0] != cls or len(edges) != 2 or edges[1] != len(read) - 1:
        yield "a pair is not read as [CLS] A [SEP] B [SEP]"
        return
    segments = [0] * (edges[0] + 1) + [1] * (len(read) - edges[0] - 1)
    if batch.inputs["segments"][0].tolist() != segments:
        yield "segments are not 0 up to the first [SEP] and 1 behind it"
    targets = batch.targets["pair"][0].tolist()
    if targets[0] not in (0, 1) or any(target != IGNORE for target in targets[1:]):
        yield "the label does not stand at position 0 alone"
        return
    # Sentences of A and B as they stand in the text, whatever was cut off at the pair's ends.
    same = pair.first.place.rsplit(", token", 1)[0] == pair.second.place.rsplit(", token", 1)[0]
    follows = same and precedes(pair.first, pair.second)
    if follows and targets[0] != 0:
        yield "what follows is labelled as not following"
    if not follows and targets[0] != 1:
        yield "what does not follow is labelled as following"
    if subject.objective.settings.order:
        if not follows and not (same and precedes(pair.second, pair.first)):
            yield "the swapped texts do not follow each other"
    elif not follows and len(subject.documents) > 1 and same:
        yield "the wrong second text comes from the same document"
    rest = source(subject, pair.first)[offset(pair.first) + len(pair.first.tokens) :]
    texts = [tokenizer.decode(ids).split() for ids in (rest, pair.second.tokens.tolist())]
    if targets[0] == 1 and texts[1] and texts[0][: len(texts[1])] == texts[1]:
        yield "the wrong second text reads like the true one"


def precedes(one, other) -> bool:
    return offset(other) == offset(one) + len(one.tokens)


def halves(pairs) -> Iterator[str]:
    ones = sum(pair.label for pair in pairs)
    if abs(2 * ones - len(pairs)) > 1:
        yield f"{ones} of {len(pairs)} pairs are of class 1 instead of half"


def reconstruction(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    tokenizer = subject.tokenizer
    sentence = source(subject, passage)[offset(passage) :][: len(passage.tokens)]
    start, end = tokenizer.need("pad"), tokenizer.need("end")
    decoder = batch.inputs["decoder_tokens"][0].tolist()
    targets = batch.targets["tokens"][0].tolist()
    if targets != [*sentence, end]:
        yield "the targets are not the sentence and its end"
    if decoder != [start, *sentence]:
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


RULES = {
    "causal-lm": causal_lm,
    "masked-lm": masked_lm,
    "next-sentence": next_sentence,
    "reconstruction": reconstruction,
}
