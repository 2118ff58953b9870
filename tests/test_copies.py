"""Held-out text does not stand in the training text: the split, and every verb that uses it."""

import json
import random
import subprocess
import sys

import pytest

from minicpt import checkpoint
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.data import copies
from minicpt.data import documents as module
from minicpt.data.copies import unseen
from minicpt.data.documents import Document, Documents
from minicpt.data.sources import read
from minicpt.data.split import divide, split
from minicpt.runs import texts
from minicpt.runs.config import Text

SMALL = ["--width", "16", "--layers", "1", "--num-heads", "2", "--vocab-size", "256"]
SMALL += ["--window", "32", "--batch-size", "4", "--evaluate-passages", "4", "--steps", "2"]


def sentence(draws: random.Random) -> str:
    words = ("".join(draws.choices("abcdefghij", k=draws.randint(2, 8))) for _ in range(9))
    return " ".join(words).capitalize() + "."


def paragraph(draws: random.Random, lines: int = 4) -> str:
    return "\n".join(sentence(draws) for _ in range(lines))


def share_seen(held_out, training) -> float:
    """Of the held-out characters in lines of 20 and more, those whose line training has too."""
    lines = {line.strip() for each in training for line in each.text.splitlines()}
    found = [line.strip() for each in held_out for line in each.text.splitlines()]
    sizes = [(len(line), line in lines) for line in found if len(line) >= 20]
    return sum(size for size, seen in sizes if seen) / sum(size for size, _ in sizes)


# --- the split


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("fraction", [0.1, 0.2])
def test_of_the_built_in_reference_nothing_that_is_held_out_is_trained_on(blocks, fraction):
    documents = read(["builtin:docs"], blocks)
    assert share_seen(*divide(documents, fraction)[::-1]) > 0.3  # what is to be mended
    training, held_out = split(documents, fraction)
    assert share_seen(held_out, training) < 0.02
    assert held_out.characters > 0.4 * fraction * documents.characters
    assert [len(each.text) for each in held_out] == list(held_out.lengths)


def test_copies_leave_the_held_out_side_and_are_not_trained_on():
    draws = random.Random(0)
    new = [paragraph(draws) for _ in range(30)]
    documents = [Document(str(place), text) for place, text in enumerate([*new, *new[:10]])]
    _, before = divide(documents, 0.4)
    training, held_out = split(documents, 0.4)
    texts = [{each.text for each in side} for side in (training, held_out)]
    assert not texts[0] & texts[1]
    trained_on = {each.text for each in divide(documents, 0.4)[0]}
    expected = [each for each in before if each.text not in trained_on]
    assert list(held_out) == expected and 0 < len(expected) < len(before)
    assert list(training) == list(divide(documents, 0.4)[0])


def judged(held_out: str, training: str) -> list[str]:
    both = ([Document(name, text)] for name, text in (("h", held_out), ("t", training)))
    return [each.text for each in unseen(*map(Documents.of, both))]


LINES = [f"{letter * 29}\n" for letter in "abcdefgh"]  # 29 characters each, without the line's end


def test_a_third_of_the_lines_makes_a_copy():
    one, two = "".join(LINES[:1]), "".join(LINES[:2])
    whole = "".join(LINES[:6])
    assert judged(whole, two) == []  # 2 of 6
    assert judged(whole, one) == [whole]  # 1 of 6
    assert judged(whole + LINES[6], two) == [whole + LINES[6]]  # 2 of 7
    # Anywhere, in any order, however they are indented, and however often.
    assert judged(whole, "  " + LINES[5] + "other\n\n" + "\t" + LINES[3] + LINES[3]) == []


def test_short_lines_count_where_there_is_little_else():
    # 19 characters do not count beside lines of 29, and do where they are most of the text.
    short = "".join(f"{letter * 19}\n" for letter in "stuvw")
    assert judged(short + "".join(LINES[:4]), short) == [short + "".join(LINES[:4])]
    assert judged(short + LINES[0], short) == []
    assert judged("Go on.", "Stop.\nGo on.") == [] and judged("Go on.", "Go") == ["Go on."]
    assert judged(" \n \n", " \n") == [" \n \n"]


def test_empty_documents_are_no_copies_and_do_no_harm():
    texts = ["", "Go on.", "", "Stop.", "", ""]
    documents = Documents.of(Document(str(place), text) for place, text in enumerate(texts))
    found = unseen(documents, Documents.of([Document("t", "Go on.")]))
    assert [each.text for each in found if each.text] == ["Stop."]
    assert unseen(documents, Documents.of([Document("t", "")])) is documents
    assert len(unseen(Documents.of([]), documents)) == 0


def test_of_a_long_document_the_copied_parts_are_left_out_and_nothing_is_put_together():
    draws = random.Random(1)
    copied = paragraph(draws, 30) + "\n\n"
    first, last = (paragraph(draws, 60) + "\n\n" for _ in range(2))
    document = Document("d", first + copied + last)
    kept = list(unseen(Documents.of([document]), Documents.of([Document("t", copied)])))
    assert kept[0].name == "d" and len(kept) == 2
    place = kept[1].start
    assert kept[1].source == "d" and kept[1].name == f"d, from character {place}"
    assert document.text[place:] == kept[1].text and document.text.startswith(kept[0].text)
    assert not any(line in each.text for each in kept for line in copied.split("\n") if line)
    assert sum(len(each.text) for each in kept) > 0.9 * len(first + last)


