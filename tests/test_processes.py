"""Several processes: the same passages, the same gradient, the same evaluation, one voice.

The processes are forked from the one that runs the tests (``sharding.launch``); torchrun itself
starts one run.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import sharding
import torch
from making import close, model_of, objective_of

from minicpt import checkpoint
from minicpt.cli.main import main
from minicpt.common.errors import InputError, WorkError
from minicpt.proofs import suite
from minicpt.proofs.faults.processes import reduced
from minicpt.proofs.processes import Job, compared
from minicpt.runs.assembly import make_remedies, make_trainer
from minicpt.training import distributed
from minicpt.training.device import Machine
from minicpt.training.distributed import ALONE, Processes, check_same, check_sum, deal, whole
from minicpt.training.evaluation import evaluate
from minicpt.training.joining import LAUNCHER, joined
from minicpt.training.trainer import Trainer, Training

SMALL = "--width 8 --layers 2 --num-heads 1 --vocab-size 256 --window 16 --batch-size 4".split()


def launch(count, folder, work, *given):
    told = sharding.launch(count, folder, work, *given)
    assert told == [""] * count, "".join(told)


# --- what a process gets ------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_each_place_of_a_step_is_dealt_once(size, processes):
    shares = [deal(range(30, 41), size, rank, processes) for rank in range(processes)]
    assert len({len(each) for each in shares}) == 1  # all go equally often
    rounds = [share for each in zip(*shares, strict=True) for share in each]
    assert [place for share in rounds for place in share] == list(range(30, 41))
    # The micro-batches are those of one process.
    assert [share for share in rounds if share] == deal(range(30, 41), size)


# --- two processes at once ----------------------------------------------------------------------


def trainer_of(material, world, steps=3, dropout=0.1):
    tokenizer, corpus = material
    objective = objective_of("causal-lm", tokenizer, "decoder", window=16)
    model = model_of(objective, layers=2, dropout=dropout).double()
    settings = Training(batch_size=5, micro_batch_size=1, max_grad_norm=0.5)
    return Trainer(model, objective, corpus, settings, steps, world=world)


def sound(world, folder, material):
    """All that two processes do together, in one launch."""
    long = "x" * 2000
    assert world.gathered({"rank": world.rank, "text": long}) == [
        {"rank": 0, "text": long},
        {"rank": 1, "text": long},
    ]
    assert world.told(world.rank + 5) == 5
    assert world.added({"a": 1, "b": world.rank}) == {"a": 2, "b": 1}
    for shard in ("none", "weights"):
        check_sum(world, shard)
        # The check fails where gradients are averaged, and where they count twice.
        for factor in (1 / 2, 2):
            wrong = reduced(lambda processes, factor=factor: factor)(world.rank, world.size)
            with pytest.raises(WorkError, match="of gradients whose sum is 6"):
                check_sum(wrong, shard)
    check_same(world, {"the corpus": "abc"})
    try:
        check_same(world, {"the corpus": f"abc{world.rank}"})
        assert world.is_first
    except InputError as error:
        assert str(error).startswith("the corpus differs between the processes: process 0 has abc0")
    gradients(world)
    steps(world, material)
    evaluations(world, material)
    near_a_base(world, material)
    exchanges(world, material)


def gradients(world):
    """Against one process: DDP and FSDP2, uneven targets, a process with none, both formats."""
    for kind in ("causal-lm", "masked-lm", "replaced-token-detection", "prefix-lm"):
        subject = suite.subjects((kind,))[0]
        for shard, dtype in (("none", "float64"), ("weights", "float32")):
            found = compared(subject, Job(kind, kind, "", shard, dtype, (1, 2)), world)
            assert found["worst"] <= found["tolerance"] and not found["loss"], (kind, shard, found)


def steps(world, material):
    """Whole steps with dropout, clipping and AdamW, of which the last round is uneven."""
    alone, again, together = (trainer_of(material, each) for each in (ALONE, world, world))
    for expected, twice, found in zip(alone.run(), again.run(), together.run(), strict=True):
        assert found.losses["tokens"].count == expected.losses["tokens"].count
        assert found.tokens == expected.tokens and found.learning_rate == expected.learning_rate
        mean = expected.losses["tokens"].mean
        close(found.losses["tokens"].mean, mean, 10**6)  # rounding of three steps
        assert torch.equal(found.losses["tokens"].sum, twice.losses["tokens"].sum)
    pairs = zip(again.model.parameters(), together.model.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)  # the same run, bitwise


def evaluations(world, material):
    """Each passage once: the same number as in one process, bitwise."""
    trainer = trainer_of(material, ALONE)
    given = trainer.model, trainer.objective, trainer.corpus
    for size in (1, 2, 100):
        seen = []

        def see(passages, batch, losses, seen=seen):
            seen.extend(passage.place for passage in passages)

        alone = evaluate(*given, batch_size=size, world=ALONE)
        found = evaluate(*given, batch_size=size, world=world, each=see)
        assert found.summary() == alone.summary()
        every = sum(world.gathered(seen), [])
        assert len(every) == len(set(every)) == len(trainer.objective.plan(trainer.corpus, 0, 0))


REMEDIES = (
    {"l2": {"l2": 0.5}, "kl": {"kl": 1.0}},  # a term on the weights counts once in the world
    {"lora": {"lora": 2}, "kl": {"kl": 1.0}},  # the base is read within the model
)


def near_a_base(world, material):
    """Terms beside the loss, where weights lie whole and where they are shared out."""
    tokenizer, corpus = material
    settings = Training(batch_size=4, micro_batch_size=1, learning_rate=1e-3)

    def made(remedies, world, shard):
        objective = objective_of("causal-lm", tokenizer, "decoder", window=16)
        model = model_of(objective, layers=2).double()
        chosen = make_remedies(remedies, "decoder", objective)
        before, distributed.worlds[:] = distributed.worlds[:], [world]
        try:
            machine = Machine(shard=shard)
            given = model, objective, corpus, settings, 3, machine, chosen
            return make_trainer(*given)
        finally:
            distributed.worlds[:] = before

    for remedies in REMEDIES:
        alone = made(remedies, ALONE, "none")
        expected = list(alone.run())
        for shard in ("none", "weights"):
            together = made(remedies, world, shard)
            for one, found in zip(expected, together.run(), strict=True):
                close(found.losses["tokens"].mean, one.losses["tokens"].mean, 10**6)
                assert found.terms.keys() == one.terms.keys() == remedies.keys() - {"lora"}
                assert one.number == 1 or all(one.terms.values())  # they begin at the base
                for name, value in one.terms.items():
                    close(found.terms[name], value, 10**6, size=1.0)
            parameters = (each.model.parameters() for each in (together, alone))
            for ours, weight in zip(*parameters, strict=True):
                close(whole(ours), weight, 10**6, size=1.0)


def exchanges(world, material):
    """A step exchanges its gradients once, however many micro-batches it has."""
    buckets = []

    def counted(state, bucket):
        buckets.append(bucket.buffer().numel())
        return summed(state, bucket)

    summed, distributed.summed = distributed.summed, counted
    try:
        trainer = trainer_of(material, world)
        size = sum(each.numel() for each in trainer.model.parameters())
        for step in trainer.run():
            assert sum(buckets) == step.number * size
    finally:
        distributed.summed = summed


def test_two_processes_compute_what_one_does(tmp_path, tokenizer, corpus):
    launch(2, tmp_path, sound, (tokenizer, corpus))


# --- commands -----------------------------------------------------------------------------------


def commands(count, folder, *words, other=None, before=None):
    """A command in so many processes: each one's status, error output and standard output.

    other   words for all but the first process, where they are not the same
    before  what a process of that rank does first
    """
    # As torchrun does it: the store outlives the processes.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            signal.alarm(300)
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
            place |= {"TORCHELASTIC_USE_AGENT_STORE": True, "LOCAL_WORLD_SIZE": count}
            os.environ |= {name: str(value) for name, value in place.items()}
            sys.stdout = open(folder / f"out-{rank}", "w")
            sys.stderr = open(folder / f"err-{rank}", "w")
            torch.set_num_threads(1)
            distributed.worlds[1:] = []
            status = 99
            try:
                if before:
                    before(rank)
                status = main(list(map(str, other if other and rank else words)))
            finally:
                for stream in (sys.__stdout__, sys.stdout, sys.stderr):
                    stream.flush()
                os._exit(status)
        children.append(child)
    status = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    told = [(folder / f"err-{rank}").read_text() for rank in range(count)]
    return status, told, [(folder / f"out-{rank}").read_text() for rank in range(count)]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"Line {n} of a text that is not long." for n in range(120)))
    return path


def errors(told):
    return [line for each in told for line in each.splitlines() if "minicpt: error:" in line]


def test_commands_of_two_processes(tmp_path, text):
    """One folder, one voice; resume with other shares; evaluate; bad input in one line."""
    out = tmp_path / "run"
    train = ["train", "causal-lm", "--corpus", text, *SMALL, "--evaluate-passages", 8]
    words = [*train, "--steps", 4, "--save-every", 2, "--out", out]
    status, told, shown = commands(2, tmp_path, *words)
    assert status == [0, 0] and not errors(told)
    assert "saved in" in shown[0] and not shown[1] and not told[1]
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(each)["step"] for each in lines if '"step", ' in each] == [1, 2, 3, 4]
    assert json.loads((out / "step-00000004" / "training.json").read_text())["processes"] == 2
    status, told, _ = commands(2, tmp_path, *train, "--out", out)  # as after a restart
    assert 2 in status and len(errors(told)) == 1 and "minicpt resume" in errors(told)[0]

    first = out / "step-00000002"
    status, told, shown = commands(2, tmp_path, "resume", first, "--shard", "weights")
    assert status == [0, 0] and not errors(told), told
    assert (out / "step-00000004" / "shards.json").exists()
    status, told, shown = commands(2, tmp_path, "evaluate", out)
    assert status == [0, 0] and "held out" in shown[0] and not shown[1]
    loaded = checkpoint.load(out)
    assert loaded.record["step"] == 4 and len(loaded.record["evaluations"]) == 5

    short = tmp_path / "other.txt"
    short.write_text(text.read_text() + "More.")
    new = ["--steps", 2, "--out", tmp_path / "new"]
    other = ["train", "causal-lm", "--corpus", short, *train[4:], *new]
    for words, else_words, wrong in (
        ([*train, *new], other, "the corpus differs between the processes"),
        ([*train, *new, "--batch-size", 1], None, "2 processes share 1 micro-batches of a step"),
        (["verify", "causal-lm"], None, "minicpt verify is for one process"),
        ([*train, *new, "--nonsense"], None, "unknown argument --nonsense"),
    ):
        status, told, _ = commands(2, tmp_path, *words, other=else_words)
        assert 2 in status and set(status) <= {1, 2}, told
        assert len(errors(told)) == 1 and wrong in errors(told)[0]
        assert not (tmp_path / "new").exists()


def test_one_process_has_nothing_to_share(tmp_path, text, capsys):
    words = ["train", "causal-lm", "--corpus", str(text), "--shard", "weights"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "--shard weights needs several processes" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_torchrun_forwards_a_signal_and_the_run_is_saved_once(tmp_path, text):
    out = tmp_path / "run"
    words = ["--nproc-per-node", "2", "--local-addr", "127.0.0.1", "--rdzv-backend", "c10d"]
    words += ["--rdzv-endpoint", "127.0.0.1:0", "-m", "minicpt", "train", "causal-lm", "--out", out]
    words += ["--corpus", text, *SMALL, "--steps", "100000", "--save-every", "0"]
    done = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip
    metrics = out / "metrics.jsonl"
    for _ in range(2400):
        if metrics.exists() and metrics.read_text().count("\n") > 3 or done.poll() is not None:
            break
        time.sleep(0.05)
    done.send_signal(signal.SIGTERM)
    _, told = done.communicate(timeout=120)
    said = [line for line in told.splitlines() if line.startswith("minicpt:")]
    assert len(said) == 1 and said[0].startswith("minicpt: SIGTERM: stopped after step"), told
    (folder,) = checkpoint.steps(out)
    assert checkpoint.load(folder).record["step"] == int(said[0].split()[5])


@pytest.mark.parametrize(
    "device, more, lacks, wrong",
    [
        ("mps", {}, (), "--device mps has no way to exchange"),
        ("cuda", {}, ("is_nccl_available",), "this torch has no nccl"),
        ("cpu", {"shard": "weights", "compile": True}, (), "--shard weights and --compile exclude"),
    ],
)
def test_what_several_processes_cannot_use_is_refused(device, more, lacks, wrong, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in lacks:
        monkeypatch.setattr(torch.distributed, name, lambda: False)
    with pytest.raises(InputError, match=wrong):
        Processes(0, 2, 0).machine(Machine(device=device, **more))


@pytest.fixture
def signals():
    """A process that cannot join ignores signals until its end; this one goes on after it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_without_gloo_there_is_no_way_to_exchange(monkeypatch, signals):
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: False)
    for name in LAUNCHER:
        monkeypatch.setenv(name, "0")
    with pytest.raises(InputError, match="this torch has no gloo"), joined():
        raise AssertionError("it began")


def test_a_run_that_torchrun_starts_anew_is_refused(tmp_path, text, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    words = ["train", "causal-lm", "--corpus", text, "--out", tmp_path / "run"]
    assert main(list(map(str, words))) == 2
    assert "minicpt resume" in capsys.readouterr().err and not (tmp_path / "run").exists()
