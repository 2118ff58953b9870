"""Leaks that open only for certain ids, repeated tokens, lengths or numbers of rows are found."""

import re
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minicpt.cli.main import main
from minicpt.proofs.black_box import calling, endings
from minicpt.proofs.black_box.kinds import Draw, kinds
from minicpt.proofs.black_box.probing import special_ids
from minicpt.proofs.black_box.verdict import report, verify_model

V, D = 2003, 8  # so many tokens that a special one, or one twice in a row, does not come by chance
PAD, EOS, UNK = 150, 160, 170


class Model(nn.Module):
    """Causal but for ``leak(x, tokens)``: where it is open, what comes later is seen."""

    def __init__(self, leak=None, padding_idx=None, **config):
        super().__init__()
        self.config = types.SimpleNamespace(**config)
        self.tokens, self.head = nn.Embedding(V, D, padding_idx), nn.Linear(D, V)
        self.body = nn.GRU(D, D, batch_first=True)
        self.leak = leak or (lambda x, tokens: x)

    def forward(self, tokens):
        x = self.tokens(tokens)
        return self.head(self.leak(self.body(x)[0], tokens))


def model(leak=None, **more):
    torch.manual_seed(1)
    return Model(leak, **more)


def opened(gate):
    """Each position sees the mean over the row, where ``gate(tokens)`` is true: (), (B,) or (B, T).
    """

    def leak(x, tokens):
        gated = torch.as_tensor(gate(tokens))
        gated = gated.view(*gated.shape, *[1] * (2 - gated.dim()))[..., None]
        return x + gated * x.mean(1, keepdim=True)

    return leak


def later(found):
    """(B, T): whether something that was found (B, T) stands later in the row."""
    return F.pad(found.flip(1).cumsum(1).flip(1)[:, 1:], (0, 1)) > 0


def shown_later(found):
    """A discrete leak: what is told is only whether ``found(tokens)`` holds later."""
    return lambda x, tokens: x + later(found(tokens))[..., None]


def equal_later(tokens):
    same = tokens[:, :, None] == tokens[:, None]  # (B, T, T)
    return same.triu(1).any(-1)


def rows_alike(tokens):
    same = (tokens[:, None] == tokens[None]).all(-1)  # (B, B)
    return bool(same.sum() > len(tokens))