def test_a_line_that_all_documents_share_leaves_every_document_where_it_is():
    draws = random.Random(2)
    licence = "Permission is granted, free of charge, to any person.\n"
    documents = [Document(str(n), licence + paragraph(draws, 6)) for n in range(40)]
    assert [list(side) for side in split(documents, 0.2)] == [
        list(side) for side in divide(documents, 0.2)
    ]


def test_a_chain_of_likenesses_moves_one_document_and_no_other():
    """Each document has half of its lines from the next one: together they are one chain."""
    draws = random.Random(3)
    halves = [paragraph(draws, 4) + "\n" for _ in range(41)]
    pairs = zip(halves, halves[1:], strict=False)
    documents = [Document(str(n), one + other) for n, (one, other) in enumerate(pairs)]
    training, held_out = split(documents, 0.5)
    assert len(training) >= 20  # nothing was drawn to a side by what is like it
    assert share_seen(held_out, training) == 0 if held_out else True


def test_text_that_is_all_repeated_is_refused():
    documents = [Document(str(place), "Always the same words.") for place in range(20)]
    with pytest.raises(InputError, match="all of the held-out text stands in the training text"):
        split(documents)
    assert len(split(documents, 0)[0]) == 20


# --- streaming


def reference(documents, text, part=1000):
    """The same measure, of texts that are held whole: what is left, as text."""
    seen = {line.strip() for each in text for line in each.text.split("\n")}
    left = []
    for each in documents:
        parts, held = [], ""
        for line in each.text.splitlines(keepends=True):
            held += line
            if len(held) >= 2 * part or (len(held) >= part and not line.strip()):
                parts.append(held)
                held = ""
        if parts and len(held) < part:
            parts[-1] += held
        elif held:
            parts.append(held)
        for one in parts:
            lines = [line.strip() for line in one.split("\n")]
            long = [line for line in lines if len(line) >= 20]
            counted = long if 2 * sum(map(len, long)) >= sum(map(len, lines)) else lines
            copied = sum(len(line) for line in counted if line in seen)
            if not (copied and 3 * copied >= sum(map(len, counted))):
                left.append(one)
    return "".join(left)


@pytest.mark.parametrize("piece", [7, 64, 1 << 20])
def test_files_that_are_streamed_give_what_held_text_gives(piece, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE", piece)
    monkeypatch.setattr(copies, "PART", 200)
    monkeypatch.setattr(copies, "TOGETHER", 37)
    draws = random.Random(4)
    some = [paragraph(draws, draws.randint(1, 6)) for _ in range(60)]
    for name, chosen in (("a", draws.choices(some, k=50)), ("b", draws.choices(some, k=30))):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(chosen))
    one, other = (read([str(tmp_path / f"{name}.txt")]) for name in "ab")
    found = unseen(one, other)
    expected = reference(one, other, 200)
    assert "".join(each.text for each in found) == expected and 0 < len(expected) < one.characters
    # Lines that are looked for some at a time, as where they are too many to be held.
    monkeypatch.setattr(copies, "SOUGHT", 5)
    again = unseen(one, other)
    assert again.sha256 == found.sha256 and list(again) == list(found)


def test_a_text_without_line_ends_is_cut_from_its_beginning():
    draws = random.Random(5)
    text = " ".join(sentence(draws) for _ in range(400))
    assert judged(text, text) == []
    assert judged(text + " Another end.", text) != [text + " Another end."]


