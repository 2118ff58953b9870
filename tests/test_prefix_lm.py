"""Prefix language modelling against answers worked by hand, on decoders and encoder-decoders."""

import copy
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import close, drawn, draws, fake, model_of, objective_of

from minicpt.batch import IGNORE
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus, Passage
from minicpt.data.documents import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import Sampling
from minicpt.loss import target_losses
from minicpt.objectives.prefix_lm import PrefixLM, Settings
from minicpt.proofs import faults, suite
from minicpt.runs.texts import check_plans

BYTES = Tokenizer.train([], 256)
PAD, END = 0, 1
A, B, C, D = range(69, 73)  # "a" to "d"
ROLES = PrefixLM.roles


def make(role, window=64, tokenizer=BYTES):
    return PrefixLM(tokenizer, Settings(window=window), role)


def corpus_of(*texts):
    return Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], BYTES)


def passage_of(tokens, first=True, following=None):
    marks = torch.ones(len(tokens), dtype=torch.bool)
    return Passage(
        torch.tensor(tokens), marks, marks, first, following is None, following, 0, "by hand", 0
    )


def both_ways(mask):
    """The positions that are seen from the first one."""
    return mask[0].int().tolist()


# --- worked by hand --------------------------------------------------------------------------


def test_the_golden_row():
    """Prefix 9 1 2 of 9 1 2 3 4 5 6 7, and 0 in front."""
    tokenizer = copy.copy(BYTES)
    tokenizer.roles = BYTES.roles | {"end": 0}
    objective = make("decoder", tokenizer=tokenizer)
    batch = objective.for_decoder([passage_of([9, 1, 2, 3, 4, 5, 6], following=7)], [3])
    (mask,), (targets,) = batch.inputs["mask"], batch.targets["tokens"]
    assert batch.inputs["tokens"].tolist() == [[0, 9, 1, 2, 3, 4, 5, 6]]
    assert (targets != IGNORE).int().tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert targets[3:].tolist() == [3, 4, 5, 6, 7]
    assert both_ways(mask) == [1, 1, 1, 1, 0, 0, 0, 0]
    expected = [[1, 1, 1, 1, 0, 0, 0, 0]] * 4 + [
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1, 1, 1],
    ]
    assert mask.int().tolist() == expected
    (seen,) = objective.visibility(batch)["tokens"]["tokens"]
    assert seen.int().tolist() == expected


def test_a_padded_batch_of_a_decoder():
    """A whole document, the beginning of one, and the middle of one."""
    passages = [
        passage_of([A, B, C]), passage_of([A, B], following=C), passage_of([B, C], False, D)
    ]  # fmt: skip
    objective = make("decoder")
    batch = objective.for_decoder(passages, [2, 1, 1])
    assert batch.inputs["tokens"].tolist() == [[END, A, B, C], [END, A, B, END], [B, C, END, END]]
    none = IGNORE
    assert batch.targets["tokens"].tolist() == [
        [none, none, C, END], [none, B, C, none], [C, D, none, none]
    ]  # fmt: skip
    patterns = [
        [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]],
        [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]],
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    ]
    assert batch.inputs["mask"].int().tolist() == patterns
    seen = objective.visibility(batch)["tokens"]["tokens"].int().tolist()
    for row, length in enumerate([4, 3, 2]):
        assert seen[row][:length] == patterns[row][:length]


def test_a_padded_batch_of_an_encoder_decoder():
    passages = [passage_of([A, B, C]), passage_of([B, C, D], False, A)]
    batch = make("encoder-decoder").for_encoder_decoder(passages, [2, 1])
    assert batch.inputs["tokens"].tolist() == [[A, B], [B, PAD]]
    assert batch.inputs["mask"].int().tolist() == [[1, 1], [1, 0]]
    assert batch.inputs["decoder_tokens"].tolist() == [[PAD, C, PAD], [PAD, C, D]]
    assert batch.inputs["decoder_mask"].int().tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.targets["tokens"].tolist() == [[C, END, IGNORE], [C, D, A]]


def test_decoder_inputs_are_those_of_transformers():
    """T5's own shift of its labels, whose padding is -100."""
    transformers = pytest.importorskip("transformers")
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    config = transformers.T5Config(vocab_size=300, decoder_start_token_id=PAD, **sizes)
    theirs = transformers.T5ForConditionalGeneration(config)
    corpus = corpus_of("The cat sat on the mat.", "Rain fell.")
    objective = make("encoder-decoder", window=16)
    passages = objective.plan(corpus, 0, 0)[:]
    batch = objective.batch(passages, draws(len(passages)))
    inputs, targets = batch.inputs, batch.targets["tokens"]
    shifted = theirs._shift_right(targets)
    assert torch.equal(shifted[inputs["decoder_mask"]],
                       inputs["decoder_tokens"][inputs["decoder_mask"]])


