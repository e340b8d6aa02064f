"""Positions from a file of their own: tables, NumPy files, results of ours and of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from inspected import inspected

from trainkit import DataError
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.files.numpy import NumPyDiffraction
from trainkit_ptychography.scans.files.points_file import read_points
from trainkit_ptychography.scans.leave_out import LeaveOut
from trainkit_ptychography.scans.prepare import Prepare

GENERATOR = np.random.default_rng(3)
PATTERNS = GENERATOR.poisson(9.0, (12, 8, 8)).astype(np.uint16)
NM = GENERATOR.uniform(0, 2, (12, 2)).round(6)  # (row, column)


def scan(folder: Path, **settings: Any) -> HDF5Diffraction:
    if not (folder / "scan.h5").exists():
        with h5py.File(folder / "scan.h5", "w") as file:
            file["data"] = PATTERNS
    told = {"patterns": "data", "pixel_size_angstrom": 0.5, "energy_kev": 80.0}
    return HDF5Diffraction(path=folder / "scan.h5", **{**told, **settings})


TABLES = {
    "with_units.csv": "x [nm],y [nm],time\n" + "\n".join(f"{x},{y},{n}" for n, (y, x) in enumerate(NM)),
    "savetxt.txt": "# y_nm x_nm\n" + "\n".join(f"{y:.9e} {x:.9e}" for y, x in NM),
    "excel.csv": "\ufeffPos. X;Pos. Y\nnm;nm\n"
    + "\n".join(f"{str(x).replace('.', ',')};{str(y).replace('.', ',')}" for y, x in NM),
    "micrometres.tsv": "row (µm)\tcolumn (µm)\n" + "\n".join(f"{float(y) / 1000}\t{float(x) / 1000}" for y, x in NM),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_by_its_headings_which_column_is_which_and_in_which_unit(tmp_path, name):
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    found = scan(tmp_path, positions_path=tmp_path / name).read()
    np.testing.assert_allclose(found.scan.positions_N2, NM * 10 / 0.5)
    assert found.scan.doubts == ()


def test_without_a_unit_it_is_the_recipes_and_a_recipe_that_says_none_is_doubted(tmp_path):
    (tmp_path / "points.csv").write_text("y,x\n" + "\n".join(f"{y},{x}" for y, x in NM))
    told = scan(tmp_path, positions_path=tmp_path / "points.csv", positions_unit="nm").read()
    np.testing.assert_allclose(told.scan.positions_N2, NM * 10 / 0.5)
    assert not told.scan.doubts
    (doubt,) = scan(tmp_path, positions_path=tmp_path / "points.csv").read().scan.doubts
    assert 'say it, positions_unit = "angstrom"' in doubt


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("y_nm,x_nm\n1,2\n", {"positions_unit": "um"}, 'in nm, but positions_unit = "um"'),
        ("y_nm,x_um\n1,2\n", {}, "in different units"),
        ("1,2\n3,4\n", {}, r'no headings.*positions = \["0", "1"\]'),
        ("a,b\n1,2\n", {}, r'has the columns a, b.*positions = \["a", "b"\]'),
        ("x_set,y_set,x_real,y_real\n1,2,3,4\n", {"positions": ["y_sett", "x_set"]}, 'did you mean "y_set"'),
        ("x,y,y\n1,2,3\n", {}, "has the columns"),
        ("y,x\n1,2\n3\n", {}, "line 3 has 1 columns, but the first row has 2"),
        ("y,x\n1,2\noops,3\n", {}, "line 3: no row of numbers: oops 3"),
        ("y,x\n", {}, "holds no rows"),
        ("y,x\n1,2\n", {"positions": "y"}, "must name two of its columns"),
        ("\0\0", {}, "is no text"),
    ],
)
def test_a_table_that_could_be_meant_otherwise_is_refused_with_what_to_say(tmp_path, text, settings, said):
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        scan(tmp_path, positions_path=tmp_path / "points.csv", **settings).read()


def test_columns_can_be_named_by_heading_or_by_number(tmp_path):
    (tmp_path / "points.csv").write_text("x_set,y_set,x_real_nm,y_real_nm\n" + "\n".join(f"0,0,{x},{y}" for y, x in NM))
    for names in (("y_real_nm", "x_real_nm"), ("y_real", "x_real"), ("3", "2")):
        found = read_points(tmp_path / "points.csv", names, None)
        np.testing.assert_array_equal(found.points_N2, NM)
        assert found.unit == "nm"


def test_an_order_that_exchanges_what_headings_say_is_doubted(tmp_path):
    (tmp_path / "points.csv").write_text("x_nm,y_nm\n" + "\n".join(f"{x},{y}" for y, x in NM))
    exchanged = {"positions_path": tmp_path / "points.csv", "positions_order": "column_row"}
    (doubt,) = scan(tmp_path, **exchanged).read().scan.doubts
    assert 'says itself which numbers are rows, and positions_order = "column_row" exchanges them' in doubt
    found = scan(tmp_path, **exchanged, positions=("x", "y")).read()
    np.testing.assert_allclose(found.scan.positions_N2, NM * 10 / 0.5)
    assert not found.scan.doubts


def test_numpy_files_hold_positions_too(tmp_path):
    np.save(tmp_path / "points.npy", NM)
    np.savez(tmp_path / "points.npz", positions=NM, temperature=np.zeros(12))
    np.save(tmp_path / "scan.npy", PATTERNS)
    for name in ("points.npy", "points.npz"):
        settings = {"positions_path": tmp_path / name, "positions_unit": "nm", "pixel_size_angstrom": 0.5}
        found = NumPyDiffraction(path=tmp_path / "scan.npy", **settings).read()
        np.testing.assert_allclose(found.scan.positions_N2, NM * 10 / 0.5)


def result(path: Path, **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["object"], file["positions_nominal_px"] = np.ones((9, 9), complex), NM * 20
        file["positions_px"], file["positions_angstrom"] = NM * 20, NM * 10
        for name, value in more.items():
            if name in file:
                del file[name]
            if value is not None:
                file[name] = value
    return path


def test_positions_of_an_earlier_result_are_taken_as_they_are(tmp_path):
    path = result(tmp_path / "result.h5")
    found = scan(tmp_path, positions_path=path, positions_flip=("rows",), positions_rotation_deg=30.0).read()
    np.testing.assert_allclose(found.scan.positions_N2, NM * 20)


def test_patterns_that_the_earlier_run_left_out_have_no_position(tmp_path):
    kept = np.array([0, 1, 2, 4, 5, 7, 8, 9, 11])
    path = result(tmp_path / "result.h5", positions_angstrom=NM[kept] * 10, points=kept)
    with pytest.raises(DataError, match="positions of 3 of 12 patterns are not finite, the first is that of pattern 3"):
        inspected(scan(tmp_path, positions_path=path))
    found = scan(tmp_path, positions_path=path, leave_out=LeaveOut(without_position=True)).read()
    np.testing.assert_allclose(found.scan.positions_N2, NM[kept] * 20)
    np.testing.assert_array_equal(found.scan.points_N, kept)


def test_a_result_of_another_scan_is_refused(tmp_path):
    path = result(tmp_path / "result.h5", points=np.arange(12) + 5)
    with pytest.raises(DataError, match="has the position of pattern 16, but there are 12"):
        scan(tmp_path, positions_path=path).read()


def test_pixels_of_an_earlier_result_do_not_fit_patterns_that_are_cropped(tmp_path):
    path = result(tmp_path / "result.h5", positions_angstrom=None)
    np.testing.assert_allclose(scan(tmp_path, positions_path=path).read().scan.positions_N2, NM * 20)
    with pytest.raises(DataError, match="cropped, binned or padded, which changes pixels"):
        scan(tmp_path, positions_path=path, prepare=Prepare(bin=2)).read()


def test_results_of_other_programs_are_known_by_the_names_in_them(tmp_path):
    with h5py.File(tmp_path / "model_iter0010.hdf5", "w") as file:  # PtyRAD: corners in pixels, shifts, Å a pixel
        corners = np.floor(NM * 20).astype(np.int32)
        file["model_attributes/crop_pos"], file["model_attributes/dx"] = corners, 0.5
        file["optimizable_tensors/probe_pos_shifts"] = (NM * 20 - corners).astype(np.float32)
    with h5py.File(tmp_path / "para.h5", "w") as file:  # Pty-Chi and Ptychodus: metres
        file["probe_position_y_m"], file["probe_position_x_m"] = NM.T * 1e-9
        file["object"] = np.ones((1, 4, 4), complex)
    for name in ("model_iter0010.hdf5", "para.h5"):
        found = scan(tmp_path, positions_path=tmp_path / name).read()
        np.testing.assert_allclose(found.scan.positions_N2, NM * 20, atol=1e-5)
        assert not found.scan.doubts


def test_where_several_arrays_could_be_positions_one_must_be_named(tmp_path):
    with h5py.File(tmp_path / "points.h5", "w") as file:
        file["nominal"], file["measured"] = NM, NM * 1e-9
        file["measured"].attrs["units"] = "m"
    with pytest.raises(DataError, match=r"say it: positions = …\nThe datasets are:\n  measured \(12, 2\)"):
        scan(tmp_path, positions_path=tmp_path / "points.h5").read()
    found = scan(tmp_path, positions_path=tmp_path / "points.h5", positions="measured").read()
    np.testing.assert_allclose(found.scan.positions_N2, NM * 20)


def test_a_table_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "points.csv").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(DataError, match="has 1 GiB, and tables of up to 64 MiB are read"):
        scan(tmp_path, positions_path=tmp_path / "points.csv").read()