def test_every_process_holds_out_the_same():
    command = "from minicpt.data.split import split; from minicpt.data.sources import read; "
    command += "print([each.sha256 for each in split(read(['builtin:docs'], True))])"
    seeds = ("1", "2")
    found = [
        subprocess.run(
            [sys.executable, "-c", command],
            capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in seeds
    ]  # fmt: skip
    assert found[0] == found[1] and "[" in found[0]


# --- the verbs


@pytest.fixture
def folder(tmp_path):
    """old.txt, and new.txt, a fourth of which is old text; a block is a document."""
    draws = random.Random(6)
    old = [paragraph(draws) for _ in range(60)]
    new = [paragraph(draws) for _ in range(45)] + old[::4]
    draws.shuffle(new)
    (tmp_path / "old.txt").write_text("\n\n".join(old))
    (tmp_path / "new.txt").write_text("\n\n".join(new))
    return tmp_path


def texts_of(folder, *names):
    settings = (
        Text(corpus=(str(folder / f"{name}.txt"),), blocks=True, held_out=0.3)
        for name in names
    )
    return [texts.texts(each) for each in settings]


def words(folder, name, *more):
    flags = ["train", "causal-lm", "--corpus", str(folder / f"{name}.txt"), "--blocks"]
    return [*flags, "--held-out", "0.3", *more]


def test_new_and_old_text_are_held_out_from_each_other(folder, capsys):
    new, old = texts_of(folder, "new", "old")
    found = texts.held_out(new, [old])
    trained_on = {each.text for side in (new, old) for each in side.training}
    for name, own in (("held out", new), ("old text", old)):
        assert not {each.text for each in found[name]} & trained_on
        # Nothing else is left out.
        assert {each.text for each in found[name]} == {
            each.text for each in own.apart if each.text not in trained_on
        }
    said = capsys.readouterr().err.splitlines()
    left = new.apart.characters - found["held out"].characters
    assert left and f"{found['held out'].characters:,} characters are held out" in said[0]
    assert f"{left:,} more stand in training text too, and are left out" in said[0]
    assert "too little" in said[0]


def test_enough_text_is_no_reason_to_warn(folder, capsys, monkeypatch):
    monkeypatch.setattr(texts, "ENOUGH", 10)
    new, old = texts_of(folder, "new", "old")
    texts.held_out(new, [old])
    assert "left out" in (said := capsys.readouterr().err) and "too little" not in said


def test_where_nothing_is_left_it_is_said_or_refused(folder, capsys):
    (old,) = texts_of(folder, "old")
    (folder / "part.txt").write_text("\n\n".join(each.text for each in old.training))
    (part,) = texts_of(folder, "part")
    with pytest.raises(InputError, match="nothing is left of the held-out text of .*part.txt"):
        texts.held_out(part, [old])
    (folder / "apart.txt").write_text("\n\n".join(each.text for each in old.apart) * 3)
    (apart,) = texts_of(folder, "apart")
    capsys.readouterr()
    apart = texts.Texts(apart.settings, apart.documents, apart.documents, Documents.of([]))
    assert texts.held_out(apart, [old]) == {}
    assert "no forgetting is measured" in capsys.readouterr().err


def test_train_evaluate_and_resume_hold_out_the_same_text(folder, capsys):
    base, out = str(folder / "base"), str(folder / "out")
    assert main([*words(folder, "old"), *SMALL, "--out", base]) == 0
    sizes = ["--steps", "4", "--batch-size", "4", "--save-every", "2", "--keep", "9"]
    run = [*words(folder, "new"), "--init", base, *sizes, "--replay", "base", "--out", out]
    assert main(run) == 0
    record = checkpoint.load(out).record
    new, old = texts_of(folder, "new", "old")
    found = texts.held_out(new, [old])
    assert record["held_out"] == {name: each.sha256 for name, each in found.items()}
    capsys.readouterr()
    assert main(["evaluate", out, "--json"]) == 0
    output = capsys.readouterr()
    evaluated = json.loads(output.out)
    assert "left out" in output.err and "differ" not in output.err
    for name in ("held out", "old text"):
        last = record["evaluations"][-1][name]
        assert evaluated[name]["targets"] == last["targets"]
        assert evaluated[name]["total"] == pytest.approx(last["total"], rel=1e-6)
    first = checkpoint.steps(folder / "out")[0]
    weights = (folder / "out" / "step-00000004" / "pytorch_model.bin").read_bytes()
    assert main(["resume", str(first)]) == 0
    assert (folder / "out" / "step-00000004" / "pytorch_model.bin").read_bytes() == weights
    assert checkpoint.load(out).record["evaluations"] == record["evaluations"]
    # Without the old text what of the new one stands in it is not known.
    (folder / "old.txt").unlink()
    capsys.readouterr()
    assert main(["evaluate", out]) == 0
    assert "not the text on which this run was evaluated" in capsys.readouterr().err


def test_what_is_replayed_holds_no_copy_of_held_out_text(folder, byte_tokenizer):
    new, old = texts_of(folder, "new", "old")
    near = [each.text.split("\n") for each in new.held_out]
    near = ["\n".join([*lines[:2], "Another line, which is new here.", lines[3]]) for lines in near]
    draws = random.Random(7)
    fresh = [paragraph(draws) for _ in range(30)]
    (folder / "third.txt").write_text("\n\n".join([*near, *fresh]))
    (third,) = texts_of(folder, "third")
    corpus = texts.training_corpus([third], [new, old], byte_tokenizer)
    spans = [corpus.document(place) for place in range(len(corpus.documents))]
    replayed = {byte_tokenizer.decode(corpus.tokens[slice(*span)].tolist()) for span in spans}
    trained_on = {each.text for each in third.training}
    assert trained_on & set(near) and not replayed & set(near)
    assert replayed == trained_on & set(fresh)


def test_compare_leaves_out_what_any_of_its_texts_trains_on(folder, capsys):
    from minicpt.comparison.texts import divided

    new, old = texts_of(folder, "new", "old")
    held_out = divided({"new": [new], "old": [old]}, 0)["new"][1]
    assert held_out == list(texts.held_out(new, [old])["held out"])
    (folder / "part.txt").write_text("\n\n".join(each.text for each in old.training))
    (part,) = texts_of(folder, "part")
    with pytest.raises(InputError) as refused:
        divided({"new": [part], "old": [old]}, 0)
    message = str(refused.value)
    assert "the new text: " in message and "part.txt" in message and "a third or more" in message
    assert "word for word" not in message
