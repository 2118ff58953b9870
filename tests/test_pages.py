"""Pictures as pages, in notebooks, and with a fault in them: held against what is known of each."""

import ast
import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from test_comparison import results

import minicpt
from minicpt.cli.main import main
from minicpt.common import html
from minicpt.comparison.summary import rows
from minicpt.comparison.table import as_html
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.pictures import picture
from minicpt.pictures.broken import broken
from minicpt.pictures.html import seen, sees
from minicpt.proofs import faults
from minicpt.proofs.result import Proof, Proofs

TEXT = "The cat sat. It <was> warm & dry."
LAYERS = 4  # of the small untrained GPT-2


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A small tokenizer: what is read of the built-in text does not matter here."""
    monkeypatch.setattr(picture, "VOCABULARY", 300)
    documents = list(picture.read(["builtin:docs"]))[:3]
    monkeypatch.setattr(picture, "read", lambda sources: documents)


class Page(HTMLParser):
    """A page that is read strictly: each element is closed where it must be."""

    VOID = {"meta"}

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.text, self.tables = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        assert len(dict(attributes)) == len(attributes)
        if name not in self.VOID:
            self.open.append(name)
        if name == "table":
            self.tables.append([])
        elif name == "tr":
            self.tables[-1].append([])
        elif name in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)
        if {"th", "td"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def attributes(self, name):
        return [attributes for each, attributes in self.elements if each == name]


def checked(text: str) -> Page:
    """A page or a fragment that asks nobody for anything, and whose tables have headings."""
    page = Page(text)
    names = {name for name, _ in page.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "form", "base"}
    for _, attributes in page.elements:
        assert not attributes.keys() & {"src", "href", "style", "onclick"}
    assert not re.search(r"https?:|url\(|@import", text)
    for table in page.tables:
        assert len({len(row) for row in table}) == 1 and len(table[0]) > 1
    scopes = [attributes.get("scope") for attributes in page.attributes("th")]
    assert scopes and set(scopes) <= {"col", "row"}
    return page


# --- HTML by hand ------------------------------------------------------------------------------


def test_whatever_a_text_holds_is_escaped():
    hostile = '<script>alert("x")</script>&amp;\'"'
    drawn = html.table([hostile, "b"], [[hostile, html.element("p", hostile, title=hostile)]])
    page = checked(html.page(hostile, drawn, html.paragraphs([hostile])))
    assert page.attributes("p")[0]["title"] == hostile
    assert page.tables == [[[hostile, "b"], [hostile, hostile]]]
    assert "".join(page.text).count(hostile) == 6


def test_a_page_allows_its_own_style_and_nothing_else():
    text = html.page("A page", html.paragraphs(["text"]))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert "@media print" in style and 'content="light dark"' in text


def test_a_row_of_visibility_is_drawn_and_said():
    drawn = checked("<table><tr><th scope='row'>a</th><td>" + sees("111020") + "</td></tr></table>")
    boxes = [(each["x"], each["width"], each.get("class")) for each in drawn.attributes("rect")]
    assert boxes == [("0", "3", None), ("3", "1", "none"), ("4", "1", "leak"), ("5", "1", "none")]
    assert drawn.attributes("svg")[0]["aria-label"] == "0 to 2; must not, and sees 4"
    assert seen("000") == "nothing"


# --- a page of a text --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["causal-lm", "next-sentence", "reconstruction"])
def test_a_page_says_what_the_data_say(name, tmp_path, capsys):
    path = tmp_path / "picture.html"
    words = ["explain", name, "--text", TEXT + " Then we ate.", "--html", str(path)]
    assert main(words) == 0 and "is written" in capsys.readouterr().err
    page = checked(path.read_text(encoding="utf-8"))
    data = minicpt.explain(TEXT + " Then we ate.", name).data
    (table,) = (each for each in page.tables if "target" in each[0])
    read = data["streams"][data["target_stream"]]["positions"]
    assert {row[table[0].index("reads")] for row in table[1:]} == {each["token"] for each in read}
    losses = [row[table[0].index("loss")] for row in table[1:] if row[table[0].index("loss")]]
    expected = [t["loss"] for head in data["heads"].values() for t in head["targets"]]
    assert sorted(losses) == sorted(f"{each:.3f}" for each in expected)


def test_nothing_is_overwritten_without_being_told_to(tmp_path, capsys):
    path = tmp_path / "mine.html"
    path.write_text("mine")
    words = ["explain", "causal-lm", "--text", "One sat.", "--html"]
    assert main([*words, str(path)]) == 2
    assert "exists already; give another file, or --overwrite" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main([*words, str(tmp_path / "x.png")]) == 2
    assert "must end in .htm or .html" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "no" / "x.html")]) == 2
    assert main([*words, str(path), "--overwrite"]) == 0
    assert path.read_text().startswith("<!doctype html>")


def test_with_a_trained_model_each_target_has_its_probability(tmp_path, capsys):
    corpus = tmp_path / "text.txt"
    corpus.write_text("One sat. Two sat. " * 40)
    run = str(tmp_path / "run")
    sizes = "--width 16 --layers 1 --num-heads 2 --vocab-size 300 --window 16".split()
    sizes += ["--batch-size", "4"]
    train = ["train", "causal-lm", "--corpus", str(corpus), "--out", run, "--steps", "2", *sizes]
    assert main(train) == 0
    found = minicpt.explain("Two sat.", init=run)
    base = minicpt.load(run)
    ids = [base.tokenizer.begin, *base.tokenizer.encode("Two sat.")]
    hidden = base.model.eval()(tokens=torch.tensor([ids]), mask=torch.ones(1, len(ids)).bool())
    likely = base.model.heads["tokens"](hidden[0]).detach().double().softmax(dim=-1)
    for each, row in zip(found.data["heads"]["tokens"]["targets"], likely, strict=True):
        assert each["probability"] == pytest.approx(float(row[each["class"]]), rel=1e-5)
        assert each["probability"] == pytest.approx(math.exp(-each["loss"]), rel=1e-5)
        order = row.sort(descending=True)
        assert [best["token"] for best in each["likeliest"]] == [
            base.tokenizer.token(index) for index in order.indices[:3].tolist()
        ]
        values = [best["probability"] for best in each["likeliest"]]
        assert values == pytest.approx(order.values[:3].tolist(), rel=1e-5)
    page = checked(found.page())
    assert {"probability", "likeliest"} <= set(page.tables[0][0])
    assert "what it holds likeliest" in str(found)
    assert "likeliest" not in str(minicpt.explain("Two sat."))
    assert "Two sat." not in repr(base) and "GPT2" in repr(base)
    assert ["objective", "causal-lm"] in checked(base._repr_html_()).tables[0]


# --- faults ------------------------------------------------------------------------------------


def pairs(leaks):
    return {(leak.position, leak.seen) for leak in leaks}


def test_a_mask_off_by_one_leaks_a_position_more_with_each_layer():
    found = broken("mask-off-by-one", TEXT)
    size = len(found.right["streams"]["tokens"]["positions"])
    expected = {(t, s) for t in range(size) for s in range(t + 1, min(t + LAYERS + 1, size))}
    assert pairs(found.leaks) == expected and not found.lost and not found.padded
    triangle = ["".join("01"[s <= t] for s in range(size)) for t in range(size)]
    assert found.right["visibility"]["tokens"]["tokens"] == triangle
    assert found.right == minicpt.explain(TEXT).data
    assert {each.what for each in found.changes} <= {"loss", "sum"}
    names = [each.proof for each in found.caught]
    assert "equivalence" in names and "causality by derivatives, head tokens" in names
    shown = str(found)
    assert "█!!!!" in shown and "by position 0: 1 to 4" in shown
    assert all(each.message.split()[0] in shown for each in found.caught)
    page = checked(found.page())
    leaks = [each for each in page.attributes("rect") if each.get("class") == "leak"]
    assert len(leaks) == size - 1
    assert [row[0] for row in page.tables[-1][1:]] == names


def test_targets_that_are_shifted_twice():
    found = broken("shift-twice", TEXT)
    right, wrong = (side["heads"]["tokens"] for side in (found.right, found.wrong))
    assert [each["class"] for each in wrong["targets"]] == [
        each["class"] for each in right["targets"][1:]
    ]
    (divisor,) = (each for each in found.changes if each.what == "divisor")
    assert (divisor.right, divisor.wrong) == (right["count"], right["count"] - 1)
    assert not found.leaks


def test_padding_that_counts_shows_below_a_longer_text():
    found = broken("pad-targets", TEXT)
    assert found.padded and "below a longer window" in str(found)
    read = found.right["streams"]["tokens"]["positions"]
    pads = [at for at, each in enumerate(read) if "padding" in each]
    assert pads == list(range(pads[0], len(read)))
    new = [each for each in found.changes if each.what == "target"]
    assert [each.position for each in new] == pads and {each.right for each in new} == {None}
    assert {each.wrong for each in new} == {"[PAD]"}
    totals = [side["heads"]["tokens"]["count"] for side in (found.right, found.wrong)]
    assert totals == [pads[0], len(read)]


def test_packed_texts_that_see_each_other():
    found = broken("packed-together", TEXT)
    rows_of = found.right["visibility"]["tokens"]["tokens"]
    hidden = {(t, s) for t, row in enumerate(rows_of) for s in range(t) if row[s] == "0"}
    assert hidden and pairs(found.leaks) == hidden


def test_what_is_no_longer_seen():
    found = broken("gaps-filled-causally", TEXT)
    targets = {each["position"] for each in found.right["heads"]["tokens"]["targets"]}
    size = len(found.right["streams"]["tokens"]["positions"])
    assert pairs(found.lost) == {(t, s) for t in targets for s in range(t + 1, size)}


@pytest.mark.parametrize(
    "name, why",
    [
        ("mean-of-micro-batches", "training step"),
        ("mean-of-evaluation-batches", "evaluation"),
        ("tied-lost", "checkpoint"),
        ("generator-learns-from-the-model", "gradient"),
        ("estimator-without-weights", "an evaluation"),
    ],
)
def test_what_one_text_cannot_show_has_a_reason(name, why):
    found = broken(name, "One sat. Two sat. Three sat. Four sat.")
    assert found.wrong is None and not found.changes and why in found.reason
    assert found.fault == faults.known()[name]


def test_a_fault_on_the_command_line(capsys, tmp_path):
    path = tmp_path / "broken.html"
    words = ["explain", "causal-lm", "--text", "One sat.", "--break"]
    assert main([*words, "end-is-padding", "--html", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (target,) = (each for each in found["changes"] if each["what"] == "target")
    assert target["right"] == "<|endoftext|>" and target["wrong"] is None
    assert found["fault"]["mistake"] == 4 and found["caught_by"]
    assert "end-is-padding" in "".join(checked(path.read_text(encoding="utf-8")).text)
    for fault, message in (("mask-special", "belongs to masked-lm"), ("x", "no fault is called")):
        assert main([*words, fault]) == 2
        assert message in capsys.readouterr().err
    assert main([*words, "shift-twice", "--passage", "9"]) == 2
    assert "--passage is 9, but the text gives one window; use 1" in capsys.readouterr().err


# --- notebooks ---------------------------------------------------------------------------------


def cells(path: Path):
    """The cells of a script, each as what is run and, where it ends so, what is shown."""
    for cell in path.read_text(encoding="utf-8").split("\n# %%")[1:]:
        tree = ast.parse(cell.partition("\n")[2])
        shows = isinstance(tree.body[-1], ast.Expr)
        yield tree, ast.Expression(tree.body.pop().value) if shows else None


def test_the_notebook_runs_and_its_cells_show_themselves():
    names, drawn = {}, []
    for tree, shown in cells(Path(__file__).with_name("notebook.py")):
        exec(compile(tree, "notebook", "exec"), names)
        if shown:
            value = eval(compile(shown, "notebook", "eval"), names)
            if hasattr(value, "_repr_html_"):
                drawn.append(checked(value._repr_html_()))
                assert "object at 0x" not in repr(value) and "\n" in str(value)
    pictured, fault, proofs, step, evaluation = drawn
    assert "One pass, or many?" in pictured.text and "Who catches it" in fault.text
    assert len(proofs.tables[0]) == len(names["proofs"]) + 1
    last = names["steps"][-1].losses["tokens"]
    assert step.tables[0][1] == ["tokens", f"{float(last.mean):.4f}", f"{last.count}"]
    assert any("bits per byte" in each for each in evaluation.text)


def test_proofs_are_a_list_that_shows_itself():
    given = [
        Proof("a", True, "one with <the> other", worst=1e-16, tolerance=1e-12),
        Proof("b", False, "two", message="they differ", worst=1.0, tolerance=0.5),
        Proof("c", None, "", message="needs more"),
    ]
    found = Proofs(given)
    assert found == given and isinstance(found, list) and found[:2] == given[:2]
    assert "1 of 2 proofs hold." in str(found) and "Not checked (1): c." in repr(found)
    page = checked(found._repr_html_())
    assert page.tables[0][1:] == [
        ["a", "proved", "1e-16 <= 1e-12", "one with <the> other"],
        ["b", "FAILED", "1 > 0.5", "they differ"],
        ["c", "not checked", "", "needs more"],
    ]
    assert "Not checked (1): c." in page.text
    marked = [each for each in page.attributes("tr") if each.get("class") == "marked"]
    assert len(marked) == 1


def test_a_comparison_in_a_notebook():
    found = rows(results(nothing=(1.0, 0.5), replay=(0.75, 0.125)))
    page = checked(as_html(found, [], ["It <pays>."], str))
    assert page.tables == [[
        ["training", "gained", "forgotten"],
        ["nothing", "+1.000 [+1.000, +1.000]", "+0.500 [+0.500, +0.500]"],
        ["replay", "+0.750 [+0.750, +0.750]", "+0.125 [+0.125, +0.125]"],
    ]]  # fmt: skip
    assert "It <pays>." in page.text


def test_an_evaluation_without_bits_says_why(tokenizer):
    corpus = Corpus.build([Document("a", "The cat sat on the mat. It was warm.")], tokenizer)
    objective = minicpt.CausalLM(tokenizer)
    sizes = {"width": 16, "layers": 1, "num_heads": 2}
    model = minicpt.GPT2(minicpt.GPT2Config(vocabulary=tokenizer.size, **sizes))
    found = minicpt.evaluate(model, objective, corpus)
    assert f"{found.bits_per_byte:.4f} bits per byte" in str(found)
    object.__setattr__(found, "text_bytes", 0)
    assert "no bits per byte: the objective does not predict" in repr(found)
