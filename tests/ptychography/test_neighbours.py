"""Which scan points are neighbours, against the definition; and fast lengths, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
from numpy.typing import NDArray

from trainkit_ptychography.physics.fast_length import fast_length
from trainkit_ptychography.scans import neighbours as module
from trainkit_ptychography.scans.neighbours import neighbours


def test_neighbours_of_a_turned_raster_of_unequal_steps_lie_along_its_axes_and_diagonals() -> None:
    rows, columns = np.meshgrid(2.5 * np.arange(5), np.arange(4), indexing="ij")
    turn_22 = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    found_P2 = neighbours(np.stack([rows.ravel(), columns.ravel()], axis=1) @ turn_22)
    assert {int(each) for each in found_P2[:, 1] - found_P2[:, 0]} == {1, 4, 3, 5}
    assert len(found_P2) == 5 * 3 + 4 * 4 + 2 * 4 * 3


def spiral(num: int) -> NDArray[np.float64]:
    number_N = np.arange(num)
    angle_N = number_N * np.pi * (3 - 5**0.5)
    return np.sqrt(number_N)[:, None] * np.stack([np.sin(angle_N), np.cos(angle_N)], axis=1)


RNG = np.random.default_rng(0)
SCANS = {
    "spiral": spiral(150),
    "random": RNG.uniform(0, 10, (150, 2)),
    "shaken raster": np.stack(np.mgrid[:12, :12], axis=-1).reshape(-1, 2) + 0.1 * RNG.standard_normal((144, 2)),
    "few": RNG.uniform(0, 1, (5, 2)),
    "a line": np.stack([np.zeros(60), np.arange(60)], axis=1),
}


@pytest.mark.parametrize(("of_a_part", "distances"), [(40, 2**20), (64, 2**10), (2048, 2**20)])
@pytest.mark.parametrize("scan", SCANS)
def test_no_third_point_is_inside_the_circle_of_two_neighbours(
    scan: str, of_a_part: int, distances: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OF_A_PART", of_a_part)
    monkeypatch.setattr(module, "_DISTANCES", distances)
    points_N2 = SCANS[scan]
    ends_NN22 = np.stack(np.broadcast_arrays(points_N2[:, None], points_N2), axis=2)
    radius_NN = 0.5 * np.linalg.norm(ends_NN22[:, :, 0] - ends_NN22[:, :, 1], axis=-1)
    away_NNN = np.linalg.norm(ends_NN22.mean(axis=2)[:, :, None] - points_N2, axis=-1)
    are_NN = np.triu((away_NNN >= 0.98 * radius_NN[..., None]).all(axis=-1), 1)
    assert neighbours(points_N2).tolist() == np.argwhere(are_NN).tolist()


def test_points_at_the_same_place_are_neighbours_however_many_there_are() -> None:
    found_P2 = neighbours(np.zeros((300, 2)))
    assert np.unique(found_P2).tolist() == list(range(300))
    assert neighbours(np.zeros((1, 2))).shape == (0, 2)


def test_lengths_are_those_that_scipy_names() -> None:
    lengths = range(1, 2000)
    assert [fast_length(each) for each in lengths] == [scipy.fft.next_fast_len(each) for each in lengths]
    assert fast_length(0) == 1
