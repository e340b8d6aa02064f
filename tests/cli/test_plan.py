"""``trainkit plan`` of groups with optimizers and phases of their own, held against rates worked out by hand."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from recipe_toys import GOOD, toys

from trainkit.cli.plan import command as plan
from trainkit.errors import RecipeError
from trainkit.groups import plan_picture
from trainkit.groups.plan import RunLength, plan_groups
from trainkit.recipe.group_epochs import declared_groups
from trainkit.recipe.resolve import resolve_text


@pytest.fixture(scope="module", autouse=True)
def _toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with toys(tmp_path_factory.mktemp("toys")):
        yield


def planned(folder: Path, text: str, *options: str) -> list[str]:
    path = folder / "x.toml"
    path.write_text(text)
    result = CliRunner().invoke(plan, [str(path), *options], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output.splitlines()


PHASES = """
[groups.body]
lr_factor = 0.5
optimizer = { use = "hasty", lr = 0.4 }
[groups.body.then.finish]
start_epoch = 3
optimizer = { use = "steep", lr = 0.003 }
[groups.body.then.end]
start_epoch = 5
lr_factor = 0.1
scheduler = { use = "none", warmup = 2 }
"""


def test_the_phases_of_a_group_are_shown_with_what_they_change(tmp_path: Path) -> None:
    assert planned(tmp_path, GOOD + PHASES) == [
        "finished        body        head",
        "       0         0.2           -",  # half of 0.4
        "       3       0.003           -",
        "       5      0.0001           -",  # a third of a tenth of 0.003: warm-up over two epochs
        "       6      0.0002           -",
        "       7      0.0003           -",
        "       9      0.0003           -",
        "head: optimizer steep",
        "body: its own optimizer hasty",
        "after 3 epochs: body: then finish: optimizer steep, lr 0.003",
        "after 5 epochs: body: then end: lr 0.0003, scheduler none",
        "frozen for the whole run: head (set groups.<name>.start_epoch to train one of them)",
    ]


def test_a_group_that_is_meant_to_stay_frozen_is_shown_without_advice(tmp_path: Path) -> None:
    lines = planned(tmp_path, GOOD + "[groups.head]\nstart_epoch = 0\n[groups.body]\nstop_epoch = 0\n")
    assert lines[1].split() == ["0", "-", "0.001"]
    assert lines[-1] == "frozen for the whole run: body"


def test_a_run_in_steps_is_shown_in_epochs_of_so_many_steps_as_are_assumed(tmp_path: Path) -> None:
    in_steps = GOOD.replace("epochs = 10", "steps = 450")
    lines = planned(tmp_path, in_steps)
    assert [line.split()[0] for line in lines[1:3]] == ["0", "4"]
    assert "the run lasts 450 steps, shown as 5 epochs of 100 steps" in lines
    assert "the run lasts 450 steps, shown as 3 epochs of 200 steps" in planned(
        tmp_path, in_steps, "--steps-per-epoch", "200"
    )


def test_an_epoch_without_a_group_in_the_assumed_length_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no parameter group trains from 2 to 5 finished epochs"):
        planned(tmp_path, GOOD.replace("epochs = 10", "steps = 450") + "[groups.body]\nstop_epoch = 2\n")


# ---- as a picture ---------------------------------------------------------------------------------------------------


def curves(text: str, epochs: int, steps: int = 100) -> dict[str, tuple[list[float], list[float]]]:
    recipe = resolve_text(text, Path.cwd()).recipe
    names = declared_groups(recipe)
    assert names is not None
    plans = plan_groups(recipe, names, RunLength(epochs))
    drawn = plan_picture.DrawnPlan("", recipe, plans, RunLength(epochs), steps)
    return {name: plan_picture.rates(each, drawn) for name, each in plans.items()}


def test_the_picture_draws_the_rates_that_the_table_shows(tmp_path: Path) -> None:
    text = GOOD + PHASES
    _, *rows = planned(tmp_path, text)
    shown = {int(row.split()[0]): row.split()[1:] for row in rows if row.split()[0].isdigit()}
    epochs = max(shown) + 1
    for column, (x, y) in enumerate(curves(text, epochs).values()):
        assert x == list(range(epochs + 1))
        for epoch, cells in shown.items():
            cell = cells[column]
            assert math.isnan(y[epoch]) if cell == "-" else f"{y[epoch]:.4g}" == cell


def test_stages_are_marked_where_groups_start_stop_and_change(tmp_path: Path) -> None:
    recipe = resolve_text(GOOD + PHASES, tmp_path).recipe
    names = declared_groups(recipe)
    assert names is not None
    found = plan_picture.stages(plan_groups(recipe, names, RunLength(8)), 8)
    assert found[3] == ["body: finish"]
    assert found[5] == ["body: end"]


@pytest.mark.slow
def test_a_picture_is_written_whatever_the_plan_and_the_table_is_printed_all_the_same(tmp_path: Path) -> None:
    sweep = GOOD + "\n[sweep]\noptimizer.lr = [1e-2, 1e-3]\n"
    for text in (GOOD, GOOD + PHASES, sweep):
        lines = planned(tmp_path, text, "--png", str(tmp_path / "plan.png"))
        assert any(line.split()[:1] == ["finished"] for line in lines)
        assert f"wrote {tmp_path / 'plan.png'}: {2 if text is sweep else 1} plan{'s' * (text is sweep)}" in lines
        with Image.open(tmp_path / "plan.png") as picture:
            assert picture.size[0] == 990
            colours = len(set(np.asarray(picture.convert("RGB").resize((200, 100))).reshape(-1, 3).sum(1).tolist()))
        assert colours > 50
    many = GOOD + f"\n[sweep]\noptimizer.lr = {[0.01 / n for n in range(1, 9)]}\n"
    (tmp_path / "many.toml").write_text(many)
    result = CliRunner().invoke(plan, [str(tmp_path / "many.toml"), "--png", str(tmp_path / "many.png")])
    assert isinstance(result.exception, RecipeError)
    assert "8 different plans" in str(result.exception)
    result = CliRunner().invoke(plan, [str(tmp_path / "x.toml"), "--png", str(tmp_path / "no" / "x.png")])
    assert "cannot be written" in str(result.exception)
