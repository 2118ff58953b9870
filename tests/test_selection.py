"""Selection by a reference: by hand, with weights, in micro-batches, in runs; what is refused."""

import dataclasses
import json
import shutil

import pytest
import torch
from making import batches_of, close, model_of, objective_of
from torch.nn import ModuleDict

from minicpt import checkpoint
from minicpt.batch import IGNORE, Batch
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.loss import TargetLosses
from minicpt.proofs import faults, suite
from minicpt.proofs.subject import subject
from minicpt.runs.assembly import model_kind, objective_kind
from minicpt.training.preparing import Preparing, Selecting, Selection, largest, selected
from minicpt.training.trainer import Learner, Trainer, Training, train_step


def row_of(losses, target, weights=None):
    """The ``TargetLosses`` of the targets of weight above 0 in one row (1, T)."""
    asked = target != IGNORE
    counted = asked if weights is None else asked & (weights > 0)
    rows, positions = counted.nonzero(as_tuple=True)
    values = torch.tensor(losses)
    empty = torch.empty(len(values), 0)
    factors = torch.ones_like(values) if weights is None else weights[counted]
    return TargetLosses(
        values, target[counted], rows, positions, factors, int(asked.sum()), empty, {}
    )


# --- which targets stay


def test_the_case_of_the_paper():
    """Excess .1 .9 -.2 .5, of which half stay: 0 1 0 1."""
    target = torch.tensor([[7, 8, 9, 6]])
    own, other = row_of([1.1, 2.9, 0.8, 1.0], target), row_of([1.0, 2.0, 1.0, 0.5], target)
    assert selected(target, own, other, 0.5).int().tolist() == [[0, 1, 0, 1]]


def test_positions_without_a_target_are_never_selected():
    target = torch.tensor([[IGNORE, 8, IGNORE, 6, 5, IGNORE]])
    own, other = row_of([1.0, 0.0, 2.0], target), row_of([5.0, 5.0, 5.0], target)
    assert selected(target, own, other, 0.5).int().tolist() == [[0, 1, 0, 0, 1, 0]]
    assert selected(target, own, other, 1.0).tolist() == (target != IGNORE).tolist()


def test_of_targets_of_weight_zero_the_same_share_stays():
    """Four with a loss and four without: of each kind two, so the count is halved as the sum is."""
    target = torch.arange(8)[None]
    weights = torch.tensor([[0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0, 0.0]])
    own = row_of([1.0, 2.0, 3.0, 4.0], target, weights)
    other = row_of([0.9, 1.1, 3.2, 3.5], target, weights)  # excess .1 .9 -.2 .5
    kept = selected(target, own, other, 0.5)
    assert kept.int().tolist() == [[1, 0, 1, 1, 0, 0, 1, 0]]


@pytest.mark.parametrize(
    "share, count, kept", [(0.5, 1, 1), (0.01, 9, 1), (0.7, 10, 7), (0.3, 10, 3), (0.6, 3, 2)]
)
def test_the_share_is_rounded_and_at_least_one_target_stays(share, count, kept):
    among = torch.ones(1, count, dtype=torch.bool)
    values = torch.arange(float(count))[None]
    found = largest(values, among, share, least=1)
    assert found.sum() == kept and found[0, -kept:].all()
    assert not largest(values, torch.zeros_like(among), share, least=1).any()


def test_equal_excess_leaves_the_first():
    among = torch.tensor([[False, True, True, True, True]])
    assert largest(torch.zeros(1, 5), among, 0.5, least=1).int().tolist() == [[0, 1, 1, 0, 0]]


# --- a batch, a step, a trainer


@pytest.fixture
def pieces(tokenizer, corpus):
    """An objective, its model with dropout, a selection of half by another model, a batch."""
    objective = objective_of("masked-lm", tokenizer, window=24, rate=0.5)
    model = model_of(objective, dropout=0.5)
    reference = model_of(objective, seed=1).eval().requires_grad_(False)
    select = Selection(0.5, objective, reference, ModuleDict())
    (batch,) = batches_of(objective, corpus, 6)
    return objective, model, select, batch


def test_both_models_read_without_dropout_and_nothing_is_drawn(pieces):
    objective, model, select, batch = pieces
    model.train()
    random, before = torch.get_rng_state(), batch.targets["tokens"].clone()
    one, other = (select(model, ModuleDict(), batch) for _ in range(2))
    assert torch.equal(one.targets["tokens"], other.targets["tokens"])
    assert torch.equal(random, torch.get_rng_state()) and model.training
    assert torch.equal(batch.targets["tokens"], before)  # the batch itself stays
    assert one.inputs is batch.inputs
    kept = one.targets["tokens"] != IGNORE
    assert torch.equal(one.targets["tokens"][kept], before[kept])
    counts = (before != IGNORE).sum(dim=1)
    assert kept.sum(dim=1).tolist() == [max(1, round(0.5 * count)) for count in counts.tolist()]


