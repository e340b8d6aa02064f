"""What is asked of a run while it trains: other settings, a stop, a checkpoint, pictures."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clients import toy_run
from clients.recorder import ACTIONS
from edit_sweep import RECIPE, train, trial
from same import differences, same, trained

from trainkit import RecipeError, State, read_checkpoint
from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.console import Console
from trainkit.engine import journal, run_folder
from trainkit.engine.every_run import requests
from trainkit.engine.folder_lock import lock
from trainkit.engine.queue import run_one
from trainkit.engine.resume import resume
from trainkit.engine.start import ExitCode, RunOutcome, no_report, start
from trainkit.recipe.resolve import resolve_text

RATE = {"do": "edit", "sets": ("optimizer.lr=0.07",)}


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(requests, "_BETWEEN_LOOKS_SECONDS", 0.0)


def end_of(folder: Path) -> dict[str, Any]:
    return trained(read_checkpoint(CheckpointFolder(folder / "checkpoints").in_order()[-1]))


def asking(at: dict[int, dict[str, Any]]) -> None:
    """Ask for things once after the given steps."""

    def act(state: State) -> None:
        if state.step in at:
            journal.ask(state.folder, **at.pop(state.step))

    ACTIONS["step_end"] = act


@pytest.mark.measured_every(4)
@pytest.mark.parametrize("seed", range(4))
def test_recipe_and_journal_give_the_bits_of_an_edited_run(seed, tmp_path):
    taken, found = trial(seed, tmp_path)
    assert not found
    assert taken or seed  # the first script has an edit that took effect


def test_an_edit_is_a_stop_and_a_resume_with_other_settings(tmp_path):
    for name in ("edited", "plain", "resumed"):
        (tmp_path / name).mkdir()
    edited = train(tmp_path / "edited", {6: RATE})
    plain = train(tmp_path / "plain", {})
    resumed = train(tmp_path / "resumed", {}, interrupt=frozenset())
    branch = resume(resumed, Console(quiet=True), sets=RATE["sets"], epoch=2, allow_code=True, on_extend="stretch")
    assert isinstance(branch, RunOutcome)
    assert branch.newest is not None
    by_edit, by_resume = end_of(edited), trained(read_checkpoint(branch.newest))
    for key in ("model", "optimizers", "generators", "average"):
        assert same(by_edit[key], by_resume[key]), key
    assert not same(by_edit["model"], end_of(plain)["model"])
    (request,) = journal.read(edited)
    assert request.taken == (8, 2)  # the end of the epoch in which it was asked, of four steps


def test_an_edit_that_cannot_be_taken_is_refused_and_the_run_goes_on_as_it_was(tmp_path, capsys):
    for name in ("edited", "plain"):
        (tmp_path / name).mkdir()
    edited = train(tmp_path / "edited", {3: {"do": "edit", "sets": ("optimizer.rate=1",)}})
    (request,) = journal.read(edited)
    assert request.refused.startswith("--set optimizer.rate=1: error: optimizer.rate: unknown key")
    assert not differences(end_of(edited), end_of(train(tmp_path / "plain", {})))
    assert "goes on without the edit, which is refused" in (edited / "log.txt").read_text()
    assert journal.to_replay(edited) == []


@pytest.mark.parametrize("by", ["resume", "queue"])
def test_an_edit_of_a_run_that_was_killed_before_it_went_on_is_made_up_for(by, tmp_path):
    (tmp_path / "edited").mkdir()
    straight = train(tmp_path / "edited", {6: RATE})
    asking({6: RATE})
    resolved = resolve_text(RECIPE, Path.cwd())
    go_on = {"can": lambda run: setattr(run.parts["requests"], "can_go_on", True)}  # said, but not done: it is killed
    stopped = start(resolved, Console(quiet=True), extra=go_on)
    assert stopped.code is ExitCode.STOPPED
    folder = stopped.run.state.folder
    if by == "resume":
        resume(folder, Console(quiet=True), allow_code=True)
    else:
        _, earlier = run_one(resolved, Console(quiet=True), continue_unfinished=True, report=no_report)
        assert earlier is not None
        assert earlier.samefile(folder)
    assert [each.taken for each in journal.read(folder)] == [(8, 2)]
    assert same(end_of(folder)["model"], end_of(straight)["model"])


def test_a_queue_knows_an_edited_run_by_the_recipe_that_a_person_gave(tmp_path):
    edited = train(tmp_path, {6: RATE}, interrupt=frozenset({10}))  # the second start of it finds the run
    assert [each.name for each in edited.parent.iterdir()] == [edited.name]
    assert run_folder.earlier_run(resolve_text(RECIPE, Path.cwd())) == run_folder.short_path(edited)
    other = resolve_text(RECIPE, Path.cwd(), ("optimizer.lr=0.5",))
    assert run_folder.earlier_run(other) is None


def test_an_edit_of_a_run_that_nobody_resumes_is_refused_and_the_run_ends_as_it_was(tmp_path, caplog):
    (tmp_path / "plain").mkdir()
    asking({6: RATE})
    outcome = start(resolve_text(RECIPE, Path.cwd()), Console(quiet=True))  # as a search starts its runs
    assert outcome.code is ExitCode.FINISHED
    (request,) = journal.read(outcome.run.state.folder)
    assert request.refused.startswith("the run is one of a search or a test")
    assert same(end_of(outcome.run.state.folder)["model"], end_of(train(tmp_path / "plain", {}))["model"])


@pytest.mark.parametrize("trouble", ["is a folder", "is too large", "cannot be written"])
def test_trouble_with_the_journal_ends_no_training(trouble, tmp_path, monkeypatch, caplog):
    def act(state: State) -> None:
        path = state.folder / journal.NAME
        if state.step == 3 and trouble == "is a folder":
            path.mkdir()
        elif state.step == 3:
            journal.ask(state.folder, **RATE)
        elif state.step == 4 and trouble == "is too large":
            monkeypatch.setattr(journal, "MOST_BYTES", 10)
            journal.ask(state.folder, "save")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if trouble == "cannot be written":
        monkeypatch.setattr(journal, "note_taken", full)
    ACTIONS["step_end"] = act
    with caplog.at_level(logging.WARNING):
        outcome, _ = run_one(
            resolve_text(RECIPE, Path.cwd()), Console(quiet=True), continue_unfinished=False, report=no_report
        )
    assert isinstance(outcome, RunOutcome)
    assert outcome.code is ExitCode.FINISHED
    assert outcome.run.recipe.optimizer.lr != 0.07  # what is not on the disk has not happened
    text = (outcome.run.state.folder / "log.txt").read_text()
    assert ("No space left" if trouble == "cannot be written" else "cannot be read, so what is asked") in text


def test_a_stop_closes_the_epoch_and_finishes_the_run_and_a_resume_is_not_stopped_by_it():
    asking({6: {"do": "stop"}})
    outcome, _ = run_one(
        resolve_text(RECIPE, Path.cwd()), Console(quiet=True), continue_unfinished=False, report=no_report
    )
    assert isinstance(outcome, RunOutcome)
    state = outcome.run.state
    assert (outcome.code, state.epoch, state.step) == (ExitCode.FINISHED, 2, 6)
    assert state.ended.startswith("stopped: stop, asked by ")
    assert "val/loss" in state.metrics
    longer = toy_run.resume(state.folder, "run.epochs=7", on_extend="stretch")
    assert longer.run.state.epoch == 7


def test_an_interruption_leaves_the_epoch_open_and_a_resume_ends_with_the_same_bits(tmp_path):
    (tmp_path / "straight").mkdir()
    straight = train(tmp_path / "straight", {})
    asking({6: {"do": "interrupt"}})
    outcome = start(resolve_text(RECIPE, Path.cwd()), Console(quiet=True))
    assert (outcome.code, outcome.run.state.step) == (ExitCode.STOPPED, 6)
    resumed = toy_run.resume(outcome.run.state.folder)
    assert resumed.newest is not None
    assert not differences(trained(read_checkpoint(resumed.newest)), end_of(straight))


def test_what_was_asked_of_a_run_that_had_ended_is_left_out():
    resolved = resolve_text(RECIPE, Path.cwd())
    folder = start(resolved, Console(quiet=True)).run.state.folder
    journal.ask(folder, "stop")
    lines = (folder / journal.NAME).read_text().replace('"time": "20', '"time": "19')
    (folder / journal.NAME).write_text(lines)
    longer = toy_run.resume(folder, "run.epochs=7", on_extend="stretch")
    assert longer.run.state.epoch == 7
    stop, longer_run = journal.read(folder)
    assert stop.refused == "the run had ended when it was asked"
    assert longer_run.sets == ("run.epochs=7",)  # the resume is written down, too


def test_what_is_asked_while_an_edit_takes_effect_is_not_lost(tmp_path, monkeypatch):
    class Clock:
        second = 0

        @classmethod
        def now(cls, zone):
            cls.second += 1
            return datetime(2026, 1, 1, tzinfo=zone) + timedelta(seconds=cls.second)

    def meanwhile(folder: Path, *given: Any, **more: Any) -> Any:
        journal.ask(folder, "stop")
        return resume(folder, *given, **more)

    monkeypatch.setattr(requests, "datetime", Clock)
    monkeypatch.setattr(journal, "datetime", Clock)
    monkeypatch.setattr("trainkit.engine.edited.resume", meanwhile)
    edit, stop = journal.read(train(tmp_path, {6: RATE}))
    assert edit.taken == (8, 2)
    assert (stop.taken, stop.refused) == ((9, 2), "")  # the next step


def test_a_save_writes_a_checkpoint_after_the_step_and_pictures_come_at_the_end_of_the_epoch():
    seen: list[tuple[str, int]] = []
    asking({5: {"do": "save"}, 6: {"do": "picture"}})
    ACTIONS["picture"] = lambda state: seen.append(("picture", state.epoch))
    text = RECIPE + "[pictures]\nevery_epochs = 0\n"
    folder = start(resolve_text(text, Path.cwd()), Console(quiet=True)).run.state.folder
    assert (folder / "checkpoints" / "step-00000005.safetensors").is_file()
    assert seen == [("picture", 1), ("picture", 4)]  # asked in the second epoch, and at the end


def test_a_signal_that_comes_with_an_edit_wins_and_the_edit_is_taken_by_the_resume():
    def interrupt(state: State) -> None:
        if state.step == 6:
            journal.ask(state.folder, **RATE, now=True)
        if state.step == 7:
            state.interrupt("signal SIGTERM")

    ACTIONS["step_end"] = interrupt
    resolved = resolve_text(RECIPE, Path.cwd())
    outcome, _ = run_one(resolved, Console(quiet=True), continue_unfinished=False, report=no_report)
    assert isinstance(outcome, RunOutcome)
    assert outcome.run.state.step == 7  # the edit was taken after the sixth step, before that signal
    assert outcome.run.state.ended == "stopped: signal SIGTERM"
    assert outcome.run.recipe.optimizer.lr == 0.07


def test_a_damaged_journal_is_named_and_is_not_repeated(caplog):
    folder = start(resolve_text(RECIPE, Path.cwd()), Console(quiet=True)).run.state.folder
    request = journal.ask(folder, "save")
    with (folder / journal.NAME).open("a") as file:
        file.write('{"id": 3}\nnonsense\n')
    with caplog.at_level(logging.WARNING):
        assert journal.read(folder) == [request]
    assert "line 2, 3 cannot be read" in caplog.text
    with pytest.raises(RecipeError, match="line 2 is no line of a journal"):
        journal.to_replay(folder)
    with pytest.raises(RecipeError, match="there is no journal at"):
        journal.to_replay(folder / "elsewhere")


def command(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    from trainkit.cli import main

    monkeypatch.setattr("sys.argv", ["trainkit", *words])
    monkeypatch.setattr("trainkit.cli.ignore_from_now_on", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["edit", "RUN", "optimizer.rate=1"], "optimizer.rate: unknown key"),
        (["edit", "RUN", "optimizer.lr=1", "--at", "epoch", "2"], "5 epochs are finished already"),
        (["edit", "RUN", "optimizer.lr=1", "--at", "epoch", "9"], "the run ends after 5 epochs, before 9"),
        (["edit", "RUN", "run.epochs=9"], "--on-extend stretch"),
        (["edit", "RUN", "optimizer.lr=1", "--at", "epoch", "2", "--now"], "exclude each other"),
    ],
)
def test_mistakes_of_an_edit_are_found_before_the_run_is_asked(words, message, monkeypatch, capsys):
    folder = start(resolve_text(RECIPE, Path.cwd()), Console(quiet=True)).run.state.folder
    with lock(folder):
        words = [str(folder) if each == "RUN" else each for each in words]
        assert command(*words, "--allow-code", monkeypatch=monkeypatch) == 2
    assert message in capsys.readouterr().err
    assert not (folder / journal.NAME).exists()


def test_commands_ask_only_a_run_that_trains(monkeypatch, capsys):
    folder = start(resolve_text(RECIPE, Path.cwd()), Console(quiet=True)).run.state.folder
    for name in ("stop", "save", "picture"):
        assert command(name, "toy", monkeypatch=monkeypatch) == 1
        assert "no process trains this run" in capsys.readouterr().err
    with lock(folder):
        assert (
            command("edit", "toy", "optimizer.lr=1", "--on-extend", "hold", "--allow-code", monkeypatch=monkeypatch)
            == 0
        )
        assert command("stop", "toy", "--now", monkeypatch=monkeypatch) == 0
    assert "takes effect at the end of the epoch" in capsys.readouterr().out
    assert [each.do for each in journal.read(folder)] == ["edit", "interrupt"]
