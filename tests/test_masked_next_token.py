"""Masked next token against answers worked by hand, and GPT-BERT's causal share."""

import math
import re

import pytest
import torch
from making import close, drawn, draws, fake, model_of, objective_of

from minicpt import checkpoint
from minicpt.batch import IGNORE
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data import bpe
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import Sampling
from minicpt.loss import target_losses
from minicpt.objectives.masked_next_token import MaskedNextToken, Settings
from minicpt.pictures.passage import as_data
from minicpt.pictures.text import as_text
from minicpt.proofs import faults, suite

BYTES = Tokenizer.train([], 256)
END, MASK = 1, 4
A, B, C, D, E = range(69, 74)  # "a" to "e"
ALL_MASKED = {"mask": 1.0, "random": 0.0}
NONE = IGNORE


def make(tokenizer=BYTES, **changes):
    return MaskedNextToken(tokenizer, Settings(**{"window": 64} | changes))


def corpus_of(*texts):
    return Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], BYTES)


def rows(objective, passage, count=60):
    """What is read of a passage and its targets, in many draws."""
    batches = [objective.batch([passage], [drawn("row", draw)]) for draw in range(count)]
    return [
        (batch.inputs["tokens"][0].tolist(), batch.targets["tokens"][0].tolist())
        for batch in batches
    ]


# --- worked by hand --------------------------------------------------------------------------


def test_one_of_four_masked():
    """The third of a b c d: the one target is c, at position 1. The first cannot be predicted in
    the middle of a document."""
    passage = corpus_of("eabcde").passage(1, 5)
    found = rows(make(rate=0.2, **ALL_MASKED), passage)
    possible = [
        ([A, MASK, C, D], [B, NONE, NONE, NONE]),
        ([A, B, MASK, D], [NONE, C, NONE, NONE]),
        ([A, B, C, MASK], [NONE, NONE, D, NONE]),
    ]
    assert {possible.index(row) for row in found} == {0, 1, 2}


def test_behind_end_of_text_the_first_token_is_predicted_too():
    found = rows(make(rate=0.2, **ALL_MASKED), corpus_of("abc").passage(0, 3))
    possible = [
        ([END, MASK, B, C], [A, NONE, NONE, NONE]),
        ([END, A, MASK, C], [NONE, B, NONE, NONE]),
        ([END, A, B, MASK], [NONE, NONE, C, NONE]),
    ]
    assert {possible.index(row) for row in found} == {0, 1, 2}


def test_every_token_chosen():
    passage = corpus_of("abc").passage(0, 3)
    targets = [A, B, C, NONE]  # the end is none, and nothing is predicted behind the last token
    assert rows(make(rate=1.0, **ALL_MASKED), passage, 1) == [([END, MASK, MASK, MASK], targets)]
    kept = make(rate=1.0, mask=0.0, random=0.0)
    assert rows(kept, passage, 1) == [([END, A, B, C], targets)]
    long, random = corpus_of("abc" * 99).passage(0, 297), make(rate=1.0, mask=0.0, random=1.0)
    ((read, found),) = rows(random, long, 1)
    assert found == [*[A, B, C] * 99, NONE] and read[0] == END and read[1:] != found[:-1]
    assert not set(read[1:]) & set(BYTES.special)


@pytest.mark.parametrize("length, expected", [(2, 1), (10, 2), (13, 3), (63, 13)])
def test_a_fifth_of_the_tokens_is_chosen(length, expected):
    """Of those that can be predicted: of all behind end-of-text; else of all but the first."""
    corpus = corpus_of("a" * length + "b" * (length + 1) + "c")
    for passage in (corpus.passage(0, length), corpus.passage(length, 2 * length + 1)):
        (_, targets), = rows(make(), passage, 1)
        assert sum(target != NONE for target in targets) == expected


