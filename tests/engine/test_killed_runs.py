"""A run whose process was killed, or two processes that want one run: what a resume and --continue make of it."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients import recorder
from clients.toy_run import TOY, lines, resume, run

from trainkit import State, TrainkitError
from trainkit.checkpoint import file as checkpoint
from trainkit.console import Console
from trainkit.engine import folder_lock, run_folder, start
from trainkit.engine.folder_lock import FolderInUseError, lock
from trainkit.engine.identity import identity_of, newest_first
from trainkit.engine.queue import run_all
from trainkit.engine.resume import resume as resume_from
from trainkit.engine.start import ExitCode
from trainkit.printable import printable
from trainkit.recipe.resolve import resolve_text


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Killed(BaseException):
    """Stands for a signal that no process survives."""


def killed(monkeypatch: pytest.MonkeyPatch, do: Any, *args: Any, **options: Any) -> None:
    """Call a function that raises `Killed`, and let nothing be done after it."""
    with monkeypatch.context() as patched:
        patched.setattr(start, "_end", lambda *_: None)
        patched.setattr(run_folder, "discard", lambda *_: None)
        with pytest.raises(Killed):
            do(*args, **options)


def kill(*_: object) -> None:
    raise Killed


def go_on(text: str = TOY, *sets: str) -> Any:
    return run_all([resolve_text(text, Path.cwd(), sets)], Console(), continue_unfinished=True, report=lambda *_: None)


def folders() -> list[Path]:
    return newest_first(Path("runs/toy").absolute().iterdir())


def events(name: str) -> int:
    return sum(event == name for event, _, _ in recorder.SEEN)


# ---- the end of a run is a step of its own --------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["resume", "continue"])
def test_a_run_that_was_killed_after_its_last_save_is_finished_without_training(
    by: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(start, "_end", kill)
        with pytest.raises(Killed):
            run()
    (folder,) = folders()
    before = checkpoint.read(folder / "checkpoints" / "epoch-0002.safetensors")
    recorder.SEEN.clear()
    if by == "resume":
        ended = resume(folder, quiet=False).run.state
        assert (ended.ended, ended.metrics) == ("finished", before["metrics"])
    else:
        assert go_on() is start.ExitCode.FINISHED
    assert (events("run_end"), events("epoch_start"), len(folders())) == (1, 0, 1)
    assert run_folder.starts(folder)[-1]["finished"] is True
    assert resume_from(folder, Console(), allow_code=True) is ExitCode.FINISHED
    assert go_on() is start.ExitCode.FINISHED
    assert events("run_end") == 1
    assert "the end of the run is made up for" in capsys.readouterr().out


# ---- what a start asked for is remembered ---------------------------------------------------------------------------


def test_a_resume_from_an_earlier_epoch_that_was_killed_before_it_saved_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = run("run.epochs=3", "checkpoint.keep_every=1").run.state.folder
    recorder.ACTIONS["epoch_start"] = kill
    killed(monkeypatch, resume, first, "optimizer.lr=5e-2", epoch=1)
    recorder.ACTIONS.clear()
    ending = resume(Path("toy"))
    second = ending.run.state.folder
    assert folders() == [second, first]
    assert ending.run.recipe.optimizer.lr == 5e-2  # type: ignore[attr-defined]
    said = checkpoint.read_header(second / "checkpoints" / "epoch-0003.safetensors")["run"]
    assert (said["id"], said["parent"]["run"], said["parent"]["epoch"]) == (second.name, first.name, 1)
    assert [line["finished_epochs"] for line in lines(second)] == [1, 2, 3]


def test_a_change_of_settings_that_was_killed_before_it_saved_is_remembered_and_a_failed_one_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run().run.state.folder
    recorder.ACTIONS["epoch_start"] = kill
    killed(monkeypatch, resume, folder, "run.epochs=4", "optimizer.lr=5e-2")
    recorder.ACTIONS.clear()
    ending = resume(folder, quiet=False)
    assert (ending.run.state.epoch, ending.run.recipe.optimizer.lr) == (4, 5e-2)  # type: ignore[attr-defined]
    assert "it is started again as it was asked for" in capsys.readouterr().out

    def fail(state: State) -> None:
        raise ValueError("too large a step")

    recorder.ACTIONS["epoch_start"] = fail
    with pytest.raises(Exception, match="too large a step"):
        resume(folder, "run.epochs=5", "optimizer.lr=9.0")
    recorder.ACTIONS.clear()
    ending = resume(folder)  # its end, which the failed start took back
    assert (ending.run.state.epoch, ending.run.recipe.optimizer.lr) == (4, 5e-2)  # type: ignore[attr-defined]


def test_a_run_that_was_killed_before_its_first_save_begins_again_in_its_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder.ACTIONS["step_end"] = kill
    killed(monkeypatch, run)
    (folder,) = folders()
    recorder.ACTIONS.clear()
    assert go_on() is start.ExitCode.FINISHED
    assert folders() == [folder]
    assert [line["finished_epochs"] for line in lines(folder)] == [1, 2]


# ---- one process at a time ------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_before_it_chooses_and_is_told_by_whom() -> None:
    folder = run("run.epochs=1").run.state.folder
    with (
        lock(folder),
        pytest.raises(FolderInUseError, match=rf"process {os.getpid()} of user .* on .*, since 20\d\d-.*T") as refused,
    ):
        resume(folder, "run.epochs=2")
    assert refused.value.exit_code == 1
    with lock(folder), pytest.raises(FolderInUseError):
        resume(folder / "checkpoints" / "epoch-0001.safetensors", "run.epochs=2")
    resume(folder, "run.epochs=2")


def test_an_earlier_epoch_of_a_run_in_use_may_be_resumed_from_in_a_new_folder() -> None:
    folder = run("checkpoint.keep_every=1").run.state.folder
    with lock(folder):
        assert resume(folder, epoch=1).run.state.folder != folder


def test_an_earlier_epoch_of_a_run_that_can_only_be_read_may_be_resumed_from_in_a_new_folder() -> None:
    folder = run("checkpoint.keep_last=2").run.state.folder
    (folder / ".lock").unlink()
    (folder / ".lock").mkdir()  # so that it cannot be locked, whoever runs this test
    with pytest.raises(TrainkitError, match="a run needs to write there"):
        resume(folder, "run.epochs=3")
    assert resume(folder, epoch=1).run.state.folder != folder
    with pytest.raises(TrainkitError, match="a run needs to write there"):
        resume(folder, "run.epochs=3", epoch=2)


OTHER_HOST = {"process": 12, "host": "another-machine", "user": "ada", "since": "2026-01-01T00:00:00+00:00"}


@pytest.fixture
def _no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, and a clock for people in a hurry."""
    import errno
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(folder_lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(folder_lock, "SILENT_SECONDS", 0.5)


@pytest.mark.usefixtures("_no_locks")
def test_without_locks_a_process_that_counts_is_believed_and_one_that_is_silent_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with lock(tmp_path):
        assert json.loads((tmp_path / ".heartbeat").read_text())["process"] == os.getpid()
        with pytest.raises(FolderInUseError, match=r"take over by deleting .*\.heartbeat"), lock(tmp_path):
            pass
    assert not (tmp_path / ".heartbeat").exists()
    caplog.clear()
    (tmp_path / ".heartbeat").write_text(json.dumps(OTHER_HOST | {"beat": 7}))
    with caplog.at_level("WARNING", "trainkit"), lock(tmp_path):
        pass
    assert "process 12 of user ada on another-machine" in caplog.messages[0]
    assert "takes over" in caplog.messages[1]


@pytest.mark.usefixtures("_no_locks")
def test_a_new_run_counts_in_the_folder_that_got_its_name_and_leaves_no_heartbeat() -> None:
    def beat(folder: Path) -> int:
        return int(json.loads((folder / ".heartbeat").read_text())["beat"])

    with run_folder.created(resolve_text(TOY, Path.cwd())) as folder:
        until = time.monotonic() + 10.0
        while not beat(folder) and time.monotonic() < until:
            time.sleep(0.02)
        assert beat(folder) > 0
    assert not (folder / ".heartbeat").exists()


@pytest.mark.usefixtures("_no_locks")
def test_of_two_processes_that_wait_for_a_silent_one_only_one_takes_over(tmp_path: Path) -> None:
    (tmp_path / ".heartbeat").write_text(json.dumps(OTHER_HOST | {"beat": 7}))
    ended: list[str] = []

    def take() -> None:
        try:
            with lock(tmp_path):
                time.sleep(1.0)
                ended.append("had it")
        except FolderInUseError:
            ended.append("refused")

    both = [threading.Thread(target=take) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sorted(ended) == ["had it", "refused"]


def test_a_network_file_system_has_a_heartbeat_besides_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:1 / / rw - ext4 /dev/sda rw\n"
        f"23 22 0:2 / {tmp_path.resolve()}/my\\040net rw shared:1 - nfs4 server:/home rw\n"
    )
    monkeypatch.setattr(folder_lock, "_MOUNTS", mounts)
    for name, beats in (("my net", True), ("local", False)):
        (tmp_path / name).mkdir()
        with lock(tmp_path / name):
            assert (tmp_path / name / ".heartbeat").exists() is beats


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_forked_does_not_keep_a_folder_locked_that_its_parent_has_left(tmp_path: Path) -> None:
    """A loader worker lives for some seconds after its run was killed; a resume must not find the folder in use."""
    (reading, writing), (started, starting) = os.pipe(), os.pipe()
    with lock(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.write(starting, b".")
            os.read(reading, 1)  # until the parent closes the pipe
            os._exit(0)
        os.read(started, 1)
        with pytest.raises(FolderInUseError), lock(tmp_path):
            pass
    try:
        with lock(tmp_path):
            pass
    finally:
        for end in (reading, writing, started, starting):
            os.close(end)
        os.waitpid(child, 0)


# ---- a run is what its id says --------------------------------------------------------------------------------------


def test_runs_that_start_in_one_second_with_the_same_id_have_a_folder_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import datetime

    class Still(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr(run_folder, "datetime", Still)
    monkeypatch.setattr(run_folder.secrets, "token_hex", lambda _: "abcd" * 4)
    assert run("run.epochs=1").run.state.folder != run("run.epochs=1").run.state.folder


@pytest.mark.parametrize("begun", [False, True])
def test_a_folder_that_another_start_removes_before_it_is_locked_is_made_again(
    begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, removed = run_folder.lock, []

    def late(folder: Path) -> Any:
        if len(removed) < 2:
            removed.append(folder)
            if not begun:
                shutil.rmtree(folder)
            else:  # it is being removed just now
                raise FolderInUseError("by another start")
        return real(folder)

    monkeypatch.setattr(run_folder, "lock", late)
    with run_folder.created(resolve_text(TOY, Path.cwd())) as folder:
        with pytest.raises(FolderInUseError), real(folder):
            pass
        assert folder.name == identity_of(folder).id


def test_the_newest_run_is_the_one_that_began_last_whatever_the_times_of_files() -> None:
    first, second = (run("run.epochs=1").run.state.folder for _ in range(2))
    for path in first.rglob("*"):
        os.utime(path, (time.time() + 1e6,) * 2)
    second.rename(second.with_name("0-renamed"))
    Path("runs/toy/notes").mkdir()
    Path("runs/toy/link").symlink_to("nowhere")
    assert folders() == [second.with_name("0-renamed"), first]


def test_a_checkpoint_of_another_run_is_named_and_never_continued_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    first = run("run.epochs=3").run.state.folder
    second = run().run.state.folder
    foreign = second / "checkpoints" / "epoch-0003.safetensors"
    shutil.copy(first / "checkpoints" / foreign.name, foreign)
    ending = resume(second, "run.epochs=3", quiet=False)
    said = capsys.readouterr().out
    assert printable(f"left alone: {foreign} is a checkpoint of another run, {first.name}") in said
    assert ending.run.state.folder == second
    aside = foreign.with_name("epoch-0003.safetensors.set-aside")
    assert checkpoint.read_header(aside)["run"]["id"] == first.name
    assert checkpoint.read_header(foreign)["run"]["id"] == second.name
    shutil.copy(aside, foreign)
    ending = resume(foreign, "run.epochs=4", quiet=False)
    assert ending.run.state.folder not in (first, second)
    assert [line["finished_epochs"] for line in lines(ending.run.state.folder)] == [4], (
        "the values before are of another run"
    )
    printed = capsys.readouterr().out
    assert printable(f"is a checkpoint of run {first.name}, not of the run in {second}") in printed


def test_a_damaged_newest_checkpoint_is_set_aside_and_the_run_continues_in_its_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = run("run.epochs=3").run.state.folder
    newest = folder / "checkpoints" / "epoch-0003.safetensors"
    good = newest.read_bytes()
    newest.write_bytes(good[:-5] + bytes([good[-5] ^ 1]) + good[-4:])
    ending = resume(folder, quiet=False)
    assert ending.run.state.folder == folder
    assert "it is kept as epoch-0003.safetensors.set-aside" in capsys.readouterr().out
    again = checkpoint.read(newest)
    assert again["model"].keys()
    assert again["step"] == 12
    assert [line["finished_epochs"] for line in lines(folder)] == [1, 2, 3]


@pytest.mark.measured_every(6)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b'{"starts": 5}', b'{"id": 3}'])
@pytest.mark.parametrize("name", ["environment.json", "run.json"])
def test_a_damaged_record_is_set_aside_and_the_run_continues(
    name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run().run.state.folder
    (folder / name).write_bytes(content)
    assert resume(folder, "run.epochs=3", quiet=False).run.state.folder == folder
    assert (folder / f"{name}.set-aside").read_bytes() == content
    assert f"{name} is damaged" in capsys.readouterr().out
    assert identity_of(folder).id == folder.name
    assert run_folder.starts(folder)[-1]["finished"] is True


@pytest.mark.parametrize(
    "put",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("nowhere")],
    ids=["a folder", "a pipe", "a device", "a link that leads nowhere"],
)
def test_what_stands_in_the_place_of_a_runs_own_files_is_moved_out_of_the_way(
    put: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run().run.state.folder
    names = ["environment.json", "log.txt", "metrics.jsonl", "recipe.toml", "run.json"]
    for name in names:
        (folder / name).unlink()
        put(folder / name)
    assert resume(folder, "run.epochs=3", quiet=False).run.state.folder == folder
    said = capsys.readouterr().out
    for name in names:
        assert f"{name} is no file; it is kept as {name}.set-aside" in said
        assert (folder / name).is_file()


def test_a_damaged_line_of_the_metrics_is_said_and_the_file_is_kept_as_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = run("run.epochs=4").run.state.folder
    path = folder / "metrics.jsonl"
    before = path.read_bytes().split(b"\n")
    before[1:3] = [before[1][:9], b"\xff\xfe"]
    path.write_bytes(b"\n".join(before))
    resume(folder, "run.epochs=5", quiet=False)
    said = capsys.readouterr().out
    assert "line 2, 3 cannot be read; the file is kept as metrics.jsonl.set-aside" in said
    assert "the values of epoch 2, 3 are lost" in said
    assert [line["finished_epochs"] for line in lines(folder)] == [1, 4, 5]
    assert (folder / "metrics.jsonl.set-aside").read_bytes() == b"\n".join(before)


def test_a_line_that_a_killed_process_did_not_end_is_no_damage(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run().run.state.folder
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"finished_epochs": 3, "st')
    resume(folder, "run.epochs=3", quiet=False)
    assert "metrics.jsonl" not in capsys.readouterr().out
    assert [line["finished_epochs"] for line in lines(folder)] == [1, 2, 3]


def test_a_run_whose_folder_lost_its_name_and_its_identity_knows_both_from_its_checkpoints() -> None:
    first = run("run.epochs=3", "checkpoint.keep_every=1").run.state.folder
    second = resume(first, epoch=1).run.state.folder
    (second / "run.json").write_text("{")
    moved = second.rename(second.with_name("a name of its own"))
    ending = resume(moved, "run.epochs=4")
    assert ending.run.state.folder == moved
    said = checkpoint.read_header(moved / "checkpoints" / "epoch-0004.safetensors")["run"]
    assert (said["id"], said["parent"]["run"], said["parent"]["epoch"]) == (second.name, first.name, 1)
