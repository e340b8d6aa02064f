"""`runs` and `report` say what was asked of a run while it trained, how it was continued, and what branched off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from clients import toy_run
from clients.recorder import ACTIONS

from runs.conftest import TOY
from runs.folders import written
from trainkit import State
from trainkit.cli.runs import command as list_runs
from trainkit.console import Console
from trainkit.engine import journal
from trainkit.engine.edited import with_edits
from trainkit.engine.every_run import requests
from trainkit.engine.identity import identity_of
from trainkit.engine.start import RunOutcome, no_report, start
from trainkit.recipe.resolve import resolve_text
from trainkit.runs.history import events
from trainkit.runs.record import RunRecord
from trainkit.runs.report.page import page

RECORDED = TOY + '[hooks.recorder]\nuse = "clients.recorder:Recorder"\n'


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run that was edited after two epochs, saved inside the fourth, and resumed for longer; and a branch of it."""
    asked = {6: ("edit", ("optimizer.lr=0.07",)), 13: ("save", ())}

    def ask(state: State) -> None:
        if state.step in asked:
            do, sets = asked.pop(state.step)
            journal.ask(state.folder, do, sets=sets)

    folder = tmp_path_factory.mktemp("edited")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(requests, "_BETWEEN_LOOKS_SECONDS", 0.0)
        ACTIONS["step_end"] = ask
        resolved, console = resolve_text(RECORDED, Path.cwd()), Console(quiet=True)
        outcome = with_edits(
            lambda report, extra: start(resolved, console, report=report, extra=extra),
            console,
            allow_code=True,
            report=no_report,
        )
        ACTIONS.clear()
        assert isinstance(outcome, RunOutcome)
        assert not asked
        run = outcome.run.state.folder.absolute()
        toy_run.resume(run, "run.epochs=5", on_extend="stretch")
        branch = toy_run.resume(run, "optimizer.lr=0.2", epoch=3, on_extend="stretch").run.state.folder.absolute()
    return [run, branch]


def test_the_list_says_what_was_asked_and_where_a_run_branched_off(edited, monkeypatch):
    monkeypatch.chdir(edited[0].parents[2])
    said = " ".join(CliRunner(env={"COLUMNS": "100"}).invoke(list_runs, catch_exceptions=False).output.split())
    assert "edited after 2 epochs: optimizer.lr=0.07" in said
    assert "edited after 4 epochs: run.epochs=5" in said
    assert "asked to save" in said
    assert f"from {edited[0].name.rpartition('-')[2]} after 3 epochs" in said


def test_programs_get_the_journal(edited, monkeypatch):
    monkeypatch.chdir(edited[0].parents[2])
    lines = CliRunner().invoke(list_runs, ["--json"], catch_exceptions=False).stdout.splitlines()
    found = next(each for each in map(json.loads, lines) if each["id"] == edited[0].name)
    known = [(each["do"], each["sets"], each["epochs"], each["steps"]) for each in found["journal"]]
    assert known == [
        ("edit", ["optimizer.lr=0.07"], 2, 8),
        ("save", [], 3, 13),
        ("edit", ["run.epochs=5"], 4, 16),
    ]


def test_the_report_tells_the_history_in_order(edited):
    found = [(each.after, each.what) for each in events(RunRecord(edited[0]))]
    branch = identity_of(edited[1]).id.rpartition("-")[2]
    for each in (
        ("at the start", "started"),
        ("after 2 epochs", "edit optimizer.lr=0.07"),
        ("after 13 steps", "save"),
        ("after 4 epochs", "edit run.epochs=5 --on-extend stretch"),
        ("after 5 epochs", "finished"),
        ("after 3 epochs", f"{branch} branched off"),
    ):
        assert each in found
    assert found[0] == ("at the start", "started")
    assert not any(what.startswith("stopped") for _, what in found)
    assert [each for each in found if each[1] == "resumed"] == [("after 4 epochs", "resumed")]
    assert found.index(("after 2 epochs", "edit optimizer.lr=0.07")) < found.index(("after 13 steps", "save"))
    text = page(RunRecord(edited[0]))
    assert "History" in text
    assert "branched off" in text
    parent = edited[0].name.rpartition("-")[2]
    of_branch = [(each.after, each.what) for each in events(RunRecord(edited[1]))]
    assert ("after 3 epochs", f"branched off from {parent}") in of_branch
    assert ("after 2 epochs", "edit optimizer.lr=0.07") in of_branch


def test_what_was_refused_and_what_is_not_done_yet_is_said(tmp_path):
    run = written(tmp_path / "runs" / "one", values=[{"train/loss": 1.0}])
    refused = journal.ask(run.folder, "edit", sets=("optimizer.rate=1",))
    journal.note_refused(run.folder, refused, "unknown key")
    journal.ask(run.folder, "stop")
    with (run.folder / journal.NAME).open("a") as file:
        file.write("[]\n")
    said = CliRunner(env={"COLUMNS": "100"}).invoke(list_runs, [str(tmp_path)], catch_exceptions=False).output
    assert "refused: edit optimizer.rate=1: unknown key" in said
    assert "asked, and not done yet: stop" in said
    assert "damaged: journal.jsonl: line 4 cannot be read" in said
    assert [each.what for each in events(RunRecord(run.folder))][-1] == "stop: not done yet"


def test_of_many_edits_the_last_are_listed(tmp_path):
    run = written(tmp_path / "runs" / "one", values=[{"train/loss": 1.0}] * 9)
    for epoch in range(1, 9):
        edit = journal.drafted("edit", sets=(f"optimizer.lr=0.{epoch}",), taken=(5 * epoch, epoch))
        journal._append(run.folder, edit)
        journal.note_taken(run.folder, edit, journal.Position(5 * epoch, epoch))
    said = CliRunner(env={"COLUMNS": "100"}).invoke(list_runs, [str(tmp_path)], catch_exceptions=False).output
    assert "5 earlier edits" in said
    assert said.count("edited after") == 3
    assert len(events(RunRecord(run.folder))) == 8 + 2