def test_a_padded_batch_and_what_its_targets_see():
    corpus = corpus_of("abc", "d")
    objective = make(rate=0.2, **ALL_MASKED)
    batch = objective.batch([corpus.passage(0, 3), corpus.passage(3, 4)], draws(2))
    assert batch.inputs["tokens"][1].tolist() == [END, MASK, END, END]
    assert batch.targets["tokens"][1].tolist() == [D, NONE, NONE, NONE]
    whole, part = [[1] * 4] * 4, [[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4]
    assert batch.inputs["mask"].int().tolist() == [whole, part]
    seen = objective.visibility(batch)["tokens"]["tokens"].int()
    assert seen[0].tolist() == whole and seen[1, :2].tolist() == part[:2]


def test_whole_words_are_chosen_whole():
    text = "aa bb cc dd ee"  # a word begins with its space
    corpus = corpus_of(text)
    objective = make(rate=0.25, whole_word=True, **ALL_MASKED)
    for passage in (corpus.passage(0, 14), corpus.passage(2, 14)):
        for read, _ in rows(objective, passage, 20):
            gaps = [place for place, token in enumerate(read) if token == MASK]
            words = {
                3: [[3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14], [1, 2]],
                # The space of the first word is never chosen, and two tokens are left of it.
                2: [[3, 4, 5], [6, 7, 8], [9, 10, 11], [1, 2]],
            }
            assert gaps in words[3 if passage.first else 2]


# --- the causal share ------------------------------------------------------------------------


def test_passages_of_causal_lm_are_those_of_causal_lm():
    """The same inputs, targets and losses, for windows at the beginning, middle and end."""
    corpus = corpus_of("The cat sat on the mat. It slept.", "Rain.")
    hybrid, plain = make(window=16, causal_share=1.0), objective_of("causal-lm", BYTES, window=16)
    passages = plain.plan(corpus, 0, 0)[:]
    assert [each.place for each in hybrid.plan(corpus, 0, 0)] == [each.place for each in passages]
    batch = hybrid.batch(passages, draws(len(passages)))
    expected = plain.batch(passages, draws(len(passages)))
    assert torch.equal(batch.inputs["tokens"], expected.inputs["tokens"])
    assert torch.equal(batch.targets["tokens"], expected.targets["tokens"])
    one, other = (each.visibility(batch)["tokens"]["tokens"] for each in (hybrid, plain))
    assert torch.equal(one, other) and not any(hybrid.fates(batch)["tokens"])
    model = model_of(plain, layers=2).double().eval()
    one, other = (target_losses(model, each)["tokens"].losses for each in (batch, expected))
    close(one, other, model, expected)


def test_the_two_kinds_share_a_batch():
    corpus = corpus_of("abcd")
    objective = make(rate=0.2, causal_share=0.5, **ALL_MASKED)
    batch = objective.batch([corpus.passage(0, 4)] * 20, draws(20))
    causal = batch.targets["tokens"][:, -1] != NONE
    assert 0 < int(causal.sum()) < 20
    triangle, square = torch.ones(5, 5).tril().bool(), torch.ones(5, 5).bool()
    seen = objective.visibility(batch)["tokens"]["tokens"]
    for row, alone in enumerate(causal.tolist()):
        pattern = triangle if alone else square
        assert torch.equal(batch.inputs["mask"][row], pattern)
        assert torch.equal(seen[row], pattern)
        count = int((batch.targets["tokens"][row] != NONE).sum())
        assert count == (5 if alone else 1)
        fates = objective.fates(batch)["tokens"][row]
        assert list(fates.values()) == ([] if alone else ["hidden"])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_causal_lm(share):
    objective = make(causal_share=share)
    batch = objective.batch([corpus_of("abcd").passage(0, 4)] * 800, draws(800))
    causal = int((batch.targets["tokens"][:, -1] != NONE).sum())
    assert abs(causal - 800 * share) <= 5 * math.sqrt(800 * share * (1 - share))


# --- passages and tokenizers -------------------------------------------------------------------


def test_a_row_of_one_position_is_skipped():
    plan = make(window=5).plan(fake([1, 5]), 0, 0)  # windows of 1, 4 and 1 tokens
    assert sorted(plan.rows.tolist()) == [[0, 1], [1, 5]] and plan.skipped == 1


def published() -> Tokenizer:
    """As GPT-2's: end-of-text is its only special token."""
    end = "<|endoftext|>"
    return Tokenizer(bpe.train([], 256, [end]), {"eos_token": end, "bos_token": end})


def test_a_tokenizer_without_a_mask_token(tmp_path, capsys):
    with pytest.raises(InputError) as error:
        make(published())
    assert "lacks 1 of the 1 special tokens that masked-next-token needs" in str(error.value)
    assert "--add-tokens" in str(error.value)
    for name in ("[MASK]", "<mask>"):
        grown = published().with_tokens([name])
        assert make(grown).masker.mask == grown.special_id(name)
    model = model_of(objective_of("causal-lm", published(), window=32))
    checkpoint.export(tmp_path / "gpt2", model, published())
    (tmp_path / "text.txt").write_text("The cat sat. " * 200)
    words = ["train", "masked-next-token", "--init", str(tmp_path / "gpt2"), "--steps", "1"]
    words += ["--corpus", str(tmp_path / "text.txt"), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
    assert "--add-tokens" in line and not (tmp_path / "run").exists()


# --- what a trained model does with a text, and its picture -----------------------------------


def test_gaps_are_filled_from_both_sides_at_the_position_before():
    objective = make(window=16)
    model = model_of(objective, layers=2).eval()
    text = objective.generate(model, "ab [MASK]c[MASK]", Sampling(temperature=0), generator("any"))
    tokens = torch.tensor([[END, A, B, MASK, C, MASK]])
    logits = model.heads["tokens"](model(tokens, torch.ones(1, 6, 6, dtype=torch.bool))[0])
    for place in (3, 5):
        likeliest = BYTES.ordinary[logits[place - 1, BYTES.ordinary].argmax()]
        tokens[0, place] = likeliest
    first, second = (BYTES.decode([int(tokens[0, place])]).strip() for place in (3, 5))
    assert "".join(text.split()) == f"ab[{first}]c[{second}]".replace(" ", "")
    with pytest.raises(InputError, match="takes 21 tokens, and the model reads 16"):
        objective.generate(model, "x" * 19 + "[MASK]", Sampling(), generator("any"))


def test_without_a_gap_a_text_gets_some_or_is_continued():
    text, sampling = "The cat sat.", Sampling(length=3)
    for share, starts in [(0.0, False), (0.5, True)]:
        objective = make(causal_share=share)
        model = model_of(objective)
        found = objective.generate(model, text, sampling, generator("any"))
        assert found.startswith(text) == starts and ("[" in found) != starts


def test_a_probe_shows_what_is_put_into_the_gaps():
    """In brackets, at the places of the tokens that were chosen, and the rest of the text."""
    objective, corpus = make(rate=0.5), corpus_of("abcdefgh")
    passage = corpus.passage(0, 8)
    (targets,) = objective.batch([passage], [drawn("probe")]).targets["tokens"]
    chosen = (targets != NONE)[:-1].tolist()
    found = objective.probe(model_of(objective), passage, Sampling(), drawn("probe"))
    pattern = "".join(r"\s*\[.*?\]" if gap else each
                      for gap, each in zip(chosen, "abcdefgh", strict=True))
    assert sum(chosen) == 4 and re.fullmatch(pattern, found, re.DOTALL)


def test_the_picture_shows_each_target_before_the_token_that_is_hidden():
    objective = make(rate=0.5, mask=0.5, random=0.5)
    passage = corpus_of("aé猫 sat").passage(0, 10)
    found = as_data(model_of(objective), objective, passage, drawn("picture", 1))
    batch = objective.batch([passage], [drawn("picture", 1)])
    read = [each["token"] for each in found["streams"]["tokens"]["positions"]]
    text = [END, *BYTES.encode("aé猫 sat")]
    parts = ["é 1/2", "é 2/2", "猫 1/3", "猫 2/3", "猫 3/3"]
    names = ["<|endoftext|>", "a", *parts, "␣", "s", "a", "t"]
    targets = {each["position"]: each for each in found["heads"]["tokens"]["targets"]}
    fates = {each["fate"] for each in targets.values()}
    assert len(targets) == 5 and fates >= {"hidden", "replaced"}
    for place, token in enumerate(batch.inputs["tokens"][0].tolist()):
        own = targets.get(place - 1)
        assert own is None or own["token"] == names[place]
        assert read[place] == (names[place] if token == text[place] else BYTES.token(token))
    shown = as_text(found, 200)
    assert "each one position before its own: 5 tokens" in shown
    for place, each in targets.items():
        if each["fate"] == "replaced":
            assert f"replaced by {read[place + 1]} " in shown


# --- proofs, and the verbs ---------------------------------------------------------------------

HYBRID = "half causal masked-next-token"
CAUGHT = {
    "predicted-in-place": ("batch rules",),
    "gaps-filled-causally": ("batch rules",),
    "loss-before-every-token": ("batch rules",),
    "causal-share-sees-both-sides": ("equivalence", "causality"),
}


@pytest.fixture(scope="module")
def subjects():
    return {each.name: each for each in suite.subjects(["masked-next-token"])}


@pytest.mark.parametrize("name", CAUGHT)
def test_faults_are_caught_by_the_proofs_that_are_meant_to(name, subjects):
    fault = faults.known()[name]
    mistaken = fault.make(subjects[fault.subject])
    for proof in CAUGHT[name]:
        found = suite.known()[proof](mistaken)
        assert not all(each.passed for each in (found if isinstance(found, list) else [found]))


@pytest.mark.parametrize("name", ["masked-next-token", HYBRID])
def test_quick_proofs_hold_and_the_floor_is_checked(name, subjects):
    from minicpt.proofs.entropy_floor import sources

    proofs = {each.name: each.passed for each in suite.prove(subjects[name], trains=False)}
    assert False not in proofs.values() and proofs["equivalence"] and proofs["batch rules"]
    ((title, floor, draw),) = sources(subjects[name])
    assert (title, floor) == ("uniform tokens", math.log(8))
    assert draw(generator("any")).counts()["tokens"] > 16


def test_the_verbs(tmp_path, capsys):
    """A causal base is trained on, resumed, evaluated and used."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"On day {n} it saw {n + 3} boats. It sat." for n in range(60)))
    where = ["--corpus", str(text), "--blocks", "--batch-size", "4"]
    small = "--width 8 --layers 1 --num-heads 1 --vocab-size 256 --window 32 --steps 1".split()
    base, run = str(tmp_path / "base"), str(tmp_path / "run")
    assert main(["train", "causal-lm", *where, *small, "--out", base]) == 0
    words = ["train", "masked-next-token", "--init", base, *where, "--causal-share", "0.5"]
    assert main([*words, "--steps", "2", "--save-every", "1", "--out", run]) == 0
    newest = next(each for each in (tmp_path / "run").iterdir() if each.name.endswith("2"))
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    assert main(["resume", run]) == 0 and newest.exists()
    assert main(["evaluate", run, "--passages", "5"]) == 0
    capsys.readouterr()
    assert main(["generate", run, "On [MASK] day"]) == 0
    assert capsys.readouterr().out.startswith("On")
    assert main(["explain", "masked-next-token", "--init", run, "--text", "It sat."]) == 0
    assert "predicted" in capsys.readouterr().out