def test_what_stays_is_what_the_reference_finds_easier(pieces):
    """Held against plain logits of both models, one target after the other."""
    objective, model, select, batch = pieces
    kept = select(model, ModuleDict(), batch).targets["tokens"] != IGNORE
    model.eval().requires_grad_(False)
    for row, target in enumerate(batch.targets["tokens"]):
        places = (target != IGNORE).nonzero()[:, 0].tolist()
        excess = {}
        for place in places:
            token = target[place]
            alone = [
                -each.heads["tokens"](each(**batch.inputs)[row, place]).log_softmax(0)[token]
                for each in (model, select.reference)
            ]
            excess[place] = float(alone[0] - alone[1])
        best = sorted(places, key=lambda place: -excess[place])[: max(1, round(len(places) / 2))]
        assert sorted(best) == kept[row].nonzero()[:, 0].tolist()


def test_only_what_stays_is_counted_and_learnt(pieces):
    """A step on the selected batch is a step on a batch that never had the other targets."""
    objective, model, select, batch = pieces
    model.eval()
    thin = select(model, ModuleDict(), batch)
    asked = thin.targets["tokens"] != IGNORE
    learner = Learner(model, objective).eval()
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.0)
    (loss,) = train_step(learner, optimizer, [thin])[""].values()
    found = [each.grad.clone() for each in learner.parameters() if each.grad is not None]
    assert loss.count == int(asked.sum()) < batch.counts()["tokens"]
    logits = model.heads["tokens"](model(**batch.inputs)[asked])
    mean = torch.nn.functional.cross_entropy(logits, batch.targets["tokens"][asked])
    close(loss.mean, mean, model, batch)
    used = [each for each in learner.parameters() if each.grad is not None]
    expected = torch.autograd.grad(mean, used)
    size = max(float(each.abs().max()) for each in expected)
    for mine, other in zip(found, expected, strict=True):
        close(mine, other, model, batch, size=size)


def test_micro_batches_select_as_the_whole_step_does(pieces, corpus):
    objective, _, select, batch = pieces
    select = dataclasses.replace(select, reference=model_of(objective, seed=1).double())
    ends = []
    for micro in (0, 2, 3):
        settings, kept = Training(batch_size=6, micro_batch_size=micro), []

        def prepare(model, parts, batch, kept=kept):
            thin = Preparing(selection=select)(model, parts, batch)
            kept += [row[row != IGNORE].tolist() for row in thin.targets["tokens"]]
            return thin

        model = model_of(objective).double()
        step = Trainer(model, objective, corpus, settings, 1, prepare=prepare).advance()
        ends.append((kept, step.losses["tokens"]))
    for kept, loss in ends[1:]:
        assert kept == ends[0][0] and loss.count == ends[0][1].count == sum(map(len, kept))
        close(loss.sum, ends[0][1].sum, model, batch)


def test_a_head_without_targets_selects_nothing(pieces):
    objective, model, select, batch = pieces
    empty = torch.full_like(batch.targets["tokens"], IGNORE)
    thin = select(model, ModuleDict(), Batch(batch.inputs, {"tokens": empty}))
    assert torch.equal(thin.targets["tokens"], empty)


@pytest.mark.parametrize("name", ["dropped-targets-count", "selected-across-passages"])
def test_the_proof_of_selection_catches(name):
    fault = faults.known()[name]
    kind = objective_kind(fault.objective)
    sound = subject(fault.subject, fault.objective, kind, model_kind("", kind))
    assert "selection" in [proof.name for proof in suite.catch(fault, sound)]


# --- the command line

SMALL = "--width 16 --layers 1 --num-heads 2 --vocab-size 300 --window 32".split()
FEW = ["--batch-size", "4", "--evaluate-passages", "4"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(f"On day {number} the cat saw boats." for number in range(100)))
    return path


@pytest.fixture(scope="module")
def reference(text, tmp_path_factory):
    out = tmp_path_factory.mktemp("reference") / "run"
    assert main(words(text, out, "--steps", "6", "--seed", "3")) == 0
    return out


def words(text, out, *more, name="causal-lm"):
    given = ["train", name, "--corpus", str(text), "--out", str(out), "--steps", "4"]
    return [*given, "--save-every", "2", *SMALL, *FEW, *more]


def selecting(reference, share="0.5"):
    return ["--select", share, "--reference", str(reference)]


def weights_of(folder):
    return (checkpoint.find(folder)[0] / "pytorch_model.bin").read_bytes()


def refused(given, capsys):
    """The one line of a refused command, which must have status 2."""
    capsys.readouterr()
    assert main(given) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error: " in each]
    return line


