"""Fill in the middle against answers worked by hand, another library, and counts of its cuts."""

import dataclasses
import math
import string
from collections import Counter

import pytest
import torch
import transformers
from making import drawn, model_of, objective_of
from tokenizers import AddedToken, pre_tokenizers
from tokenizers import Tokenizer as Engine

from minicpt import generation
from minicpt.batch import IGNORE
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import Sampling
from minicpt.objectives.fill_in_the_middle import MIDDLE, PREFIX, SUFFIX, FillInTheMiddle, Settings
from minicpt.proofs import faults, suite
from minicpt.proofs.batch_rules import batch_rules

BYTES = Tokenizer.train([], 256, FillInTheMiddle.reserved)
END = 1
A, B, C, D, E, F = LETTERS = range(69, 75)  # "a" to "f"
P, S, M = range(BYTES.size - 3, BYTES.size)
ERRORS = 4.5  # standard errors; a count lies further off once in 150,000 times


def corpus_of(*texts, tokenizer=BYTES):
    return Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], tokenizer)


def row_of(objective, passage, *key):
    """What is read, and what is predicted."""
    batch = objective.batch([passage], [drawn(*key)])
    assert batch.inputs.keys() == {"tokens", "mask"} and batch.inputs["mask"].all()
    return tuple(batch.inputs["tokens"][0].tolist()), tuple(batch.targets["tokens"][0].tolist())


def rows(count, **settings):
    """The rows of so many draws of ``abcdef``."""
    objective = FillInTheMiddle(BYTES, Settings(window=32, **settings))
    (passage,) = objective.plan(corpus_of("abcdef"), 0, 0)[:]
    return [row_of(objective, passage, "abcdef", number) for number in range(count)]


def test_the_hand_worked_case():
    """`abcdef`, cut at 2 and 4."""
    psm, spm = set(rows(400, rate=1.0, spm=0.0)), set(rows(400, rate=1.0, spm=1.0))
    assert ((P, A, B, S, E, F, M, C, D), (A, B, S, E, F, M, C, D, END)) in psm
    assert ((P, S, E, F, M, A, B, C, D), (S, E, F, M, A, B, C, D, END)) in spm
    # The empty parts: nothing before, nothing behind, nothing between.
    assert ((P, S, C, D, E, F, M, A, B), (S, C, D, E, F, M, A, B, END)) in psm & spm
    assert ((P, A, B, S, M, C, D, E, F), (A, B, S, M, C, D, E, F, END)) in psm
    assert ((P, A, B, S, C, D, E, F, M), (A, B, S, C, D, E, F, M, END)) in psm
    pairs = [(one, two) for two in range(7) for one in range(two + 1)]
    whole = [*LETTERS]
    assert {read for read, _ in psm} == {
        (P, *whole[:one], S, *whole[two:], M, *whole[one:two]) for one, two in pairs
    }
    assert {read for read, _ in spm} == {(P, S, *whole[two:], M, *whole[:two]) for _, two in pairs}


def test_special_tokens_in_the_text_are_text():
    text = "<fim_middle>a<fim_prefix>"
    objective = FillInTheMiddle(BYTES, Settings(window=64, rate=1.0))
    passage = corpus_of(text).passage(0, len(text))
    for number in range(20):
        read, _ = row_of(objective, passage, number)
        assert len(read) == len(text) + 3 and [each for each in read if each >= P] == [P, S, M]


def test_cut_points_are_uniform_and_shares_are_kept():
    """Two points, each at any of the 7 places: a pair has 2 in 49, two equal ones have 1."""
    count = 4000
    found = Counter(read for read, _ in rows(count, rate=0.75, spm=0.25))
    whole = [*LETTERS]

    def near(number, share):
        assert abs(number - count * share) <= ERRORS * math.sqrt(count * share * (1 - share))

    near(found[(END, *whole)], 0.25)  # as causal LM reads it
    for two in range(7):
        # Suffix first, prefix and middle cannot be told apart; nor can the orders, without prefix.
        further = (2 * two + 1) / 49
        nothing = (1 if two == 0 else 2) / 49  # the nearer point is 0, the further one ``two``
        first = found[(P, S, *whole[two:], M, *whole[:two])]
        near(first, 0.75 * (0.25 * further + 0.75 * nothing))
        for one in range(1, two + 1):
            chance = (1 if one == two else 2) / 49
            near(found[(P, *whole[:one], S, *whole[two:], M, *whole[one:two])], 0.5625 * chance)


