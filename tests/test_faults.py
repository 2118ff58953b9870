"""A run meets kills, signals, rotten files and a second run: the small part of the benchmark."""

import contextlib
import errno
import json
import os
import signal
import struct
import sys
from pathlib import Path

import pytest
import torch

import minicpt.__main__

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import children  # noqa: E402
import faults  # noqa: E402
import fuzzing  # noqa: E402
import killing  # noqa: E402
import mutations  # noqa: E402
import refusing  # noqa: E402

from minicpt import checkpoint  # noqa: E402
from minicpt.checkpoint import containers  # noqa: E402
from minicpt.cli.main import main  # noqa: E402
from minicpt.common import disk  # noqa: E402
from minicpt.common.errors import InputError, WorkError  # noqa: E402
from minicpt.runs import lock  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    children.warm_up(folder)
    return folder


@pytest.fixture
def finished(folder, tmp_path):
    """A run of two steps, both saved."""
    words = children.train("causal-lm", folder / "text.txt", tmp_path / "run", 2)
    assert main([*words, "--save-every", "1"]) == 0
    return tmp_path / "run"


@pytest.fixture
def little(monkeypatch):
    """Fewer objectives and shorter runs than a benchmark has."""
    for module in (fuzzing, mutations):
        monkeypatch.setattr(module, "OBJECTIVES", ("causal-lm", "reconstruction"))
    monkeypatch.setattr(killing, "CONTINUED", (killing.CONTINUED[4],))
    monkeypatch.setattr(killing, "OBJECTIVES", ("masked-lm",))
    monkeypatch.setattr(refusing, "STEPS", 6)


@pytest.mark.parametrize(
    "name, tries",
    [
        ("kill", 4), ("resume", 2), ("mutate", 15), ("hostile", 10), ("input", 7), ("fuzz", 9),
        ("disk", 2),
    ],
)  # fmt: skip
def test_a_part_of_the_benchmark_finds_nothing(name, tries, folder, tmp_path, little):
    found = list(faults.TESTS[name][0](tmp_path, tries))
    assert len(found) >= tries and not any(found), found


