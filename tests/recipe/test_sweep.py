"""Which runs a table ``[sweep]`` describes, what they are called, and which mistakes are found before the first one."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from recipe_toys import GOOD

from trainkit.cli.check import command as check
from trainkit.cli.plan import command as plan
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import Resolved, resolve, resolve_all, resolve_each, resolve_text, write
from trainkit.recipe.sweep import short_names

pytestmark = pytest.mark.usefixtures("toys_installed", "in_own_folder")


GRID = """
[sweep]
optimizer.lr = [0.1, 0.2]
data.batch_size = [2, 3, 4]
"""


def runs(table: str, *sets: str, recipe: str = GOOD) -> list[Resolved]:
    Path("x.toml").write_text(recipe + table)
    return resolve_each("x.toml", sets)


def names(table: str, *sets: str, recipe: str = GOOD) -> list[str]:
    return [each.recipe.run.name for each in runs(table, *sets, recipe=recipe)]


def mistakes(table: str, *sets: str, recipe: str = GOOD) -> str:
    with pytest.raises(InvalidRecipe) as caught:
        runs(table, *sets, recipe=recipe)
    return str(caught.value)


def settings(found: Resolved) -> dict[str, Any]:
    return {**found.tree, "run": {k: v for k, v in found.tree["run"].items() if k not in ("name", "dir")}}


# ---- which runs -----------------------------------------------------------------------------------------------------


def test_a_grid_is_what_set_gives_for_every_combination() -> None:
    found = runs(GRID)
    Path("alone.toml").write_text(GOOD)
    alone = [
        resolve("alone.toml", (f"optimizer.lr={lr}", f"data.batch_size={size}"))
        for lr, size in product((0.1, 0.2), (2, 3, 4))
    ]
    assert [settings(each) for each in found] == [settings(each) for each in alone]


def test_keys_that_move_together_are_combined_with_the_grid_as_one() -> None:
    pair = "[sweep.together.a]\ndata.batch_size = [2, 3]\ndata.noise = [0.3, 0.4]\n"
    trees = [each.tree for each in runs(f"[sweep]\noptimizer.lr = [0.1, 0.2]\n{pair}")]
    values = [(tree["optimizer"]["lr"], tree["data"]["batch_size"], tree["data"]["noise"]) for tree in trees]
    assert values == [(lr, *pair) for lr in (0.1, 0.2) for pair in ((2, 0.3), (3, 0.4))]


def test_a_quoted_key_is_a_dotted_one() -> None:
    assert names('[sweep]\n"data.batch_size" = [2, 3]\n') == names("[sweep]\ndata.batch_size = [2, 3]\n")


def test_another_component_drops_the_inherited_settings_of_the_one_before() -> None:
    recipe = GOOD.replace('use = "steep"', 'use = "steep"\nlr = 0.5\nweight_decay = 0.1')
    steep, hasty = runs('[sweep]\noptimizer.use = ["steep", "hasty"]\n', recipe=recipe)
    assert steep.tree["optimizer"] == {"use": "steep", "lr": 0.5, "weight_decay": 0.1, "betas": [0.9, 0.999]}
    assert hasty.tree["optimizer"] == {"use": "hasty", "lr": 0.001, "haste": 1}
    rounded, paired = runs('[sweep]\nmodel.shape = [{ use = "round" }, { use = "pair", first = { use = "round" } }]\n')
    assert (rounded.recipe.run.name, paired.recipe.run.name) == ("shape_round", "shape_pair_first_round")


def test_a_child_recipe_and_set_extend_the_table_of_its_parent() -> None:
    Path("parent.toml").write_text(GOOD + GRID)
    Path("child.toml").write_text('extends = ["parent.toml"]\n[sweep]\noptimizer.lr = [0.7]\n')
    assert len(resolve_each("child.toml")) == 3
    assert len(resolve_each("child.toml", ["sweep.data.batch_size=[5, 6]"])) == 2
    (single,) = resolve_each("child.toml", ['drop=["sweep"]'])
    assert (single.point, single.recipe.run.name) == (None, "child")


def test_the_recipe_of_a_run_stands_alone() -> None:
    for each in runs(GRID):
        text = write(each.tree)
        assert "sweep]" not in text
        assert resolve_text(text, Path("/"), resolved=True).recipe == each.recipe


def test_a_command_that_takes_one_run_refuses_a_sweep() -> None:
    runs(GRID)
    with pytest.raises(InvalidRecipe, match=r"x\.toml:\d+:2: error: sweep: describes several runs"):
        resolve("x.toml")


# ---- names ----------------------------------------------------------------------------------------------------------


def test_runs_are_named_after_what_differs_in_a_folder_of_the_sweep() -> None:
    found = runs(GRID)
    assert [each.recipe.run.name for each in found][:2] == ["lr_0.1-batch_size_2", "lr_0.1-batch_size_3"]
    assert {each.recipe.run.dir for each in found} == {Path.cwd() / "runs" / "x_sweep"}
    assert found[0].point is not None
    assert found[0].point.folder == found[0].recipe.run.dir


def test_further_values_do_not_change_the_names_of_earlier_ones() -> None:
    longer = GRID.replace("0.2]", "0.2, 0.4]")
    assert set(names(GRID)) < set(names(longer))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("data.noise = [1e-5, 2.0]", ["noise_1e-05", "noise_2"]),
        ("run.deterministic = [true, false]", ["deterministic_true", "deterministic_false"]),
        ('run.device = ["cuda:0", "cpu"]', ["device_cuda_0", "device_cpu"]),
        ("model.layers = [[8, 8], [16, 16, 16]]", ["layers_8x8", "layers_16x16x16"]),
        ('optimizer.use = ["hasty", "steep"]', ["optimizer_hasty", "optimizer_steep"]),
    ],
)
def test_names_are_short_and_safe_for_every_type_of_value(table: str, expected: list[str]) -> None:
    assert names(f"[sweep]\n{table}\n") == expected


def test_values_that_would_be_called_alike_get_a_mark() -> None:
    found = names('[sweep]\ndata.path = ["a/x.npy", "b/x.npy", "c/y.npy"]\n')
    assert len({each.casefold() for each in found}) == 3
    assert [each[:10] for each in found] == ["path_x.npy", "path_x.npy", "path_y.npy"]


def test_a_long_name_is_cut_and_stays_unique() -> None:
    lists = ", ".join(str([float(i), *([0.125] * 40)]) for i in range(3))
    found = names(f"[sweep]\ndata.extra.weights = [{lists}]\n")
    assert len(set(found)) == 3
    assert max(map(len, found)) <= 80


def test_a_name_that_moves_with_other_keys_stands_for_all_of_them() -> None:
    table = """[sweep]
    optimizer.lr = [0.1]
    [sweep.together.size]
    run.name = ["small", "large"]
    data.batch_size = [2, 64]
    """
    assert names(table) == ["lr_0.1-small", "lr_0.1-large"]


def test_a_name_of_the_user_that_says_what_differs_is_kept() -> None:
    assert names(GRID, "run.name=r${optimizer.lr}_${data.batch_size}")[0] == "r0.1_2"
    assert 'several runs of the sweep are called "r0.1"' in mistakes(GRID, "run.name=r${optimizer.lr}")


def test_as_few_parts_of_a_key_as_tell_it_apart_are_in_the_name() -> None:
    keys = [("groups", "a", "lr"), ("groups", "b", "lr"), ("optimizer", "lr"), ("data", "n"), ("model", "shape", "use")]
    assert list(short_names(keys).values()) == ["a_lr", "b_lr", "optimizer_lr", "n", "shape"]


# ---- mistakes -------------------------------------------------------------------------------------------------------


def test_all_mistakes_of_all_runs_are_found_at_once_each_with_its_place_and_its_runs() -> None:
    said = mistakes('[sweep]\noptimizer.lr = [0.1, "fast"]\ndata.batch_size = [2, 0]\noptimizr.lr = [1]\n')
    line = 1 + GOOD.count("\n")
    assert f'x.toml:{line + 1}:22: error: optimizer.lr: must be a number, got "fast"' in said
    assert f"x.toml:{line + 2}:23: error: data.batch_size: must be at least 1, got 0" in said
    assert f"x.toml:{line + 3}:1: error: optimizr: unknown key" in said
    assert 'did you mean "optimizer"' in said
    assert said.count("unknown key") == 1
    assert "in 2 of the 4 runs of the sweep: lr_fast" in said.replace("optimizer_lr_fast", "lr_fast")


def test_a_mistake_of_the_whole_recipe_is_said_once_and_without_runs() -> None:
    said = mistakes(GRID, "run.epochs=0")
    assert said.count("must be at least 1") == 1
    assert "runs of the sweep" not in said


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("sweep = 3", "sweep: must be a table, got 3"),
        ("[sweep]", "names no key; write, for example, optimizer.lr = [1e-2, 1e-3]"),
        ("[sweep]\ndata.noise = 0.1", "sweep.data.noise: must be a list of values, got 0.1"),
        ("[sweep]\ndata.noise = []", "sweep.data.noise: must have at least one value"),
        ("[sweep]\ndata.noise = [0.1, 0.10]", "sweep.data.noise[1]: is the same as an earlier value"),
        ("[sweep]\ndata.noise = [1, 1.0]", "have equal settings"),
        ('[sweep]\nrun.dir = ["a"]', "sweep.run.dir: all runs of a sweep are in one folder"),
        ("[sweep]\ntogether = 3", "sweep.together: must be a table"),
        ("[sweep.together]\ndata.noise = [0.1]", "sweep.together.data: keys that move together stand in a table with"),
        (
            "[sweep.together.a]\ndata.noise = [0.1]\ndata.batch_size = [1, 2]",
            "sweep.together.a: keys that move together need equally many values; data.noise has 1, data.batch_size",
        ),
        ("[sweep]\ndata.noise = [1]\n[sweep.together.a]\ndata.noise = [2]", "data.noise is given values twice"),
        ("[sweep]\ndata = [{}]\n[sweep.together.a]\ndata.noise = [2]", "data.noise and data overlap"),
        (f"[sweep]\nrun.seed = {list(range(40))}\nrun.epochs = {list(range(1, 41))}", "40 × 40 = 1600 runs"),
    ],
)
def test_a_table_that_means_nothing_is_refused_at_its_place(table: str, message: str) -> None:
    recipe, table = (f"{table}\n{GOOD}", "") if table.startswith("sweep") else (GOOD, table)
    assert message in mistakes(table, recipe=recipe)


def test_a_set_of_a_swept_key_is_refused_with_the_ways_out() -> None:
    said = mistakes(GRID, "optimizer.lr=0.5")
    assert "--set optimizer.lr=0.5: error: optimizer.lr: the sweep gives it its values" in said
    assert "--set sweep.optimizer.lr=[…]" in said


def test_a_mistake_in_the_table_does_not_hide_those_of_the_recipe() -> None:
    said = mistakes("[sweep]\ndata.noise = 3\n", "run.epochs=0")
    assert "must be a list of values" in said
    assert "must be at least 1" in said


def test_many_runs_are_pointed_out_with_their_number() -> None:
    found = runs(f"[sweep]\nrun.seed = {list(range(60))}\ndata.batch_size = [1, 2]\n")
    (note,) = {str(note) for each in found for note in each.notes}
    assert "warning: sweep: 60 × 2 = 120 runs, one after the other" in note


def test_mistakes_of_several_files_are_found_together() -> None:
    runs(GRID)
    Path("y.toml").write_text(GOOD + "[sweep]\ndata.noise = [true]\n")
    Path("z.toml").write_text(GOOD + "[sweep]\ndata.batch_size = [-1]\n")
    with pytest.raises(InvalidRecipe) as caught:
        resolve_all(["x.toml", "y.toml", "z.toml"])
    assert len(caught.value.findings) == 2


# ---- commands -------------------------------------------------------------------------------------------------------


def test_check_and_plan_list_the_runs() -> None:
    runs(GRID)
    checked = CliRunner().invoke(check, ["x.toml"], catch_exceptions=False)
    assert checked.exit_code == 0
    verdict, title, first, *_ = checked.output.splitlines()
    assert verdict == "x.toml: a sweep of 6 runs: fine"
    assert title.split() == ["run", "lr", "batch_size"]
    assert first.split() == ["lr_0.1-batch_size_2", "0.1", "2"]
    lines = CliRunner().invoke(plan, ["x.toml"], catch_exceptions=False).output.splitlines()
    assert lines[:7] == checked.output.splitlines()[1:]
    plans = [line for line in lines if line.endswith(":")]
    assert plans == [
        f"{', '.join(f'lr_{lr}-batch_size_{size}' for size in (2, 3, 4))}:" for lr in (0.1, 0.2)
    ]  # the size of batches changes no plan


def test_check_shows_the_complete_recipe_of_each_run_with_origins_in_the_table() -> None:
    runs(GRID)
    shown = CliRunner().invoke(check, ["x.toml", "--resolved"], catch_exceptions=False).output
    assert shown.count("# the run lr_0.") == 6
    line = 2 + GOOD.count("\n") + 1
    assert f"# x.toml:{line}" in next(each for each in shown.splitlines() if each.startswith("lr = 0.1"))
