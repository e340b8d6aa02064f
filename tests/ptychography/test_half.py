"""Halves of a scan: together they are the whole, each covers it evenly, and what is no count is not halved."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from trainkit import Context, DataError
from trainkit_ptychography.scans.half import Half
from trainkit_ptychography.scans.half_live import HalfOfCounts, alternating
from trainkit_ptychography.scans.scan import Scan
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

GENERATOR = np.random.default_rng(8)
SCAN = Scan(positions_N2=np.zeros((9, 2)), source="scan.h5")
COUNTS = GENERATOR.poisson(3.0, (9, 6, 7)).astype(np.float32)


def grid(rows: int, columns: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2) * 2.5


def test_on_a_square_grid_halves_are_the_fields_of_a_chessboard():
    chessboard = np.indices((16, 16)).sum(0) % 2
    assert (alternating(grid(16, 16)).reshape(16, 16) == chessboard).all()


@pytest.mark.parametrize("points", [grid(24, 17), grid(1, 30), np.zeros((5, 2)), GENERATOR.random((501, 2)) * 40])
def test_halves_of_any_scan_are_equal_in_number_and_spread(points):
    halves = alternating(points)
    assert abs(int(halves.sum()) * 2 - len(points)) <= 1
    for axis in (0, 1):
        means = [points[halves == each, axis].mean() for each in (0, 1)]
        assert abs(means[0] - means[1]) <= 0.06 * max(np.ptp(points[:, axis]), 1.0)


def test_scans_of_the_same_places_are_halved_one_by_one():
    places, number = np.concatenate([grid(8, 8), grid(8, 8)]), np.repeat([0, 1], 64)
    halves = alternating(places, number)
    assert [int(halves[number == each].sum()) for each in (0, 1)] == [32, 32]
    assert (halves[:64] == alternating(grid(8, 8))).all()


def opened(half: Half | None) -> object:
    data = SimulatedDiffraction(scan_shape=(8, 8), detector_size=24, half=half, batch_size=8)
    return data.build(Context(0, torch.device("cpu"), Path()))


def test_both_halves_of_the_points_hold_out_the_same_and_train_on_all_others():
    whole, one, other = (opened(half) for half in (None, Half(part=1), Half(part=2)))
    assert torch.equal(one.held_out_index, whole.held_out_index)
    assert torch.equal(other.held_out_index, whole.held_out_index)
    assert torch.equal(torch.cat([one.train_index, other.train_index]).sort().values, whole.train_index)
    assert (whole.batches_per_epoch, one.batches_per_epoch, other.batches_per_epoch) == (8, 4, 4)
    seen = torch.cat([batch["index"] for batch in one.train(0, 0)]).sort().values
    assert torch.equal(seen, one.train_index)
    assert len(one.scan.positions_N2) == 64  # each position keeps its place in the group dr


def test_both_halves_of_the_counts_are_the_whole_however_they_are_read():
    one, other = (HalfOfCounts(COUNTS, SCAN, part, 3) for part in (1, 2))
    np.testing.assert_array_equal(one[:] + other[:], COUNTS)
    order = np.array([7, 2, 2, 0])
    np.testing.assert_array_equal(one[order], one[:][order])
    np.testing.assert_array_equal(other[3:5], other[:][3:5])
    assert one.shape == COUNTS.shape
    assert not np.array_equal(one[:], HalfOfCounts(COUNTS, SCAN, 1, 4)[:])  # another seed, other coins


def test_halves_of_poisson_counts_are_independent_poisson_counts():
    whole = GENERATOR.poisson(4.0, (50, 20, 20)).astype(np.float32)
    one, other = (HalfOfCounts(whole, SCAN, part, 0)[:] for part in (1, 2))
    for each in (one, other):
        assert each.mean() == pytest.approx(2.0, abs=0.05)
        assert each.var() == pytest.approx(2.0, abs=0.08)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03


def test_pixels_that_were_not_measured_stay_so():
    gaps = COUNTS.copy()
    gaps[4, 2, 3] = np.nan
    half = HalfOfCounts(gaps, SCAN, 2, 0)[:]
    assert np.isnan(half[4, 2, 3])
    assert np.isnan(half).sum() == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (COUNTS + 0.25, r"scan\.h5: the values are no counts.*pattern 0 holds 0?\d*\.25"),
        (COUNTS - 3, "no counts.*pattern 0 holds -"),
        (COUNTS * 12, "multiples of 12.*no counts of single particles"),
    ],
)
def test_what_is_no_count_is_refused_in_one_message(values, said):
    with pytest.raises(DataError, match=said):
        HalfOfCounts(values, SCAN, 1, 0)


def test_check_with_data_says_that_values_are_no_counts():
    weighed = SimulatedDiffraction(scan_shape=(4, 4), detector_size=24, half=Half(of="counts"))
    recording = weighed.read()
    changed = recording._replace(intensities_NYX=np.asarray(recording.intensities_NYX) * 0.5)
    recipe: Any = SimpleNamespace(run=SimpleNamespace(seed=0))
    list(weighed.inspect(recipe, "all"))  # these are counts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedDiffraction, "read", lambda _: changed)
        list(weighed.inspect(recipe, "headers"))
        with pytest.raises(DataError, match="no counts"):
            list(weighed.inspect(recipe, "all"))


def test_a_value_that_is_no_count_is_found_in_any_pattern():
    many = np.repeat(COUNTS, 10, axis=0)
    many[80, 1, 1] = 1.5
    half = HalfOfCounts(many, SCAN, 1, 0)
    with pytest.raises(DataError, match=r"pattern 80 holds 1\.5"):
        half[70:90]


def test_a_run_with_half_of_the_counts_has_half_of_them():
    whole, one, other = (opened(half) for half in (None, Half(of="counts", part=1), Half(of="counts", part=2)))
    assert one.mean_counts + other.mean_counts == pytest.approx(whole.mean_counts)
    assert torch.equal(one.train_index, whole.train_index)
