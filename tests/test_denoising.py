"""Denoising against answers worked by hand, the reference's rules, and transformers."""

import math
from collections import Counter

import pytest
import torch
from making import drawn, draws, objective_of
from torch import nn
from transformers.models.bart.modeling_bart import shift_tokens_right

from minicpt.batch import IGNORE
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import Sampling
from minicpt.objectives.denoising import Denoising, Settings, infill, sentences_of, split
from minicpt.proofs import faults, suite

BYTES = Tokenizer.train([], 256)
PAD, END, MASK, A = 0, 1, 4, 69
TEXT = "One two. Three four five. Six."
NOTHING = {"permute": False, "rate": 1e-9}  # one word is hidden


def corpus_of(*texts, tokenizer=BYTES):
    return Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], tokenizer)


def whole(*texts):
    corpus = corpus_of(*texts)
    return corpus.passage(*corpus.document(0))


def within(count, draws, share, sigmas=5):
    return abs(count - draws * share) <= sigmas * math.sqrt(draws * share * (1 - share)) + 1e-9


def shown(read):
    """The damaged text, a mask as "_"."""
    return "_".join(BYTES.decode(part) for part in split(read, MASK))


# --- worked by hand ----------------------------------------------------------------------------


def test_the_words_of_each_sentence():
    passage = corpus_of("ab cd. Ef g").passage(1, 11)
    words = [[BYTES.decode(word) for word in each] for each in sentences_of(passage)]
    assert words == [["b", " cd."], [" Ef", " g"]]


def test_a_span_becomes_one_mask_and_none_inserts_one():
    words, found = [[each] for each in range(10, 15)], Counter()
    for number in range(800):
        read = sum(infill(words, [0, 2], MASK, generator(number)), [])
        assert read.count(MASK) == 2 and len(read) == 5
        kept = [each for each in read if each != MASK]
        (gap,) = (place for place in range(4) if {10 + place, 11 + place}.isdisjoint(kept))
        assert kept == [each for each in range(10, 15) if each - 10 not in (gap, gap + 1)]
        found[tuple(read)] += 1
    # 5 x 4 places of the two; a mask to the left or the right of the other reads the same.
    assert len(found) == 16 and sum(found.values()) == 800
    assert within(found[10, MASK, 13, MASK, 14], 800, 1 / 20)
    assert within(found[MASK, MASK, 12, 13, 14], 800, 2 / 20)


def test_a_batch(monkeypatch):
    objective = Denoising(BYTES, Settings(window=16, **NOTHING))
    corpus = corpus_of("a bc d", "e f")
    passages = [corpus.passage(0, 6), corpus.passage(6, 9)]
    monkeypatch.setattr(
        "minicpt.objectives.denoising.torch.randperm", lambda count, generator: torch.tensor([1])
    )
    batch = objective.batch(passages, draws(2))
    space = BYTES.encode(" ")[0]
    a, b, c, d, e, f = range(A, A + 6)
    assert batch.inputs["tokens"].tolist() == [[a, MASK, space, d, END], [e, MASK, END, PAD, PAD]]
    assert batch.inputs["mask"].int().tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    first, second = [a, space, b, c, space, d], [e, space, f]
    assert batch.targets["tokens"].tolist() == [[*first, END], [*second, END, *[IGNORE] * 3]]
    assert batch.inputs["decoder_tokens"][0].tolist() == [PAD, *first]
    assert batch.inputs["decoder_mask"].int().tolist() == [[1] * 7, [1] * 4 + [0] * 3]


def test_the_decoder_reads_what_transformers_gives_it():
    """BART's ``shift_tokens_right`` of the labels, with T5's start token."""
    objective = objective_of("denoising", BYTES, window=40)
    batch = objective.batch(objective.plan(corpus_of(TEXT, "A b."), 0, 0)[:], draws(2))
    shifted = shift_tokens_right(batch.targets["tokens"], PAD, PAD)
    real = batch.inputs["decoder_mask"]
    assert torch.equal(shifted[real], batch.inputs["decoder_tokens"][real]) and not real.all()


# --- spans of words ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [2, 3, 10, 41])
@pytest.mark.parametrize("rate", [0.01, 0.3, 0.99])
def test_the_share_of_the_words_is_met_exactly(words, rate):
    objective = Denoising(BYTES, Settings(rate=rate))
    hidden = min(math.ceil(rate * words), words - 1)
    for number in range(60):
        lengths = objective.spans(words, generator(number))
        assert sum(lengths) == hidden and min(lengths) >= 0 and len(lengths) <= hidden


def test_the_lengths_are_those_of_a_poisson_distribution():
    """All but the last of each text, which is made to fit."""
    objective, found = Denoising(BYTES, Settings(rate=0.5)), Counter()
    for number in range(40):
        lengths = [each for each in objective.spans(400, generator(number)) if each]
        found.update(lengths[:-1])
    count, some = sum(found.values()), 1 - math.exp(-3)
    for length in range(1, 9):
        share = math.exp(-3) * 3**length / math.factorial(length) / some
        assert within(found[length], count, share), length


def test_masks_are_inserted():
    """A span of length 0 comes before the others are enough with the share e^-3 of the draws."""
    objective = Denoising(BYTES, Settings(rate=0.5))
    lengths = [each for n in range(40) for each in objective.spans(400, generator(n))]
    assert within(lengths.count(0), len(lengths), math.exp(-3))


# --- sentences, deletion, rotation ---------------------------------------------------------------


