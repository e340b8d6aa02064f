"""A weight "auto": chosen by held-out data, held against ridge regression, whose best weight numpy computes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli
from click.testing import CliRunner, Result
from clients import recorder
from clients.ridge import RECIPE, held_out_loss
from same import differences, trained

from trainkit import RecipeError, State
from trainkit.checkpoint.content import read_run
from trainkit.checkpoint.folder import CheckpointFolder
from trainkit.cli.run import command
from trainkit.engine.every_run import metrics_file
from trainkit.engine.golden_section import best_of, is_at_end, search
from trainkit.engine.weight_judgement import Facts, Tried, judge
from trainkit.errors import DivergedError, NonFiniteError

SEED = 3  # of points with a lower held-out loss at 1.2 than at 0


def run(*options: str) -> Result:
    Path("r.toml").write_text(RECIPE)
    return CliRunner().invoke(command, ["r.toml", "--set", f"run.seed={SEED}", *options])


def run_folder() -> Path:
    (found,) = Path("runs/ridge").glob("*")
    return found


def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_folder() / "weight_search.json").read_text())["weights"]["ridge"]
    return found


def newest() -> dict[str, Any]:
    return trained(CheckpointFolder(run_folder() / "checkpoints").newest_good(print, reader=read_run)[1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Result]]:
    """A folder with a finished search, and what it printed."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder, run()


