"""What ``check`` and ``plan`` say about ``[search]``, and which recipes its values make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recipe_toys import GOOD

from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import Resolved, resolve, varied
from trainkit.recipe.search import Parameter, cost_in_words, own_values

pytestmark = pytest.mark.usefixtures("toys_installed", "in_own_folder")


def resolved(search: str, text: str = GOOD) -> Resolved:
    Path("x.toml").write_text(f"{text}\n[search]\n{search}")
    return resolve("x.toml")


def said(search: str, text: str = GOOD) -> list[str]:
    """The mistakes, each without its line and carets."""
    with pytest.raises(InvalidRecipe) as caught:
        resolved(search, text)
    return [str(each.message) + (f" | {each.hint}" if each.hint else "") for each in caught.value.findings]


def keys(found: Resolved) -> dict[str, Parameter]:
    assert found.search is not None
    return {each.name: each for each in found.search.parameters}


RANGE = '[search.keys]\n"optimizer.lr" = { low = 1e-4, high = 1e-1, log = true }\n'


def test_keys_may_be_quoted_or_not_and_have_the_type_of_their_setting() -> None:
    found = keys(
        resolved(
            "[search.keys]\n"
            "optimizer.lr = { low = 1, high = 3 }\n"
            '"run.epochs" = { low = 2, high = 8, step = 2 }\n'
            'model.shape = { choices = [{ use = "round" }, { use = "round", radius_metres = 2.0 }] }\n'
        )
    )
    assert {name: each.kind for name, each in found.items()} == {
        "optimizer.lr": "float",  # the setting takes any number
        "run.epochs": "int",
        "model.shape": "choice",
    }
    assert found["run.epochs"].num_values == 4
    assert found["model.shape"].labels[1] == '{ use = "round", radius_metres = 2.0 }'


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("trials = 3", "nothing is searched: add [search.keys]"),
        ("trails = 3\n" + RANGE, 'unknown key | did you mean "trials"?'),
        ("trials = 0\n" + RANGE, "must be at least 1, got 0"),
        ('sampler = "tqe"\n' + RANGE, 'must be one of "tpe", "gp", "qmc", "random", got "tqe" | did you mean "tpe"?'),
        ('time_limit = "soon"\n' + RANGE, 'must be a duration such as "8h" or "90m", got "soon"'),
        ("[search.keys]\noptimizer.lrr = { low = 1e-3, high = 1.0 }", 'unknown key | did you mean "lr"?'),
        ("[search.keys]\noptimiser.lr = { low = 1e-3, high = 1.0 }", 'no [optimiser] | did you mean "optimizer"?'),
        ("[search.keys]\nema.decay = { low = 0.9, high = 0.99 }", "no [ema] | add [ema] to the recipe"),
        ("[search.keys]\noptimizer.lr = 3", "must be a table, got 3 | write { low ="),
        ("[search.keys]\noptimizer.lr = { lo = 1e-3, high = 1.0 }", 'unknown key | did you mean "low"?'),
        ("[search.keys]\noptimizer.lr = { low = 1e-3 }", '"high" is missing, or choices'),
        ("[search.keys]\noptimizer.lr = { low = 1.0, high = 0.1 }", "must be above low = 1, got 0.1"),
        ("[search.keys]\noptimizer.lr = { low = 0.0, high = 1.0, log = true }", "must be above 0 on a logarithmic"),
        ("[search.keys]\noptimizer.lr = { low = 0.1, high = 1.0, step = -0.1 }", "must be above 0, got -0.1"),
        ("[search.keys]\noptimizer.lr = { low = 0.1, high = 1.0, step = 0.1, log = true }", "has no steps"),
        ("[search.keys]\noptimizer.lr = { low = 0.1, high = inf }", "must be a finite number, got inf"),
        ("[search.keys]\noptimizer.lr = { low = -1.0, high = 1.0 }", "must be a positive number, got -1.0"),
        ("[search.keys]\nrun.epochs = { low = 2.0, high = 8.0 }", "must be a whole number, got 2.0"),
        ("[search.keys]\noptimizer.lr = { choices = [0.1] }", "must have at least two values"),
        ("[search.keys]\noptimizer.lr = { choices = [0.1, 0.1] }", "is the same as an earlier value"),
        ("[search.keys]\noptimizer.lr = { choices = [0.1, 0.2], low = 0.1 }", "choices are given too"),
        ("[search.keys]\noptimizer.lr = { choices = [0.1, true] }", "must be a number, got true"),
        ('[search.keys]\nmodel.shape = { choices = [{ use = "round" }, { use = "rond" }] }', 'did you mean "round"?'),
        ("[search.keys]\nrun.name = { choices = ['a', 'b'] }", "run.name cannot be searched: each trial has a name"),
        (RANGE + "optimizer.lr = { low = 1e-4, high = 1.0 }", "optimizer.lr is searched twice"),
        ('metric = "val/dise"\nmode = "min"\n' + RANGE, 'no value "val/dise" is computed'),
        ('metric = "train/loss"\n' + RANGE, 'mode = "min" or "max"'),
        ('[search.objectives]\na = { metric = "val/loss", mode = "min" }\n' + RANGE, "one objective is written as"),
        (RANGE + '"run.seed" = { low = 0, high = 9, when = { "optimizer.us" = 1 } }', "is not searched, so it is"),
        (RANGE + '"run.seed" = { low = 0, high = 9, when = { "optimizer.lr" = 1e-3 } }', "hardly ever has one value"),
        ("[search.keys]\nlosses.data.weight = { low = 0.1, high = 1.0 }", "val/loss is computed with it"),
    ],
)
def test_a_mistake_is_refused_with_what_to_do(search: str, message: str) -> None:
    found = said(search)
    assert message in found[0]
    assert len(found) <= 2  # at both ends of a range, if at all


def test_a_mistake_in_a_value_has_the_place_of_the_value() -> None:
    Path("x.toml").write_text(GOOD + "[search.keys]\nmodel.layers = { choices = [[1, 2], [3, 'x']] }\n")
    with pytest.raises(InvalidRecipe) as caught:
        resolve("x.toml")
    line = len(GOOD.splitlines()) + 2
    place = "search.keys.model.layers.choices[1][1]"
    assert f'x.toml:{line}:41: error: {place}: must be a whole number, got "x"' in str(caught.value)


def test_keys_inside_a_chosen_table_are_tried_with_each_choice() -> None:
    choices = 'optimizer = { choices = [{ use = "steep", lr = 0.1 }, { use = "steeper" }] }\n'
    found = said(f"[search.keys]\n{choices}", GOOD)
    assert 'unknown component "steeper"' in found[0] or "steeper" in found[0]
    shapes = 'model.shape = { choices = [{ use = "round" }, { use = "pair", first = { use = "round" } }] }\n'
    radius = '"model.shape.radius_metres" = { low = 0.5, high = 2.0 }\n'
    (found_radius,) = said(f"[search.keys]\n{shapes}{radius}")
    assert found_radius.startswith("unknown key")
    assert "so it is with model.shape = " in found_radius
    assert "add a condition: when = " in found_radius
    condition = '"model.shape.radius_metres" = { low = 0.5, high = 2.0, when = { model.shape.use = "round" } }\n'
    assert keys(resolved(f"[search.keys]\n{shapes}{condition}"))["model.shape.radius_metres"].when
    (never,) = said(f"[search.keys]\n{shapes}{condition.replace(chr(34) + 'round', chr(34) + 'rond')}")
    assert never == "is never searched: no trial meets the condition | it has model.shape.use = round or pair"
    (twice,) = said(
        '[search.keys]\nmodel.shape = { choices = [{ use = "round", radius_metres = 1.0 }, { use = "round" }] }\n'
        + radius
    )
    assert twice == "model.shape.radius_metres is searched, so it has no value of its own here"


def test_a_trial_is_the_recipe_with_the_values_over_it() -> None:
    found = resolved(
        "[search.keys]\n"
        'model.shape = { choices = [{ use = "round" }, { use = "pair", first = { use = "round" } }] }\n'
        '"model.shape.radius_metres" = { low = 0.5, high = 2.0, when = { model.shape.use = "round" } }\n'
        "optimizer.lr = { low = 1e-4, high = 1e-1, log = true }\n"
    )
    assert found.search is not None
    values = {"model.shape": 1, "model.shape.radius_metres": 1.5, "optimizer.lr": 0.01}
    trial, words = varied(found, found.search.parameters, lambda each: values[each.name], {"run": {"name": "t"}})
    assert set(words) == {"model.shape", "optimizer.lr"}  # the radius belongs to the other choice
    assert (trial.tree["model"]["shape"]["use"], trial.recipe.optimizer.lr) == ("pair", 0.01)
    assert trial.recipe.run.name == "t"
    assert "search" not in trial.tree
    values["model.shape"] = 0
    trial, words = varied(found, found.search.parameters, lambda each: values[each.name])
    assert trial.tree["model"]["shape"]["radius_metres"] == 1.5


def test_values_of_the_recipe_are_recognised_among_those_that_are_searched() -> None:
    found = resolved(
        "[search.keys]\n"
        'model.shape = { choices = [{ use = "pair", first = { use = "round" } }, { use = "round" }] }\n'
        "optimizer.lr = { low = 1e-4, high = 1e-1, log = true }\n"
        "run.epochs = { low = 4, high = 16, step = 4 }\n"
        "run.deterministic = { choices = [true, false] }\n"
    )
    assert found.search is not None
    own = own_values(found.search.parameters, found.tree)
    assert own == {
        "model.shape": '{ use = "round" }',
        "optimizer.lr": found.recipe.optimizer.lr,
        "run.deterministic": False,
    }


def test_a_table_that_is_damaged_is_refused_where_it_is() -> None:
    (found,) = said('metric = 3\nmode = "min"\n' + RANGE)
    assert found == "must be a string, got 3"


def test_relative_paths_in_choices_start_from_the_recipe() -> None:
    Path("below").mkdir()
    Path("below/a.txt").touch()
    Path("below/b.txt").touch()
    text = GOOD + '[search.keys]\ndata.path = { choices = ["a.txt", "b.txt"] }\n'
    Path("below/x.toml").write_text(text)
    found = resolve("below/x.toml")
    assert found.search is not None
    trial, _ = varied(found, found.search.parameters, lambda each: 1)
    assert trial.tree["data"]["path"] == str(Path("below/b.txt").absolute())


def test_check_notes_what_is_searched_and_a_run_is_that_of_the_recipe() -> None:
    found = resolved("trials = 12\n" + RANGE)
    assert "search" not in found.tree
    (note,) = [each.message for each in found.notes if each.where == ("search",)]
    assert note == "trainkit tune: 12 trials of 10 epochs search optimizer.lr; trainkit run does not search"


def test_the_plan_says_what_trials_cost() -> None:
    found = resolved('trials = 20\npruner = "none"\n[search.keys]\nrun.epochs = { low = 2, high = 4 }')
    assert found.search is not None
    lines = list(cost_in_words(found.search, found.recipe, 100))
    assert lines[0] == "trainkit tune: 20 trials, judged by val/loss (min), search"
    assert lines[1] == "  run.epochs: 2 to 4"
    assert lines[2] == "a whole trial takes 200 to 400 steps of 100 an epoch; all 20 take at most 8,000"


def test_a_search_is_checked_without_torch_and_optuna() -> None:
    Path("x.toml").write_text(
        'trainkit = 1\n[run]\nepochs = 2\n[data]\nuse = "segmentation_synthetic"\n[model]\nuse = "unet"\n'
        '[losses.overlap]\nuse = "dice_ce"\n[metrics.dice]\nuse = "dice"\n[search]\nmetric = "val/dice"\nmode = "max"\n'
        + RANGE
    )
    code = (
        "import sys; from trainkit.recipe.resolve import resolve; assert resolve('x.toml').search\n"
        "print([name for name in ('torch', 'optuna', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
