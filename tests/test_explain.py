"""The report of ``explain``: its numbers, its pictures, and that it fits the terminal."""

import copy
import json
import re
import unicodedata

import pytest
import torch
import torch.nn.functional as F
from making import close

from minicpt.batch import IGNORE
from minicpt.data.corpus import Corpus
from minicpt.data.sources import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import target_losses
from minicpt.models import decoder, encoder, encoder_decoder
from minicpt.objectives import causal_lm, masked_lm, next_sentence, reconstruction
from minicpt.randomness import generator
from minicpt.report.explain import as_data, explain
from minicpt.report.explain_text import as_text
from minicpt.report.terminal import draw, words
from minicpt.verify.bounds import nats

torch.set_num_threads(1)

# Chinese, a combining mark, a control character, a newline and an emoji, all of it in tokens.
TEXT = (
    "The cat sat on the mat.\nIt was\x07 warm. 猫が座った。 Cafe\u0301 🙂 was open."
    " The cat slept there."
)
CASES = ("causal", "masked", "pair", "pair and tokens", "reconstruction")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([TEXT] * 3, 256 + 60)


@pytest.fixture(scope="module")
def corpus(tokenizer):
    return Corpus.build([Document("notes\n猫.txt", TEXT), Document("b", TEXT[:40])], tokenizer)


def build(module, tokenizer):
    """A tiny model whose weights are large enough to tell one token from another."""
    torch.manual_seed(7)
    sizes = {"width": 16, "layers": 2, "heads": 2}
    if module is encoder_decoder:
        config = module.Config(tokenizer.size, tokenizer.need("pad"), **sizes)
    else:
        config = module.Config(tokenizer.size, 200, **sizes)
    model = module.Model(config)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.fixture(scope="module")
def case(tokenizer, corpus):
    """name -> (model, objective, the plan's longest passage)"""
    objectives = {
        "causal": causal_lm.Objective(tokenizer, causal_lm.Settings(window=12)),
        "masked": masked_lm.Objective(tokenizer, masked_lm.Settings(window=24, rate=0.3)),
        "pair": next_sentence.Objective(tokenizer, next_sentence.Settings(window=24)),
        "pair and tokens": next_sentence.Objective(
            tokenizer, next_sentence.Settings(window=24, rate=0.3, masked=True)
        ),
        "reconstruction": reconstruction.Objective(tokenizer),
    }
    modules = {"encoder": encoder, "decoder": decoder, "encoder-decoder": encoder_decoder}
    models = {name: build(module, tokenizer) for name, module in modules.items()}
    plans = {name: objective.plan(corpus, 0, 0) for name, objective in objectives.items()}
    return lambda name: (
        models[objectives[name].architecture],
        objectives[name],
        plans[name][int(plans[name].lengths.argmax())],
    )


def noise():
    return generator("evaluation", 0, 0)


def width(line: str) -> int:
    """Columns of a line, colour sequences left out; written apart from the code under test."""
    line = re.sub("\x1b\\[[0-9]*m", "", line)
    wide = sum(unicodedata.east_asian_width(each) in ("W", "F") for each in line)
    return len(line) + wide - sum(unicodedata.combining(each) > 0 for each in line)


