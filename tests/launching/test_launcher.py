"""`trainkit run --processes`: several processes that torchrun starts are to their user what one process is."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from clients import forked_workers
from clients.toy_run import TOY
from clients.warm import Warm, WarmProcess
from same import differences, trained

from trainkit import RecipeError
from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.cli import cli
from trainkit.cli.launching import words_of
from trainkit.cli.worker import after_restart
from trainkit.console import Console
from trainkit.engine import launched
from trainkit.engine.start import start as train
from trainkit.launching import endings
from trainkit.launching.division import refuse_division
from trainkit.launching.endings import Ending, clear_endings, read_ending, write_ending
from trainkit.launching.launcher import _Agent, threads_of_each
from trainkit.recipe.resolve import resolve, resolve_text

Launcher = WarmProcess | subprocess.Popen[str]

RECIPE = """
trainkit = 1
[run]
name = "many"
epochs = 8
device = "cpu"
threads = 1
shards = 2
[data]
use = "clients.divided:Points"
[model]
use = "clients.divided:Network"
[losses.squares]
use = "clients.divided:Squares"
[optimizer]
use = "sgd"
momentum = 0.9
[checkpoint]
every_steps = 3
keep_last = 99
[pictures]
every_epochs = 0
[hooks.slow]
use = "clients.slow:Slow"
seconds = 0.0
"""


def start(warm: Warm, folder: Path, *words: str) -> WarmProcess:
    """Start a command line in a folder, with a launcher that forks its processes."""
    (folder / "many.toml").write_text(RECIPE)
    return warm.start("-c", forked_workers.CODE, *words, folder=folder)


def start_as_users_do(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a command line in a folder, with all that is imported then."""
    (folder / "many.toml").write_text(RECIPE)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "trainkit", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_of(launcher: Launcher) -> dict[int, int]:
    """Return rank -> number of the process, for those that a launcher has started or forked."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    said = {
        int(each): b"\0".join(Path(f"/proc/{each}/{of}").read_bytes() for of in ("comm", "environ"))
        for each in children
    }
    ranks = {pid: re.search(rb"(?:^|\0)RANK=(\d+)", text) for pid, text in said.items()}
    return {int(rank[1]): pid for pid, rank in ranks.items() if rank}


def is_running(pid: int) -> bool:
    """Return whether there is a process that has not ended, even if nobody has asked for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def when_it_trains(folder: Path, launcher: Launcher, act: Callable[[dict[int, int]], None]) -> None:
    """Do something to the processes when they have saved something."""
    until = time.monotonic() + 120
    while not list(folder.glob("runs/many/*/checkpoints/step-*")) and launcher.poll() is None:
        assert time.monotonic() < until, "it does not come to train"
        time.sleep(0.05)
    act(processes_of(launcher))


def state(folder: Path) -> dict[str, object]:
    """Return what the newest checkpoint of the only run holds, without what the hook that slows it down changes."""
    (run,) = (folder / "runs" / "many").iterdir()
    return trained(CheckpointFolder(run / "checkpoints").newest_good(lambda _: None)[1])


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The state after a run of one process that nothing has stopped."""
    folder = tmp_path_factory.mktemp("straight")
    (folder / "many.toml").write_text(RECIPE)
    with contextlib.chdir(folder):
        train(resolve(Path("many.toml")), Console(quiet=True))
    return state(folder)


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes by /proc")


@needs_proc
@pytest.mark.slow
def test_a_process_that_is_killed_is_replaced_and_the_run_ends_with_the_same_bits(
    tmp_path: Path, straight: dict[str, object], warm: Warm
) -> None:
    launcher = start(
        *(warm, tmp_path, "run", "many.toml", "--set", "hooks.slow.seconds=0.2", "--processes", "2", "--restarts", "1")
    )
    when_it_trains(tmp_path, launcher, lambda pids: os.kill(pids[1], signal.SIGKILL))
    code, said = launcher.wait(), launcher.stdout
    assert code == 0, said
    assert "process 1 was killed by SIGKILL" in said
    assert said.count("resuming from runs/many/") == 1
    assert not [each for each in differences(straight, state(tmp_path)) if "environment" not in each]


@needs_proc
@pytest.mark.slow
def test_a_signal_to_the_launcher_and_all_processes_stops_the_run_once_with_a_checkpoint(tmp_path: Path) -> None:
    slow = ("--set", "hooks.slow.seconds=0.2")
    launcher = start_as_users_do(tmp_path, "run", "many.toml", *slow, "--processes", "2")

    def as_slurm_does(pids: dict[int, int]) -> None:
        for pid in (launcher.pid, *pids.values()):
            os.kill(pid, signal.SIGUSR1)

    when_it_trains(tmp_path, launcher, as_slurm_does)
    said = launcher.communicate(timeout=120)[0]
    assert launcher.returncode == 75, said
    assert said.count("SIGUSR1: finishing this step, then saving") == 1
    assert "stopped at once" not in said


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
def test_a_launcher_that_is_signalled_or_killed_while_its_processes_start_leaves_none_of_them(
    tmp_path: Path, number: signal.Signals, warm: Warm
) -> None:
    (tmp_path / "many.toml").write_text(RECIPE)
    launcher = warm.start("run", "many.toml", "--processes", "2", folder=tmp_path)  # its processes import torch
    while len(pids := processes_of(launcher)) < 2:
        time.sleep(0.01)
    launcher.send_signal(number)
    code, said = launcher.wait(), launcher.stdout
    until = time.monotonic() + 60
    while any(is_running(pid) for pid in pids.values()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not (tmp_path / "runs").exists()
    if number == signal.SIGUSR1:
        assert code == 75, said
        assert said.count("SIGUSR1: stopped; nothing was being trained") == 1


ORPHAN = """
import os, signal, sys, time
from types import SimpleNamespace
from trainkit.launching import orphans
signal.signal(signal.SIGTERM, lambda *_: print("SIGTERM", flush=True))
orphans._LOOK_EVERY_SECONDS, orphans._PATIENCE_SECONDS = 0.01, 0.2
meeting = SimpleNamespace(is_waiting=False)
launcher = os.getpid()
if os.fork() == 0:
    orphans.end_with(launcher, meeting)
    time.sleep(0.3)  # it trains, and its launcher dies meanwhile
    print("trained", flush=True)
    meeting.is_waiting = True
    time.sleep(60)
    print("waited")