def test_what_is_not_cut_is_causal_lm(corpus, tokenizer):
    fim = FillInTheMiddle(tokenizer, Settings(window=24, rate=1e-9))
    causal = objective_of("causal-lm", tokenizer, window=24)
    passages = fim.plan(corpus, 0, 1)[:]
    one, other = (each.batch(passages, [drawn(0)] * len(passages)) for each in (fim, causal))
    assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in other.inputs)
    assert torch.equal(one.targets["tokens"], other.targets["tokens"])


def test_parts_are_tokenised_as_transformers_does_it(tmp_path):
    """A prompt in which the special tokens are written out, as users of such models write it."""
    text = "The slowest lower the lowest; slowly, 3 of the 12 lower their slow, low flow.\n" * 2
    tokenizer = Tokenizer.train([text] * 3, 300, FillInTheMiddle.reserved)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    objective = FillInTheMiddle(tokenizer, Settings(window=256, rate=1.0))
    (passage,) = objective.plan(corpus_of(text, tokenizer=tokenizer), 0, 0)[:]
    inside = 0
    for number in range(60):
        read, targets = row_of(objective, passage, number)
        assert targets == (*read[1:], tokenizer.need("end"))
        before, rest = theirs.decode(read).removeprefix("<fim_prefix>").split("<fim_suffix>")
        after, last = rest.split("<fim_middle>")
        assert before + last + after == text
        if before:
            prompt = f"<fim_prefix>{before}<fim_suffix>{after}<fim_middle>{last}"
            assert tuple(theirs(prompt, add_special_tokens=False).input_ids) == read
        inside += after[:1].isalpha() and (before + last)[-1:].isalpha()
    assert inside > 20  # words were cut


def parts_of(read):
    """The parts of a row of bytes, in the order of the text; None where it was not cut."""
    if P not in read:
        return None
    assert [each for each in read if each in (P, S, M)] == [P, S, M] and read[0] == P
    one, two = read.index(S), read.index(M)
    return read[1:one], read[two + 1 :], read[one + 1 : two]


def test_no_character_is_cut():
    """Windows of bytes begin and end inside characters; the cuts never lie there."""
    text = "Ärger – 你好，世界！ 😀😀 naïve Grüße ✓ " * 4
    objective = FillInTheMiddle(BYTES, Settings(window=21, rate=1.0, spm=0.0))
    starts = {len(text[:place].encode()) for place in range(len(text) + 1)}
    ragged = 0
    for epoch in range(6):
        for passage in objective.plan(corpus_of(text), 0, epoch):
            read, _ = row_of(objective, passage, epoch, passage.start)
            before, last, after = parts_of(read)
            assert [*before, *last, *after] == passage.tokens.tolist()
            cuts = {passage.start + len(before), passage.start + len(before) + len(last)}
            assert cuts <= starts
            ragged += passage.start not in starts
    assert ragged > 20


def test_a_window_within_one_character_stays_whole():
    objective = FillInTheMiddle(BYTES, Settings(window=12, rate=1.0, spm=0.0))
    corpus = corpus_of("😀")
    for start, stop in [(1, 3), (1, 4), (0, 2), (2, 3)]:
        passage = corpus.passage(start, stop)
        before, last, after = parts_of(row_of(objective, passage, 0)[0])
        assert [*before, *after] == passage.tokens.tolist() and not last


