"""Sentence reconstruction against answers worked by hand."""

import math
from collections import Counter
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import drawn, draws, model_of

from minicpt.batch import IGNORE
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.text import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import Sampling
from minicpt.objectives.reconstruction import Reconstruction, Settings, damage

BYTES = Tokenizer.train([], 256)
START, END = 0, 1  # the pad id starts the decoder, as in T5
WHOLE = {"deletion": 0.0, "shuffle": False}


def corpus_of(*texts, tokenizer=BYTES):
    return Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], tokenizer)


def whole(corpus):
    return corpus.passage(*corpus.document(0))


def within(count, draws, probability, sigmas=5):
    deviation = math.sqrt(draws * probability * (1 - probability))
    return abs(count - draws * probability) <= sigmas * deviation


# --- worked by hand --------------------------------------------------------------------------


def test_an_undamaged_sentence():
    """The second sentence of a text: the decoder writes its leading space, the encoder reads its
    words joined by single spaces."""
    corpus = corpus_of("A. Be  it.")
    objective = Reconstruction(BYTES, Settings(**WHOLE))
    batch = objective.batch([corpus.passage(2, 10)], [drawn(0)])
    space, b, e, i, t, dot = BYTES.encode(" Beit.")
    assert batch.inputs["tokens"].tolist() == [[b, e, space, i, t, dot]]
    target = [space, b, e, space, space, i, t, dot]
    assert batch.inputs["decoder_tokens"].tolist() == [[START, *target]]
    assert batch.targets["tokens"].tolist() == [[*target, END]]
    assert batch.inputs["mask"].all() and batch.inputs["decoder_mask"].all()


def test_a_batch_with_padding():
    corpus = corpus_of("ab. Ab cd.")
    objective = Reconstruction(BYTES, Settings(window=16, **WHOLE))
    passages = [corpus.passage(0, 2), corpus.passage(3, 10)]
    batch = objective.batch(passages, [drawn(0), drawn(1)])
    a, b = 69, 70
    assert batch.inputs["tokens"][0].tolist() == [a, b, 0, 0, 0, 0]
    assert batch.inputs["mask"][0].tolist() == [True, True] + [False] * 4
    assert batch.inputs["decoder_tokens"][0].tolist() == [START, a, b, 0, 0, 0, 0, 0]
    assert batch.inputs["decoder_mask"][0].tolist() == [True] * 3 + [False] * 5
    assert batch.targets["tokens"][0].tolist() == [a, b, END] + [IGNORE] * 5
    seen = objective.visibility(batch)["tokens"]
    assert seen["tokens"][0].tolist() == [[True, True] + [False] * 4] * 8
    assert seen["decoder_tokens"][0, :3, :4].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
    ]


def test_damage_of_two_words():
    """All that can become of two words, and nothing else."""
    both = Counter(" ".join(damage(["a", "b"], Settings(deletion=0.5), generator(draw)))
                   for draw in range(400))
    assert both.keys() == {"a", "b", "a b", "b a"}
    # Both stay in a quarter of the draws, in either order; of none, one is put back.
    assert within(both["a"] + both["b"], 400, 3 / 4) and within(both["a b"], 400, 1 / 8)


# --- damage ----------------------------------------------------------------------------------

LETTERS = [chr(97 + place) for place in range(20)]


@pytest.mark.parametrize("deletion", [0.0, 0.2, 0.6])
def test_the_share_that_is_deleted(deletion):
    sizes = [len(damage(LETTERS, Settings(deletion=deletion), generator(n))) for n in range(500)]
    assert within(20 * 500 - sum(sizes), 20 * 500, deletion)


def test_at_least_one_word_stays():
    left = [damage(LETTERS, Settings(deletion=1.0), generator(draw)) for draw in range(300)]
    assert all(len(words) == 1 for words in left)
    assert {words[0] for words in left} == set(LETTERS), "any of them"
    assert damage(["only"], Settings(deletion=0.9), generator(0)) == ["only"]


