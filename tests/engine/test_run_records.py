"""What a run folder records of each start, so that somebody who was not there can tell what happened."""

import json
import platform
from pathlib import Path

import pytest
from clients import toy_run

from trainkit.engine.run_folder import recipe_of_start
from trainkit.errors import TrainkitError


def starts(folder: Path) -> list[dict]:
    return json.loads((folder / "environment.json").read_text())["starts"]


def test_a_start_says_where_it_ran_on_what_with_which_data_and_when_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = toy_run.run("run.seed=3").run.state.folder
    (start,) = starts(folder)
    assert (start["host"], start["device"]) == (platform.node(), "cpu")
    assert start["computes_on"]["threads"] >= 1
    assert start["data"]["fingerprint"] == {}
    assert start["time"] <= start["ended_at"]
    assert start["origins"]["run.seed"] == "--set run.seed=3"
    assert start["origins"]["run.epochs"] == "recipe:5"
    assert "optimizer.lr" not in start["origins"]
    assert "error" not in start


def test_the_recipe_of_each_start_is_kept_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = toy_run.run().run.state.folder
    first = (folder / "recipe.toml").read_text()
    toy_run.resume(folder, "run.epochs=3")
    second = (folder / "recipe.toml").read_text()
    toy_run.resume(folder, "run.epochs=4")
    toy_run.resume(folder, "run.epochs=5")
    assert [recipe_of_start(folder, number).read_text() for number in (1, 2)] == [first, second]
    assert "epochs = 5" in recipe_of_start(folder, 4).read_text()
    assert recipe_of_start(folder, 4).name == "recipe.toml"


def test_the_message_of_an_error_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainkitError):
        toy_run.run("optimizer.lr=1e30", "optimizer.use=sgd", "run.epochs=40")
    (folder,) = Path("runs/toy").iterdir()
    (start,) = starts(folder)
    assert start["ended"].startswith("failed")
    assert "not finite" in start["error"]
