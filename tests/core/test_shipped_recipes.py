"""Every recipe that comes with trainkit runs: on its own data, or on a tiny made-up file in the same layout."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import h5py
import pytest
from clients.made_up_inputs import MADE_UP
from without_geometry_search import no_geometry_search

from trainkit import registry
from trainkit.console import Console
from trainkit.engine.start import ExitCode, start
from trainkit.groups.plan import RunLength, plan_groups
from trainkit.recipe.resolve import resolve
from trainkit.recipe.shipped import shipped


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in shipped() if not name.endswith("_static")])  # the same as its twin
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sets = MADE_UP[name](tmp_path)
    with nullcontext() if name == "ptycho_mos2" else no_geometry_search():
        ending = start(resolve(shipped()[name], (*sets, "run.epochs=2", "run.device=cpu")), Console(quiet=True))
    assert ending.code in (ExitCode.FINISHED, ExitCode.DOUBTFUL)  # patterns of noise: no better than an empty object
    folder = ending.run.state.folder
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["finished_epochs"] for line in lines] == [1, 2]
    assert lines[1]["train/loss"] < lines[0]["train/loss"]
    figures = {path.name for path in folder.glob("figures/*")}
    if name.startswith("ptycho"):
        assert {"object_phase-0002.png", "probe-0002.png"} <= figures
        with h5py.File(folder / "result.h5") as result:
            assert len(result) > 0
    else:
        assert ("overlay-0002.png" in figures) is ("overlays" in ending.run.resolved.recipe.hooks)
        assert 0.0 <= lines[1]["val/dice"] <= 1.0
        assert sum(key.startswith("val/dice_") for key in lines[1]) == len(ending.run.state.data.classes)


@pytest.mark.slow  # two trials
def test_the_shipped_search_finds_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna", reason="Optuna, which trainkit tune needs (the extra tune), is not installed")
    from trainkit.engine.tuning import tune

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trainkit.engine.tuning.pictures.draw_study", lambda *_: [])  # has tests of its own
    sets = (*MADE_UP["segmentation_search"](tmp_path), "run.epochs=2", "run.device=cpu", "search.trials=2")
    assert tune.tune(resolve(shipped()["segmentation_search"], sets), Console(quiet=True)) == ExitCode.FINISHED
    best = resolve(tmp_path / "runs/segmentation_search/best.toml")
    assert best.recipe.run.name == "segmentation"
    assert best.search is None


def unet_recipes() -> list[str]:
    return [name for name in shipped() if name.endswith("_unet")]


@pytest.mark.parametrize("name", unet_recipes())
def test_a_static_twin_is_the_same_but_for_its_schedule(name: str) -> None:
    there = ("data.path=somewhere",)
    adaptive, static = (resolve(shipped()[each], there).recipe for each in (name, f"{name}_static"))
    assert type(static.scheduler).__name__ == "NoSchedule"
    renamed = attrs.evolve(adaptive.run, name=static.run.name)
    assert static.run.name == f"{name}_static"
    assert attrs.evolve(adaptive, run=renamed, scheduler=static.scheduler) == static


@pytest.mark.parametrize("name", ["brats_unet", "msd_liver_unet", "totalsegmentator_unet"])
def test_a_long_recipe_lowers_its_rate_on_a_plateau(name: str) -> None:
    recipe = resolve(shipped()[name], ("data.path=somewhere",)).recipe
    assert (recipe.run.epochs, recipe.checkpoint.every_epochs) == (50, 1)
    schedule: Any = recipe.scheduler
    assert (schedule.mode, schedule.factor, schedule.patience) == ("max", 0.5, 10)
    assert (recipe.monitor.metric, schedule.metric) == ("val/dice", None)


def test_the_hippocampus_recipe_has_one_cycle_whatever_its_length() -> None:
    for epochs in (1, 12, 40):
        found = resolve(shipped()["msd_hippocampus_unet"], ("data.path=somewhere", f"run.epochs={epochs}"))
        assert not found.notes
        plan = plan_groups(found.recipe, {"all": True}, RunLength(epochs))["all"].phases[0]
        rates = [plan.rate(step // 100, step, 100, {}).lr for step in range(100 * epochs)]
        assert max(rates) == pytest.approx(found.recipe.optimizer.lr, rel=1e-3)
        assert rates[-1] < 1e-4 * max(rates)


@pytest.mark.parametrize("name", [*unet_recipes(), "segmentation_synthetic"])
@pytest.mark.parametrize("use", ["cosine", "one_cycle", "polynomial", "none"])
def test_another_schedule_is_one_word(name: str, use: str) -> None:
    path = ("data.path=somewhere",) if name.endswith("_unet") else ()
    recipe = resolve(shipped()[name], (*path, f"scheduler.use={use}")).recipe
    assert registry.name_of(type(recipe.scheduler)) == use


@pytest.mark.parametrize("name", ["fine_tune", "ptycho_mos2", "ptycho_mos2_hash", "ptycho_siemens", *unet_recipes()])
def test_a_recipe_without_its_data_says_what_to_set(name: str) -> None:
    from trainkit import RecipeError

    with pytest.raises(RecipeError, match=r'"path" is missing'):
        resolve(shipped()[name])