def test_without_shuffle_the_order_is_kept():
    for draw in range(50):
        words = damage(LETTERS, Settings(deletion=0.4, shuffle=False), generator(draw))
        assert words == sorted(set(words)), "letters in the order of the alphabet, each once"


def test_shuffle_gives_every_order_as_often():
    settings = Settings(deletion=0.0)
    counts = Counter("".join(damage(["a", "b", "c"], settings, generator(n))) for n in range(1200))
    assert counts.keys() == {"".join(order) for order in permutations("abc")}
    assert all(within(count, 1200, 1 / 6) for count in counts.values())


@pytest.mark.parametrize("distance", [1, 2, 3, 4])
def test_no_word_moves_farther_than_the_distance(distance):
    settings, farthest = Settings(deletion=0.0, distance=distance), 0
    for draw in range(300):
        words = damage(LETTERS, settings, generator(draw))
        assert sorted(words) == LETTERS
        moves = [abs(place - LETTERS.index(word)) for place, word in enumerate(words)]
        farthest = max(farthest, *moves)
    assert farthest == distance, "the distance is reached, and not passed"


def test_distance_counts_the_words_that_are_left():
    for draw in range(100):
        words = damage(LETTERS, Settings(deletion=0.5, distance=1), generator(draw))
        assert all(abs(sorted(words).index(word) - place) <= 1 for place, word in enumerate(words))


def test_without_a_distance_words_move_freely():
    moves = [
        abs(place - LETTERS.index(word))
        for draw in range(100)
        for place, word in enumerate(damage(LETTERS, Settings(deletion=0.0), generator(draw)))
    ]
    assert max(moves) == 19


# --- what the encoder reads ------------------------------------------------------------------


def test_what_is_read_is_the_joined_words_tokenised(tokenizer):
    """Not the sentence's own tokens in another order: those glue its first word to the one that
    comes to stand before it."""
    text = "The cat sat on the mat"
    corpus = corpus_of(text, tokenizer=tokenizer)
    passage, objective = whole(corpus), Reconstruction(tokenizer, Settings(deletion=0.2))
    assert objective.words(passage) == text.split()
    moved = 0
    for draw in range(30):
        tokens = objective.batch([passage], [drawn(draw)]).inputs["tokens"][0].tolist()
        words = damage(text.split(), objective.settings, generator(draw))
        assert tokens == tokenizer.encode(" ".join(words))
        assert tokenizer.decode(tokens).split() == words
        glued = [
            token
            for word in words
            for token in tokenizer.encode(word if word == "The" else " " + word)
        ]
        moved += tokens != glued
    assert moved > 10, "moving tokens alone gives the same: this text shows nothing"


def test_only_the_words_that_are_read_tell_of_their_order(tokenizer):
    """White space, and where the sentence stands in its document, leave no trace."""
    readings = []
    for words in permutations(["cat", "sat", "mat"]):
        first, second, third = words
        text = f"Go on.\n\n  {first}  {second}\n{third}\n"
        for start, whole_text in ((7, text), (0, text[7:].strip())):
            corpus = corpus_of(whole_text, tokenizer=tokenizer)
            start = len(tokenizer.encode(text[:6])) if start else 0
            passage = corpus.passage(start, len(corpus.tokens))
            objective = Reconstruction(tokenizer, Settings(deletion=0.3))
            batches = (objective.batch([passage], [drawn("order", draw)]) for draw in range(300))
            readings.append({tuple(batch.inputs["tokens"][0].tolist()) for batch in batches})
    assert len(readings[0]) == 15  # one word of three, two or three of them in any order
    assert all(each == readings[0] for each in readings)


