"""Next-sentence prediction against answers worked by hand and BERT's own trimming."""

import contextlib
import random
from collections import Counter

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import close, drawn, draws, model_of
from oracles import bert_tokenizer

from minicpt.batch import IGNORE
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.alone import alone
from minicpt.data.corpus import Corpus
from minicpt.data.sources import read
from minicpt.data.text import Document, sentences
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import objective_loss, target_losses, whole_sequence_loss
from minicpt.objectives.next_sentence import NextSentence, Pair, Settings, trim
from minicpt.proofs.chance import without_order
from minicpt.remedies.mixture import Mixture
from minicpt.training.stream import Stream

BYTES = Tokenizer.train([], 256)
CLS, SEP, MASK = 2, 3, 4
IS_NEXT, IS_NOT_NEXT = 0, 1  # as in BERT: class 0 means that B follows


def corpus_of(*texts):
    return Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], BYTES)


def numbered(document, sentences):
    """A text of distinct sentences of like length: "Doc 0 says 00. Doc 0 says 01." """
    return " ".join(f"Doc {document} says {number:02}." for number in range(sentences))


def plan_of(corpus, seed=0, epoch=0, **changes):
    """The epoch's rows (A start, A stop, B start, B stop, label)."""
    return NextSentence(BYTES, Settings(**changes)).plan(corpus, seed, epoch).rows.tolist()


def document_of(corpus, start):
    return int((corpus.documents <= start).sum()) - 1


def text_of(corpus, start, stop):
    return BYTES.decode(corpus.tokens[start:stop].tolist()).strip()


# --- worked by hand --------------------------------------------------------------------------


def test_a_pair():
    corpus = corpus_of("Ab. Cd.")
    pair = Pair(corpus.passage(0, 3), corpus.passage(3, 7), IS_NEXT)
    objective = NextSentence(BYTES, Settings(window=16))
    batch = objective.batch([pair], [drawn(0)])
    a, b, dot, _, c, d = BYTES.encode("Ab. Cd")
    assert batch.inputs["tokens"].tolist() == [[CLS, a, b, dot, SEP, c, d, dot, SEP]]
    assert batch.inputs["segments"].tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 1]]
    assert batch.inputs["mask"].all()
    assert batch.targets.keys() == {"pair"}
    assert batch.targets["pair"].tolist() == [[IS_NEXT] + [IGNORE] * 8]
    assert objective.visibility(batch)["pair"]["tokens"].shape == (1, 9, 9)
    assert objective.visibility(batch)["pair"]["tokens"].all()


def test_a_batch_with_padding():
    corpus = corpus_of("Ab. Cd.", "E.")
    pairs = [
        Pair(corpus.passage(0, 3), corpus.passage(3, 7), IS_NEXT),
        Pair(corpus.passage(0, 3), corpus.passage(7, 9), IS_NOT_NEXT),
    ]
    batch = NextSentence(BYTES, Settings(window=16)).batch(pairs, [drawn(0), drawn(1)])
    assert batch.inputs["tokens"][1, 8:].tolist() == [0]
    assert batch.inputs["mask"][1].tolist() == [True] * 8 + [False]
    assert batch.inputs["segments"][1].tolist() == [0] * 5 + [1] * 3 + [0]
    assert batch.targets["pair"][:, 0].tolist() == [IS_NEXT, IS_NOT_NEXT]
    assert (batch.targets["pair"][:, 1:] == IGNORE).all()


# --- the pairs -------------------------------------------------------------------------------

LONG = corpus_of(numbered(0, 12), numbered(1, 7), "Alone here.", numbered(2, 25))


@pytest.mark.parametrize("window", [20, 40, 64, 128])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_what_pairs_are(window, epoch):
    starts, stops = LONG.sentences.tolist(), [*LONG.sentences.tolist()[1:], len(LONG.tokens)]
    labels = Counter()
    for a, a_stop, b, b_stop, label in plan_of(LONG, epoch=epoch, window=window):
        assert a in starts and b in starts and a_stop in stops and b_stop in stops
        assert LONG.passage(a, a_stop) and LONG.passage(b, b_stop), "within a document"
        labels[label] += 1
        if label == IS_NEXT:
            assert b == a_stop and document_of(LONG, a) == document_of(LONG, b)
        else:
            assert document_of(LONG, a) != document_of(LONG, b)
        budget = window - 3
        last = max(start for start in starts if start < a_stop)  # of A's sentences
        assert last == a or last - a < 2 * budget / 3, "A goes on"
        one = sum(b <= start < b_stop for start in starts) == 1
        assert one or a_stop - a + b_stop - b <= budget, "more than fits"
    assert abs(labels[IS_NEXT] - labels[IS_NOT_NEXT]) <= 1 and sum(labels.values()) > 3


