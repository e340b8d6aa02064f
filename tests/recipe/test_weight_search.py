"""What ``check`` and ``plan`` say of a weight "auto"."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients.ridge import RECIPE

from trainkit.errors import RecipeError
from trainkit.recipe.fold_recipes import fold_recipes
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import Resolved, resolve, resolve_text
from trainkit.recipe.weight_search import cost, cost_in_words, searched


def resolved(*sets: str) -> Resolved:
    return resolve_text(RECIPE, Path.cwd(), sets)


def said(*sets: str) -> str:
    with pytest.raises(InvalidRecipe) as caught:
        resolved(*sets)
    return str(caught.value)


def test_a_weight_is_a_number_or_auto() -> None:
    assert searched(resolved().recipe) == ("ridge",)
    assert searched(resolved("losses.ridge.weight=0.1").recipe) == ()
    assert 'losses.ridge.weight: must be a number or "auto", got "aut"' in said("losses.ridge.weight=aut")
    assert "losses.ridge.weight: must be a finite number, got nan" in said("losses.ridge.weight=nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("losses.squares.weight=auto", "losses.squares.weight: Squares is no regulariser"),
        ("data.held_out=false", 'losses.ridge.weight: "auto" needs held-out data'),
        ("monitor.metric=train/loss", 'set [weight_search] metric = "val/loss"'),
        ("weight_search.metric=train/ridge", 'weight_search.metric: "train/ridge" is not a value of held-out data'),
        ("weight_search.metric=val/ridge", 'weight_search.metric: no value "val/ridge" is computed'),
        ("run.epochs=1", "run.epochs: branches of 1 epoch must begin after the first epoch, and the run has 1 epoch"),
        ("weight_search.epochs=9", "weight_search.epochs: branches of 9 epochs must begin after the first epoch"),
        ("weight_search.between=[1.0, 0.1]", "weight_search.between: must be two positive numbers"),
        ("weight_search.branches=4", "weight_search.branches: must be at least 5, got 4"),
    ],
)
def test_what_cannot_choose_a_weight_is_refused_at_its_place(change: str, message: str) -> None:
    assert message in said(change)


def test_settings_of_a_search_without_one_are_noted() -> None:
    (note,) = resolved("losses.ridge.weight=0.1", "weight_search.branches=6").notes
    assert 'has no effect: no loss has weight = "auto"' in str(note)


def test_the_plan_says_what_the_search_costs() -> None:
    recipe = resolved("run.epochs=40", "weight_search.branches=7").recipe
    assert cost(recipe, 40) == (7, 10, 40 + 7 * 10, 110 / 40)
    first, second = cost_in_words(recipe, 40)
    assert first == "losses.ridge.weight is chosen by val/loss (min) among 0 and 0.1 to 10"
    assert second.startswith("7 branches begin after 30 epochs, and then the best once more: at most 110 epochs")
    assert not list(cost_in_words(resolved("losses.ridge.weight=0.1").recipe, 40))


def test_folds_do_not_each_choose_a_weight(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=r"--set losses\.ridge\.weight=…"):
        fold_recipes(resolve(tmp_path / "r.toml"), 3)