def test_a_run_selects_and_resumes_bitwise(text, reference, tmp_path, capsys):
    out, half = tmp_path / "run", tmp_path / "half"
    assert main(words(text, out, *selecting(reference), "--micro-batch-size", "3")) == 0
    folder = checkpoint.find(reference)[0].resolve()
    assert "targets   0.5 of each passage's" in (told := capsys.readouterr().out)
    assert f"that of {folder}" in told
    record = checkpoint.load(out).record
    assert record["config"]["selecting"] == {"select": 0.5, "reference": str(folder)}
    assert record["reference"]["folder"] == str(folder)
    assert len(record["reference"]["sha256"]) == 64
    half.mkdir()
    shutil.copytree(out / "step-00000002", half / "step-00000002")
    assert main(["resume", str(half)]) == 0
    assert weights_of(half) == weights_of(out)
    plain = tmp_path / "plain"
    assert main(words(text, plain)) == 0
    assert weights_of(plain) != weights_of(out)


def test_all_targets_are_those_of_a_run_without_selection(text, reference, tmp_path, capsys):
    assert main(words(text, tmp_path / "all", *selecting(reference, "1"))) == 0
    assert main(words(text, tmp_path / "none")) == 0
    assert weights_of(tmp_path / "all") == weights_of(tmp_path / "none")


def test_another_reference_is_not_gone_on_with(text, reference, tmp_path, capsys):
    """One that changed is refused, or accepted and said; one that is gone is refused."""
    own, out = tmp_path / "reference", tmp_path / "run"
    shutil.copytree(reference, own)
    assert main(words(text, out, *selecting(own))) == 0
    shutil.rmtree(out / "step-00000004")
    folder = checkpoint.find(own)[0]
    shutil.rmtree(folder)
    shutil.copytree(checkpoint.steps(reference)[0], folder)  # an earlier step under its name
    assert "is not the run's reference; put it back" in refused(["resume", str(out)], capsys)
    shutil.rmtree(folder)
    assert "is not a folder" in refused(["resume", str(out)], capsys)
    shutil.copytree(checkpoint.steps(reference)[0], folder)
    assert main(["resume", str(out), "--accept-changes"]) == 0
    assert "is not the run's reference: accepted" in capsys.readouterr().err


def test_a_folder_of_hugging_face_is_a_reference(text, reference, tmp_path, capsys):
    """The same run whether the reference is a checkpoint of ours or a folder without a manifest."""
    foreign = tmp_path / "foreign"
    shutil.copytree(checkpoint.find(reference)[0], foreign)
    for name in ("manifest.json", "training.json", "state.pt"):
        (foreign / name).unlink()
    assert main(words(text, tmp_path / "ours", *selecting(reference))) == 0
    assert main(words(text, tmp_path / "theirs", *selecting(foreign))) == 0
    assert weights_of(tmp_path / "ours") == weights_of(tmp_path / "theirs")


def test_a_base_is_continued_with_a_reference(text, reference, tmp_path, capsys):
    base = ["train", "causal-lm", "--corpus", str(text), "--init", str(reference), "--steps", "2"]
    base += [*FEW, *selecting(reference), "--kl", "0.1", "--out", str(tmp_path / "run")]
    assert main([*base, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["reference"]["folder"] == str(checkpoint.find(reference)[0].resolve())
    assert shown["evaluations"][-1]["terms"].keys() == {"kl"}


def test_what_is_refused(text, reference, tmp_path, capsys):
    def line(*more, name="causal-lm"):
        return refused(words(text, tmp_path / "out", *more, name=name), capsys)

    assert "--select compares with another model; name its folder" in line("--select", "0.5")
    assert "--reference belongs to --select, which is not given" in line("--reference", "x")
    assert "--select must be more than 0" in line(*selecting(reference, "0"))
    assert "--select must be at most 1" in line(*selecting(reference, "1.5"))
    assert "--select must be a finite number" in line(*selecting(reference, "nan"))
    assert "missing is not a folder" in line(*selecting("missing"))
    assert "of the role decoder, the run's model of encoder" in line(
        *selecting(reference), name="masked-lm"
    )
    assert "another tokenizer than the run" in line(*selecting(reference), "--vocab-size", "290")
    assert "reads 32 tokens at once, and the run 40; use --window 32" in line(
        *selecting(reference), "--window", "40"
    )
    assert not (tmp_path / "out").exists()


def test_a_reference_without_the_head_is_refused(text, tmp_path, capsys):
    out, bare = tmp_path / "encoder", tmp_path / "bare"
    assert main(words(text, out, name="masked-lm")) == 0
    shutil.copytree(checkpoint.find(out)[0], bare)
    for name in ("manifest.json", "training.json", "state.pt"):
        (bare / name).unlink()
    kept = torch.load(bare / "pytorch_model.bin", weights_only=True)
    kept = {name: each for name, each in kept.items() if not name.startswith("cls.predictions")}
    torch.save(kept, bare / "pytorch_model.bin")
    given = words(text, tmp_path / "out", *selecting(bare), name="masked-lm")
    assert "lacks the head 'tokens'" in refused(given, capsys)


def test_settings_want_both_or_neither():
    assert Selecting() == Selecting(None, None)
    with pytest.raises(InputError, match="--reference"):
        Selecting(select=0.5)
    with pytest.raises(InputError, match="--select"):
        Selecting(reference="runs/first")