def test_labels_have_no_pattern():
    """Shuffled: the label before does not tell the next one."""
    corpus = corpus_of(*(numbered(document, 60) for document in range(10)))
    labels = [row[-1] for row in plan_of(corpus, window=40)]
    alike = sum(one == other for one, other in zip(labels, labels[1:], strict=False))
    assert abs(alike - len(labels) / 2) < 5 * (len(labels) / 4) ** 0.5


def test_every_other_document_is_drawn():
    pairs = [row for epoch in range(40) for row in plan_of(LONG, epoch=epoch, window=40)]
    drawn = {(document_of(LONG, a), document_of(LONG, b)) for a, _, b, _, label in pairs if label}
    # Document 2 is one sentence: nothing follows another sentence there.
    assert drawn == {(a, b) for a in (0, 1, 3) for b in (0, 1, 3) if a != b}


@pytest.mark.parametrize("window", [40, 100])
@pytest.mark.parametrize("sentences", [3, 4, 30])
def test_one_document_only(sentences, window):
    corpus = corpus_of(numbered(0, sentences))
    wrong = 0
    for epoch in range(30):
        for a, a_stop, b, b_stop, label in plan_of(corpus, epoch=epoch, window=window):
            assert (b == a_stop) == (label == IS_NEXT)
            assert b >= a_stop or b_stop <= a, "B overlaps A"
            wrong += label
    assert wrong


def test_the_true_next_sentence_is_not_drawn_under_another_address():
    """Sentences repeat: in other places, at the beginning of a text, where a byte-level tokenizer
    gives them other tokens (no leading space), and A itself with another sentence behind it."""
    first = "First a. Same here. Fourth d. Fifth e."
    texts = [first, "Same here. Third c.", "Third c. Same here. Go. Sixth f. Seventh g."]
    corpus = corpus_of(*texts)
    wrong = set()
    for epoch in range(200):
        for a, a_stop, b, b_stop, label in plan_of(corpus, epoch=epoch, window=24):
            if label == IS_NOT_NEXT:
                wrong.add((text_of(corpus, a, a_stop), text_of(corpus, b, b_stop)))
    assert {first for first, _ in wrong} >= {"First a.", "Same here.", "Third c."}
    for first, second in wrong:
        assert not any(f"{first} {second}" in text for text in texts), f"{first} {second}"


def test_the_same_sentences_everywhere_give_no_wrong_pair():
    with pytest.raises(InputError, match="no pair"):
        for epoch in range(20):  # until the first label drawn is class 1
            plan_of(corpus_of("Go on. Go on.", "Go on. Go on."), epoch=epoch)


def test_a_text_without_pairs_is_refused():
    with pytest.raises(InputError, match="no pair of sentences"):
        plan_of(corpus_of("Only one.", "And one."))


def test_what_follows_a_wrong_pair_is_not_lost():
    """What followed A opens the next pair, so nearly all sentences are some A or true B."""
    rows = plan_of(LONG, window=40)
    used = set()
    for a, a_stop, b, b_stop, label in rows:
        used |= set(range(a, a_stop)) | (set(range(b, b_stop)) if label == IS_NEXT else set())
    lost = [start for start in LONG.sentences.tolist() if start not in used]
    assert len(lost) <= len(LONG.documents), "more than the last sentence of each document"


# --- the sentence-order task -----------------------------------------------------------------


def test_order():
    labels = Counter()
    for epoch in range(3):
        for a, a_stop, b, b_stop, label in plan_of(LONG, epoch=epoch, window=40, order=True):
            assert (a_stop == b, b_stop == a) == ((True, False) if label == 0 else (False, True))
            labels[epoch, label] += 1
        assert abs(labels[epoch, 0] - labels[epoch, 1]) <= 1
    assert plan_of(corpus_of("Only one document. Of two.", "Single."), order=True)


