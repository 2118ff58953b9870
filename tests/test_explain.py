"""The report of ``explain``: its numbers, its pictures, and that it fits the terminal."""

import copy
import json
import re
import unicodedata
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from making import close

from minicpt.batch import IGNORE
from minicpt.common.randomness import generator
from minicpt.common.terminal import draw, words
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.order import Draw
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import losses_of_head, per_token_losses, target_losses
from minicpt.models.bert import BERT
from minicpt.models.gpt2 import GPT2
from minicpt.models.layers import causal_mask_of
from minicpt.models.t5 import T5
from minicpt.objectives import causal_lm, masked_lm, next_sentence, reconstruction
from minicpt.pictures import characters
from minicpt.pictures.passage import as_data
from minicpt.pictures.text import as_text
from minicpt.proofs.bounds import nats
from minicpt.runs.assembly import new_model

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


KINDS = {"encoder": BERT, "decoder": GPT2, "encoder-decoder": T5}


def build(kind, objective):
    """A tiny model whose weights are large enough to tell one token from another."""
    torch.manual_seed(7)
    model = new_model(kind, objective, {"width": 16, "layers": 2, "num_heads": 2})
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.fixture(scope="module")
def case(tokenizer, corpus):
    """name -> (model, objective, the plan's longest passage)"""
    objectives = {
        "causal": causal_lm.CausalLM(tokenizer, causal_lm.Settings(window=12)),
        "masked": masked_lm.MaskedLM(tokenizer, masked_lm.Settings(window=24, rate=0.3)),
        "pair": next_sentence.NextSentence(tokenizer, next_sentence.Settings(window=24)),
        "pair and tokens": next_sentence.NextSentence(
            tokenizer, next_sentence.Settings(window=24, rate=0.3, masked=True)
        ),
        "reconstruction": reconstruction.Reconstruction(tokenizer),
    }
    models = {name: build(KINDS[each.role], each) for name, each in objectives.items()}
    plans = {name: objective.plan(corpus, 0, 0) for name, objective in objectives.items()}
    return lambda name: (
        models[name],
        objectives[name],
        plans[name][int(plans[name].lengths.argmax())],
    )


def noise():
    return Draw(0, generator("evaluation", 0, 0))


def explain(model, objective, passage, draw, columns, ascii=False, **options) -> str:
    return as_text(as_data(model, objective, passage, draw, **options), columns, ascii=ascii)


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


def part(row: str) -> bool:
    """Whether a row shows a part of a character, of which there are tests below."""
    return re.search(r"\w \d(-\d)?/[234]", row) is not None


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
        assert objective.tokenizer.token(read[place]) in row or part(row)
        for head, each in losses.items():
            for position, chosen, loss in zip(
                each.positions.tolist(), each.targets.tolist(), each.losses.tolist(), strict=True
            ):
                if position != place:
                    continue
                count += 1
                if head == "tokens":
                    shown = objective.tokenizer.token(chosen)
                else:
                    shown = ("follows", "does not follow")[chosen]
                assert shown in row or part(row)
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
    assert " follow" in rows[0] and not any(" follow" in row for row in rows[1:])


ANSWERS = [
    (False, 0, "follows"),
    (False, 1, "does not follow"),
    (True, 0, "in order"),
    (True, 1, "swapped"),
]


@pytest.mark.parametrize("order, label, expected", ANSWERS)
@pytest.mark.parametrize("columns", [60, 120])
def test_the_answer_to_a_pair_is_said_in_words(order, label, expected, columns, tokenizer):
    """Held against the text itself: whether the second side is what stands behind the first."""
    texts = ["One ran. Two sat. Three ate. Four lay. Five hid.", "Six won. Seven lost. Eight left."]
    corpus = Corpus.build([Document(text[:3], text) for text in texts], tokenizer)
    objective = next_sentence.NextSentence(tokenizer, next_sentence.Settings(order=order))
    model = build(BERT, objective)
    pairs = [pair for epoch in range(8) for pair in objective.plan(corpus, 0, epoch)[:]]
    found = [pair for pair in pairs if pair.label == label]
    assert found
    for pair in found:
        batch = objective.batch([pair], [noise()])
        sides = [batch.inputs["tokens"][batch.inputs["segments"] == side] for side in (0, 1)]
        first, second = (tokenizer.decode(side.tolist()).strip() for side in sides)
        follows = any(f"{first} {second}" in text for text in texts)
        assert follows == (expected in ("follows", "in order"))
        data = as_data(model, objective, pair, noise())
        (target,) = data["heads"]["pair"]["targets"]
        assert (target["class"], target["name"]) == (label, expected)
        _, rows = table(as_text(data, columns), 0)
        assert f" {expected} " in rows[0]


