"""A recipe that comes with trainkit is printed with those that it extends folded in."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli
from click.testing import CliRunner

from trainkit import RecipeError
from trainkit.cli.recipes import command
from trainkit.recipe.resolve import resolve
from trainkit.recipe.shipped import shipped
from trainkit.recipe.whole import whole


def needs_a_path(name: str) -> bool:
    try:
        resolve(shipped()[name])
    except RecipeError:
        return True
    return False


@pytest.mark.measured_every(10)
@pytest.mark.parametrize("name", shipped())
def test_a_printed_recipe_needs_no_other_file_and_says_the_same(name: str, tmp_path: Path) -> None:
    printed = CliRunner().invoke(command, [name]).stdout
    assert "extends" not in tomli.loads(printed)
    (tmp_path / "mine.toml").write_text(printed, encoding="utf-8")
    there = ["data.path=/somewhere/scan.npy"] * needs_a_path(name)
    there += ["initial_weights.path=/somewhere"] * (name == "fine_tune")
    ours, mine = resolve(shipped()[name], there), resolve(tmp_path / "mine.toml", there)
    del ours.tree["run"]["name"], mine.tree["run"]["name"]  # by default, that of the file
    assert mine.tree == ours.tree


def test_comments_stay_with_what_is_still_said(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        "[run]\nepochs = 3   # of ten minutes\nseed = 1  # any\n"
        '[groups.a]  # the first\nlr = 1e-3\nscheduler = { use = "cosine" }  # "#" ends\n'
    )
    (tmp_path / "mine.toml").write_text('# Mine.\nextends = ["base.toml"]\n[run]\nseed = 2\n')
    assert [" ".join(line.split()) for line in whole(tmp_path / "mine.toml").splitlines()] == [
        "# Mine.",
        "[run]",
        "epochs = 3 # of ten minutes",
        "seed = 2",
        "",
        "[groups.a] # the first",
        "lr = 1e-3",
        'scheduler = { use = "cosine" } # "#" ends',
    ]
