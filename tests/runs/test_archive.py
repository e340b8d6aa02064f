"""An archive of a run can be looked at without trainkit, and repeated to the same bits."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from clients import toy_run
from clients.recorder import ACTIONS

from trainkit import RecipeError, State, TrainkitError
from trainkit.cli import cli
from trainkit.console import Console
from trainkit.engine import journal
from trainkit.engine.every_run import requests
from trainkit.engine.folder_lock import lock
from trainkit.engine.queue import run_one
from trainkit.engine.reproduction import reproduce, resolve_archived, unpack
from trainkit.engine.start import RunOutcome, no_report
from trainkit.recipe.resolve import resolve_text

pytest.importorskip("rocrate")

TEXT = toy_run.TOY.replace("epochs = 2", "epochs = 4") + "[checkpoint]\nkeep_last = 9\n"


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was edited while it trained, and resumed for longer with another rate."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(requests, "_BETWEEN_LOOKS_SECONDS", 0.0)

    def edit(state: State) -> None:
        if state.step == 6:
            journal.ask(state.folder, "edit", sets=("losses.squares.weight=0.5",))

    monkeypatch.setitem(ACTIONS, "step_end", edit)
    outcome, _ = run_one(resolve_text(TEXT, tmp_path), Console(quiet=True), continue_unfinished=False, report=no_report)
    assert isinstance(outcome, RunOutcome)
    monkeypatch.delitem(ACTIONS, "step_end")
    return toy_run.resume(outcome.run.state.folder, "run.epochs=5", "optimizer.lr=0.02").run.state.folder


def archive(folder: Path, said: list[str]) -> Path:
    file = folder.parent / "archive.zip"
    arguments = [
        "archive",
        str(folder),
        "--out",
        str(file),
        "--author",
        "Ann",
        "--license",
        "CC-BY-4.0",
        "--allow-code",
    ]
    said += CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False).output.splitlines()
    return file


def repeated(file: Path, place: Path, said: list[str], *sets: str) -> bool:
    place.mkdir()
    archived = unpack(file, place / "unpacked", said.append)
    resolved = resolve_archived(archived, place / "runs", sets, allow_code=True)
    console = Console(quiet=True)
    console.say = lambda text, **_: said.append(text)  # type: ignore[method-assign]
    return reproduce(archived, resolved, console, no_report)


def rewritten(file: Path, name: str, text: str) -> Path:
    """Return a copy of an archive with another file of a name."""
    copy = file.with_name("other.zip")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(copy, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, text if entry == name else old.read(entry))
    return copy


def test_an_archived_run_is_repeated_to_the_same_bits_through_edits_and_resumes(edited, tmp_path):
    said: list[str] = []
    file = archive(edited, said)
    assert "warning" not in "".join(said)
    assert repeated(file, tmp_path / "again", said), said
    assert said[-1] == "compared with the archive: the same, to the bit"


def test_what_differs_is_said_from_where_on(edited, tmp_path):
    said: list[str] = []
    file = archive(edited, said)
    assert not repeated(file, tmp_path / "again", said, "losses.squares.weight=0.7")
    text = "\n".join(said)
    assert "compared with the archive: DIFFERENT" in text
    assert "first in epoch 1" in text


def test_without_its_journal_an_archive_gives_other_bits(edited, tmp_path):
    file = rewritten(archive(edited, []), "journal.jsonl", "")
    assert not repeated(file, tmp_path / "again", [])


def test_the_metadata_names_each_file_with_what_it_is(edited):
    file = archive(edited, [])
    with zipfile.ZipFile(file) as packed:
        graph = {each["@id"]: each for each in json.loads(packed.read("ro-crate-metadata.json"))["@graph"]}
        names = set(packed.namelist()) - {"ro-crate-metadata.json"}
        readme = packed.read("README.md").decode()
    files = {name for name, each in graph.items() if each["@type"] == "File"}
    assert files == names
    assert all(graph[name]["description"] for name in files)
    assert graph["./"]["creator"] == {"@id": "#author"}
    assert graph["#author"]["name"] == "Ann"
    assert {"run/metrics.jsonl", "run/recipe.toml", "run/checkpoints/epoch-0005.safetensors"} <= files
    assert "trainkit reproduce THIS.zip" in readme
    assert not any(".lock" in name or "tensorboard" in name for name in names)


def test_an_archive_whose_settings_changed_without_a_journal_says_that_it_cannot_be_repeated(edited, tmp_path):
    (edited / journal.NAME).unlink()
    said: list[str] = []
    file = archive(edited, said)
    assert "can be looked at, but not repeated: its settings were changed without an entry in the journal" in said[0]
    with pytest.raises(RecipeError, match=r"holds no run that can be repeated; its README\.md says why"):
        unpack(file, tmp_path / "unpacked", said.append)


def test_files_that_are_no_archives_are_refused_and_nothing_is_unpacked_elsewhere(edited, tmp_path):
    plain = tmp_path / "plain.zip"
    plain.write_text("no zip")
    with pytest.raises(RecipeError, match="cannot be read as an archive"):
        unpack(plain, tmp_path / "a", print)
    hostile = tmp_path / "hostile.zip"
    with zipfile.ZipFile(archive(edited, [])) as old, zipfile.ZipFile(hostile, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
        new.writestr("run/checkpoints/../../../escaped.safetensors", b"x")
        new.writestr("/absolute.safetensors", b"x")
    unpack(hostile, tmp_path / "b", print)
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/absolute.safetensors").exists()


def test_a_run_that_trains_is_not_archived(edited):
    with lock(edited), pytest.raises(TrainkitError, match="is training; archive it when it has ended"):
        archive(edited, [])


def test_code_that_an_archive_names_is_imported_only_when_that_is_allowed(edited, tmp_path):
    archived = unpack(archive(edited, []), tmp_path / "unpacked", print)
    with pytest.raises(RecipeError, match="allow-code"):
        resolve_archived(archived, tmp_path / "runs", (), allow_code=False)