def table(text: str, number: int) -> tuple[str, list[str]]:
    """The heading and the rows of the report's last table of positions but ``number``."""
    lines = text.split("\n")
    headings = [place for place, line in enumerate(lines) if line.startswith("pos ")]
    start = headings[-1 - number]
    return lines[start], lines[start + 1 : lines.index("", start)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("ascii", [False, True])
def test_no_line_is_wider_than_the_terminal(case, name, columns, ascii):
    for triangle in (0, 12):
        text = explain(*case(name), noise(), columns, triangle=triangle, ascii=ascii)
        assert max(map(width, text.split("\n"))) <= columns
        # Nothing of the text breaks a line or moves the terminal's cursor.
        assert all(each.isprintable() for each in text.replace("\n", ""))
        assert text.isascii() or not ascii


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_one_forward_pass(case, name):
    model, objective, passage = case(name)
    batch = objective.batch([passage], [noise()])
    model.eval()
    data = as_data(model, objective, passage, noise())
    with torch.no_grad():
        hidden = model(**batch.inputs)
    assert data["heads"].keys() == batch.targets.keys()
    for head, found in data["heads"].items():
        target = batch.targets[head][0]
        expected = F.cross_entropy(
            model.heads[head](hidden[0]), target, ignore_index=IGNORE, reduction="none"
        )
        places = (target != IGNORE).nonzero()[:, 0].tolist()
        assert [each["position"] for each in found["targets"]] == places
        assert [each["class"] for each in found["targets"]] == target[places].tolist()
        losses = [each["loss"] for each in found["targets"]]
        close(torch.tensor(losses), expected[places], model, batch, size=nats(expected))
        with torch.no_grad():
            assert losses == target_losses(model, batch)[head].losses.tolist()
        assert found["count"] == len(places) > 0
        assert found["mean"] == pytest.approx(sum(losses) / len(losses))
        assert found["classes"] == (2 if head == "pair" else objective.tokenizer.size)


@pytest.mark.parametrize("name", CASES)
def test_rows_show_token_visibility_target_and_loss(case, name):
    model, objective, passage = case(name)
    batch = objective.batch([passage], [noise()])
    sees = objective.visibility(batch)
    with torch.no_grad():
        losses = target_losses(model.eval(), batch)
    _, rows = table(explain(model, objective, passage, noise(), 120), 0)
    stream = "decoder_tokens" if "decoder_tokens" in batch.inputs else "tokens"
    read = batch.inputs[stream][0].tolist()
    count = 0
    for place, row in zip(range(len(read)), rows, strict=True):
        assert row.split()[0] == str(place)
        row = row.replace("◌", "")  # on which a combining mark sits that begins a token
        assert objective.tokenizer.token(read[place]) in row
        for head, each in losses.items():
            for position, chosen, loss in zip(
                each.positions.tolist(), each.targets.tolist(), each.losses.tolist(), strict=True
            ):
                if position != place:
                    continue
                count += 1
                label = f"pair: class {chosen}"
                shown = objective.tokenizer.token(chosen) if head == "tokens" else label
                assert shown in row
                assert f"{loss:.3f}" in row.split()
                for may in sees[head].values():
                    picture = ["█" if seen else "·" for seen in may[0, place].tolist()]
                    assert "".join(picture) in row.split()
    assert count == sum(batch.counts().values())


def test_segments_and_the_pair(case):
    heading, rows = table(explain(*case("pair and tokens"), noise(), 100), 0)
    assert heading.split()[:3] == ["pos", "seg", "read"]
    segments = [row.split()[1] for row in rows]
    assert segments == sorted(segments) and set(segments) == {"0", "1"}
    assert "pair: class " in rows[0] and not any("pair:" in row for row in rows[1:])


def test_both_tables_of_an_encoder_decoder(case):
    model, objective, passage = case("reconstruction")
    text = explain(model, objective, passage, noise(), 100)
    batch = objective.batch([passage], [noise()])
    heading, rows = table(text, 1)
    assert heading.split() == ["pos", "read"]
    assert [row.split()[1] for row in rows] == [
        objective.tokenizer.token(index) for index in batch.inputs["tokens"][0].tolist()
    ]
    heading, rows = table(text, 0)
    assert heading.split() == ["pos", "read", "encoder", "decoder", "target", "loss"]
    size = len(batch.inputs["tokens"][0])
    assert [row.count("█" * size) > 0 for row in rows] == [True] * len(rows)


def test_wide_tokens_line_up_in_the_terminal(case, tokenizer, corpus):
    model = build(decoder, tokenizer)
    objective = causal_lm.Objective(tokenizer, causal_lm.Settings(window=100))
    plan = objective.plan(corpus, 0, 0)
    passage = max(plan[:], key=lambda each: len(each.tokens))
    _, rows = table(explain(model, objective, passage, noise(), 100), 0)
    assert any(width(row) != len(row) for row in rows)
    ends = {width(row[: re.search(r" \d+\.\d{3}( |$)", row).end()].rstrip()) for row in rows}
    assert len(ends) == 1


@pytest.mark.parametrize("name", ["causal", "reconstruction"])
@pytest.mark.parametrize("columns", [60, 120])
def test_every_prefix_alone_gives_the_losses_of_the_one_pass(case, name, columns):
    model, objective, passage = case(name)
    data = as_data(model, objective, passage, noise())
    runs, targets = data["triangle"], data["heads"]["tokens"]["targets"]
    size = min(len(targets), 12)
    assert runs["positions"] == [each["position"] for each in targets[:size]]
    assert [len(row) for row in runs["alone"]] == list(range(1, size + 1))
    assert len(runs["together"]) == len(runs["differences"]) == size
    assert max(runs["differences"]) <= runs["tolerance"] < 1e-9
    for place, row in enumerate(runs["alone"]):
        assert row == pytest.approx(runs["together"][: place + 1], abs=runs["tolerance"])
    assert runs["together"] == pytest.approx(
        [each["loss"] for each in targets[:size]], abs=1e-4
    )
    text = " ".join(as_text(data, columns).split())
    assert "one pass" in text and f"Largest difference in {size} runs: " in text
    assert "because the mask lets no position see" in text and "teacher forcing" in text
    drawn = min(size, (columns - 10) // 6)  # as many as fit
    lines = [line for line in as_text(data, columns).split("\n") if line.startswith("first ")]
    assert [int(line.split()[1]) for line in lines] == list(range(1, drawn + 1))
    for line, row in zip(lines, runs["alone"], strict=False):
        assert [float(cell) for cell in line.split()[2:]] == pytest.approx(row, abs=6e-3)


def test_prefix_runs_are_runs_of_the_model_on_the_prefix(case):
    """The numbers do not come from one pass twice: each is what a shorter input gives."""
    model, objective, passage = case("causal")
    runs = as_data(model, objective, passage, noise())["triangle"]
    tokens = objective.batch([passage], [noise()]).inputs["tokens"]
    lengths = []
    spied = copy.deepcopy(model)
    spied.tokens.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    assert as_data(spied, objective, passage, noise())["triangle"] == runs
    size = tokens.shape[1]
    assert lengths == [size, size, *range(1, size + 1)]


class Leaky(decoder.Model):
    """A decoder that lets every position look at all others."""

    def forward(self, tokens, mask=None, positions=None):
        size = tokens.shape[1]
        return super().forward(tokens, torch.ones(1, size, size, dtype=torch.bool), positions)


def test_a_model_that_looks_ahead_is_told(case):
    model, objective, passage = case("causal")
    leaky = Leaky(model.config)
    leaky.load_state_dict(model.state_dict())
    data = as_data(leaky, objective, passage, noise())
    assert max(data["triangle"]["differences"]) > 1e-3
    text = " ".join(as_text(data, 80).split())
    assert "not the same" in text and "equal because" not in text


@pytest.mark.parametrize("name", ["masked", "pair", "pair and tokens"])
def test_no_triangle_where_targets_see_what_follows(case, name):
    data = as_data(*case(name), noise(), triangle=1000)
    assert data["triangle"] is None
    assert "prefix" not in as_text(data, 80)


def test_a_long_passage_is_compressed_and_says_so(tokenizer, corpus):
    model = build(decoder, tokenizer)
    objective = causal_lm.Objective(tokenizer, causal_lm.Settings(window=100))
    passage = max(objective.plan(corpus, 0, 0)[:], key=lambda each: len(each.tokens))
    data = as_data(model, objective, passage, noise())
    size = len(data["visibility"]["tokens"]["tokens"])
    assert size > 25
    text = as_text(data, 60)
    assert max(map(width, text.split("\n"))) <= 60
    block = int(re.search(r"stands\s+for\s+(\d+)\s+positions", text)[1])
    _, rows = table(text, 0)
    for place, row in enumerate(rows):
        picture = re.search("[█▒·]+", row)[0]
        assert len(picture) == -(-size // block)
        for at, sign in enumerate(picture):
            inside = range(at * block, min((at + 1) * block, size))
            seen = sum(position <= place for position in inside)
            assert sign == ("█" if seen == len(inside) else "▒" if seen else "·")
    assert len(data["triangle"]["alone"]) == 12


def test_the_mean_and_the_guess(case):
    data = as_data(*case("pair and tokens"), noise())
    pair, tokens = data["heads"]["pair"], data["heads"]["tokens"]
    text = " ".join(as_text(data, 80).split())
    assert f"{tokens['sum']:.3f} nats / {tokens['count']} targets = {tokens['mean']:.3f}" in text
    assert "ln 2 = 0.693" in text
    total = pair["mean"] + tokens["mean"]
    assert f"{pair['mean']:.3f} + {tokens['mean']:.3f} = {total:.3f}" in text


def test_no_target_at_all(case, tokenizer, corpus):
    model, _, _ = case("masked")
    settings = masked_lm.Settings(window=24, choice="independent", rate=1e-9)
    objective = masked_lm.Objective(tokenizer, settings)
    text = explain(model, objective, objective.plan(corpus, 0, 0)[0], noise(), 60)
    assert "no position has a target" in " ".join(text.split())


def test_ascii_and_color_show_the_same(case):
    data = as_data(*case("causal"), noise())
    plain, colored = as_text(data, 80), as_text(data, 80, color=True)
    assert "\x1b[" in colored
    stripped = re.sub("\x1b\\[[0-9]*m", "", colored)
    assert [line.rstrip() for line in stripped.split("\n")] == plain.split("\n")
    rows = table(as_text(data, 120, ascii=True), 0)[1]
    assert "' " in rows[-1]  # a token with its space, in quotes
    assert re.search(r" #\.{11} ", rows[0]) and "=" in rows[0]


def test_huge_losses_do_not_wrap_either(case):
    data = as_data(*case("pair and tokens"), noise())
    for head in data["heads"].values():
        for each, loss in zip(
            head["targets"], [1.5e300, float("inf"), float("nan")] * 9, strict=False
        ):
            each |= {"loss": loss, "token": "immeasurable" * 3}
    assert max(map(width, as_text(data, 60).split("\n"))) <= 60


def test_a_table_too_wide_for_the_terminal_is_cut():
    table = [words("heading", ["wide cells"], most=20, least=20, ascii=False)] * 5
    assert {width(line) for line in draw(table, 31)} == {31}


def test_data_is_json_and_narrow_terminals_get_sixty_columns(case):
    data = as_data(*case("reconstruction"), noise())
    assert json.loads(json.dumps(data)) == data
    assert as_text(data, 20) == as_text(data, 60)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_changed(case, name, training):
    model, objective, passage = case(name)
    model.train(training)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    first = explain(model, objective, passage, noise(), 80)
    assert explain(model, objective, passage, noise(), 80) == first
    assert model.training is training and torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[key])
