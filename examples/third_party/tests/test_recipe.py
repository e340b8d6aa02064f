"""The recipe as a whole run."""

from pathlib import Path

from trainkit import Run


def test_the_recipe_learns(tmp_path):
    run = Run(Path(__file__).parents[1] / "recipe.toml", {"run.dir": str(tmp_path)})
    run.fit()
    first, *_, last = [row["val/loss"] for row in run.metrics]
    assert last < first / 5