def test_each_chosen_token_is_marked_as_hidden_replaced_or_kept(tokenizer, corpus):
    """Held against the text, which the batch corrupts; each fate, with and without pairs."""
    pair = {"masked": True, "mask": 0.4, "random": 0.3, "rate": 0.9}
    objectives = (
        masked_lm.MaskedLM(tokenizer, masked_lm.Settings(mask=0.4, random=0.3, rate=0.9)),
        next_sentence.NextSentence(tokenizer, next_sentence.Settings(**pair)),
    )
    for objective in objectives:
        model = build(BERT, objective)
        passage = objective.plan(corpus, 0, 0)[0]
        batch = objective.batch([passage], [noise()])
        read, target = batch.inputs["tokens"][0].tolist(), batch.targets["tokens"][0].tolist()
        expected = {
            place: "hidden" if read[place] == 4 else "kept" if read[place] == was else "replaced"
            for place, was in enumerate(target)
            if was != IGNORE
        }
        assert set(expected.values()) == {"hidden", "replaced", "kept"}
        data = as_data(model, objective, passage, noise())
        found = {each["position"]: each["fate"] for each in data["heads"]["tokens"]["targets"]}
        assert found == expected
        for columns in (60, 120):
            text = as_text(data, columns)
            heading, rows = table(text, 0)
            assert "chosen" in heading.split()
            for place, row in enumerate(rows):
                fates = [fate for fate in ("hidden", "replaced", "kept") if f" {fate}" in row]
                assert fates == ([expected[place]] if place in expected else [])
                if columns == 120 and expected.get(place) == "replaced":
                    assert f"replaced by {tokenizer.token(read[place])}" in row.replace("◌", "")
            said = " ".join(text.split())
            for fate in ("hidden", "replaced", "kept"):
                assert f"{list(expected.values()).count(fate)} {fate} " in said
            assert "Where the target is blank, nothing is predicted and nothing counts." in said


def test_blank_targets_are_explained_only_where_there_are_any(case):
    for name in CASES:
        text = " ".join(explain(*case(name), noise(), 80).split())
        assert ("target is blank" in text) == (name not in ("causal", "reconstruction"))


# A character, the tokens that hold its bytes, and what each of them shows.
PARTS = [
    ("aé!", [1, 1, 1, 1], ["a", "é 1/2", "é 2/2", "!"]),
    ("猫", [1, 2], ["猫 1/3", "猫 2-3/3"]),
    ("猫犬", [2, 2, 2], ["猫 1-2/3", "猫 3/3 犬 1/3", "犬 2-3/3"]),
    ("x 🙂y", [3, 3, 1], ["x␣ 🙂 1/4", "🙂 2-4/4", "y"]),
    ("a猫b", [2, 3], ["a 猫 1/3", "猫 2-3/3 b"]),
    ("éé", [4], ["éé"]),
]


@pytest.mark.parametrize("text, sizes, expected", PARTS, ids=[each[0] for each in PARTS])
def test_a_part_of_a_character_is_shown_with_the_character(text, sizes, expected):
    """Pieces of the sizes given, by a tokenizer that only knows their bytes."""
    data, pieces = text.encode(), []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]

    class Bytes:
        def data(self, index):
            return pieces[index]

        def token(self, index):
            return pieces[index].decode("utf-8", "backslashreplace").replace(" ", "␣")

    assert characters.tokens(Bytes(), range(len(pieces))) == expected


def test_bytes_that_are_no_character_stay_escaped(byte_tokenizer):
    """A character that is cut off, and one whose middle is hidden by a special token."""
    a, b, c = byte_tokenizer.encode("猫")
    assert characters.tokens(byte_tokenizer, [b, c, a]) == ["\\x8c", "\\xab", "\\xe7"]
    assert characters.tokens(byte_tokenizer, [a, 4, c]) == ["\\xe7", "[MASK]", "\\xab"]


@pytest.mark.parametrize("name", ["causal", "masked", "pair", "reconstruction"])
def test_every_table_shows_characters(name, byte_tokenizer):
    """Read and predicted; of a character that is partly hidden the rest is known all the same."""
    objective = {
        "causal": causal_lm.CausalLM(byte_tokenizer),
        "masked": masked_lm.MaskedLM(
            byte_tokenizer, masked_lm.Settings(rate=0.5, mask=1.0, random=0.0)
        ),
        "pair": next_sentence.NextSentence(byte_tokenizer, next_sentence.Settings(order=True)),
        "reconstruction": reconstruction.Reconstruction(byte_tokenizer),
    }[name]
    model = build(KINDS[objective.role], objective)
    corpus = Corpus.build([Document("a", "猫 sat. 犬 ran.")], byte_tokenizer)
    data = as_data(model, objective, objective.plan(corpus, 0, 0)[0], noise())
    shown = [each["token"] for stream in data["streams"].values() for each in stream["positions"]]
    shown += [each.get("token", "") for head in data["heads"].values() for each in head["targets"]]
    parts = {each for each in shown if "猫" in each or "犬" in each}
    assert {each[1:] for each in parts} == {" 1/3", " 2/3", " 3/3"}
    assert not any("\\x" in each for each in shown)
    text = " ".join(as_text(data, 80).split())
    assert "x 1/3 the first of the three bytes of a character" in text