@pytest.fixture
def whole(finished: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> Result:
    """Work in the folder of the finished search."""
    monkeypatch.chdir(finished[0])
    return finished[1]


def test_the_weight_is_the_best_of_ridge_regression(whole: Result) -> None:
    assert whole.exit_code == 0, whole.output
    grid = np.logspace(-3, 2, 2000)
    losses = [held_out_loss(SEED, weight) for weight in grid]
    best, found = grid[int(np.argmin(losses))], record()
    assert abs(math.log(found["chosen"] / best)) < math.log(1.5)
    assert held_out_loss(SEED, found["chosen"]) < 1.01 * min(losses)
    for each in found["tried"]:
        assert each["value"] == pytest.approx(held_out_loss(SEED, each["weight"]), rel=0.02)


def test_the_run_is_one_with_the_number_and_says_how_it_was_chosen(whole: Result) -> None:
    chosen, folder = record()["chosen"], run_folder()
    recipe = tomli.loads((folder / "recipe.toml").read_text())
    assert (recipe["losses"]["ridge"]["weight"], "weight_search" in recipe) == (chosen, False)
    line = f"losses.ridge.weight = {chosen:g}, chosen by val/loss: weights from"
    assert line in whole.output
    assert line in (folder / "log.txt").read_text()
    assert len([each for each in metrics_file.read(folder) if "seconds" in each]) == 4
    values = {each["weight"]: each["value"] for each in record()["tried"]}
    assert metrics_file.read(folder)[-1]["val/loss"] == values[chosen]  # to the last digit that of its branch


def test_a_finished_search_is_not_repeated(whole: Result) -> None:
    result = run("--continue")
    assert result.exit_code == 0, result.output
    assert not recorder.SEEN
    assert f"{run_folder()}: finished already" in result.output


@pytest.mark.slow  # a whole search, which is stopped in each of its kinds of runs
def test_a_search_that_is_stopped_goes_on_to_the_same_bits(
    finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished[0])
    content, tried = newest(), record()["tried"]
    monkeypatch.chdir(tmp_path)
    stops = {"start": 50, "ridge_0.581": 130, "ridge": 140}

    def stop(state: State) -> None:
        if stops.get(state.folder.parent.name) == state.step:
            del stops[state.folder.parent.name]
            state.interrupt("now")

    recorder.ACTIONS["step_end"] = stop
    assert run().exit_code == 75
    assert run("--continue").exit_code == 75
    result = run("--continue")
    assert (result.exit_code, stops) == (75, {})
    assert run("--continue").exit_code == 0
    assert [(each["weight"], each["value"]) for each in record()["tried"]] == [
        (each["weight"], each["value"]) for each in tried
    ]
    assert not differences(content, newest())
    assert [state for event, *state in recorder.SEEN if event == "picture"] == [[3, 160]]  # only of the run itself
    assert sum(event == "step_end" for event, _, _ in recorder.SEEN) == 40 * (3 + len(tried) + 1)  # none made twice


@pytest.mark.slow  # two searches
def test_two_weights_are_chosen_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    second = '{ use = "clients.ridge:Ridge", weight = "auto" }'
    result = run("--set", f"losses.again={second}", "--set", "weight_search.branches=5")
    assert "warning: weights will be chosen by" not in result.output
    found = json.loads((run_folder() / "weight_search.json").read_text())["weights"]
    chosen = {name: each["chosen"] for name, each in found.items()}
    recipe = tomli.loads((run_folder() / "recipe.toml").read_text())
    assert {name: recipe["losses"][name]["weight"] for name in chosen} == chosen
    runs = {each["weight"]: each["run"] for each in found["ridge"]["tried"]}
    assert found["again"]["tried"][0]["run"] == runs[chosen["ridge"]]  # its branch 0 is the best of the first
    assert held_out_loss(SEED, sum(chosen.values())) < 1.02 * min(held_out_loss(SEED, w) for w in np.logspace(-3, 2))


@pytest.mark.slow  # a whole search
@pytest.mark.parametrize("error", [NonFiniteError("train/loss is nan"), DivergedError("a position ran away")])
def test_a_branch_that_diverges_is_left_out_and_the_rest_decides(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def diverge(state: State) -> None:
        if state.folder.parent.name == "ridge_10":
            raise error

    recorder.ACTIONS["step_end"] = diverge
    result = run("--set", "weight_search.branches=5")
    assert result.exit_code == 0, result.output
    assert "this weight is left out" in result.output
    assert {each["weight"]: each["value"] for each in record()["tried"]}[10.0] is None


def test_nothing_but_run_starts_a_search(whole: Result) -> None:
    from trainkit.cli.resume import command as resume

    result = CliRunner().invoke(resume, ["ridge", "--epochs", "5", "--allow-code", "--set", "losses.ridge.weight=auto"])
    assert isinstance(result.exception, RecipeError)
    assert 'losses.ridge.weight = "auto", which trainkit run chooses' in str(result.exception)


# ---- the search of a minimum ----------------------------------------------------------------------------------------


def minimum(value: Any, low: float, high: float, tries: int = 8) -> dict[float, float]:
    searching = search(low, high, tries)
    number = next(searching)
    try:
        while True:
            number = searching.send(value(number))
    except StopIteration as end:
        found: dict[float, float] = end.value
        return found


@pytest.mark.parametrize("best", [0.003, 0.02, 0.1, 0.5, 3.0])
def test_golden_section_finds_a_minimum_inside_or_beside_its_range(best: float) -> None:
    known = minimum(lambda number: math.log(number / best) ** 2 if number else 99.0, 0.01, 1.0)
    assert len(known) == 8
    assert not is_at_end(known)
    assert abs(math.log10(best_of(known) / best)) < 0.2


def test_a_minimum_that_is_too_far_is_at_the_end_of_what_was_tried() -> None:
    known = minimum(lambda number: -number, 0.01, 1.0)
    assert len(known) == 8
    assert is_at_end(known)
    assert max(known) > 100


def test_no_more_is_tried_when_the_value_rises_from_0_on() -> None:
    known = minimum(lambda number: number, 0.01, 1.0)
    assert (len(known), best_of(known), is_at_end(known)) == (4, 0.0, False)


# ---- what branches say ----------------------------------------------------------------------------------------------

FACTS = Facts("tv", "val/loss", "min", 5)


def tried(values: dict[float, float], noise: float = 0.0, items: int = 100) -> dict[float, Tried]:
    """Branches with values, and items that scatter independently."""
    random = np.random.default_rng(0)
    found = {}
    for weight, value in values.items():
        scatter = random.normal(size=items) * noise
        found[weight] = Tried(value, tuple(value + scatter - scatter.mean()))
    return found


def test_weights_are_equal_within_two_standard_errors_of_the_difference() -> None:
    values = {0.0: 4.0, 0.1: 3.2, 1.0: 3.0, 3.0: 3.1, 10.0: 3.9}
    noisy = judge(tried(values, noise=1.0), FACTS)  # the error of a difference is √2 / √100
    assert noisy.weight == 1.0
    assert noisy.lines[-1].endswith("weights from 0.1 to 3 are equal within the scatter of 100 held-out items")
    sure = judge(tried(values, noise=0.1), FACTS)
    assert sure.record["equal_within_scatter"] == [1.0, 1.0]
    assert "every other weight that was tried is worse" in sure.lines[-1]
    assert not noisy.doubts
    assert not sure.doubts


def test_a_weight_of_0_that_is_best_is_used_and_said() -> None:
    found = judge(tried({0.0: 3.0, 0.1: 3.1, 1.0: 3.2, 10.0: 3.9}, noise=0.1), FACTS)
    assert found.weight == 0.0
    assert found.lines[-1].startswith("losses.tv.weight = 0, chosen by val/loss: no weight is better than none")


def test_a_value_that_should_be_large_is_read_so() -> None:
    facts = Facts("tv", "val/dice", "max", 5)
    assert judge(tried({0.0: 0.7, 0.1: 0.8, 1.0: 0.9, 10.0: 0.5}), facts).weight == 1.0


@pytest.mark.parametrize(
    ("branches", "doubt"),
    [
        (tried({0.0: 4.0, 0.1: 3.5, 1.0: 3.0, 10.0: 2.0}), "between = [10, 1e+03]"),
        (tried({0.0: 4.0, 0.1: 3.0, 1.0: 3.5, 10.0: 3.9}), "between = [0.001, 0.1]"),
        (tried(dict.fromkeys((0.0, 0.1, 1.0, 10.0), 3.0)), "made no difference"),
        (tried({0.0: 4.0, 0.1: 3.5, 1.0: 3.0, 10.0: 3.4}, items=8), "was chosen by 8 held-out items"),
        (
            {
                weight: Tried(value, (), {1: middle, 2: middle, 3: value})
                for weight, middle, value in ((0.0, 4.0, 4.0), (0.1, 3.1, 3.5), (1.0, 3.5, 3.0), (10.0, 3.6, 3.4))
            },
            "was 0.1 in the middle of the branches, and 1 at their end",
        ),
    ],
)
def test_what_makes_the_choice_doubtful_is_said_with_what_to_do(branches: dict[float, Tried], doubt: str) -> None:
    (found,) = judge(branches, FACTS).doubts
    assert doubt in found