def test_all_cuts_are_as_likely():
    passage = passage_of([A, B, C, D])
    for role in ROLES:
        objective, counts = make(role), Counter()
        for draw in range(600):
            (targets,) = objective.batch([passage], [drawn("cut", draw)]).targets["tokens"]
            counts[5 - int((targets != IGNORE).sum())] += 1  # the end is a target too
        assert counts.keys() == {1, 2, 3}
        deviation = math.sqrt(600 * 1 / 3 * 2 / 3)
        assert all(abs(count - 200) <= 5 * deviation for count in counts.values())


# --- passages --------------------------------------------------------------------------------


def test_passages_of_one_token_are_skipped_counted_and_said(capsys):
    corpus = fake([1, 5, 9, 1])
    objective = make("decoder", window=5)
    plan = objective.plan(corpus, 0, 0)
    # Windows of 4 and 5 tokens: 1 | 4 1 | 4 5 | 1
    assert sorted(plan.rows.tolist()) == [[1, 5], [6, 10], [10, 15]] and plan.skipped == 3
    check_plans(objective, {"training": corpus})
    assert "3 of the 6 passages of the training text are too short for prefix-lm, and are skipped" \
        in capsys.readouterr().err


def test_a_text_of_passages_of_one_token_is_refused(tmp_path, capsys):
    with pytest.raises(InputError, match="prefix-lm needs passages of 2 tokens, and all 2 are sho"):
        make("decoder").plan(fake([1, 1]), 0, 0)
    (tmp_path / "text.txt").write_text("\n\n".join("abcdefgh"))
    words = ["train", "prefix-lm", "--corpus", str(tmp_path / "text.txt"), "--blocks"]
    words += ["--held-out", "0"]
    assert main([*words, "--out", str(tmp_path / "run"), "--vocab-size", "256"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "prefix-lm needs passages of 2 tokens" in error and not (tmp_path / "run").exists()


texts = st.lists(st.text("ab .\né", min_size=2, max_size=40), min_size=1, max_size=4)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(texts, st.integers(3, 20), st.integers(0, 2), st.sampled_from(ROLES))
def test_the_suffix_is_predicted_and_nothing_else(texts, window, epoch, role):
    """Against the corpus itself, at ``places``; and no row is longer than the window."""
    corpus, objective = corpus_of(*texts), make(role, window)
    for passage in objective.plan(corpus, 0, epoch):
        batch = objective.batch([passage], [drawn(passage.place)])
        targets = batch.targets["tokens"][0]
        assert len(targets) <= window
        asked = targets != IGNORE
        places = objective.places(passage)[-len(targets) :]
        last = passage.start + len(passage.tokens)
        assert places[asked].tolist() == [
            *range(last + 1 - int(asked.sum()), last), -1 if passage.last else last
        ]  # fmt: skip
        text = asked & (places >= 0)
        assert torch.equal(corpus.tokens[places[text]].long(), targets[text])
        assert (targets[asked & (places < 0)] == END).all()
        assert bool(asked[-1]) and int(asked.sum()) in range(2, len(passage.tokens) + 1)


# --- what a decoder makes of it --------------------------------------------------------------


def test_a_prefix_of_one_position_is_causal_lm():
    """The same losses as causal LM's, from its own batch: nothing is read in both directions."""
    corpus = corpus_of("The cat sat on the mat.")
    passage = corpus.passage(3, 12)
    objective = make("decoder")
    model = model_of(objective, layers=2).double().eval()
    found = target_losses(model, objective.for_decoder([passage], [1]))["tokens"]
    plain = objective_of("causal-lm", BYTES, window=64).batch([passage], [drawn(0)])
    expected = target_losses(model, plain)["tokens"]
    close(found.losses, expected.losses, model, plain)


def test_the_model_reads_the_prefix_in_both_directions():
    """Not only from left to right: the first hidden state knows the last token of the prefix, and
    no token of the suffix."""
    objective = make("decoder")
    model = model_of(objective).double().eval()
    batch = objective.for_decoder([passage_of([A, B, C, D])], [2])

    def first_hidden(place, **changes):
        inputs = batch.inputs | changes
        tokens = inputs["tokens"].clone()
        tokens[0, place] = 100
        return model(**inputs | {"tokens": tokens})[0, 0]

    before = model(**batch.inputs)[0, 0]
    assert (first_hidden(2) - before).abs().max() > 1e-6
    assert torch.equal(first_hidden(3), before)
    causal = torch.ones(1, 5, dtype=torch.bool)  # the mistake
    assert torch.equal(first_hidden(2, mask=causal), model(batch.inputs["tokens"], causal)[0, 0])


def test_a_decoder_continues_a_prompt_that_it_reads_in_both_directions(monkeypatch):
    """What the model is asked, held against masks written by hand; also beyond the window."""
    objective = make("decoder", window=8)
    model = model_of(objective).eval()
    asked, forward = [], model.forward
    monkeypatch.setattr(
        model, "forward", lambda **inputs: asked.append(inputs) or forward(**inputs)
    )
    text, sampling = "abcde", Sampling(length=5, temperature=0)
    written = objective.generate(model, text, sampling, generator("any"))
    allowed = torch.tensor([END, *BYTES.ordinary.tolist()])
    row = [END, *BYTES.encode(text)]
    for inputs in asked:
        dropped = max(0, len(row) - 8)
        assert inputs["tokens"].tolist() == [row[dropped:]]
        given = 6 - dropped  # of the prompt
        assert inputs["mask"][0].tolist() == [
            [key <= query or query < given > key for key in range(len(row) - dropped)]
            for query in range(len(row) - dropped)
        ]
        logits = model.heads["tokens"](forward(**inputs)[0, -1])
        row.append(int(allowed[logits[allowed].argmax()]))
    assert len(asked) == 5 and END not in row[1:] and written == text + BYTES.decode(row[6:])
    assert objective.generate(model, "x" * 20, sampling, generator("any")).startswith("x" * 20)


def test_an_encoder_decoder_continues_what_its_encoder_reads():
    objective = make("encoder-decoder", window=8)
    model = model_of(objective, model="t5").eval()
    sampling = Sampling(length=1, temperature=0)
    written = objective.generate(model, "abc", sampling, generator("any"))
    hidden = model(torch.tensor([BYTES.encode("abc")]), torch.tensor([[PAD]]))
    logits = model.heads["tokens"](hidden[0, -1])[BYTES.ordinary]
    assert written in ("abc", "abc" + BYTES.decode([int(BYTES.ordinary[logits.argmax()])]))
    for text, error in [("", "holds no token"), ("x" * 9, "takes 9 tokens, and the model reads 8")]:
        with pytest.raises(InputError, match=error):
            objective.generate(model, text, sampling, generator("any"))


# --- proofs, and the verbs ---------------------------------------------------------------------

CAUGHT = {
    "prefix-sees-its-target": ("equivalence", "causality"),
    "suffix-read-both-ways": ("equivalence", "causality"),
    "loss-on-the-prefix": ("equivalence", "causality"),
    "prefix-read-causally": ("batch rules",),
    "encoder-reads-the-suffix": ("batch rules",),
}


@pytest.fixture(scope="module")
def subjects():
    return {each.name: each for each in suite.subjects(["prefix-lm"])}


def test_the_subjects_are_both_roles(subjects):
    assert list(subjects) == ["prefix-lm", "prefix-lm with t5"]


@pytest.mark.parametrize("name", CAUGHT)
def test_faults_are_caught_by_the_proofs_that_are_meant_to(name, subjects):
    fault = faults.known()[name]
    assert fault.mistake == 17
    mistaken = fault.make(subjects[fault.subject])
    for proof in CAUGHT[name]:
        found = suite.known()[proof](mistaken)
        assert not all(each.passed for each in (found if isinstance(found, list) else [found]))


@pytest.mark.parametrize("name", ["prefix-lm", "prefix-lm with t5"])
def test_quick_proofs_hold_and_the_floor_is_checked(name, subjects):
    from minicpt.proofs.entropy_floor import sources

    proofs = {each.name: each.passed for each in suite.prove(subjects[name], trains=False)}
    assert False not in proofs.values() and proofs["equivalence"] and proofs["batch rules"]
    floors = ["uniform tokens" if "t5" in name else "Markov chain"]
    assert [each[0] for each in sources(subjects[name])] == floors


@pytest.mark.parametrize("model", ["gpt2", "t5"])
def test_the_verbs(model, tmp_path, capsys):
    """A base of another objective of the role is trained on, resumed, evaluated and used."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"On day {n} it saw {n + 3} boats. It sat." for n in range(60)))
    other = {"gpt2": "causal-lm", "t5": "reconstruction"}[model]
    where = ["--corpus", str(text), "--blocks", "--batch-size", "4"]
    small = "--width 8 --layers 1 --num-heads 1 --vocab-size 256 --window 32 --steps 1".split()
    base, run = str(tmp_path / "base"), str(tmp_path / "run")
    assert main(["train", other, *where, *small, "--out", base]) == 0
    words = ["train", "prefix-lm", "--init", base, *where, "--steps", "2", "--save-every", "1"]
    assert main([*words, "--out", run]) == 0
    newest = next(each for each in (tmp_path / "run").iterdir() if each.name.endswith("2"))
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    assert main(["resume", run]) == 0 and newest.exists()
    assert main(["evaluate", run, "--passages", "5"]) == 0
    capsys.readouterr()
    assert main(["generate", run, "On day", "--length", "3"]) == 0
    assert capsys.readouterr().out.startswith("On day")
    assert main(["explain", "prefix-lm", "--init", run, "--text", "é sat."]) == 0
    shown = capsys.readouterr().out
    assert "é 1/2" in shown and "<|endoftext|>" in shown
