"""Learning rates with which positions cannot move in the epochs of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainkit.recipe.resolve import resolve, resolve_text

from .small_recipe import small_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("ptycho_*.toml"))


def told(*sets: str, optimizer: str = "adam") -> list[str]:
    more = "[groups.dr]\nstart_epoch = 0\n"
    text = small_recipe(more=more).replace("epochs = 2", "epochs = 40").replace('use = "adam"', f'use = "{optimizer}"')
    found = resolve_text(text, Path.cwd(), sets).notes
    return [each.message for each in found if "too small to matter" in each.message]


@pytest.mark.parametrize(
    ("optimizer", "rate", "is_small"),
    [
        ("adam", 1e-5, True),
        ("adamw", 1e-6, True),
        ("adam", 1e-3, False),
        ("adam", 5e-3, False),
        ("scaled_steps", 1e-5, True),
        ("scaled_steps", 0.1, False),
        ("scaled_steps", 1.0, False),
        ("sgd", 1e-5, False),  # a step has the unit of a gradient, of which nothing is known
    ],
)
def test_a_rate_that_moves_no_position_is_told(optimizer: str, rate: float, is_small: bool) -> None:
    assert len(told(f"groups.dr.lr={rate}", optimizer=optimizer)) == is_small


def test_the_message_says_how_far_positions_get_and_what_is_usual() -> None:
    (said,) = told("groups.dr.lr=1e-5")
    assert said.startswith(
        "groups.dr.lr = 1e-05 is too small to matter: in 40 epochs, displacements move by at most 0.04"
    )
    assert "3e-3 to 1e-2 pixels are usual" in said


def test_a_group_that_is_stopped_on_purpose_or_never_trains_is_not_told() -> None:
    assert told("groups.dr.lr=0.0") == []
    assert told("groups.dr.lr=1e-5", "groups.dr.stop_epoch=0") == []
    assert len(told("groups.dr.lr=1e-3", "groups.dr.start_epoch=39", "groups.dr.stop_epoch=40")) == 0


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_no_shipped_recipe_is_told(recipe: Path) -> None:
    sets = []
    if recipe.stem in ("ptycho_mos2", "ptycho_mos2_hash", "ptycho_siemens", "ptycho_thick"):
        sets.append(f"data.path=scan.{'npz' if recipe.stem == 'ptycho_siemens' else 'h5'}")
    found = resolve(recipe, sets).notes
    assert not [each for each in found if "too small to matter" in each.message]
