"""How often pictures are made where a recipe does not say it: as often as they take a small share of the run's time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from trainkit.engine.picture_budget import PictureBudget


def made(epochs: int, seconds_of_epoch: float, seconds_of_pictures: float) -> list[int]:
    """Return after which finished epochs pictures are made in a run whose times are known."""
    budget, spent = PictureBudget(), {"steps": 0.0, "pictures": 0.0, "starting": 99.0, "ending": 0.0}
    state = SimpleNamespace(epoch=0, epochs=epochs)
    watch = SimpleNamespace(totals=lambda: dict(spent))
    budget.start(cast(Any, state))
    found = []
    for state.epoch in range(epochs):
        spent["steps"] += seconds_of_epoch
        if state.epoch + 1 == epochs or budget.allows(cast(Any, state), cast(Any, watch)):
            budget.take_in()
            spent["pictures"] += seconds_of_pictures
            found.append(state.epoch + 1)
    return found


@pytest.mark.parametrize(("epochs", "of_epoch", "of_pictures"), [(40, 0.3, 1.3), (40, 30.0, 1.3), (100, 4.0, 5.0)])
def test_pictures_take_three_per_cent_of_the_time_or_are_those_of_the_last_epoch(
    epochs: int, of_epoch: float, of_pictures: float
):
    epochs_with_pictures = made(epochs, of_epoch, of_pictures)
    assert epochs_with_pictures[-1] == epochs
    assert all(epoch % 10 == 0 for epoch in epochs_with_pictures)
    share = len(epochs_with_pictures) * of_pictures / (epochs * of_epoch)
    assert share <= 0.031 or len(epochs_with_pictures) == 1


def test_a_long_run_has_pictures_every_ten_epochs_and_a_short_one_at_its_end():
    assert made(40, 30.0, 1.3) == [10, 20, 30, 40]
    assert made(40, 0.3, 1.3) == [40]
    assert made(35, 30.0, 1.3) == [10, 20, 30, 35]


def test_the_time_before_the_first_epoch_allows_nothing():
    assert made(20, 0.1, 0.5) == [20]  # although the data took 99 s to open