def test_the_special_tokens_fit_into_the_window():
    """Every row holds all three or none, and all of its window's text."""
    text = "".join(chr(97 + number * number % 26) for number in range(400))
    for window in (12, 13, 40):
        objective = FillInTheMiddle(BYTES, Settings(window=window, rate=1.0))
        for passage in objective.plan(corpus_of(text), 0, 1):
            read, targets = row_of(objective, passage, passage.start)
            assert len(read) <= window and targets[-1] == END
            before, last, after = parts_of(read)
            assert sorted([*before, *last, *after]) == sorted(passage.tokens.tolist())
            assert [*before, *last, *after] == passage.tokens.tolist()


def test_a_window_that_grows_too_long_is_read_as_it_stands():
    """One word is one token; cut anywhere, most of its parts are single bytes."""
    word = string.ascii_letters
    tokenizer = Tokenizer.train([word] * 3, 350, FillInTheMiddle.reserved)
    objective = FillInTheMiddle(tokenizer, Settings(window=12, rate=1.0))
    (passage,) = objective.plan(corpus_of(word, tokenizer=tokenizer), 0, 0)[:]
    assert len(passage.tokens) == 1
    found = Counter(len(row_of(objective, passage, number)[0]) for number in range(200))
    assert max(found) <= 12 and found[2] > 50  # end-of-text and the word
    assert len(found) > 3  # others were cut: near the ends few tokens are enough


def test_a_batch_is_padded_without_targets():
    objective = FillInTheMiddle(BYTES, Settings(window=32, rate=1.0))
    corpus = corpus_of("abcdef", "ab")
    passages = [corpus.passage(0, 6), corpus.passage(6, 8)]
    batch = objective.batch(passages, [drawn(0), drawn(1)])
    assert batch.inputs["tokens"].shape == (2, 9)
    assert batch.inputs["mask"].sum(dim=1).tolist() == [9, 5]
    assert (batch.targets["tokens"] == IGNORE).sum(dim=1).tolist() == [0, 4]


# --- which tokens


@pytest.mark.parametrize("names", [*zip(PREFIX, SUFFIX, MIDDLE, strict=True)], ids=str)
def test_a_base_that_has_the_tokens_uses_them(names):
    tokenizer = Tokenizer.train([], 256, names[::-1])
    objective = FillInTheMiddle(tokenizer, Settings(window=32, rate=1.0))
    size = tokenizer.size
    assert objective.marks == [size - 1, size - 2, size - 3]
    read, _ = row_of(objective, corpus_of("abc", tokenizer=tokenizer).passage(0, 3), 0)
    assert read[0] == size - 1 and {*objective.marks} < {*read}


def test_tokens_that_a_file_does_not_call_special_are_used(tmp_path):
    """As in Qwen's tokenizer.json."""
    BYTES.save(tmp_path / "own")
    engine = Engine.from_file(str(tmp_path / "own" / "tokenizer.json"))
    names = [PREFIX[1], SUFFIX[1], MIDDLE[1]]
    engine.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
    tokenizer = Tokenizer(engine.to_str(), {"eos_token": "<|endoftext|>"})
    assert tokenizer.need_special(names, "a test") == [BYTES.size + n for n in range(3)]
    assert FillInTheMiddle(tokenizer).marks == [P, S, M]  # the first spelling is there as well


# --- a trained model


@pytest.fixture
def prompts(monkeypatch):
    """What the model is given to go on from, and how many tokens it may write; it writes "ok"."""
    found = []

    def written(model, prompt, window, tokenizer, sampling, draws):
        found.append((prompt, sampling.length))
        return tokenizer.encode("ok")

    for place in (generation, generation.roles):
        monkeypatch.setattr(place, "continue_tokens", written)
    return found


def test_generate_reads_both_sides(prompts):
    objective = FillInTheMiddle(BYTES, Settings(window=20))
    draws = generator("a")
    given = Sampling(length=50, suffix="ef")
    assert objective.generate(None, "ab", given, draws) == "abokef"
    assert objective.generate(None, "", Sampling(length=5, suffix=""), draws) == "ok"
    assert objective.generate(None, "ab", Sampling(length=7), draws) == "abok"
    assert prompts == [([P, A, B, S, E, F, M], 13), ([P, S, M], 5), ([END, A, B], 7)]
    with pytest.raises(InputError, match="takes 20 tokens"):
        objective.generate(None, "a" * 10, Sampling(suffix="b" * 7), draws)


