"""Runs and searches of an older version, whose recipes have fewer settings, are continued by the version of today."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli
from clients import recorder
from clients.toy_run import TOY, resume

from trainkit.checkpoint import file as checkpoint
from trainkit.console import Console
from trainkit.engine.identity import digest
from trainkit.engine.older_recipe import compare
from trainkit.engine.queue import run_all
from trainkit.engine.start import ExitCode, no_report
from trainkit.recipe.resolve import resolve_text, write

NEWER = ("run.shards", "checkpoint.keep_every", "optimizer.amsgrad", "scheduler.warmup")
"""Settings that the older version of these tests does not have."""


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def without(text: str, names: tuple[str, ...] = NEWER) -> str:
    """Return a resolved recipe as a version without these settings would have written it."""
    tree = tomli.loads(text)
    for name in names:
        *tables, key = name.split(".")
        table = tree
        for each in tables:
            table = table[each]
        table.pop(key, None)
    return write(tree)


def make_older(folder: Path, change: Callable[[str], str] = without) -> None:
    """Let a run folder be one that an older version made."""
    for file in (folder / "checkpoints").glob("*.safetensors"):
        content = checkpoint.read(file)
        content["recipe"] = change(content["recipe"])
        content["run"]["recipe"] = digest(content["recipe"])
        checkpoint.write(file, content)
    identity = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(identity | {"recipe": change(identity["recipe"])}))


def run(*sets: str, unfinished: bool = True) -> ExitCode:
    resolved = resolve_text(TOY, Path.cwd(), sets)
    return run_all([resolved], Console(), continue_unfinished=unfinished, report=no_report)


def interrupted() -> Path:
    """Interrupt a run in its second epoch, and return its folder."""
    recorder.ACTIONS["step_end"] = lambda state: state.step == 6 and state.interrupt("now")
    assert run() is ExitCode.STOPPED
    recorder.ACTIONS.clear()
    recorder.SEEN.clear()
    (folder,) = Path("runs/toy").iterdir()
    return folder


def weights(folder: Path) -> dict[str, Any]:
    found = checkpoint.read(folder / "checkpoints" / "epoch-0002.safetensors")["model"]
    return {name: value.tolist() for name, value in found.items()}


NEWS = (
    "settings that are newer than the saved recipe: run.shards = 0, optimizer.amsgrad = false, "
    "scheduler.warmup = 0, checkpoint.keep_every = 0 (their defaults)"
)


def test_continue_goes_on_with_a_run_of_an_older_version_and_names_the_new_settings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = interrupted()
    make_older(folder)
    capsys.readouterr()
    assert run() is ExitCode.FINISHED
    said = capsys.readouterr().out
    assert NEWS in said
    assert "changed:" not in said
    assert list(Path("runs/toy").iterdir()) == [folder]
    recorder.ACTIONS["epoch_start"] = lambda state: pytest.fail("a finished run is trained again")
    make_older(folder)
    assert run() is ExitCode.FINISHED
    said = capsys.readouterr().out
    assert "finished already" in said
    assert NEWS in said
    recorder.ACTIONS.clear()
    assert run(unfinished=False) is ExitCode.FINISHED
    (straight,) = set(Path("runs/toy").iterdir()) - {folder}
    assert weights(folder) == weights(straight)


def test_a_new_setting_that_the_recipe_sets_to_its_default_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    folder = interrupted()
    make_older(folder)
    assert run("run.shards=0", "optimizer.amsgrad=false") is ExitCode.FINISHED
    said = capsys.readouterr().out
    assert "goes on differently" not in said
    assert list(Path("runs/toy").iterdir()) == [folder]


def test_a_run_that_an_older_version_started_and_that_saved_nothing_is_started_again() -> None:
    recorder.ACTIONS["epoch_start"] = lambda state: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run()
    recorder.ACTIONS.clear()
    (folder,) = Path("runs/toy").iterdir()
    assert not list((folder / "checkpoints").iterdir())
    make_older(folder)
    assert run() is ExitCode.FINISHED
    assert list(Path("runs/toy").iterdir()) == [folder]


def test_resume_names_the_new_settings_of_an_older_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    folder = interrupted()
    make_older(folder)
    capsys.readouterr()
    resume(folder, quiet=False)
    assert f"  {NEWS}\n" in capsys.readouterr().out


def renamed(text: str) -> str:
    return text.replace("keep_every = 0", "keep_each = 0")


@pytest.mark.parametrize(
    ("change", "sets", "difference"),
    [
        (without, ("optimizer.amsgrad=true",), "optimizer.amsgrad (false -> true)"),
        (without, ("run.seed=1",), "run.seed (0 -> 1), checkpoint.keep_every (not set -> 0), "),
        (renamed, (), "checkpoint.keep_each (0 -> not set), checkpoint.keep_every (not set -> 0)"),
        (str, ("run.seed=1",), "run.seed (0 -> 1)"),
        (
            str,
            ("hooks.other.use=clients.recorder:Recorder",),
            'hooks.other.use (not set -> "clients.recorder:Recorder")',
        ),
    ],
    ids=["a new setting with another value", "another value", "a setting that is gone", "one version", "a new table"],
)
def test_another_recipe_starts_anew_and_the_difference_is_named(
    change: Callable[[str], str], sets: tuple[str, ...], difference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = interrupted()
    make_older(folder, change)
    capsys.readouterr()
    assert run(*sets) is ExitCode.FINISHED
    assert f"{folder} is a run of another recipe, which differs in {difference}" in capsys.readouterr().out
    assert len(list(Path("runs/toy").iterdir())) == 2


def test_a_saved_recipe_that_cannot_be_used_any_more_is_compared_as_it_is_written() -> None:
    now = resolve_text(TOY, Path.cwd())
    gone = without(write(now.tree)).replace("clients.toy:Line", "clients.gone:Line")
    other = resolve_text(TOY, Path.cwd())
    other.tree["data"]["use"] = "clients.gone:Line"  # as if its class had been there
    found = compare(gone, other)
    assert not found.new
    assert "run.shards (not set -> 0)" in found.differences
    assert compare("this is = no = TOML", now).differences == ("the saved recipe cannot be read",)


def test_code_that_only_a_saved_recipe_names_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(".")
    Path("planted.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    folder = interrupted()
    make_older(folder, lambda text: without(text).replace("clients.recorder:Recorder", "planted:Hook"))
    assert run() is ExitCode.FINISHED
    assert not Path("executed").exists()
    assert len(list(Path("runs/toy").iterdir())) == 2
