"""By how much columns of a reconstructed specimen lean, held against columns that were made to."""

from __future__ import annotations

import numpy as np
import pytest

from trainkit_ptychography.physics.lean import lean
from trainkit_ptychography.preflight.columns import doubt_of_tilt

PIXEL, SPACING = 0.3, 12.0


def columns(places: np.ndarray, slices: int, rows_mrad: float, columns_mrad: float) -> np.ndarray:
    row_H, column_W = np.arange(40.0)[:, None], np.arange(44.0)
    made = []
    for number in range(slices):
        moved = number * SPACING / PIXEL * np.tan(1e-3 * np.array([rows_mrad, columns_mrad]))
        made.append(
            sum(
                np.exp(-((row_H - row) ** 2 + (column_W - column) ** 2) / (2 * 1.5**2))
                for row, column in places + moved
            )
        )
    return np.stack(made)


def places(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(3, 38, (24, 2))


@pytest.mark.parametrize("made", [(0.0, 0.0), (7.0, -4.0), (-1.5, 12.0)])
def test_columns_lean_as_they_were_made_to(made):
    found = lean(columns(places(0), 6, *made), PIXEL, SPACING)
    assert found is not None
    assert found.mrad_2 == pytest.approx(made, abs=0.3)


def test_a_boundary_between_grains_does_not_matter():
    made = (6.0, 5.0)
    both = np.concatenate([columns(places(1), 4, *made), columns(places(2), 4, *made)])
    found = lean(both, PIXEL, SPACING)
    assert found is not None
    assert found.mrad_2 == pytest.approx(made, abs=0.4)
    assert found.agreeing >= 5 / 7


def test_slices_that_have_nothing_in_common_do_not_lean():
    noise = np.random.default_rng(0).normal(size=(6, 40, 40))
    assert lean(noise, PIXEL, SPACING) is None
    assert lean(noise[:1], PIXEL, SPACING) is None


def test_a_tilt_that_was_to_be_found_is_doubted_if_columns_still_lean():
    scanned = np.array([[0.0, 0.0], [39.0, 43.0]])
    for made, doubted in (((7.0, -4.0), True), ((0.6, -0.4), False)):
        doubt = doubt_of_tilt(columns(places(0), 6, *made), scanned, PIXEL, SPACING, (1.0, 2.0))
        assert (doubt is not None) == doubted
        if doubt is not None:
            values = doubt.partition("tilt_mrad = [")[2].partition("]")[0]
            assert tuple(map(float, values.split(", "))) == pytest.approx((-6.0, 6.0), abs=0.5)