def test_every_order_of_the_sentences_is_as_likely():
    objective, passage = Denoising(BYTES, Settings(rate=1e-9)), whole("Ab cd. Ef gh. Ij kl.")
    found, count = Counter(), 900
    for number in range(count):
        text = shown(objective.damaged(passage, generator(number)))
        firsts = {name: text.find(name) for name in ("Ab", "cd", "Ef", "gh", "Ij", "kl")}
        places = {pair: max(firsts[pair[0]], firsts[pair[1]])
                  for pair in (("Ab", "cd"), ("Ef", "gh"), ("Ij", "kl"))}  # fmt: skip
        found["".join(pair[0][0] for pair in sorted(places, key=places.get))] += 1
        assert ".A" not in text and ".E" not in text and ".I" not in text, "glued"
    assert len(found) == 6 and all(within(times, count, 1 / 6) for times in found.values())


def test_the_order_stays_without_permute():
    objective = Denoising(BYTES, Settings(permute=False))
    for number in range(30):
        words = shown(objective.damaged(whole(TEXT), generator(number))).replace("_", " ").split()
        assert words == [each for each in TEXT.split() if each in words]


def test_what_is_read_is_never_longer_than_the_window(tokenizer):
    texts = ["Go. " * 60 + "The end", "A\nB\n\nC D. E " * 20, "x y " * 90]
    objective = Denoising(tokenizer, Settings(window=24, rate=0.05, span=1))
    for epoch in range(3):
        plan = objective.plan(corpus_of(*texts, tokenizer=tokenizer), 0, epoch)
        batch = objective.batch(plan[:], draws(len(plan), epoch))
        assert max(each.shape[1] for each in batch.inputs.values()) <= 24


def test_a_first_sentence_gets_a_space_where_it_moves(tokenizer):
    """With merges, "The" and " The" are other tokens, and the moved one is " The"."""
    corpus = corpus_of("The cat sat. It slept.", tokenizer=tokenizer)
    passage = corpus.passage(*corpus.document(0))
    objective = Denoising(tokenizer, Settings(rate=1e-9))
    moved = {tokenizer.decode(objective.damaged(passage, generator(n))) for n in range(40)}
    assert " It slept. The cat" in moved and " It slept.The cat" not in moved


def test_deletion_takes_words_and_leaves_masks():
    objective = Denoising(BYTES, Settings(deletion=0.5, permute=False, rate=0.2))
    passage, kept = whole("a " * 100), 0
    for number in range(50):
        with_all = objective.spans(100, generator(number))
        read = objective.damaged(passage, generator(number))
        assert read.count(MASK) == len(with_all)
        kept += len(read) - read.count(MASK)
    assert within(kept, 50 * 160, 0.5)


def test_rotation_begins_at_every_token_as_often():
    objective = Denoising(BYTES, Settings(rotate=True, **NOTHING))
    passage, count = whole("a b c d"), 1400
    masks_first = 0
    for number in range(count):
        read = objective.damaged(passage, generator(number))
        turned = shown(read) * 2
        assert any(each in turned for each in ("_ b c d", "a_ c d", "a b_ d", "a b c_"))
        masks_first += read[0] == MASK
    # Without "a" 7 tokens are left, the mask among them; without another word and its space, 6.
    assert within(masks_first, count, 1 / 4 * 1 / 7 + 3 / 4 * 1 / 6)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--rate", "0"], "--rate must be more than 0"),
        (["--rate", "1"], "--rate must be less than 1"),
        (["--span", "200"], "--span 200 is longer than --window 128"),
        (["--deletion", "1"], "--deletion must be less than 1"),
    ],
)
def test_settings_that_make_no_sense(words, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "denoising", *words]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_a_tokenizer_without_a_mask_token():
    bare = Tokenizer(BYTES._engine.to_str(), {"pad_token": "[PAD]", "eos_token": "<|endoftext|>"})
    with pytest.raises(InputError, match="no mask token"):
        Denoising(bare)


def test_passages_of_one_word_are_skipped_and_counted():
    objective = objective_of("denoising", BYTES)
    plan = objective.plan(corpus_of("abc", "d e", " fg", "h.\n\ni"), 0, 0)
    assert len(plan) == plan.skipped == 2
    with pytest.raises(InputError, match="needs passages of 2 words, and all 2 are shorter"):
        objective.plan(corpus_of("abc", "de"), 0, 0)


# --- what a trained model does with a text -------------------------------------------------------


class Echo(nn.Module):
    """Writes what it has read, an "x" for each mask."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.heads = nn.ModuleDict({"tokens": nn.Identity()})

    def encode(self, tokens, mask):
        self.read = tokens[0].tolist()

    def decode(self, tokens, mask, memory, memory_mask):
        found = torch.zeros(1, 1, BYTES.size)
        likely = self.read[tokens.shape[1] - 1]
        found[..., BYTES.encode("x")[0] if likely == MASK else likely] = 9.0
        return found


def test_a_text_with_masks_is_written_again():
    objective, model = objective_of("denoising", BYTES), Echo()
    found = objective.generate(model, "a [MASK] c", Sampling(temperature=0), generator(0))
    assert found == "ax c" and model.read == [*BYTES.encode("a"), MASK, *BYTES.encode(" c"), END]
    probed = objective.probe(model, whole("a b"), Sampling(temperature=0), drawn(3))
    assert probed in ("[MASK] b -> x b", "a[MASK] -> ax")
    with pytest.raises(InputError, match="takes 301 tokens"):
        objective.generate(model, "y" * 300, Sampling(), generator(0))


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["writes-the-damage", "mask-for-each-word", "glued-sentences"])
def test_a_mistake_is_caught_by_the_batch_rules(name):
    (sound,) = suite.subjects(["denoising"])
    rules = suite.known()["batch rules"]
    assert rules(sound).passed and rules(faults.known()[name].make(sound)).passed is False
