"""The rule of span corruption: what is written, put back into what is read, gives the text."""

from collections.abc import Iterator
from math import comb, sqrt

from minicpt.batch import IGNORE, Batch
from minicpt.common.randomness import generator
from minicpt.data.order import Draw
from minicpt.proofs.subject import Subject, Variant

VARIANTS = {"rolled span-corruption": Variant({"roll": True, "rate": 0.4, "span": 2.0})}
DRAWS = 300  # of one passage
ERRORS = 5  # standard deviations by which a count may be off by chance


def rule(subject: Subject, passage, batch: Batch) -> Iterator[str]:
    """The two texts of a passage, its sentinels, and how much of it is cut out."""
    settings, tokenizer = subject.objective.settings, subject.tokenizer
    read, written = both(batch)
    yield from begun(subject, batch, written)
    end = tokenizer.need("end")
    if read[-1:] != [end] or written[-1:] != [end]:
        yield "what is read or written does not close with end-of-text"
        return
    window = subject.source(passage)[passage.offset :][: len(passage.tokens)]
    yield from restored(subject, read[:-1], written[:-1], window, settings)


def both(batch: Batch) -> tuple[list[int], list[int]]:
    """What is read of the one row, without the token that starts a decoder, and what is written."""
    read = batch.inputs["tokens"][0].tolist()
    targets = batch.targets["tokens"][0].tolist()
    if "decoder_tokens" in batch.inputs:
        return read, targets
    first = next(place for place, target in enumerate(targets) if target != IGNORE)
    return read[1 : first + 1], targets[first:]


def begun(subject: Subject, batch: Batch, written: list[int]) -> Iterator[str]:
    """What the decoder reads of what is written."""
    if "decoder_tokens" in batch.inputs:
        start, *rest = batch.inputs["decoder_tokens"][0].tolist()
        expected = subject.tokenizer.need("pad")
    else:
        row = batch.inputs["tokens"][0].tolist()
        start, rest = row[0], row[len(row) - len(written) + 1 :]
        expected = subject.tokenizer.begin
        end = len(row) - len(written)  # the last position of the input: it predicts the first token
        sees = [[j <= max(i, end) for j in range(len(row))] for i in range(len(row))]
        if batch.inputs["mask"][0].tolist() != sees:
            yield "the input is not read in both directions, or the output is"
    if start != expected or rest != written[:-1]:
        yield "the decoder does not read a start token and what is written before"


def restored(
    subject: Subject, read: list[int], written: list[int], window: list[int], settings
) -> Iterator[str]:
    """Both without end-of-text, against the tokens that they were made of."""
    highest = subject.tokenizer.special_id("<extra_id_0>")
    spans: dict[int, list[int]] = {}
    for token in written:
        if token in subject.tokenizer.special:
            if token != highest - len(spans):
                yield "the sentinels do not count down from the highest"
                return
            spans[token] = []
        elif not spans:
            yield "a span has no sentinel before it"
            return
        else:
            spans[list(spans)[-1]].append(token)
    if [token for token in read if token in subject.tokenizer.special] != list(spans):
        yield "the sentinels that are read are not those that are written"
    if any(not span for span in spans.values()):
        yield "a sentinel stands for nothing"
    if sum((spans.get(token, [token]) for token in read), []) != window:
        yield "what is written, put back into what is read, is not the text"
    noise = min(max(round(settings.rate * len(window)), 1), len(window) - 1)
    count = min(max(round(noise / settings.span), 1), noise, len(window) - noise)
    if sum(map(len, spans.values())) != noise:
        yield f"{sum(map(len, spans.values()))} of {len(window)} tokens are cut out, not {noise}"
    if len(spans) not in (count, count + settings.roll):
        yield f"there are {len(spans)} spans, not {count}"
    if not settings.roll and (read[0] in spans or read[-1] not in spans):
        yield "the text does not begin with what stays and end with a span"


def rule_of_epoch(subject: Subject, passages) -> Iterator[str]:
    """One passage many times: how long the first run is, by counting.

    Of the C(n-1, s-1) ways to write n as a sum of s parts, C(n-k-1, s-2) begin with k.
    """
    passage = max(passages, key=lambda each: len(each.tokens))
    length, settings = len(passage.tokens), subject.objective.settings
    rows = [
        subject.objective.batch([passage], [Draw(0, generator("count", number))])
        for number in range(DRAWS)
    ]
    noise = min(max(round(settings.rate * length), 1), length - 1)
    spans = min(max(round(noise / settings.span), 1), noise, length - noise)
    special = set(subject.tokenizer.special)
    firsts = []
    for row in rows:
        read, _ = both(row)
        firsts.append(next(place for place, token in enumerate(read) if token in special))
    stays = length - noise
    if settings.roll:
        # A pattern that was turned begins with each of its tokens as often.
        expected = {0: noise / length}
    elif spans == 1:
        expected = {stays: 1.0}
    else:
        ways = comb(stays - 1, spans - 1)
        expected = {k: comb(stays - k - 1, spans - 2) / ways for k in range(1, stays)}
    for first, share in expected.items():
        error = sqrt(DRAWS * share * (1 - share))
        if abs(firsts.count(first) - DRAWS * share) > ERRORS * error + 1e-9:
            yield (
                f"{firsts.count(first)} of {DRAWS} draws of a passage begin with {first} tokens"
                f" that stay, where {DRAWS * share:.0f} are expected"
            )
            return
