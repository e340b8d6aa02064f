"""One scan in several arrays or files, which are joined in the order in which they are named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from inspected import inspected

from trainkit import DataError, Problem
from trainkit_ptychography.scans.files.any_format import AnyFormatDiffraction
from trainkit_ptychography.scans.files.cxi import CXIDiffraction
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.files.kind import Raster
from trainkit_ptychography.scans.files.numpy import NumPyDiffraction
from trainkit_ptychography.scans.files.readers.empad import EMPADReader
from trainkit_ptychography.scans.leave_out import LeaveOut
from trainkit_ptychography.scans.prepare import Prepare

GENERATOR = np.random.default_rng(9)
PATTERNS = GENERATOR.poisson(9.0, (12, 6, 8)).astype(np.uint16)
POINTS = GENERATOR.uniform(0, 20, (12, 2))
MASKS = GENERATOR.random((12, 6, 8)) > 0.1  # non-zero at good pixels
PARTS = ((0, 5), (5, 6), (6, 12))
DATA, PLACES, WEIGHTS = (tuple(f"chunks/{n}/{name}" for n in range(3)) for name in ("data", "positions", "weights"))


@pytest.fixture
def chunks(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "scan.ptyd", "w") as file:
        for data, places, weights, (first, last) in zip(DATA, PLACES, WEIGHTS, PARTS, strict=True):
            file[data], file[places], file[weights] = PATTERNS[first:last], POINTS[first:last], MASKS[first:last]
    return tmp_path / "scan.ptyd"


def hdf5(path: Path, **settings: Any) -> HDF5Diffraction:
    told = {"patterns": DATA, "positions": PLACES, "positions_unit": "pixels", "zero_frequency": "corner"}
    return HDF5Diffraction(path=path, **{**told, **settings})


def test_arrays_are_joined_in_the_order_in_which_they_are_named(chunks):
    masks = Prepare(mask=WEIGHTS, mask_marks="good")
    for order in ((0, 1, 2), (2, 0, 1)):
        settings = hdf5(
            chunks,
            patterns=tuple(DATA[each] for each in order),
            positions=tuple(PLACES[each] for each in order),
            prepare=Prepare(mask=tuple(WEIGHTS[each] for each in order), mask_marks="good"),
        )
        found = settings.read()
        places = np.concatenate([np.arange(*PARTS[each]) for each in order])
        expected = np.where(MASKS, PATTERNS, np.nan)[places]
        np.testing.assert_array_equal(found.intensities_NYX[:], expected)
        some = np.array([11, 0, 5, 5, 4])
        np.testing.assert_array_equal(found.intensities_NYX[some], expected[some])
        np.testing.assert_array_equal(found.intensities_NYX[4:7], expected[4:7])
        np.testing.assert_array_equal(found.scan.positions_N2, POINTS[places])
    left = hdf5(chunks, prepare=masks, leave_out=LeaveOut(points=(0, "5:7"))).read()
    np.testing.assert_array_equal(left.scan.positions_N2, POINTS[[1, 2, 3, 4, 7, 8, 9, 10, 11]])
    np.testing.assert_array_equal(left.intensities_NYX[:], np.where(MASKS, PATTERNS, np.nan)[left.scan.points_N])


def test_a_part_of_a_scan_is_doubted_with_the_line_that_names_all(chunks):
    (doubt,) = hdf5(chunks, patterns="chunks/0/data", positions="chunks/0/positions").read().scan.doubts
    assert doubt.endswith('patterns = ["chunks/0/data", "chunks/1/data", "chunks/2/data"]')
    assert not hdf5(chunks).read().scan.doubts


def test_scans_beside_each_other_are_no_parts_of_one(tmp_path):
    with h5py.File(tmp_path / "scans.h5", "w") as file:
        for number in (1, 2):
            file[f"scan_{number}/data"], file[f"scan_{number}/points"] = PATTERNS, POINTS
    assert not hdf5(tmp_path / "scans.h5", patterns="scan_1/data", positions="scan_1/points").read().scan.doubts


def test_two_arrays_of_positions_are_rows_and_columns_unless_there_are_as_many_of_patterns(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        for name, part in (("a", slice(6)), ("b", slice(6, 12))):
            file[f"data_{name}"], file[f"points_{name}"] = PATTERNS[part], POINTS[part]
            file[f"turned_{name}"] = POINTS[part].T  # as Matlab 7.3 writes them
        file["rows"], file["columns"] = POINTS.T
        file["rows_of_raster"], file["columns_of_raster"] = POINTS.T.reshape(2, 3, 4)
    for positions in (
        ("points_a", "points_b"),
        ("turned_a", "turned_b"),
        ("rows", "columns"),
        ("rows_of_raster", "columns_of_raster"),
    ):
        found = hdf5(tmp_path / "scan.h5", patterns=("data_a", "data_b"), positions=positions).read()
        np.testing.assert_array_equal(found.scan.positions_N2, POINTS)
    with pytest.raises(DataError, match=r"positions names 3 arrays \(for 2 of patterns\)"):
        hdf5(tmp_path / "scan.h5", patterns=("data_a", "data_b"), positions=("points_a", "rows", "columns")).read()


def test_files_are_joined_in_the_order_in_which_they_are_named(tmp_path):
    for number, (first, last) in enumerate(PARTS):
        np.savez(
            tmp_path / f"{number}.npz",
            data=PATTERNS[first:last],
            scan=POINTS[first:last],
            marks=np.eye(12)[3, first:last],
        )
        np.save(tmp_path / f"{number}.npy", PATTERNS[first:last])
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["data"], file["scan"] = PATTERNS[first:last], POINTS[first:last]
    more = {end: (tmp_path / f"1.{end}", tmp_path / f"2.{end}") for end in ("npz", "npy", "h5")}
    np.save(tmp_path / "points.npy", POINTS)
    for settings in (
        NumPyDiffraction(path=tmp_path / "0.npz", more_files=more["npz"], zero_frequency="corner"),
        NumPyDiffraction(
            path=tmp_path / "0.npy",
            more_files=more["npy"],
            zero_frequency="corner",
            positions_path=tmp_path / "points.npy",
        ),
        hdf5(tmp_path / "0.h5", patterns="data", positions="scan", more_files=more["h5"]),
    ):
        found = settings.read()
        np.testing.assert_array_equal(found.intensities_NYX[:], PATTERNS)
        np.testing.assert_array_equal(found.scan.positions_N2, POINTS)
    marked = LeaveOut(marks="marks")
    found = NumPyDiffraction(path=tmp_path / "0.npz", more_files=more["npz"], leave_out=marked).read()
    np.testing.assert_array_equal(found.scan.positions_N2, np.delete(POINTS, 3, axis=0))


def test_lines_of_a_raster_in_files_of_their_own_keep_its_shape(tmp_path):
    for line in range(3):
        with h5py.File(tmp_path / f"{line}.h5", "w") as file:
            file["data"] = PATTERNS[4 * line : 4 * line + 4][None].reshape(1, 4, 6, 8)
    more = (tmp_path / "1.h5", tmp_path / "2.h5")
    settings = hdf5(
        tmp_path / "0.h5",
        patterns="data",
        pattern_axes="rcyx",
        positions=None,
        raster=Raster(step=2.0),
        more_files=more,
    )
    found = settings.read()
    np.testing.assert_array_equal(found.intensities_NYX[:], PATTERNS)
    np.testing.assert_array_equal(found.scan.positions_N2, 2.0 * np.stack(np.divmod(np.arange(12), 4), axis=1))


def test_rasters_that_follow_each_other_are_doubted_unless_the_recipe_says_the_shape_of_all(tmp_path):
    for number in range(2):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["data"] = PATTERNS.reshape(3, 4, 6, 8)
    told = {"patterns": "data", "positions": None, "more_files": (tmp_path / "1.h5",)}
    (doubt,) = hdf5(tmp_path / "0.h5", raster=Raster(step=2.0), **told).read().scan.doubts
    assert doubt.startswith("2 rasters are taken as one of 6 × 4 points, each below the one before")
    assert not hdf5(tmp_path / "0.h5", raster=Raster(step=2.0, shape=(6, 4)), **told).read().scan.doubts


def test_what_belongs_to_patterns_must_fit_each_array_of_them_and_not_only_all_together(tmp_path):
    for number, ((first, last), (start, stop)) in enumerate((((0, 5), (0, 6)), ((5, 12), (6, 12)))):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["data"], file["points"] = PATTERNS[first:last], POINTS[first:last]
            file["shifted"], file["masks"], file["marks"] = (
                POINTS[start:stop],
                MASKS[start:stop],
                np.zeros(stop - start),
            )
    told = {"patterns": "data", "positions": "points", "more_files": (tmp_path / "1.h5",)}
    assert hdf5(tmp_path / "0.h5", **told).read().intensities_NYX.shape == (12, 6, 8)
    for what, changed in (
        ("positions", {"positions": "shifted"}),
        (r"masks \(prepare.mask\)", {"prepare": Prepare(mask="masks")}),
        (r"marks \(marks\)", {"leave_out": LeaveOut(marks="marks")}),
    ):
        with pytest.raises(DataError, match=f"hold 5, 7 patterns, but 6, 6 {what}: in each there must be as many"):
            hdf5(tmp_path / "0.h5", **{**told, **changed}).read()


def test_a_file_or_an_array_that_is_named_twice_is_refused(tmp_path):
    told = {"patterns": "data", "positions": "points"}
    for key, changed in (
        ("more_files", {"more_files": (tmp_path / "b.h5", tmp_path / "a.h5")}),
        ("patterns", {"patterns": ("data", "data")}),
    ):
        (problem,) = hdf5(tmp_path / "a.h5", **{**told, **changed}).problems(None)  # type: ignore[arg-type]
        assert isinstance(problem, Problem)
        assert (problem.key, "twice" in problem.message) == (key, True)


def test_frames_that_differ_in_shape_are_not_joined(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["a"], file["b"], file["points"] = PATTERNS, PATTERNS[:, :5], POINTS
    with pytest.raises(
        DataError, match=r"scan.h5: b has frames of 5 × 8 pixels, but .*: a, to which it is joined, has 6"
    ):
        hdf5(tmp_path / "scan.h5", patterns=("a", "b"), positions="points").read()


def test_a_format_whose_files_are_not_joined_says_so_instead_of_reading_one_of_them(tmp_path):
    more = {"more_files": (tmp_path / "b",)}
    told = {"raster": Raster(step=1.0, shape=(2, 2)), "dk_per_angstrom": 0.1}
    for settings in (
        AnyFormatDiffraction(path=tmp_path / "a", reader=EMPADReader(), **told, **more),
        CXIDiffraction(path=tmp_path / "a", **more),
        NumPyDiffraction(path=tmp_path / "a.raw", positions_unit="angstrom", **told, **more),
    ):
        (problem,) = settings.problems(None)  # type: ignore[arg-type]
        assert isinstance(problem, Problem)
        assert problem.key == "more_files"


def test_a_unit_that_the_file_says_and_the_recipe_does_not_take_is_doubted(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"], file["points"] = PATTERNS, POINTS
        file["points"].attrs["units"] = "nm"
    told = {"patterns": "data", "positions": "points", "pixel_size_angstrom": (1.0, 1.0)}
    (doubt,) = hdf5(tmp_path / "scan.h5", **told, positions_unit=None).read().scan.doubts
    assert doubt.endswith(
        'has the unit "nm" in the file, but is taken in angstrom, since the recipe says none: positions_unit = "nm"'
    )
    assert not hdf5(tmp_path / "scan.h5", **told, positions_unit="nm").read().scan.doubts
    assert "warning: points has the unit" in "\n".join(
        inspected(hdf5(tmp_path / "scan.h5", **told, positions_unit="angstrom"))
    )
    with h5py.File(tmp_path / "more.h5", "w") as file:
        file["data"], file["points"] = PATTERNS, POINTS
        file["points"].attrs["units"] = "m"
    more = {"more_files": (tmp_path / "more.h5",)}
    (doubt,) = hdf5(tmp_path / "scan.h5", **told, **more, positions_unit="nm").read().scan.doubts
    assert f'points has the unit "m" in {tmp_path / "more.h5"}, but is taken in nm' in doubt


def scattered(folder: Path) -> NumPyDiffraction:
    """Return a scan of which each pattern lies in a file of its own."""
    files = tuple(folder / f"{number:02}.npy" for number in range(12))
    for path, pattern in zip(files, PATTERNS, strict=True):
        np.save(path, pattern[None])
    raster = Raster(shape=(3, 4), step=1.0)
    more = {"raster": raster, "positions_unit": "pixels", "zero_frequency": "corner"}
    return NumPyDiffraction(path=files[0], more_files=files[1:], **more)


def test_a_scan_lies_in_more_files_than_a_process_may_have_open(tmp_path, monkeypatch):
    opened = set()
    opens, closes = os.open, os.close

    def counted(*args: Any, **more: Any) -> int:
        opened.add(number := opens(*args, **more))
        assert len(opened) < 3
        return number

    monkeypatch.setattr(os, "open", counted)
    monkeypatch.setattr(os, "close", lambda number: (opened.discard(number), closes(number)))
    found = scattered(tmp_path).read()
    np.testing.assert_array_equal(found.intensities_NYX[np.array([11, 0, 5])], PATTERNS[[11, 0, 5]])
    assert not opened


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "can no longer be read: No such file or directory"),
        (lambda path: np.save(path, PATTERNS[:2]), "was changed while it was in use"),
        (lambda path: os.utime(path, ns=(0, 0)), "was changed while it was in use"),
    ],
)
def test_a_file_that_changes_during_a_run_is_named(tmp_path, spoil, said):
    found = scattered(tmp_path).read()
    spoil(tmp_path / "03.npy")
    np.testing.assert_array_equal(found.intensities_NYX[np.array([2, 4])], PATTERNS[[2, 4]])
    with pytest.raises(DataError, match=rf"03\.npy {said}"):
        found.intensities_NYX[np.array([2, 3])]