def test_a_probe_fills_a_gap(prompts):
    objective = FillInTheMiddle(BYTES, Settings(window=20))
    (passage,) = objective.plan(corpus_of("abcdef"), 0, 0)[:]
    for number in range(20):
        shown = objective.probe(None, passage, Sampling(length=5), drawn(number))
        before, after = shown.split("[ok]")
        assert "abcdef".startswith(before) and "abcdef".endswith(after)
        assert prompts[-1][0] == [P, *BYTES.encode(before), S, *BYTES.encode(after), M]


def test_a_trained_model_finds_the_middle(tmp_path, capsys):
    """Of texts that are all alike it learns what stands between their two ends."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{n}abcdefgh{n}\n\n" for n in "0123456789" * 12))
    words = "--blocks --vocab-size 256 --window 24 --width 32 --layers 2 --num-heads 2 --dropout 0"
    words += " --held-out 0"
    words += " --learning-rate 1e-2 --steps 150 --evaluate-every 150 --rate 0.9"
    out = str(tmp_path / "run")
    train = ["train", "fill-in-the-middle", "--corpus", str(text), *words.split(), "--out", out]
    assert main(train) == 0
    capsys.readouterr()
    ask = ["generate", out, "1ab", "--suffix", "gh1", "--temperature", "0"]
    assert main(ask) == 0
    assert capsys.readouterr().out == "1abcdefgh1\n"


# --- bad input


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"rate": 0.0}, "--rate must be more than 0"),
        ({"rate": 1.5}, "--rate must be at most 1"),
        ({"spm": -0.1}, "--spm must be at least 0"),
        ({"window": 11}, "--window must be at least 12"),
    ],
)
def test_settings_without_sense_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        Settings(**settings)


def test_a_tokenizer_without_the_tokens_is_refused():
    with pytest.raises(InputError) as error:
        FillInTheMiddle(Tokenizer.train([], 256, [SUFFIX[1]]))
    assert str(error.value) == (
        "the tokenizer lacks 2 of the 3 special tokens that fill-in-the-middle needs (<fim_prefix>,"
        " <fim_middle>): add them with --add-tokens"
    )


def test_a_tokenizer_that_adds_spaces_is_refused(tmp_path):
    BYTES.save(tmp_path)
    definition = Engine.from_file(str(tmp_path / "tokenizer.json"))
    definition.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer = Tokenizer(definition.to_str(), {"eos_token": "<|endoftext|>"})
    with pytest.raises(InputError, match="puts a space before every text"):
        FillInTheMiddle(tokenizer)


# --- the proofs


@pytest.fixture(scope="module")
def sound():
    return suite.subjects(["fill-in-the-middle"])[0]


def test_the_batch_rules_hold(sound):
    assert batch_rules(sound).passed


@pytest.mark.parametrize("name", ["middle-lost", "cut-after-the-marks", "cut-between-tokens"])
def test_the_batch_rules_catch(name, sound):
    fault = faults.known()[name]
    assert fault.mistake == 18 and fault.objective == "fill-in-the-middle"
    assert batch_rules(fault.make(sound)).passed is False


@pytest.mark.parametrize(
    "change, found",
    [
        ({"rate": 0.8}, "windows are cut"),
        ({"spm": 0.1}, "read suffix first"),
    ],
)
def test_the_batch_rules_count(change, found, sound):
    """Settings that say one thing, and an objective that does another."""
    mistaken = FillInTheMiddle(sound.tokenizer, sound.objective.settings)
    real = dataclasses.replace(sound.objective.settings, **change)
    batch = FillInTheMiddle(sound.tokenizer, real).batch
    mistaken.batch = batch
    proof = batch_rules(dataclasses.replace(sound, objective=mistaken))
    assert proof.passed is False and found in proof.message


def test_a_model_can_be_made_for_it():
    objective = FillInTheMiddle(BYTES, Settings(window=24))
    model = model_of(objective)
    assert model.config.vocabulary == BYTES.size and model.config.positions == 24
