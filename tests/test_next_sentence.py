"""Next-sentence prediction against answers worked by hand and BERT's own trimming."""

import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import close

from minicpt.batch import IGNORE
from minicpt.data.corpus import Corpus
from minicpt.data.text import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.errors import InputError
from minicpt.loss import objective_loss, target_losses, whole_sequence_loss
from minicpt.models import encoder
from minicpt.objectives.next_sentence import Objective, Pair, Settings, trim
from minicpt.randomness import generator

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
    return Objective(BYTES, Settings(**changes)).plan(corpus, seed, epoch).rows.tolist()


def document_of(corpus, start):
    return int((corpus.documents <= start).sum()) - 1


def text_of(corpus, start, stop):
    return BYTES.decode(corpus.tokens[start:stop].tolist()).strip()


# --- worked by hand --------------------------------------------------------------------------


def test_a_pair():
    corpus = corpus_of("Ab. Cd.")
    pair = Pair(corpus.passage(0, 3), corpus.passage(3, 7), IS_NEXT)
    objective = Objective(BYTES, Settings(window=16))
    batch = objective.batch([pair], [generator(0)])
    a, b, dot, space, c, d = BYTES.encode("Ab. Cd")
    assert batch.inputs["tokens"].tolist() == [[CLS, a, b, dot, SEP, space, c, d, dot, SEP]]
    assert batch.inputs["segments"].tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]]
    assert batch.inputs["mask"].all()
    assert batch.targets.keys() == {"pair"}
    assert batch.targets["pair"].tolist() == [[IS_NEXT] + [IGNORE] * 9]
    assert objective.visibility(batch)["pair"]["tokens"].shape == (1, 10, 10)
    assert objective.visibility(batch)["pair"]["tokens"].all()


def test_a_batch_with_padding():
    corpus = corpus_of("Ab. Cd.", "E.")
    pairs = [
        Pair(corpus.passage(0, 3), corpus.passage(3, 7), IS_NEXT),
        Pair(corpus.passage(0, 3), corpus.passage(7, 9), IS_NOT_NEXT),
    ]
    batch = Objective(BYTES, Settings(window=16)).batch(pairs, [generator(0), generator(1)])
    assert batch.inputs["tokens"][1, 8:].tolist() == [0, 0]
    assert batch.inputs["mask"][1].tolist() == [True] * 8 + [False] * 2
    assert batch.inputs["segments"][1].tolist() == [0] * 5 + [1] * 3 + [0] * 2
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
        sentences = sum(a <= start < a_stop or b <= start < b_stop for start in starts)
        assert sentences == 2 or a_stop - a + b_stop - b <= window - 3, "more than fits"
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
    assert drawn == {(a, b) for a in (0, 1, 3) for b in range(4) if a != b}


@pytest.mark.parametrize("window", [40, 100])
@pytest.mark.parametrize("sentences", [3, 4, 30])
def test_one_document_only(sentences, window):
    corpus = corpus_of(numbered(0, sentences))
    wrong = 0
    for epoch in range(30):
        try:
            rows = plan_of(corpus, epoch=epoch, window=window)
        except InputError:  # few sentences in one pair may leave no other place
            assert sentences < 30
            continue
        for a, a_stop, b, b_stop, label in rows:
            assert (b == a_stop) == (label == IS_NEXT)
            assert b >= a_stop or b_stop <= a, "B overlaps A"
            wrong += label
    assert wrong or (sentences, window) == (3, 100)


def test_the_true_next_sentence_is_not_drawn_under_another_address():
    """Sentences repeat: in other places, at the beginning of a text, where a byte-level tokenizer
    gives them other tokens (no leading space), and A itself with another sentence behind it."""
    texts = ["First a. Same here. Fourth d.", "Same here. Third c.", "Third c. Same here. Go."]
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
    objective = Objective(BYTES, Settings(window=12))
    plan = objective.plan(LONG, 0, 0)
    batch = objective.batch(plan[:], [generator(place) for place in range(len(plan))])
    assert batch.inputs["tokens"].shape[1] == 12 and batch.inputs["mask"].all()
    assert (batch.inputs["tokens"] == SEP).sum(1).tolist() == [2] * len(plan)


# --- with masked-LM targets ------------------------------------------------------------------


def test_masked_adds_masked_targets_to_the_same_pairs():
    plain, masked = Settings(window=40), Settings(window=40, masked=True)
    objective = Objective(BYTES, masked)
    plan = objective.plan(LONG, 0, 0)
    assert torch.equal(plan.rows, Objective(BYTES, plain).plan(LONG, 0, 0).rows)
    draws = [[generator(place) for place in range(len(plan))] for _ in range(2)]
    batch = objective.batch(plan[:], draws[0])
    pairs = Objective(BYTES, plain).batch(plan[:], draws[1])
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
    objective = Objective(BYTES, Settings(window=25, masked=True, whole_word=True, rate=0.4))
    pair = Pair(corpus.passage(0, 15), corpus.passage(15, 28), IS_NEXT)
    for draw in range(40):
        batch = objective.batch([pair], [generator(draw)])
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
    corpus = corpus_of("Ab. Cd.")  # 7 tokens: 1.05 of them, with the special ones 1.5
    pair = Pair(corpus.passage(0, 3), corpus.passage(3, 7), IS_NEXT)
    for choice, count in (("exact", 1), ("bert", 2)):
        objective = Objective(BYTES, Settings(masked=True, choice=choice))
        batch = objective.batch([pair], [generator(0)])
        assert (batch.targets["tokens"] != IGNORE).sum() == count


def test_the_total_is_the_sum_of_two_means():
    objective = Objective(BYTES, Settings(window=40, masked=True))
    plan = objective.plan(LONG, 0, 0)
    batch = objective.batch(plan[:6], [generator(place) for place in range(6)])
    torch.manual_seed(0)
    sizes = {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0}
    model = encoder.Model(encoder.Config(vocabulary=BYTES.size, positions=40, **sizes))
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
    objective = Objective(BYTES, Settings(window=window, order=order, masked=masked))
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
    batch = objective.batch(plan[:], [generator(place) for place in range(len(plan))])
    assert batch.inputs["tokens"].shape[1] <= window
    assert torch.equal(batch.targets["pair"][:, 0], plan.rows[:, 4])
    assert (batch.inputs["tokens"][:, 0] == CLS).all()