# --- nothing but the content tells the class -------------------------------------------------


def surface(objective, plan):
    """What can be said of each pair without reading a word, and its class."""
    for place, pair in enumerate(plan):
        batch = objective.batch([pair], [drawn("surface", place)])
        read = batch.inputs["tokens"][0].tolist()
        middle = read.index(SEP)
        a, b = read[1:middle], read[middle + 1 : -1]
        texts = objective.tokenizer.decode(a), objective.tokenizer.decode(b)
        spaced = tuple(text != text.strip() for text in texts)
        full = len(read) == objective.length
        yield (len(a) // 6, len(b) // 6, full, spaced, texts[0][-1:], texts[1][-1:]), pair.label


def guessed_right(found):
    """How often the class is guessed from the surface, by the majority in the first half."""
    half = len(found) // 2
    votes = Counter()
    for what, label in found[:half]:
        votes[what] += 2 * label - 1
    rest = found[half:]
    return sum((votes[what] > 0) == label for what, label in rest) / len(rest), len(rest)


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("window", [24, 48])
def test_the_surface_of_text_without_order_tells_nothing(order, window):
    """Lengths, white space, the place of the separator, trimming, ends of documents."""
    tokenizer = Tokenizer.train(["A b. C d. Ab cd. Bc da."] * 9, 280)
    objective = NextSentence(tokenizer, Settings(window=window, order=order))
    found = []
    for seed in range(2):
        corpus = Corpus.build(without_order(str(seed), 900), tokenizer)
        found += surface(objective, objective.plan(corpus, seed, 0))
    share, count = guessed_right(found)
    assert abs(share - 0.5) < 4 * 0.5 / count**0.5, f"{share:.3f} of {count}"


@pytest.mark.parametrize("documents", [1, 2])
def test_the_surface_of_a_few_small_documents_tells_nothing(documents):
    """Where another place as far from the end is hard to find."""
    objective, found = NextSentence(BYTES, Settings(window=48)), []
    for seed in range(250):
        parts = [each.text.strip() for each in without_order(str(seed), 4)]
        texts = [" ".join(parts)] if documents == 1 else [" ".join(parts[:1]), " ".join(parts[1:])]
        corpus = corpus_of(*texts)
        with contextlib.suppress(InputError):
            found += surface(objective, objective.plan(corpus, seed, 0))
    share, count = guessed_right(random.Random(0).sample(found, len(found)))
    assert abs(share - 0.5) < 4 * 0.5 / count**0.5, f"{share:.3f} of {count}"


@pytest.mark.parametrize("order", [False, True])
def test_no_white_space_is_no_sign_of_the_class(order):
    """The rule "B has no white space before it: class 1" was right in 72 and 79 of 100 pairs."""
    documents = [Document(str(i), each.text) for i, each in enumerate(read(["builtin:docs"], True))]
    tokenizer = Tokenizer.train((each.text for each in documents[:200]), 1000)
    objective = NextSentence(tokenizer, Settings(order=order))
    plan = objective.plan(Corpus.build(documents, tokenizer), 0, 0)
    for segment in (0, 1):
        right = 0
        for place, pair in enumerate(plan):
            batch = objective.batch([pair], [drawn(place)])
            read_by = batch.inputs["tokens"][0][batch.inputs["segments"][0] == segment].tolist()
            text = tokenizer.decode([token for token in read_by if token not in (CLS, SEP)])
            right += (text == text.lstrip()) == pair.label
        assert abs(right / len(plan) - 0.5) < 4 * 0.5 / len(plan) ** 0.5


def test_a_wrong_text_starts_where_true_ones_do():
    """As far from the end of its document as the true one, and never at its beginning."""
    corpus = corpus_of(*(numbered(document, 3 + document % 5) for document in range(60)))
    starts = corpus.sentences.tolist()

    def left(start):  # sentences from here to the end of the document; no more than three fit
        end = corpus.document(document_of(corpus, start))[1]
        return min(3, sum(start <= each < end for each in starts))

    seen = Counter()
    for _, a_stop, b, _, label in plan_of(corpus, window=60):
        assert b not in corpus.documents
        assert left(b) == left(a_stop)
        seen[label] += 1
    assert min(seen.values()) > 50


def test_where_a_ends_does_not_depend_on_what_comes_next():
    """With long sentences among short ones: what did not fit behind A would be a long one."""
    short, long = "Ab.", "Abcdefgh ijklmnop qrstuvwx yz."
    picks = random.Random(0)
    texts = (" ".join(picks.choices([short, long], k=300)) for _ in range(4))
    corpus = corpus_of(*texts)
    starts = {label: [] for label in (0, 1)}
    for epoch in range(3):
        for *_, b, b_stop, label in plan_of(corpus, epoch=epoch, window=40):
            starts[label].append(text_of(corpus, b, b_stop).startswith(long))
    for found in starts.values():
        share = sum(found) / len(found)
        assert abs(share - 0.5) < 4 * 0.5 / len(found) ** 0.5


@pytest.mark.parametrize("order", [False, True])
def test_replayed_pairs_are_of_both_classes_too(order):
    objective = NextSentence(BYTES, Settings(window=40, order=order))
    old = corpus_of(*(numbered(document, 9) for document in range(20, 60)))
    new = corpus_of(*(numbered(document, 9) for document in range(20)))
    mixture = Mixture(Stream(objective, new, 0), old, 0.5)
    pairs, _ = mixture.passages(0, 2 * len(objective.plan(new, 0, 0)))
    labels = {True: [], False: []}
    for pair in pairs:
        number = int(text_of_passage(pair.first).split()[1])
        labels[number >= 20].append(pair.label)
    for found in labels.values():
        assert abs(sum(found) / len(found) - 0.5) < 4 * 0.5 / len(found) ** 0.5


def text_of_passage(passage):
    return BYTES.decode(passage.tokens.tolist())


# --- the tokens of a run are those of its text alone -----------------------------------------


def byte_level(prefix):
    """A byte-level BPE as GPT-2's and RoBERTa's, with or without a space before every text."""
    engine = tokenizers.Tokenizer(tokenizers.models.BPE())
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    engine.decoder = tokenizers.decoders.ByteLevel()
    special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(["The cat. The the cat.\n\n  a cat!\n"] * 20, trainer)
    names = ("pad_token", "cls_token", "sep_token", "mask_token")
    return Tokenizer(engine.to_str(), dict(zip(names, special, strict=True)))


spaces = st.sampled_from([" ", "\n", "  ", "\n\n", "\n\n    ", "\t", " \n", "\u3000"])
some_words = st.sampled_from(["The", "cat.", "Été!", "a", "(The", "12.", "猫。「猫」", "☃."])


@pytest.mark.parametrize("prefix", [False, True])
@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(st.tuples(spaces, some_words), min_size=1, max_size=12), spaces, st.data())
def test_a_run_is_read_as_a_text_of_its_own(prefix, words, end, data):
    tokenizer = byte_level(prefix)
    text = "".join(space + word for space, word in words) + end
    corpus = Corpus.build([Document("a", text), Document("b", text.strip())], tokenizer)
    bounds = [*corpus.sentences.tolist(), len(corpus.tokens)]
    first = data.draw(st.integers(0, len(bounds) - 2))
    start = bounds[first]
    stop = data.draw(st.sampled_from([each for each in bounds[first + 1 :]]))
    if document_of(corpus, start) != document_of(corpus, stop - 1):
        return
    (found,) = alone([corpus.passage(start, stop)], tokenizer)
    bare = tokenizer.decode(corpus.tokens[start:stop].tolist()).strip()
    assert found.tokens.tolist() == tokenizer.encode(bare)
    expected = Corpus.build([Document("bare", bare)], tokenizer)
    # In Chinese text a sentence may begin within what white space delimits.
    assert {0, *found.words.nonzero()[:, 0].tolist()} == set(expected.words.tolist())


