"""Which values mean something else after a resume with another recipe."""

from pathlib import Path

import pytest

from trainkit.engine.changes import Redefinitions, setting_changes
from trainkit.recipe.resolve import Resolved, resolve_text, write

RECIPE = """
trainkit = 1
[run]
epochs = 4
[data]
use = "diffraction_simulated"
validation_fraction = 0.1
[model]
use = "ptychography"
[model.probe]
use = "aperture"
[losses.data]
use = "amplitude"
"""


def redefined(before: Resolved, now: Resolved) -> Redefinitions:
    return Redefinitions(setting_changes(write(before.tree), now), (), now.recipe, before.recipe)


@pytest.mark.parametrize("turned", [False, True])
def test_a_loss_that_is_added_or_taken_away_changes_the_values_that_it_is_part_of(turned: bool) -> None:
    """A regulariser is no part of what is computed on held-out items."""
    without, with_loss, with_regulariser = (
        resolve_text(RECIPE + more, Path.cwd())
        for more in ("", '[losses.more]\nuse = "poisson"', '[losses.smooth]\nuse = "l1"')
    )
    order = slice(None, None, -1 if turned else 1)
    by_loss = redefined(*(without, with_loss)[order])
    assert by_loss.why("val/loss") is not None
    assert by_loss.why("train/loss") is not None
    assert by_loss.why("val/data") is None
    by_regulariser = redefined(*(without, with_regulariser)[order])
    assert by_regulariser.why("val/loss") is None
    assert by_regulariser.why("train/loss") is not None