time.sleep(0.1)
"""


def test_a_process_whose_launcher_died_stops_training_and_does_not_wait_for_others_in_vain() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == ["SIGTERM", "trained"]  # the orphan has ended: it holds the pipe too


@pytest.mark.slow
def test_one_process_that_fails_is_told_of_once_and_without_torchruns_report(tmp_path: Path, warm: Warm) -> None:
    trouble = ["--set", 'hooks.trouble.use="clients.divided:Trouble"', "--set", 'hooks.trouble.what="fail"']
    launcher = start(warm, tmp_path, "run", "many.toml", *trouble, "--processes", "2", "--restarts", "3")
    code, said = launcher.wait(), launcher.stdout
    assert code == 1
    assert said.count("error:") == 1, said
    assert "process 1 of 2" in said
    assert not [word for word in ("Traceback", "ChildFailedError", "closing signal", "start again") if word in said]


def queue(folder: Path, **troubles: str) -> list[str]:
    """Write recipes that have the trouble of a hook, or none, and return the command line that runs them all."""
    for name, settings in troubles.items():
        trouble = f'[hooks.trouble]\nuse = "clients.divided:Trouble"\n{settings}\n' if settings else ""
        (folder / f"{name}.toml").write_text(RECIPE.replace('"many"', f'"{name}"') + trouble)
    return ["run", *(f"{name}.toml" for name in troubles), "--set", "run.epochs=2", "--processes", "2"]


def table_in(said: str) -> list[str]:
    """Return the lines of the table at the end of a queue, without its head."""
    return said.rpartition("\n\n")[2].splitlines()[1:]


@pytest.mark.slow
def test_after_a_run_that_fails_the_processes_start_anew_until_one_is_interrupted(tmp_path: Path, warm: Warm) -> None:
    failing = {"bad": 'what = "fail"', "killed": 'what = "kill"\nrank = 0', "many": "", "other": 'what = "diverge"'}
    launcher = start(warm, tmp_path, *queue(tmp_path, **failing, stopped='what = "interrupt"', last=""))
    code, said = launcher.wait(240), launcher.stdout
    assert code == 75, said
    assert said.count("the processes start anew, for what is left of the queue") == 3, said
    finished = {path.parent.parent.parent.name for path in tmp_path.glob("runs/*/*/checkpoints/epoch-0002*")}
    assert finished == {"many"}
    assert all(len(list((tmp_path / "runs" / name).iterdir())) == 1 for name in failing)
    assert not (tmp_path / "runs" / "last").exists()
    table = table_in(said)
    assert [line.split()[0] for line in table[:6]] == [*failing, "stopped", "last"]
    assert "process 1 of 2: hooks.trouble, in on_step_end: ValueError: of process 1" in table[0]
    assert "failed: process 0 was killed by SIGKILL" in table[1]
    assert "  finished  (" in table[2]
    assert "has another model than process" in table[3]
    assert "stopped: by process 1" in table[4]
    assert "not started" in table[5]


# ---- what needs no processes ----------------------------------------------------------------------------------------


def test_of_each_run_the_last_note_holds_and_that_of_a_run_that_goes_on_is_taken_back(tmp_path: Path) -> None:
    def note(run: str, what: str, failed: bool) -> None:
        launched.note_result(launched.NotedResult(run, what, 0.0, failed=failed, ends_processes=failed), tmp_path)

    assert launched.noted_results(tmp_path) == {}
    for run, what, failed in (("a", "under way", True), ("a", "finished", False), ("b", "under way", True)):
        note(run, what, failed)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"run": "c", "wh')  # killed while it wrote
    assert [each.what for each in launched.noted_results(tmp_path).values()] == ["finished", "under way"]
    launched.forget_last_result(tmp_path)
    assert [each.run for each in launched.noted_results(tmp_path).values()] == ["a"]
    note("b", "failed", True)
    assert list(launched.noted_results(tmp_path)) == ["a", "b"]
    assert not launched.noted_results()  # no launcher started this process


def words(*given: str) -> list[str]:
    parent = click.Context(cli, info_name="trainkit", obj={"traceback": False})
    command = cli.get_command(parent, given[0])
    assert command is not None
    return words_of(command.make_context(given[0], list(given[1:]), parent=parent))


def test_processes_get_the_command_without_the_options_that_start_them() -> None:
    given = ["run", "--processes=4", "a b.toml", "--set", "run.epochs=3", "--logs", "x", "--set", "a='--nodes 2'", "-q"]
    assert words(*given) == [
        *("run", "--set", "run.epochs=3", "--set", "a='--nodes 2'", "--quiet", "--", "a b.toml"),
    ]
    assert words("resume", "run", "--epoch", "0", "--restarts", "2", "--allow-code") == [
        *("resume", "--epoch", "0", "--allow-code", "--", "run"),
    ]
    again = words("run", "--", "-x.toml")
    assert again == ["run", "--", "-x.toml"]


def test_after_a_restart_only_what_this_launch_began_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["run", "--quiet", "--", "a.toml"]
    resume = ["--traceback", "resume", "--epoch", "3", "--allow-code", "--", "run"]
    assert after_restart(run) == run
    assert after_restart(resume) == resume
    monkeypatch.setenv(endings.START, "1")
    monkeypatch.setenv(launched.LAUNCH, str(tmp_path))
    monkeypatch.setenv(launched.ONLY_NOTED, "")
    assert after_restart(resume) == resume  # it was killed before it made a folder
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    launched.note_folder(mine)
    launched.note_folder(tmp_path / "discarded")
    assert after_restart(resume) == ["--traceback", "resume", "--allow-code", "--", str(mine)]
    assert launched.may_continue(other)
    assert after_restart(["run", "--continue", "--", "a.toml"]) == ["run", "--continue", "--", "a.toml"]
    assert launched.may_continue(other)
    assert after_restart(run) == ["run", "--continue", "--quiet", "--", "a.toml"]
    assert launched.may_continue(mine)
    assert not launched.may_continue(other)


def test_how_a_process_ended_is_known_only_if_it_ended_by_itself(tmp_path: Path) -> None:
    write_ending(tmp_path, 1, Ending(75))
    assert read_ending(tmp_path, 1) == Ending(75)
    assert read_ending(tmp_path, 0) is None
    clear_endings(tmp_path)
    assert read_ending(tmp_path, 1) is None


def test_a_process_that_ends_while_the_launcher_looks_has_not_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ends:
        """Runs when it is looked at first, and has ended when it is looked at again."""

        def __init__(self, rank: int, says_how: bool) -> None:
            self._rank, self._says_how, self._number = rank, says_how, 0

        def poll(self) -> int | None:
            self._number += 1
            if self._number == 1:
                return None
            if self._says_how:
                write_ending(tmp_path, self._rank, Ending(3))
            return 0

    processes = {0: Ends(0, says_how=True), 1: Ends(1, says_how=False)}
    agent = _Agent.__new__(_Agent)
    agent._folder, agent._killed, agent._died = tmp_path, False, {}
    monkeypatch.setattr(_Agent, "_processes", lambda self: processes)
    agent._note_deaths(agent._endings())
    assert agent._died == {1: 0}
    assert agent._endings() == {0: Ending(3)}


def test_the_cpus_are_divided_among_the_processes_unless_the_user_has_divided_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_of_each(number) for number in (2, 3, 8, 9)] == [4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of_each(2) == 3


def test_a_batch_or_shards_that_cannot_be_divided_are_refused_before_anything_starts() -> None:
    resolved = resolve_text(RECIPE, Path.cwd(), ["data.batch_size=4", "run.shards=0"])
    refuse_division(resolved, [1, 2, 3, 4])
    with pytest.raises(RecipeError, match="cannot be divided among 5 processes"):
        refuse_division(resolved, [1, 5])
    shards = resolve_text(RECIPE, Path.cwd(), ["data.batch_size=8", "run.shards=4"])
    refuse_division(shards, [1, 2, 4])
    with pytest.raises(RecipeError, match="among 3 processes; possible are 1, 2, 4"):
        refuse_division(shards, [3])
    with pytest.raises(RecipeError, match="does not divide batches"):
        refuse_division(resolve_text(TOY, Path.cwd()), [2])