def test_which_window_it_is_of_how_many(case):
    data = as_data(*case("causal"), noise(), number=(2, 5))
    assert (data["unit"], data["number"], data["of"]) == ("window", 2, 5)
    assert "\nWindow 2 of 5: " in as_text(data, 80)
    assert explain(*case("pair"), noise(), 80, number=(1, 3)).count("Pair 1 of 3: ") == 1
    alone = as_data(*case("reconstruction"), noise())
    assert alone["of"] is None and "Sentence: " in as_text(alone, 80)


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
    objective = causal_lm.CausalLM(tokenizer, causal_lm.Settings(window=100))
    model = build(GPT2, objective)
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


@pytest.mark.parametrize("name", ["causal", "reconstruction"])
def test_the_last_loss_of_each_prefix_is_the_per_token_loss(case, name):
    """Where they come from: the batch cut down to what one target may see.

    Both are float64 sums over inputs of other shapes, so the last digits may differ.
    """
    model, objective, passage = case(name)
    runs = as_data(model, objective, passage, noise())["triangle"]
    double = copy.deepcopy(model).double().eval()
    batch = objective.batch([passage], [noise()])
    with torch.no_grad():
        alone = per_token_losses(
            lambda cut: target_losses(double, cut), batch, objective.visibility(batch)
        )["tokens"]
    assert [row[-1] for row in runs["alone"]] == pytest.approx(alone[:12].tolist(), rel=1e-12)


class Weighted(causal_lm.CausalLM):
    """Every second target counts twice, the others nothing; the head counts half."""

    head_weights = {"tokens": 0.5}

    def batch(self, passages, draws):
        batch = super().batch(passages, draws)
        weights = torch.zeros(batch.targets["tokens"].shape)
        weights[:, ::2] = 2.0
        return replace(batch, weights={"tokens": weights})


def test_weights_of_targets_are_shown_and_counted(case, tokenizer):
    model, _, passage = case("causal")
    objective = Weighted(tokenizer, causal_lm.Settings(window=12))
    data = as_data(model, objective, passage, noise())
    head, plain = data["heads"]["tokens"], as_data(*case("causal"), noise())["heads"]["tokens"]
    assert [each["position"] for each in head["targets"]] == list(range(0, plain["count"], 2))
    assert {each["weight"] for each in head["targets"]} == {2.0} and head["head_weight"] == 0.5
    assert head["count"] == plain["count"]  # a target of weight 0 counts
    assert head["sum"] == pytest.approx(2 * sum(e["loss"] for e in plain["targets"][::2]), rel=1e-5)
    runs = data["triangle"]
    assert runs["positions"] == [each["position"] for each in head["targets"]][:12]
    assert max(runs["differences"]) <= runs["tolerance"]
    assert "without its weight" in " ".join(as_text(data, 80).split())


class Parted(causal_lm.CausalLM):
    """A part that learns beside the model: a layer of its own before the head."""

    def parts(self, model):
        torch.manual_seed(3)
        return torch.nn.ModuleDict({"layer": model.block()})

    def losses(self, model, parts, batch, fused=True):
        mask = causal_mask_of(batch.inputs["tokens"], batch.inputs["mask"])
        hidden = parts["layer"](model(**batch.inputs), mask)
        return {"tokens": losses_of_head("tokens", hidden, model.heads["tokens"], batch, fused)}


def test_parts_that_learn_beside_the_model_are_used(case, tokenizer):
    model, _, passage = case("causal")
    objective = Parted(tokenizer, causal_lm.Settings(window=12))
    parts = objective.parts(model)
    data = as_data(model, objective, passage, noise(), parts=parts)
    with torch.no_grad():
        batch = objective.batch([passage], [noise()])
        expected = objective.losses(model.eval(), parts.eval(), batch)["tokens"].losses
        plain = target_losses(model, batch)["tokens"].losses
    assert [each["loss"] for each in data["heads"]["tokens"]["targets"]] == expected.tolist()
    assert not torch.allclose(expected, plain)
    runs = data["triangle"]
    assert max(runs["differences"]) <= runs["tolerance"]
    assert {each.dtype for each in parts.parameters()} == {torch.float32}


class Leaky(GPT2):
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
    objective = causal_lm.CausalLM(tokenizer, causal_lm.Settings(window=100))
    model = build(GPT2, objective)
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
    objective = masked_lm.MaskedLM(tokenizer, settings)
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