def test_the_benchmark_writes_its_rows(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(children, "warm_up", lambda folder: None)
    path = tmp_path / "rows.json"
    assert faults.main(["--quick", "--only", "not finite", "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text())
    assert row["test"] == "not finite" and row["tried"] == 3 and row["failed"] == 0


def test_the_benchmark_notices_what_is_lost(folder, tmp_path, monkeypatch, little):
    """Tests that cannot fail prove nothing: without the manifest's check, mutations get through."""
    monkeypatch.setattr("minicpt.checkpoint.folder.verify", lambda folder: None)
    found = list(faults.TESTS["mutate"][0](tmp_path, 60))
    assert any(each and "loaded with other" in each for each in found)


# --- one run at a time


def test_a_second_run_is_refused_with_the_process_of_the_first(finished, capsys):
    with lock.locked(finished):
        assert main(["resume", str(finished)]) == 2
        assert f"process {os.getpid()} is writing to {finished}" in capsys.readouterr().err
    assert main(["resume", str(finished)]) == 0 and not list(finished.glob(".*"))


def test_two_trainings_into_one_new_folder(folder, tmp_path):
    """Started at the same moment; whichever comes second is refused, and the first ends well."""
    words = children.train("causal-lm", folder / "text.txt", tmp_path / "out", 30)
    places = [children.fresh(tmp_path / str(number)) for number in range(2)]
    both = [children.Child([*words, "--save-every", "1"], place) for place in places]
    outcomes = [child.end() for child in both]
    assert sorted(outcome.status for outcome in outcomes) == [0, 2]
    refused = next(outcome for outcome in outcomes if outcome.status == 2)
    assert refused.one_line and ("is writing to" in refused.error or "not empty" in refused.error)
    assert checkpoint.load(tmp_path / "out").record["step"] == 30


def test_a_lock_left_by_a_killed_process_locks_nothing(tmp_path):
    child = os.fork()
    if child == 0:
        with lock.locked(tmp_path / "run"):
            os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "run" / ".lock").read_text() == f"{child}\n"
    with lock.locked(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / "run" / ".lock").exists()


def test_without_locks_a_warning_is_enough(tmp_path, monkeypatch, capsys):
    import fcntl

    def unsupported(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with lock.locked(tmp_path / "run"):
        pass
    assert "cannot be locked (No locks available)" in capsys.readouterr().err


def test_what_was_made_for_nothing_is_removed(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", "causal-lm", "--corpus", "missing.txt"]
    for more in ([], ["--out", "a/b/c"]):
        assert main([*words, *more]) == 2
        assert list(tmp_path.iterdir()) == []


def test_a_name_that_no_folder_can_have(finished, capsys):
    assert main(["export", str(finished), "--to", "\0"]) == 2
    assert "cannot be the name of a folder" in capsys.readouterr().err


# --- what a kill leaves


def test_a_kill_between_the_two_renames_loses_nothing(finished, capsys):
    """The old folder is put aside, the new one not yet in its place."""
    newest = checkpoint.find(finished)[0]
    expected = children.contents(newest)
    newest.rename(disk.hidden(newest, "previous"))
    disk.hidden(newest, "tmp").mkdir()
    (finished / ".lock").write_text("1\n")
    assert main(["resume", str(finished)]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert children.same(children.contents(finished), expected)
    assert not list(finished.glob(".*"))


def test_a_folder_that_could_not_be_replaced_stays(finished, monkeypatch):
    newest = checkpoint.find(finished)[0]
    rename = Path.rename

    def refuse(self, target):
        if self.suffix == ".tmp":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(WorkError, match="Input/output error"):
        disk.write_folder(newest, lambda folder: None)
    assert checkpoint.find(finished) == (newest, []) and not list(finished.glob(".*"))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_step_leaves_nothing(kind, folder, tmp_path):
    def pause():
        train = children.command_line.module_of("train")
        train.build = lambda *rest, **options: signal.pause()

    words = children.train("causal-lm", folder / "text.txt", tmp_path / "out", 9)
    child = children.Child(words, tmp_path, pause)
    child.wait_until_ready()
    child.sleep(0.3)
    child.kill(kind)
    outcome = child.end()
    assert outcome.status == 128 + kind and outcome.clean
    assert f"{kind.name}: stopped; nothing to save" in outcome.error
    assert not (tmp_path / "out").exists()


def test_a_signal_that_no_verb_has_caught_is_said(folder, tmp_path):
    """It comes after the handler is there, and before the command is."""

    def early():
        def command(words):
            raise minicpt.__main__.signals.Stop(signal.SIGTERM)

        children.command_line.main = command

    outcome = children.run([], tmp_path, early)
    assert outcome.status == 143 and outcome.error.startswith("minicpt: SIGTERM: stopped")


# --- what has changed


def test_changes_can_be_accepted(folder, tmp_path, capsys):
    text, out = tmp_path / "text.txt", tmp_path / "run"
    text.write_text((folder / "text.txt").read_text())
    words = children.train("causal-lm", text, out, 4, "--save-every", "1")
    children.run(words, tmp_path, lambda: killing.dying_after(2))
    assert checkpoint.load(out).record["step"] == 2
    text.write_text(text.read_text() + " One more day.")
    assert main(["resume", str(out)]) == 2
    assert "--accept-changes" in capsys.readouterr().err
    assert main(["resume", str(out), "--accept-changes"]) == 0
    assert "accepted" in capsys.readouterr().err
    assert main(["resume", str(out)]) == 0  # the new text is now the one of the run


@pytest.mark.parametrize("what", ["step", "shape", "settings", "parts"])
def test_the_state_of_another_run_is_refused(what, finished, capsys):
    newest = checkpoint.find(finished)[0]
    state = torch.load(newest / "state.pt", weights_only=True)
    if what == "step":
        state["step"] = 3
    if what == "shape":
        state["optimizer"]["state"][0]["exp_avg"] = torch.ones(2)
    if what == "settings":
        state["optimizer"]["param_groups"][0]["betas"] = (0.1, 0.2)
    if what == "parts":
        state["parts"] = {"weight": torch.ones(3)}
    torch.save(state, newest / "state.pt")
    (newest / "manifest.json").unlink()
    checkpoint.write_manifest(newest)
    assert main(["resume", str(finished)]) == 2
    error = capsys.readouterr().err
    assert "the state to go on from does not fit" in error and error.count("error:") == 1


# --- the manifest


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda content: content["files"].pop("state.pt"), "manifest.json was changed"),
        (lambda content: content.pop("sha256"), "manifest.json was changed"),
        (lambda content: content["files"]["state.pt"].update(size=1), "manifest.json was changed"),
        (lambda content: content.update(format=9), "format '9'"),
    ],
)
def test_the_manifest_covers_itself(change, expected, finished):
    path = checkpoint.find(finished)[0] / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=expected):
        checkpoint.load(path.parent)


def test_a_file_too_many_and_a_manifest_too_few(finished):
    newest = checkpoint.find(finished)[0]
    (newest / "special_tokens_map.json").write_text("{}")
    with pytest.raises(InputError, match="special_tokens_map.json, which the manifest does not"):
        checkpoint.load(newest)
    (newest / "manifest.json").unlink()
    with pytest.raises(InputError, match="training.json and no manifest.json"):
        checkpoint.load(newest)


# --- weights files


def test_a_header_of_safetensors_by_hand(tmp_path):
    """Two tensors: one of 2 x 3 half-precision numbers (12 bytes), then one of 1 (4 bytes)."""
    entries = {
        "a": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]},
    }
    text = json.dumps(entries).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    found = containers.safetensors_header(path)
    assert {name: tuple(each.shape) for name, each in found.items()} == {"a": (2, 3), "b": (1,)}
    assert found["a"].dtype == torch.float16 and all(each.is_meta for each in found.values())
    with open(path, "ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="too much"):
        containers.safetensors_header(path)


def test_a_shared_file_system_error_while_locking_is_one_line(tmp_path, monkeypatch):
    """A full disk is no mistake of the user's: WorkError, not InputError."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock, "acquire", full)
    with pytest.raises(WorkError, match="No space left"), lock.locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    with contextlib.suppress(InputError), lock.locked(tmp_path / "run"):
        pass
