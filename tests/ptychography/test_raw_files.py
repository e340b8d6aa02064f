"""Raw numbers without a header, of any detector and of the EMPAD."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainkit import DataError, Problem
from trainkit_ptychography.scans.files.any_format import AnyFormatDiffraction
from trainkit_ptychography.scans.files.kind import Raster
from trainkit_ptychography.scans.files.numpy import NumPyDiffraction
from trainkit_ptychography.scans.files.readers.empad import EMPADReader
from trainkit_ptychography.scans.files.readers.raw import RawReader
from trainkit_ptychography.scans.prepare import Prepare

GENERATOR = np.random.default_rng(7)
PATTERNS = GENERATOR.poisson(9.0, (12, 6, 8))
POINTS = GENERATOR.uniform(0, 20, (12, 2))
TOLD: dict[str, Any] = {"dk_per_angstrom": 0.04, "positions_unit": "angstrom", "zero_frequency": "corner"}


def raw(path: Path, reader: RawReader, **settings: Any) -> AnyFormatDiffraction:
    told = {"positions_path": path.parent / "points.npy", "positions_unit": "pixels", "zero_frequency": "corner"}
    return AnyFormatDiffraction(path=path, reader=reader, **{**told, **settings})


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(("header", "gap"), [(0, 0), (100, 0), (7, 5)])
def test_frames_of_any_layout_are_read(tmp_path, dtype, order, header, gap):
    stored = np.dtype(dtype).newbyteorder("<" if order == "little" else ">")
    frames = b"".join(frame.astype(stored).tobytes() + b"\xff" * gap for frame in PATTERNS)
    (tmp_path / "scan.bin").write_bytes(b"\xee" * header + frames)
    np.save(tmp_path / "points.npy", POINTS)
    reader = RawReader(frame_shape=(6, 8), dtype=dtype, byte_order=order, header_bytes=header, gap_bytes=gap)
    found = raw(tmp_path / "scan.bin", reader).read()
    np.testing.assert_array_equal(found.intensities_NYX[:], PATTERNS)
    np.testing.assert_array_equal(found.intensities_NYX[np.array([7, 2, 2, 11])], PATTERNS[[7, 2, 2, 11]])
    np.testing.assert_array_equal(found.scan.positions_N2, POINTS)


def test_a_file_that_does_not_end_with_a_frame_is_refused_with_what_was_expected(tmp_path):
    (tmp_path / "scan.bin").write_bytes(PATTERNS.astype("<u2").tobytes() + b"more")
    reader = RawReader(frame_shape=(6, 8), dtype="uint16", gap_bytes=2)
    with pytest.raises(DataError, match=r"1,156 bytes, .* frames of 98 bytes \(6 × 8 numbers of uint16 and 2 bytes"):
        raw(tmp_path / "scan.bin", reader).read()
    with pytest.raises(DataError, match="there is no file"):
        raw(tmp_path / "none.bin", reader).read()


def test_arrays_beside_raw_numbers_and_npy_files_are_read_by_their_name(tmp_path):
    PATTERNS.astype("<f4").tofile(tmp_path / "scan.bin")
    np.save(tmp_path / "scan.npy", PATTERNS)
    np.save(tmp_path / "points.npy", POINTS)
    mask = np.zeros((6, 8), np.uint8)
    mask[2, 3] = 1
    np.save(tmp_path / "mask.npy", mask)
    told = {"prepare": Prepare(mask="mask.npy"), "positions": "points.npy", "zero_frequency": "corner"}
    reader = RawReader(frame_shape=(6, 8), dtype="float32")
    for settings in (
        raw(tmp_path / "scan.bin", reader, prepare=Prepare(mask="mask.npy")),
        NumPyDiffraction(path=tmp_path / "scan.npy", **told),
    ):
        found = settings.read()
        assert found.scan.mask_YX is not None
        np.testing.assert_array_equal(found.scan.mask_YX, mask == 0)
        assert not found.scan.frame_masks


def test_an_archive_of_nion_swift_is_read(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, PATTERNS.reshape(3, 4, 6, 8))
    with zipfile.ZipFile(tmp_path / "scan.ndata1", "w") as archive:
        archive.writestr("data.npy", buffer.getvalue())
        archive.writestr("metadata.json", "{}")
    told = {"raster": Raster(step=2.0), "positions_unit": "pixels", "zero_frequency": "corner"}
    settings = NumPyDiffraction(path=tmp_path / "scan.ndata1", **told)
    assert not list(settings.problems(None))  # type: ignore[arg-type]
    found = settings.read()
    np.testing.assert_array_equal(found.intensities_NYX[:], PATTERNS)
    np.testing.assert_array_equal(found.scan.positions_N2, 2.0 * np.stack(np.divmod(np.arange(12), 4), axis=1))


# ---- EMPAD ----------------------------------------------------------------------------------------------------------


def empad(path: Path, num: int = 6) -> np.ndarray:
    """Write frames whose last two rows are no counts; return their counts."""
    frames = np.full((num, 130, 128), 1e6, "<f4")
    frames[:, :128] = np.random.default_rng(1).poisson(5.0, (num, 128, 128))
    frames[1, 129, 5] = np.nan
    frames.tofile(path)
    return frames[:, :128]


XML = """<?xml version="1.0"?><root><raw_file filename="D:\\data\\scan.raw"/><pix_x>3</pix_x><pix_y>2</pix_y>
<iom_measurements><high_voltage>80000</high_voltage><full_scan_field_of_view><x>2.376e-10</x><y>2.376e-10</y>
<scale_factor>0.72</scale_factor></full_scan_field_of_view></iom_measurements></root>"""


def read_empad(path: Path, step: float = 1.1, shape: tuple[int, int] | None = None, **more: Any) -> Any:
    settings = {**TOLD, "raster": Raster(step=step, shape=shape), **more}
    return AnyFormatDiffraction(path=path, reader=EMPADReader(), **settings).read()


def test_the_two_rows_without_counts_are_left_away_and_the_xml_file_says_the_rest(tmp_path):
    counts = empad(tmp_path / "scan.raw")
    (tmp_path / "scan.xml").write_text(XML)
    for name in ("scan.raw", "scan.xml"):
        found = read_empad(tmp_path / name)
        np.testing.assert_array_equal(found.intensities_NYX[:], counts)
        np.testing.assert_allclose(np.ptp(found.scan.positions_N2, axis=0) * 1 / (128 * 0.04), [1.1, 2.2])
        assert found.scan.wavelength_angstrom == pytest.approx(0.0417572, rel=1e-5)
        assert found.scan.doubts == ()


def test_a_file_name_says_the_shape_of_the_scan_columns_first(tmp_path):
    empad(tmp_path / "scan_x3_y2.raw")
    found = read_empad(tmp_path / "scan_x3_y2.raw")
    np.testing.assert_allclose(np.ptp(found.scan.positions_N2, axis=0) / (128 * 0.04), [1.1, 2.2])
    (doubt,) = read_empad(tmp_path / "scan_x3_y2.raw", shape=(3, 2)).scan.doubts
    assert "scan_x3_y2.raw says 2 rows of 3 points: shape = [2, 3]" in doubt
    empad(tmp_path / "plain.raw")
    with pytest.raises(DataError, match=r"one scan axis \(6 points\), so the raster needs its shape"):
        read_empad(tmp_path / "plain.raw")


def test_an_xml_file_of_another_number_of_patterns_is_doubted_and_never_says_the_shape(tmp_path):
    empad(tmp_path / "scan.raw")
    (tmp_path / "scan.xml").write_text(XML.replace("<pix_y>2<", "<pix_y>3<"))
    (doubt,) = read_empad(tmp_path / "scan.raw", shape=(2, 3)).scan.doubts
    assert doubt.startswith("scan.xml says 3 rows of 3 points, but there are 6 patterns")
    with pytest.raises(
        DataError, match=r"3 rows of 3 points, but there are 6 patterns.* raster.shape = \[rows, columns"
    ):
        read_empad(tmp_path / "scan.raw")


def test_what_the_recipe_says_otherwise_than_the_xml_file_is_doubted(tmp_path):
    empad(tmp_path / "scan.raw")
    (tmp_path / "scan.xml").write_text(XML)
    doubts = read_empad(tmp_path / "scan.raw", step=11.0, energy_kev=300.0).scan.doubts
    assert [doubt.split(" ")[0] for doubt in doubts] == ["energy_kev", "raster.step"]
    assert "raster.step is 11 Å, but scan.xml says 1.1 Å" in doubts[1]


@pytest.mark.parametrize("content", ["no xml", '<!DOCTYPE a [<!ENTITY b "c">]><root>&b;</root>', "<a>" * 400_000])
def test_an_xml_file_that_cannot_be_read_is_refused_where_it_is_named_and_doubted_beside_the_patterns(
    tmp_path, content
):
    counts = empad(tmp_path / "scan.raw")
    (tmp_path / "scan.xml").write_text(content)
    with pytest.raises(DataError, match=r"scan\.xml"):
        read_empad(tmp_path / "scan.xml")
    found = read_empad(tmp_path / "scan.raw", shape=(2, 3))
    np.testing.assert_array_equal(found.intensities_NYX[:], counts)
    (doubt,) = found.scan.doubts
    assert doubt.startswith("what lies beside the patterns is not used")


def test_an_xml_file_leads_to_no_file_but_that_beside_it(tmp_path):
    (tmp_path / "inner").mkdir()
    empad(tmp_path / "scan.raw")
    (tmp_path / "inner" / "scan.xml").write_text(XML.replace("D:\\data\\scan.raw", "../scan.raw"))
    with pytest.raises(DataError, match=r'beside no file "scan.raw"'):
        read_empad(tmp_path / "inner" / "scan.xml")


def test_raw_of_an_empad_equals_the_same_frames_cut_by_hand(tmp_path):
    frames = np.full((6, 130, 128), 1e6, "<f4")
    frames[:, :128] = empad(tmp_path / "scan.raw")
    np.save(tmp_path / "by_hand.npy", frames)
    told = {**TOLD, "raster": Raster(step=1.1, shape=(2, 3)), "prepare": Prepare(crop=(128, 128))}
    told["zero_frequency"] = (64.0, 64.0)
    by_hand = NumPyDiffraction(path=tmp_path / "by_hand.npy", **told).read()
    own = NumPyDiffraction(path=tmp_path / "scan.raw", **told).read()
    np.testing.assert_array_equal(own.intensities_NYX[:], by_hand.intensities_NYX[:])
    np.testing.assert_array_equal(own.scan.positions_N2, by_hand.scan.positions_N2)
    assert own.scan.pixel_size_angstrom == by_hand.scan.pixel_size_angstrom


def test_a_raster_in_numpy_files_without_a_unit_is_asked_for_it():
    unsaid = NumPyDiffraction(path=Path("scan.npy"), raster=Raster(step=1.1, shape=(2, 3)))
    (problem,) = unsaid.problems(None)  # type: ignore[arg-type]
    assert isinstance(problem, Problem)
    assert (problem.key, problem.severity) == ("raster", "warning")
    assert "taken in object pixels" in problem.message
    said = NumPyDiffraction(path=Path("scan.npy"), raster=Raster(step=1.1, shape=(2, 3)), positions_unit="pixels")
    assert not list(said.problems(None))  # type: ignore[arg-type]


def test_positions_and_a_raster_are_not_given_at_once():
    told = {"raster": Raster(step=1.1, shape=(2, 3)), "positions_unit": "pixels"}
    for more in ({"positions": "scan"}, {"positions_path": Path("points.csv")}):
        (problem,) = NumPyDiffraction(path=Path("scan.npz"), **told, **more).problems(None)  # type: ignore[arg-type]
        assert isinstance(problem, Problem)
        assert problem.message == "give positions or a raster, not both"