IDS = {"pad_token_id": PAD, "eos_token_id": [EOS, 161], "unk_token_id": UNK}
# name: leak, how the model is made, what the message must say
LEAKS = {
    "id 0 later": (shown_later(lambda t: t == 0), {}, "tried: id 0 "),
    "id 0 anywhere": (opened(lambda t: (t == 0).any()), {}, "tried: id 0 "),
    "id 0 in the row": (opened(lambda t: (t == 0).any(1)), {}, "tried: id 0 "),
    "the last id later": (shown_later(lambda t: t == V - 1), {}, "tried: id 2002 "),
    "the pad id later": (shown_later(lambda t: t == PAD), IDS, "id 150 (pad_token_id)"),
    "the pad id anywhere": (opened(lambda t: (t == PAD).any()), IDS, "id 150 (pad_token_id)"),
    "the first pad": (
        lambda x, t: x + (t == PAD).int().argmax(1)[:, None, None], IDS, "id 150 (pad_token_id)",
    ),
    "padding_idx": (opened(lambda t: (t == 99).any()), {"padding_idx": 99}, "id 99 (padding_idx)"),
    "the end id": (opened(lambda t: (t == EOS).any()), IDS, "id 160 (eos_token_id)"),
    "the other end id": (shown_later(lambda t: t == 161), IDS, "id 161 (eos_token_id)"),
    "the unknown id": (shown_later(lambda t: t == UNK), IDS, "id 170 (unk_token_id)"),
    "equal tokens": (lambda x, t: x + equal_later(t)[..., None], {}, ""),
    "a token twice anywhere": (opened(lambda t: equal_later(t).any()), {}, ""),
    "the same token next": (shown_later(lambda t: F.pad(t[:, 1:] == t[:, :-1], (1, 0))), {}, ""),
    "all tokens equal": (opened(lambda t: (t == t[:, :1]).all(1)), {}, ""),
    "more than 40 tokens": (opened(lambda t: t.shape[1] > 40), {}, "in rows of 63"),
    "100 tokens": (opened(lambda t: t.shape[1] >= 100), {}, "in rows of 127"),
    "65 tokens exactly": (opened(lambda t: t.shape[1] == 65), {}, "in rows of 65"),
    "16 tokens exactly": (opened(lambda t: t.shape[1] == 16), {}, "in rows of 16"),
    "1 row": (opened(lambda t: len(t) == 1), {}, "1 at a time"),
    "4 rows": (opened(lambda t: len(t) == 4), {}, "4 at a time"),
    "4 rows see each other": (lambda x, t: x + (len(t) == 4) * x.mean(0), {}, "in another row"),
    "5 rows": (opened(lambda t: len(t) == 5), {}, "5 at a time"),
    "rows that are alike": (opened(rows_alike), {}, "rows that are alike"),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_that_opens_for_some_rows_alone_is_found(name):
    leak, config, said = LEAKS[name]
    proofs = verify_model(model(leak, **config), None if "rows of" in said else (3, 9))
    wrong = [proof for proof in proofs[:4] if proof.passed is False]
    assert wrong, report(proofs, 100)
    message = wrong[0].message
    # A look at every pair may come upon it by chance; then no kind of rows is named.
    assert said in message or "tried:" not in message, message
    place = wrong[0].numbers["place"]
    if isinstance(place["from"], int):
        assert place["from"] > place["to"] or place["from row"] != place["to row"]


def masks_padding(x, tokens):
    """Nothing later is seen; where nothing but padding has come yet, there is no number at all."""
    real = (tokens != PAD)[..., None]
    return (x * real).cumsum(1) / real.cumsum(1)


def test_a_model_that_treats_ids_specially_and_rightly_passes():
    sound = {
        "masks padding": masks_padding,
        "remembers what it has read": lambda x, t: x + equal_later(t.flip(1)).flip(1)[..., None],
    }
    for name, leak in sound.items():
        proofs = verify_model(model(leak, **IDS), (5, 9), seconds=4)
        assert [proof.passed for proof in proofs] == [True] * 5, name + report(proofs, 100)
        assert proofs[1].worst == 0


# --- what was tried, and what was not --------------------------------------------------------


def test_the_report_says_what_was_tried_and_what_never(monkeypatch):
    monkeypatch.setattr(endings, "MOST", 40)
    monkeypatch.setattr(endings, "ROUNDS", 1)
    proofs = verify_model(model(**IDS), seconds=600)  # so that a busy machine has the time
    numbers = proofs[1].numbers
    assert numbers["lengths of the rows tried"] == [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33]
    assert numbers["rows of a batch tried"] == [1, 2, 3, 4, 5]
    assert "id 150 (pad_token_id)" in numbers["special ids tried"]
    for part in (
        "rows of more than 33 tokens", "batches of other than 1 to 5 rows",
        "other special ids than 0, 1, 2, 150, 160, 161, 170, 2002",
        "300 s were allowed in each mode",
    ):  # fmt: skip
        assert part in proofs[1].untried
    text = " ".join(report(proofs, 80).split())
    assert text.endswith(f"Not tried: {proofs[1].untried}.")


def test_the_models_limit_is_found_and_tried(monkeypatch):
    class Short(Model):
        def forward(self, tokens):
            if tokens.shape[1] > 20:
                raise IndexError("too long")
            return super().forward(tokens)

    monkeypatch.setattr(endings, "ROUNDS", 1)
    proof = verify_model(Short(), seconds=5)[1]
    assert proof.numbers["lengths of the rows tried"] == [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20]
    assert "rows of 21 tokens and more (IndexError: too long)" in proof.untried


def test_when_the_time_is_over_the_rest_is_named(monkeypatch):
    now = [0.0]

    def clock():  # each look at it takes a second
        now[0] += 1
        return now[0]

    monkeypatch.setattr(endings.time, "perf_counter", clock)
    proof = verify_model(model(), (3, 5, 9, 17), seconds=100)[1]
    assert proof.passed and proof.numbers["lengths of the rows tried"] == [3, 5, 9, 17]
    assert 10 < proof.numbers["pairs of batches tried"] < 20
    assert "some kinds of rows of 3, 5, 9, 17 tokens, for lack of time" in proof.untried
    proof = verify_model(model(), (3, 5, 9, 17), seconds=20)[1]
    assert "; rows of 5, 9 tokens, for lack of time" in proof.untried


def test_lengths_and_rows_can_be_chosen():
    proof = verify_model(model(), (5, 9), (1, 4))[1]
    assert proof.numbers["lengths of the rows tried"] == [5, 9]
    assert proof.numbers["rows of a batch tried"] == [1, 4]
    assert "other lengths; batches of other than 1, 4 rows" in proof.untried
    four = opened(lambda t: len(t) == 4)
    assert all(proof.passed for proof in verify_model(model(four), (5, 9), (1, 3)))
    assert verify_model(model(four), 9, 4)[1].passed is False


def test_rows_too_long_for_every_pair_are_tried_by_changes_alone():
    proofs = verify_model(model(), (130,), (2,))
    assert [proof.passed for proof in proofs] == [None, True, None, True, True]
    assert "longer than 128 tokens" in proofs[0].message
    leak = opened(lambda t: t.shape[1] == 130)
    assert verify_model(model(leak), (130,), (2,))[1].passed is False


def test_refused_rows_are_named():
    class Even(Model):
        def forward(self, tokens):
            assert len(tokens) % 2 or len(tokens) == 4
            return super().forward(tokens)

    proof = verify_model(Even(), (5,))[1]
    assert proof.numbers["rows of a batch tried"] == [1, 3, 4, 5]
    assert "batches of 2 rows, which the model refuses" in proof.untried


def test_special_ids_of_modules_and_of_configurations_of_any_kind():
    inner = model(padding_idx=9)
    inner.config = {"bos_token_id": 3, "eos_token_id": (4, 5), "width": 6, "pad_token_id": None}
    inner.pad_id, inner.mask_token = 7, 8
    box = calling.BlackBox(lambda tokens: inner(tokens))
    found = special_ids(box, V)
    assert sorted(found) == [0, 1, 2, 3, 4, 5, 7, 8, 9, 2002]
    assert found[9] == "id 9 (padding_idx)" and found[7] == "id 7 (pad_id)"


def test_each_kind_changes_what_comes_after_alone():
    """The two batches of a kind are alike up to the first change of a row, and do differ."""
    for seed in range(4):
        for kind in kinds([1, 3], {0: "id 0", 7: "id 7"}):
            for length in (2, 9):
                random = torch.Generator().manual_seed(seed)
                draw = Draw(torch.arange(10, 30), kind.rows, length, random)
                tokens, other = kind.pair(draw)
                assert tokens.shape == other.shape == (kind.rows, length), kind.name
                assert tokens.dtype == other.dtype == torch.int64
                if "row" not in kind.name:
                    assert torch.equal(tokens[:, 0], other[:, 0]), kind.name
                if match := re.match(r"id (\d+)", kind.name):
                    assert (other == int(match[1])).any()
    ordinary = next(kinds([2], {}))
    draws = [Draw(torch.arange(9), 2, 7, torch.Generator().manual_seed(i)) for i in range(60)]
    assert {draw.cut for draw in draws} == set(range(1, 7))
    assert any(not torch.equal(*ordinary.pair(draw)) for draw in draws)


# --- the command -----------------------------------------------------------------------------


def test_the_flags_of_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "four_rows.py").write_text(
        "import torch\n"
        "class Model(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.table = torch.nn.Embedding(50, 50)\n"
        "    def forward(self, tokens):\n"
        "        x = self.table(tokens)\n"
        "        return x.cumsum(1) + (len(tokens) == 4) * x.mean(1, keepdim=True)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    words = ["verify", "--model", "four_rows:Model", "--lengths", "5", "9", "--seconds", "5"]
    assert main([*words, "--rows", "2", "3"]) == 0
    out = capsys.readouterr().out
    assert "5 of 5 proofs hold." in out
    assert "Not tried: other lengths; batches of other than 2, 3 rows" in out
    assert "2.5 s" in out and max(map(len, out.splitlines())) <= 80
    assert main([*words, "--rows", "4"]) == 1
    assert "leak from position" in " ".join(capsys.readouterr().out.split())
    for more, said in {
        ("--rows", "0"): "'0' is not a whole number of at least 1",
        ("--lengths", "x"): "'x' is not a whole number",
        ("--seconds", "nan"): "'nan' is not a number above 0",
    }.items():
        assert main(["verify", "--model", "four_rows:Model", *more]) == 2
        assert said in capsys.readouterr().err
    assert main(["verify", "causal-lm", "--rows", "2"]) == 2
    assert "--rows belongs to --model" in capsys.readouterr().err
