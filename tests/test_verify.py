"""The proofs hold on the sound pieces, and every fault is caught by one of them."""

import dataclasses
import json
import math

import pytest
import torch

from minicpt import discovery, models
from minicpt.cli import pieces
from minicpt.cli.main import main
from minicpt.verify import suite
from minicpt.verify.chance import chance
from minicpt.verify.faults import FAULTS
from minicpt.verify.floors import STATES, chain, entropy, floors
from minicpt.verify.partition import partition
from minicpt.verify.rules import RULES
from minicpt.verify.teacher_forcing import teacher_forcing

SUBJECTS = {
    each.name: each
    for each in suite.subjects(pieces.objective_modules(), discovery.modules(models))
}
KNOWN_MISTAKES = set(range(1, 17)) - {10} | {24}  # 10 and 17 to 23 belong to what is not here


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_proof_holds_on_the_sound_pieces(name):
    subject = SUBJECTS[name]
    weights = [parameter.detach().clone() for parameter in subject.model.parameters()]
    random = torch.get_rng_state()
    found = list(suite.prove(subject))
    assert len(found) >= 3
    assert [proof.name for proof in found if not proof.passed] == []
    for proof in found:
        assert proof.compared and proof.why and proof.not_covered
        json.dumps(proof.as_data())
    assert torch.equal(random, torch.get_rng_state())
    for before, after in zip(weights, subject.model.parameters(), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_caught(name):
    fault = FAULTS[name]
    caught = suite.catch(fault, SUBJECTS[fault.subject])
    assert caught and all(proof.message for proof in caught)


def test_every_known_mistake_has_a_fault():
    assert {fault.number for fault in FAULTS.values()} == KNOWN_MISTAKES


def test_every_objective_has_a_rule_of_its_own():
    assert set(RULES) == set(pieces.objective_modules())


LEAKS = ["no-mask", "mask-off-by-one", "no-decoder-mask", "packed-together", "bidirectional"]


@pytest.mark.parametrize("name", LEAKS)
def test_leaks_are_caught_by_causality_too_with_the_pair(name):
    fault = FAULTS[name]
    proofs = suite.causality(fault.make(SUBJECTS[fault.subject]))
    failed = [proof for proof in proofs if proof.passed is False]
    assert failed and all("leak from position" in proof.message for proof in failed)


@pytest.mark.parametrize("name", ["no-mask", "mask-off-by-one", "bidirectional"])
def test_a_model_that_can_see_its_targets_falls_below_the_floor(name):
    proof = floors(FAULTS[name].make(SUBJECTS["causal-lm"]))
    assert not proof.passed and "below the floor" in proof.message
    assert proof.numbers["Markov chain: loss"] < 0.5 * proof.numbers["Markov chain: floor"]


@pytest.mark.parametrize("name", ["white-space-tells", "openings-are-wrong"])
def test_only_text_without_order_shows_how_the_cutting_tells_the_class(name):
    mistaken = FAULTS[name].make(SUBJECTS[FAULTS[name].subject])
    assert all(proof.passed for proof in suite.prove(mistaken, suite.QUICK))
    proof = chance(mistaken)
    assert not proof.passed and "tells its class" in proof.message
    assert proof.numbers["pair: floor"] == pytest.approx(math.log(2))
    assert proof.numbers["pair: loss"] < 0.65


def test_chance_asks_every_objective_whether_it_judges_texts():
    """One target a row, and classes that are no tokens: whatever the objective is called."""
    asked = {name for name, subject in SUBJECTS.items() if chance in suite.proofs(subject)}
    assert asked == {"next-sentence", "next-sentence with masked-lm", suite.ORDER}
    proof = chance(SUBJECTS["masked-lm"])
    assert proof.passed is None and "does not apply" in proof.message


def test_the_floor_of_a_chain_is_its_entropy():
    """Against the entropy rate computed from the chain's own two-step frequencies."""
    matrix = chain()
    assert torch.allclose(matrix.sum(dim=1), torch.ones(STATES).double())
    stationary = torch.linalg.eig(matrix.T)
    place = (stationary.eigenvalues.real - 1).abs().argmin()
    weights = stationary.eigenvectors[:, place].real
    weights = weights / weights.sum()
    rows = [-(row * row.log()).sum() for row in matrix]
    expected = sum(float(w) * float(h) for w, h in zip(weights, rows, strict=True))
    assert entropy(matrix) == pytest.approx(expected, abs=1e-9)
    assert entropy(matrix) < math.log(STATES)


def test_a_mean_of_means_is_shown_to_be_wrong():
    assert partition(SUBJECTS["masked-lm"]).numbers[
        "what a mean of means would be off by, in nats"
    ] > 1e-3


def test_the_proofs_see_several_texts_in_a_row():
    subject = SUBJECTS[suite.PACKED]
    rows = subject.passages(10**6)
    assert sum(len(row.passages) > 1 for row in rows) > 0.9 * len(rows) > 5


def test_without_teacher_forcing_one_pass_is_not_enough():
    """By hand: greedy steps of the same model, each run on all that it has read so far."""
    subject = SUBJECTS["causal-lm"]
    proof = teacher_forcing(subject)
    assert proof.passed
    model, batch = subject.copy_of_model(), subject.batch(subject.passages(1))
    tokens, targets = batch.inputs["tokens"], batch.targets["tokens"][0]
    read, losses = tokens[:, :1], []
    for place in range(3):
        hidden = model(tokens=read)[0, -1]
        likely = model.heads["tokens"](hidden[None])[0].log_softmax(dim=0)
        losses.append(-float(likely[targets[place]].detach()))
        read = torch.cat([read, likely.argmax().view(1, 1)], dim=1)
    shown = [float(each) for each in proof.numbers["steps on its own predictions"].split()[:3]]
    assert shown == pytest.approx(losses, abs=6e-4)
    # A model that does not listen to what it reads has nothing to demonstrate.
    deaf = subject.copy_of_model()
    torch.nn.init.zeros_(deaf.tokens.weight)
    assert not teacher_forcing(dataclasses.replace(subject, model=deaf)).passed


# --- the command


def test_verify_one_objective_teaches(capsys):
    assert main(["verify", "masked-lm"]) == 0
    text = capsys.readouterr().out
    for part in ("equivalence", "why", "not covered", "tolerance", "Proved ("):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100


def test_break_shows_what_catches_a_fault(capsys):
    assert main(["verify", "--break", "shift-twice"]) == 0
    text = capsys.readouterr().out
    assert "batch rules: a target is not the next token" in text
    assert "1 of 1 faults caught; 0 false alarms" in text


def test_a_missed_fault_is_status_1(capsys, monkeypatch):
    monkeypatch.setattr(suite, "catch", lambda fault, sound: [])
    assert main(["verify", "--break", "no-mask"]) == 1
    assert "MISSED" in capsys.readouterr().out


def test_a_model_of_which_nothing_could_be_proved_is_status_1(capsys, tmp_path, monkeypatch):
    (tmp_path / "brittle.py").write_text(
        "import torch\n"
        "class Model(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.table, self.calls = torch.nn.Embedding(9, 9), 0\n"
        "    def forward(self, tokens):\n"
        "        Model.calls = getattr(Model, 'calls', 0) + 1\n"
        "        if Model.calls > 9: raise RuntimeError('worn out')\n"
        "        return self.table(tokens)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "--model", "brittle:Model"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_failed_proof_is_status_1(capsys, monkeypatch):
    mistaken = FAULTS["no-mask"].make(SUBJECTS["causal-lm"])
    monkeypatch.setattr(suite, "subjects", lambda *_: [mistaken])
    assert main(["verify", "causal-lm", "--json"]) == 1
    proofs = json.loads(capsys.readouterr().out)["causal-lm"]
    assert not all(proof["passed"] for proof in proofs)


@pytest.mark.parametrize(
    "words, expected",
    [
        (["verify", "sing"], "no objective is called 'sing'"),
        (["verify", "--break", "everything"], "no fault is called"),
        (["verify", "--model", "m:f", "--break", "all"], "verified alone"),
        (["verify", "masked-lm", "--break", "no-mask"], "belongs to causal-lm"),
        (["verify", "--break", ""], "no fault is called"),
        (["verify", "--model", ""], "--model"),
    ],
)
def test_refused_in_one_line(words, expected, capsys):
    assert main(words) == 2
    assert expected in capsys.readouterr().err