def test_a_pair_is_read_as_transformers_reads_it(tmp_path):
    """BERT's tokenizer: what is read is its encoding of (A, B), unknown words and all."""
    theirs = bert_tokenizer()
    theirs.save_pretrained(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    texts = ["\n  The cat sat.\n\n  It's ☃ of it! Été came.\tHe ran. ☃ Why not? ", "So? No. Yes. "]
    corpus = Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], tokenizer)
    spans = [(text, *span) for text in texts for span in sentences(text)]
    assert len(spans) == len(corpus.sentences)
    places = [*corpus.sentences.tolist(), len(corpus.tokens)]

    def original(start, stop):
        text, begin, _ = spans[places.index(start)]
        return text[begin : spans[places.index(stop) - 1][2]]

    objective, seen = NextSentence(tokenizer, Settings(window=200)), 0
    for epoch in range(20):
        plan = objective.plan(corpus, 0, epoch)
        for pair, (a, a_stop, b, b_stop, _) in zip(plan, plan.rows.tolist(), strict=True):
            batch = objective.batch([pair], [drawn(0)])
            expected = theirs(original(a, a_stop), original(b, b_stop))
            assert batch.inputs["tokens"][0].tolist() == expected.input_ids
            assert batch.inputs["segments"][0].tolist() == expected.token_type_ids
            seen += 1
    assert seen > 40