def test_spaces_longer_than_the_window():
    """A piece without a word is read as it stands; the encoder is never left with nothing."""
    corpus = corpus_of("One two." + " " * 50 + "Three.")
    objective = Reconstruction(BYTES, Settings(window=16))
    for passage in objective.plan(corpus, 0, 0):
        batch = objective.batch([passage], [drawn(0)])
        assert batch.inputs["mask"].any()
        if not objective.words(passage):
            assert torch.equal(batch.inputs["tokens"][0], passage.tokens)
    model = model_of(objective)
    blank = next(each for each in objective.plan(corpus, 0, 0) if not objective.words(each))
    assert isinstance(objective.probe(model, blank, Sampling(length=2), drawn(0)), str)
    with pytest.raises(InputError, match="holds none"):
        objective.generate(model, "  ", Sampling(), generator(0))


# --- the pieces of an epoch ------------------------------------------------------------------


def pieces(corpus, window):
    """The texts of the plan's pieces, in the order of the text."""
    plan = Reconstruction(BYTES, Settings(window=window)).plan(corpus, 0, 0)
    return [BYTES.decode(corpus.tokens[a:b].tolist()) for a, b in sorted(plan.rows.tolist())]


def test_a_piece_is_a_sentence():
    assert pieces(corpus_of("Go on. Be it. No!", "New one."), 20) == [
        "Go on.", " Be it.", " No!", "New one."
    ]


def test_a_sentence_too_long_is_cut_between_words():
    assert pieces(corpus_of("one two three four"), 9) == ["one two", " three", " four"]
    assert pieces(corpus_of("one two three four"), 8) == ["one two", " three", " four"]
    assert pieces(corpus_of("one two three four"), 7) == ["one", " two", " three", " four"]


def test_a_word_too_long_is_cut_inside():
    assert pieces(corpus_of("abcdefgh ij"), 4) == ["abc", "def", "gh", " ij"]


def test_the_order_is_another_one_in_each_epoch():
    corpus = corpus_of("Go on. Be it. No! So what? Yes. Now then. Why? Well.")
    objective = Reconstruction(BYTES, Settings())
    orders = {tuple(objective.plan(corpus, 0, epoch).rows[:, 0].tolist()) for epoch in range(4)}
    assert len(orders) == 4 and len({frozenset(order) for order in orders}) == 1


texts = st.lists(st.text("ab .\né", min_size=1, max_size=40), min_size=1, max_size=4)
choices = st.builds(
    Settings,
    window=st.integers(2, 30),
    deletion=st.sampled_from([0.0, 0.2, 0.8, 1.0]),
    shuffle=st.booleans(),
    distance=st.integers(0, 3),
)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(texts, choices, st.integers(0, 3))
def test_every_token_is_in_one_piece_and_one_target(texts, choices, epoch):
    corpus = corpus_of(*texts)
    objective = Reconstruction(BYTES, choices)
    plan = objective.plan(corpus, 0, epoch)
    places = sorted(place for start, stop in plan.rows.tolist() for place in range(start, stop))
    assert places == list(range(len(corpus.tokens)))
    batch = objective.batch(plan[:], draws(len(plan)))
    assert batch.inputs["decoder_tokens"].shape[1] <= choices.window
    for row, (start, stop) in enumerate(plan.rows.tolist()):
        tokens = corpus.tokens[start:stop].tolist()
        target = batch.targets["tokens"][row]
        assert target[target != IGNORE].tolist() == [*tokens, END]
        real = batch.inputs["decoder_mask"][row]
        assert batch.inputs["decoder_tokens"][row][real].tolist() == [START, *tokens]
        original = Counter(BYTES.decode(tokens).split())
        read = BYTES.decode(batch.inputs["tokens"][row][batch.inputs["mask"][row]].tolist())
        left = Counter(read.split())
        assert left <= original and (left or not original), "words of the sentence, at least one"
        if not choices.shuffle:
            words = iter(BYTES.decode(tokens).split())
            assert all(word in words for word in read.split()), "the order is kept"
