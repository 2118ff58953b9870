"""``minicpt explain``: where its text comes from, and which passage of it is shown."""

import io
import json
import sys

import pytest

import minicpt
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.objectives import known
from minicpt.pictures import picture

LONG = " ".join(f"Line {number} of the text is here." for number in range(12))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A small tokenizer: what is read of the built-in text does not matter here."""
    monkeypatch.setattr(picture, "VOCABULARY", 300)
    documents = list(picture.read(["builtin:docs"]))[:3]
    monkeypatch.setattr(picture, "read", lambda sources: documents)


def explained(capsys, *words):
    """The report as data; what is said beside it goes to stderr."""
    assert main(["explain", *words, "--json"]) == 0
    output = capsys.readouterr()
    return json.loads(output.out), output.err


def error_of(capsys, *words):
    assert main(["explain", *words]) == 2
    output = capsys.readouterr()
    assert not output.out
    (line,) = (line for line in output.err.splitlines() if "minicpt: error:" in line)
    assert "Traceback" not in output.err
    return line


def piped(monkeypatch, data: bytes):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def read_of(data, stream="tokens"):
    """The text that is read, put together again."""
    found = [each["token"] for each in data["streams"][stream]["positions"]]
    return "".join(each for each in found if each[0] != "[" and "<|" not in each).replace("␣", " ")


@pytest.mark.parametrize("name", known())
def test_every_passage_is_shown_in_the_order_of_the_text(name, capsys, monkeypatch):
    words = [name, "--text", LONG, "--window", "40"]
    first, said = explained(capsys, *words)
    count = first["of"]
    assert first["number"] == 1 and count > 2
    assert f"the text gives {count} {first['unit']}s; --passage K shows another" in said
    places = []
    for number in range(1, count + 1):
        data, _ = explained(capsys, *words, "--passage", str(number))
        assert (data["number"], data["of"]) == (number, count)
        assert data["document"] == "the text"
        places.append(data["start"])
    if name != "next-sentence":  # a wrong second sentence may come from anywhere
        assert places[0] == 0
    assert places == sorted(places)
    assert main(["explain", *words, "--passage", "2"]) == 0
    output = capsys.readouterr().out
    assert f"{first['unit'].capitalize()} 2 of {count}: the text, token " in output
    for beyond in (str(count + 1), "99999"):
        line = error_of(capsys, *words, "--passage", beyond)
        assert f"--passage is {beyond}, but the text gives {count} " in line and "use 1 to" in line


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5"])
def test_a_passage_that_is_no_number_is_refused(value, capsys):
    assert "--passage" in error_of(capsys, "causal-lm", "--passage", value)


def test_a_single_passage_says_so(capsys):
    data, said = explained(capsys, "causal-lm", "--text", "One sat.")
    assert (data["number"], data["of"]) == (1, 1) and "--passage" not in said
    assert "one window; use 1" in error_of(
        capsys, "causal-lm", "--text", "One sat.", "--passage", "2"
    )


def test_a_file_and_the_standard_input_read_as_the_text_does(capsys, tmp_path, monkeypatch):
    text = "The cat sat. 猫が座った。\nIt was warm."
    path = tmp_path / "notes.txt"
    path.write_text(text, encoding="utf-8")
    direct, _ = explained(capsys, "causal-lm", "--text", text)
    filed, _ = explained(capsys, "causal-lm", "--file", str(path))
    for data in (text.encode(), b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()):
        piped(monkeypatch, data)
        read, _ = explained(capsys, "causal-lm", "--file", "-")
        assert read["heads"] == filed["heads"] == direct["heads"]
        assert read["place"] == "standard input, token 0"
    assert filed["place"] == f"{path}, token 0"


@pytest.mark.parametrize("words", [["--text", "A cat.", "--text", "A dog."],
                                   ["--text", "A cat.", "A dog."]])  # fmt: skip
def test_several_texts_are_a_document_each(words, capsys):
    data, _ = explained(capsys, "causal-lm", *words)
    assert (data["of"], data["place"], read_of(data)) == (2, "text 1, token 0", "A cat.")
    data, _ = explained(capsys, "causal-lm", *words, "--passage", "2")
    assert data["place"].startswith("text 2, token ") and read_of(data) == "A dog."


def test_several_files_and_the_standard_input(capsys, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"The {name}.")
    piped(monkeypatch, b"The c.")
    words = ["causal-lm", "--file", str(tmp_path / "a"), "-", "--file", str(tmp_path / "b")]
    data, _ = explained(capsys, *words, "--passage", "1")
    assert data["of"] == 3 and read_of(data) == "The a."


def test_wrong_inputs_are_refused_in_one_line(capsys, tmp_path, monkeypatch):
    (tmp_path / "binary").write_bytes(b"ab\0cd")
    (tmp_path / "latin").write_bytes("café".encode("latin-1"))
    (tmp_path / "empty").write_text("")
    (tmp_path / "blank").write_text(" \n ")
    for name, expected in {
        "missing": "no such file or folder", "binary": "is not text (NUL byte at byte 2)",
        "latin": "not UTF-8 at byte 3", "empty": "is empty", "blank": "holds only blank text",
    }.items():  # fmt: skip
        assert expected in error_of(capsys, "masked-lm", "--file", str(tmp_path / name))
    for data, expected in {
        b"": "standard input is empty", b" \n": "standard input is empty",
        b"a\0": "standard input is not text (NUL byte at byte 1)",
        b"caf\xe9 x": "'standard input' is not UTF-8 at byte 3",
    }.items():  # fmt: skip
        piped(monkeypatch, data)
        assert expected in error_of(capsys, "masked-lm", "--file", "-")
    assert "read once" in error_of(capsys, "masked-lm", "--file", "-", "-")
    both = ["--text", "a", "--file", str(tmp_path / "latin")]
    assert "--text and --file" in error_of(capsys, "masked-lm", *both)
    for words in (["--text", ""], ["--text", "a", "--text", " "]):
        assert "--text is empty" in error_of(capsys, "masked-lm", *words)
    data, _ = explained(
        capsys, "masked-lm", "--file", str(tmp_path / "latin"), "--errors", "replace"
    )
    assert data["number"] == 1


@pytest.mark.parametrize("text", ["A cat sat.", "A cat sat. It slept."])
@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_too_few_sentences_for_a_pair_are_told_plainly(text, seed, capsys):
    words = ["next-sentence", "--text", text, "--seed", seed]
    line = error_of(capsys, *words)
    assert "give three or more different sentences" in line


@pytest.mark.parametrize("seed", range(12))
def test_three_sentences_are_enough_for_a_pair(seed, capsys):
    words = ["next-sentence", "--text", "A cat sat. It slept. Rain fell.", "--seed", str(seed)]
    data, _ = explained(capsys, *words)
    assert data["heads"]["pair"]["count"] == 1


def test_two_sentences_are_enough_for_their_order(capsys):
    words = ["next-sentence", "--order", "--text"]
    data, _ = explained(capsys, *words, "A cat sat. It slept.")
    assert data["heads"]["pair"]["targets"][0]["name"] in ("in order", "swapped")
    assert "give two or more different sentences" in error_of(capsys, *words, "A cat sat.")


# --- from Python -----------------------------------------------------------------------------


def test_three_lines_from_a_text_to_its_picture(capsys):
    found = minicpt.explain("The cat sat.", objective="causal-lm")
    data, _ = explained(capsys, "causal-lm", "--text", "The cat sat.")
    assert json.loads(json.dumps(found.data)) == data
    assert str(found) == repr(found) == found.text()
    assert str(found).startswith("Causal language modelling") and "nats per target" in str(found)
    assert any("untrained" in note for note in found.notes)


@pytest.mark.parametrize("name", known())
def test_every_objective_is_explained_with_its_settings(name):
    found = minicpt.explain(LONG, name, window=40, passage=2, seed=1)
    assert found.data["number"] == 2 and len(found.data["streams"]["tokens"]["positions"]) <= 40
    assert minicpt.explain(LONG, name, window=40, passage=2, seed=1).data == found.data


def test_a_model_is_chosen_by_its_name(capsys):
    by_name, _ = explained(capsys, "causal-lm", "--text", "One sat.", "--model", "gpt2")
    assert by_name == minicpt.explain("One sat.", model="gpt2").data
    with pytest.raises(InputError, match="--model bert is a model of the role encoder"):
        minicpt.explain("One sat.", model="bert")
    with pytest.raises(InputError, match="no model is called 'x'"):
        minicpt.explain("One sat.", model="x")
    with pytest.raises(InputError, match="no objective is called 'x'"):
        minicpt.explain("One sat.", "x")


def test_a_trained_model_is_explained(capsys, tmp_path):
    words = "--width 16 --layers 1 --num-heads 2 --vocab-size 256 --window 32 --steps 1"
    words += " --batch-size 4 --evaluate-passages 4"
    run = str(tmp_path / "run")
    assert main(["train", "causal-lm", *words.split(), "--out", run]) == 0
    capsys.readouterr()
    data, said = explained(capsys, "causal-lm", "--text", "One sat.", "--init", run)
    assert "untrained" not in said and len(data["streams"]["tokens"]["positions"]) == 9
    assert data == minicpt.explain("One sat.", init=run).data
    both = ["--init", run, "--model", "gpt2"]
    assert "--model is for untrained models" in error_of(capsys, "causal-lm", *both)