# --- trimming --------------------------------------------------------------------------------


def truncate_seq_pair(tokens_a, tokens_b, max_num_tokens, rng):
    """Copied in substance from google-research/bert, create_pretraining_data.py."""
    while True:
        total_length = len(tokens_a) + len(tokens_b)
        if total_length <= max_num_tokens:
            break
        trunc_tokens = tokens_a if len(tokens_a) > len(tokens_b) else tokens_b
        if rng.random() < 0.5:
            del trunc_tokens[0]
        else:
            trunc_tokens.pop()


class SameDraws(random.Random):
    """The numbers of a torch generator, one at a time."""

    def __init__(self, *key):
        self.generator = generator(*key)

    def random(self):
        return float(torch.rand((), generator=self.generator))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(2, 40), st.integers(0, 99))
def test_trimming_is_that_of_bert(a, b, budget, seed):
    text = "".join(chr(33 + place) for place in range(60))
    corpus = corpus_of(text)
    first, second = trim(corpus.passage(0, a), corpus.passage(a, a + b), budget, generator(seed))
    expected_first, expected_second = BYTES.encode(text)[:a], BYTES.encode(text)[a : a + b]
    truncate_seq_pair(expected_first, expected_second, budget, SameDraws(seed))
    assert first.tokens.tolist() == expected_first
    assert second.tokens.tolist() == expected_second
    assert len(first.words) == len(expected_first) and len(second.words) == len(expected_second)


def test_trimming_takes_from_both_ends_of_the_longer_run():
    corpus = corpus_of("abcdefghijkl")
    found = set()
    for seed in range(60):
        first, second = trim(corpus.passage(0, 2), corpus.passage(2, 12), 10, generator(seed))
        assert text_of(corpus, 0, 2) == "ab" == BYTES.decode(first.tokens.tolist())
        found.add(BYTES.decode(second.tokens.tolist()))
    assert found == {"cdefghij", "defghijk", "efghijkl"}


def test_a_pair_fills_the_window_after_trimming():
    objective = NextSentence(BYTES, Settings(window=12))
    plan = objective.plan(LONG, 0, 0)
    batch = objective.batch(plan[:], draws(len(plan)))
    assert batch.inputs["tokens"].shape[1] == 12 and batch.inputs["mask"].all()
    assert (batch.inputs["tokens"] == SEP).sum(1).tolist() == [2] * len(plan)


# --- with masked-LM targets ------------------------------------------------------------------


def test_masked_adds_masked_targets_to_the_same_pairs():
    plain, masked = Settings(window=40), Settings(window=40, masked=True)
    objective = NextSentence(BYTES, masked)
    plan = objective.plan(LONG, 0, 0)
    assert torch.equal(plan.rows, NextSentence(BYTES, plain).plan(LONG, 0, 0).rows)
    noise = [draws(len(plan)) for _ in range(2)]
    batch = objective.batch(plan[:], noise[0])
    pairs = NextSentence(BYTES, plain).batch(plan[:], noise[1])
    assert batch.targets.keys() == {"pair", "tokens"}
    assert torch.equal(batch.targets["pair"], pairs.targets["pair"])
    targets, inputs = batch.targets["tokens"], batch.inputs["tokens"]
    chosen = targets != IGNORE
    assert torch.equal(torch.where(chosen, targets, inputs), pairs.inputs["tokens"])
    assert torch.isin(targets[chosen], BYTES.ordinary).all()
    lengths = pairs.inputs["mask"].sum(1) - 3  # [CLS], [SEP], [SEP]
    assert chosen.sum(1).tolist() == [max(1, round(0.15 * n)) for n in lengths.tolist()]
    assert objective.visibility(batch).keys() == {"pair", "tokens"}


