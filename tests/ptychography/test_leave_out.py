"""Patterns can be left out, and what belongs to the others stays in step with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from inspected import inspected

from trainkit import DataError
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.files.kind import Raster
from trainkit_ptychography.scans.leave_out import LeaveOut
from trainkit_ptychography.scans.scan import Recording, checked

GENERATOR = np.random.default_rng(4)
PATTERNS = GENERATOR.poisson(30.0, (12, 8, 8)).astype(np.float32)
POINTS = GENERATOR.uniform(0, 20, (12, 2))


def read(folder: Path, leave_out: LeaveOut, **arrays: Any) -> Recording:
    settings = arrays.pop("settings", {})
    path = folder / f"{len(list(folder.iterdir()))}.h5"  # one that was opened may be open still
    with h5py.File(path, "w") as file:
        for name, array in ({"data": PATTERNS, "points": POINTS} | arrays).items():
            file[name] = array
    given = {"patterns": "data", "positions": "points", "positions_unit": "pixels", "zero_frequency": "corner"}
    return HDF5Diffraction(path=path, leave_out=leave_out, **{**given, **settings}).read()


def with_values(array: np.ndarray, places: list[int], value: float) -> np.ndarray:
    changed = array.copy()
    changed[places] = value
    return changed


LEFT = [0, 1, 4, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("leave_out", "arrays"),
    [
        (LeaveOut(points=(2, "3:6:2")), {}),
        (LeaveOut(marks="marks"), {"marks": with_values(np.zeros(12, "u1"), [2, 3, 5], 1)}),
        (LeaveOut(marks="marks", marks_are="good"), {"marks": with_values(np.ones((3, 4)).ravel(), [2, 3, 5], 0)}),
        (LeaveOut(below=0.1), {"data": with_values(PATTERNS, [2, 3, 5], 0.0)}),
        (LeaveOut(above=3.0), {"data": with_values(PATTERNS, [2, 3, 5], 900.0)}),
        (LeaveOut(without_position=True), {"points": with_values(POINTS, [2, 3, 5], np.nan)}),
        (LeaveOut(points=(2,), without_position=True), {"points": with_values(POINTS, [3, 5], np.nan)}),
        (LeaveOut(points=(2, 3, 5)), {"points": POINTS[LEFT]}),  # only those that are left have a position
        (LeaveOut(points=(2, 3, 5)), {"data": PATTERNS[LEFT]}),  # … or a pattern
    ],
)
def test_what_is_left_keeps_its_position(tmp_path, leave_out, arrays):
    recording = checked(read(tmp_path, leave_out, **arrays))
    np.testing.assert_array_equal(np.asarray(recording.intensities_NYX), PATTERNS[LEFT])
    np.testing.assert_array_equal(recording.scan.positions_N2, POINTS[LEFT])
    assert [recording.scan.number(point) for point in range(9)] == LEFT
    assert sum(recording.scan.left_out.values()) == 3
    some = np.array([8, 0, 3])
    np.testing.assert_array_equal(recording.intensities_NYX[some], PATTERNS[LEFT][some])


def test_patterns_without_a_partner_at_the_end_are_left_out_as_the_message_says(tmp_path):
    more = np.concatenate([PATTERNS, PATTERNS[:2]])
    with pytest.raises(DataError, match=r'leave these out: leave_out = \{ points = \["12:"\] \}'):
        read(tmp_path, LeaveOut(), data=more)
    recording = checked(read(tmp_path, LeaveOut(points=("12:",)), data=more))
    np.testing.assert_array_equal(np.asarray(recording.intensities_NYX), PATTERNS)
    raster = {"positions": None, "raster": Raster(step=2.0, shape=(3, 4))}
    with pytest.raises(DataError, match=r'leave_out = \{ points = \["12:"\] \}'):
        read(tmp_path, LeaveOut(), data=more, settings=raster)
    assert len(read(tmp_path, LeaveOut(points=("12:",)), data=more, settings=raster).scan.positions_N2) == 12


def test_masks_and_true_positions_stay_in_step(tmp_path):
    failed = GENERATOR.random(PATTERNS.shape) < 0.1
    from trainkit_ptychography.scans.prepare import Prepare

    settings = {"prepare": Prepare(mask="bad"), "truth_phase": "phase", "truth_positions": "true"}
    more = {"bad": failed, "phase": np.ones((30, 30)), "true": POINTS + 1}
    recording = read(tmp_path, LeaveOut(points=(2, 3, 5)), settings=settings, **more)
    np.testing.assert_array_equal(np.isnan(np.asarray(recording.intensities_NYX)), failed[LEFT])
    assert recording.scan.truth is not None
    np.testing.assert_array_equal(recording.scan.truth.positions_N2, POINTS[LEFT] + 1)


def test_the_summary_counts_what_was_left_out(tmp_path):
    read(tmp_path, LeaveOut(), data=with_values(PATTERNS, [5], 0.0))
    leave_out = LeaveOut(points=("0:2",), below=0.1)
    given: dict[str, Any] = {"positions": "points", "positions_unit": "pixels", "leave_out": leave_out}
    lines = list(inspected(HDF5Diffraction(path=tmp_path / "0.h5", patterns="data", **given)))
    assert any(
        "left out     3 of 12 patterns: 2 leave_out.points, 1 below 0.1 of the median total" in each for each in lines
    )


@pytest.mark.parametrize(
    ("leave_out", "words"),
    [
        (LeaveOut(points=(12,)), r"names pattern 12, but there are 12 \(0 to 11\)"),
        (LeaveOut(points=("0:",)), "leaves none of 12 patterns"),
        (LeaveOut(marks="points"), "leave_out.marks has 24 values, but there are 12 patterns"),
    ],
)
def test_what_cannot_be_left_out_is_an_error(tmp_path, leave_out, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, leave_out)


@pytest.mark.parametrize("points", [(-1,), ("3",), ("a:b",), ("1:5:0",)])
def test_a_range_that_is_none_is_a_mistake_of_the_recipe(points):
    with pytest.raises(ValueError, match="must be"):
        LeaveOut(points=points)