def test_whole_words_of_a_pair():
    """Words are chosen as wholes in A and in B, of which trimming may have cut the first."""
    corpus = corpus_of("Abcde fg hijkl. Mn opqrs tu.")
    objective = NextSentence(BYTES, Settings(window=25, masked=True, whole_word=True, rate=0.4))
    pair = Pair(corpus.passage(0, 15), corpus.passage(15, 28), IS_NEXT)
    for draw in range(40):
        batch = objective.batch([pair], [drawn(draw)])
        targets, inputs = batch.targets["tokens"][0], batch.inputs["tokens"][0]
        chosen = targets != IGNORE
        original = torch.where(chosen, targets, inputs).tolist()
        unit, units = 0, []
        for token in original:  # a word begins behind [CLS] and [SEP], and at a space
            unit += token in (CLS, SEP) or token == BYTES.encode(" ")[0]
            units.append(unit)
        for number in set(units):
            parts = [
                bool(each)
                for each, own, token in zip(chosen, units, original, strict=True)
                if own == number and token not in (CLS, SEP)
            ]
            assert all(parts) or not any(parts), "a word was chosen in part"
        assert chosen.any() and chosen.sum() <= round(0.4 * 22)


def test_the_count_of_bert_has_three_special_tokens():
    corpus = corpus_of("Abc. De.")  # 7 tokens: 1.05 of them, with the special ones 1.5
    pair = Pair(corpus.passage(0, 4), corpus.passage(4, 8), IS_NEXT)
    for choice, count in (("exact", 1), ("bert", 2)):
        objective = NextSentence(BYTES, Settings(masked=True, choice=choice))
        batch = objective.batch([pair], [drawn(0)])
        assert (batch.targets["tokens"] != IGNORE).sum() == count


def test_the_total_is_the_sum_of_two_means():
    objective = NextSentence(BYTES, Settings(window=40, masked=True))
    plan = objective.plan(LONG, 0, 0)
    batch = objective.batch(plan[:6], draws(6))
    model = model_of(objective)
    each = target_losses(model, batch)
    assert len(each["pair"].losses) == 6 < len(each["tokens"].losses)
    total = objective_loss(whole_sequence_loss(model, batch), batch.counts())
    expected = each["pair"].losses.mean() + each["tokens"].losses.mean()
    close(total, expected, model, batch)


# --- whatever the text -----------------------------------------------------------------------

documents = st.lists(
    st.lists(st.sampled_from(["Ab.", "Cd ef.", "Long one here.", "Go!"]), min_size=1, max_size=9),
    min_size=1,
    max_size=5,
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(documents, st.integers(5, 40), st.integers(0, 3), st.booleans(), st.booleans())
def test_pairs_of_any_text(documents, window, epoch, order, masked):
    corpus = corpus_of(*(" ".join(sentences) for sentences in documents))
    objective = NextSentence(BYTES, Settings(window=window, order=order, masked=masked))
    try:
        plan = objective.plan(corpus, 0, epoch)
    except InputError:
        return
    labels = plan.rows[:, 4].tolist()
    assert abs(labels.count(0) - labels.count(1)) <= 1
    for a, a_stop, b, b_stop, label in plan.rows.tolist():
        if label == IS_NEXT:
            assert b == a_stop
        elif not order:
            assert b != a_stop
            end = corpus.document(document_of(corpus, a))[1]
            following = min((s for s in corpus.sentences.tolist() if s > a_stop), default=end)
            true_next = text_of(corpus, a_stop, min(following, end))
            start = min((s for s in corpus.sentences.tolist() if s > b), default=b_stop)
            assert text_of(corpus, b, min(start, b_stop)) != true_next
    batch = objective.batch(plan[:], draws(len(plan)))
    assert batch.inputs["tokens"].shape[1] <= window
    assert torch.equal(batch.targets["pair"][:, 0], plan.rows[:, 4])
    assert (batch.inputs["tokens"][:, 0] == CLS).all()
