"""Readers: files in many layouts give one scan, and files that are wrong, broken or hostile give one clear message."""

from __future__ import annotations

import bz2
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from inspected import inspected

from trainkit import DataError, Problem
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.files.numpy import NumPyDiffraction
from trainkit_ptychography.scans.scan import Recording, Scan, Truth, checked

ROOT = Path(__file__).parents[2]

GENERATOR = np.random.default_rng(5)
PATTERNS = GENERATOR.poisson(9.0, (12, 6, 8)).astype(np.float32)  # zero frequency at [0, 0]
POINTS = GENERATOR.uniform(0, 20, (12, 2))  # pixels
PROBE = (GENERATOR.normal(size=(2, 6, 8, 2)) @ [1, 1j]).astype(np.complex64)
SETTINGS: dict[str, Any] = {"patterns": "entry/data", "positions": "entry/points"}


def write(path: Path, **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["entry/data"] = np.fft.fftshift(PATTERNS, axes=(1, 2))
        file["entry/points"] = POINTS
        for name, value in more.items():
            file[name] = value
    return path


def hdf5(path: Path, **settings: Any) -> HDF5Diffraction:
    return HDF5Diffraction(path=path, **{"positions_unit": "pixels", **SETTINGS, **settings})


# ---- HDF5 -----------------------------------------------------------------------------------------------------------


def test_patterns_and_positions_come_in_one_convention(tmp_path):
    recording = checked(hdf5(write(tmp_path / "scan.h5")).read())
    np.testing.assert_array_equal(recording.intensities_NYX, PATTERNS)
    np.testing.assert_array_equal(recording.scan.positions_N2, POINTS)
    assert recording.scan.pixel_size_angstrom is None


@pytest.mark.parametrize("values", ["intensity", "amplitude"])
@pytest.mark.parametrize("zero_frequency", ["centre", "corner"])
@pytest.mark.parametrize("scan_axes", [(12,), (3, 4), (1, 12)])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<u2"])
def test_every_layout_gives_the_same_scan(tmp_path, values, zero_frequency, scan_axes, dtype):
    squares = np.round(np.sqrt(PATTERNS)) ** 2  # so that amplitudes are whole numbers too
    stored = np.sqrt(squares) if values == "amplitude" else squares
    if zero_frequency == "centre":
        stored = np.fft.fftshift(stored, axes=(1, 2))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = stored.reshape(*scan_axes, 6, 8).astype(dtype)
        file["points"] = POINTS.reshape(*scan_axes, 2)
    settings = hdf5(
        tmp_path / "scan.h5", patterns="data", positions="points", values=values, zero_frequency=zero_frequency
    )
    recording = checked(settings.read())
    np.testing.assert_array_equal(recording.intensities_NYX, squares)
    assert np.asarray(recording.intensities_NYX).dtype == np.float32
    np.testing.assert_array_equal(recording.scan.positions_N2, POINTS)


@pytest.mark.parametrize(("unit", "per_angstrom"), [("angstrom", 1.0), ("nm", 0.1), ("mm", 1e-7), ("m", 1e-10)])
def test_positions_in_any_unit_become_pixels(tmp_path, unit, per_angstrom):
    path = write(tmp_path / "scan.h5", physical=POINTS * 0.4 * per_angstrom)
    scan = hdf5(path, positions="physical", positions_unit=unit, pixel_size_angstrom=(0.4, 0.4)).read().scan
    np.testing.assert_allclose(scan.positions_N2, POINTS, rtol=1e-12)


def test_a_detector_pixels_size_gives_that_of_an_object_pixel(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data"], file["entry/points"] = np.ones((12, 8, 8)), POINTS
    settings = hdf5(tmp_path / "scan.h5", dk_per_angstrom=0.05, energy_kev=80.0)
    scan = settings.read().scan
    assert scan.pixel_size_angstrom == pytest.approx(1 / (8 * 0.05))
    assert scan.wavelength_angstrom == pytest.approx(0.041757, rel=1e-5)


def test_probe_and_truth_come_along(tmp_path):
    path = write(tmp_path / "scan.h5", probe=PROBE[0], phase=np.ones((30, 30)), real=POINTS + 1)
    settings = hdf5(path, probe="probe", truth_phase="phase", truth_positions="real")
    assert settings.knows_truth()
    scan = checked(settings.read()).scan
    assert scan.probe_MYX is not None
    np.testing.assert_array_equal(scan.probe_MYX, PROBE[:1])
    assert scan.truth is not None
    np.testing.assert_array_equal(scan.truth.positions_N2, POINTS + 1)


@pytest.mark.parametrize("packing", ["Bitshuffle", "LZ4", "Zstd", "Blosc"])
def test_patterns_are_read_as_detectors_pack_them(tmp_path: Path, packing: str) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        patterns = np.fft.fftshift(PATTERNS, axes=(1, 2))
        file.create_dataset("entry/data", data=patterns, chunks=(1, 6, 8), **getattr(hdf5plugin, packing)())
        file["entry/points"] = POINTS
    np.testing.assert_array_equal(checked(hdf5(path).read()).intensities_NYX, PATTERNS)


@pytest.mark.parametrize("packing", ["Bitshuffle", "LZ4", "Zstd", "Blosc"])
def test_nearly_empty_patterns_are_read_however_well_they_pack(packing, tmp_path):
    """A detector that counted next to nothing: Zstandard takes a few bytes for a chunk of a million zeros."""
    hdf5plugin = pytest.importorskip("hdf5plugin")
    from trainkit_ptychography.scans.files.hdf5_live import HDF5File

    patterns = np.zeros((4, 1024, 1024), np.float32)
    patterns[0, 0, 0] = 1.0
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("data", data=patterns, chunks=(1, 1024, 1024), **getattr(hdf5plugin, packing)())
    assert np.array_equal(HDF5File(tmp_path / "scan.h5").array("data"), patterns)


def test_a_compressed_dataset_without_some_of_its_chunks_is_refused(tmp_path):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    from trainkit_ptychography.scans.files.hdf5_live import HDF5File

    with h5py.File(tmp_path / "scan.h5", "w") as file:
        data = file.create_dataset("data", (10**6, 1024, 1024), "f4", chunks=(1, 1024, 1024), **hdf5plugin.Zstd())
        data[0] = 1.0
    with pytest.raises(DataError, match=r"declares 4,194,304,000,000 bytes .* it is damaged, unfinished"):
        HDF5File(tmp_path / "scan.h5").array("data")


def test_a_compressed_dataset_is_read(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("entry/data", data=np.zeros((12, 64, 64)) + 1, chunks=(1, 64, 64), compression="gzip")
        file["entry/points"] = POINTS
    assert checked(hdf5(tmp_path / "scan.h5").read()).survey.totals_N.sum() == 12 * 64 * 64


def test_a_missing_dataset_is_answered_with_those_there_are(tmp_path):
    path = write(tmp_path / "scan.h5")
    with pytest.raises(DataError) as caught:
        hdf5(path, patterns="entry/dat").read()
    assert 'did you mean "entry/data"?' in str(caught.value)
    assert "entry/points (12, 2)" in str(caught.value)
    with pytest.raises(DataError, match="is a group"):
        hdf5(path, patterns="entry").read()


def test_a_missing_file_and_a_file_of_another_kind_are_said_to_be_so(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*nix\.h5 \(data\.path\)"):
        hdf5(tmp_path / "nix.h5").read()
    (tmp_path / "text.h5").write_text("no data")
    with pytest.raises(DataError, match="cannot be read as an HDF5 file"):
        hdf5(tmp_path / "text.h5").read()


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.95])
def test_a_file_that_was_cut_off_is_refused(tmp_path, cut):
    whole = write(tmp_path / "scan.h5").read_bytes()
    (tmp_path / "scan.h5").write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(DataError):
        hdf5(tmp_path / "scan.h5").read()


def circle(file: h5py.File, secret: Path) -> None:
    file["entry/evil"] = h5py.SoftLink("/entry/other")
    file["entry/other"] = h5py.SoftLink("/entry/evil")


def external_link(file: h5py.File, secret: Path) -> None:
    file["entry/evil"] = h5py.ExternalLink(str(secret), "entry/data")


def linked_group(file: h5py.File, secret: Path) -> None:
    file["entry/evil"] = h5py.ExternalLink(str(secret), "entry")


def external_storage(file: h5py.File, secret: Path) -> None:
    file.create_dataset("entry/evil", (12, 6, 8), "f4", external=[(str(secret), 0, 12 * 6 * 8 * 4)])


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((12, 6, 8), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "entry/data", (12, 6, 8))
    file.create_virtual_dataset("entry/evil", layout)


def hidden_in_virtual(file: h5py.File, secret: Path) -> None:
    """A virtual dataset whose source, in the same file, is a link to another one."""
    external_link(file, secret)
    file.move("entry/evil", "entry/way")
    layout = h5py.VirtualLayout((12, 6, 8), "f4")
    layout[:] = h5py.VirtualSource(".", "entry/way", (12, 6, 8))
    file.create_virtual_dataset("entry/evil", layout)


def unwritten(file: h5py.File, secret: Path) -> None:
    file.create_dataset("entry/evil", (10**6, 1000, 1000), "f8", chunks=(1, 100, 100))


def text(file: h5py.File, secret: Path) -> None:
    file["entry/evil"] = ["a", "b"]


@pytest.mark.parametrize(
    ("put", "name", "said"),
    [
        (circle, "entry/evil", "more than 16 links, in a circle"),
        (external_link, "entry/evil", r'is a link to another file, ".*secret.h5", which the recipe does not name'),
        (linked_group, "entry/evil/data", "is a link to another file"),
        (external_storage, "entry/evil", "keeps its values outside of HDF5"),
        (virtual, "entry/evil", "put together of parts of another file"),
        (hidden_in_virtual, "entry/evil", "is a link to another file"),
        (unwritten, "entry/evil", r"declares 8,000,000,000,000 bytes .* holds only 0"),
        (text, "entry/evil", "must hold numbers"),
    ],
)
def test_what_could_hurt_is_refused(
    tmp_path: Path, put: Callable[[h5py.File, Path], None], name: str, said: str
) -> None:
    secret = write(tmp_path / "secret.h5")
    with h5py.File(write(tmp_path / "scan.h5"), "a") as file:
        put(file, secret)
    with pytest.raises(DataError, match=said):
        hdf5(tmp_path / "scan.h5", patterns=name).read()
    checked(hdf5(tmp_path / "scan.h5").read())  # what is harmless beside it can be read


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"pixel_size_angstrom": 0.4, "dk_per_angstrom": 0.05}, "dk_per_angstrom"),
        ({"positions_unit": "nm"}, "positions_unit"),
        ({"energy_kev": 80.0, "wavelength_angstrom": 0.04}, "wavelength_angstrom"),
        ({"truth_phase": "phase"}, "truth_phase"),
        ({"truth_positions": "real"}, "truth_positions"),
    ],
)
def test_settings_that_contradict_each_other_are_found_without_the_file(settings, key):
    problems = list(hdf5(Path("nix.h5"), **settings).problems(None))
    assert [problem.key for problem in problems if isinstance(problem, Problem)] == [key]
    assert not list(hdf5(Path("nix.h5")).problems(None))


# ---- NumPy ----------------------------------------------------------------------------------------------------------


def pack(path: Path, **arrays: np.ndarray) -> Path:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.write_bytes(bz2.compress(buffer.getvalue()) if path.suffix == ".bz2" else buffer.getvalue())
    return path


@pytest.mark.parametrize("name", ["scan.npz", "scan.npz.bz2"])
def test_a_numpy_archive_is_read_with_its_leading_axes_dropped(tmp_path, name):
    pack(tmp_path / name, data=PATTERNS[None], scan=POINTS[None], probe=PROBE[None, None])
    settings = NumPyDiffraction(path=tmp_path / name, probe="probe", zero_frequency="corner")
    recording = checked(settings.read())
    np.testing.assert_array_equal(recording.intensities_NYX, PATTERNS)
    np.testing.assert_array_equal(recording.scan.positions_N2, POINTS)
    np.testing.assert_array_equal(recording.scan.probe_MYX, PROBE)


def test_npy_files_stand_side_by_side(tmp_path):
    np.save(tmp_path / "patterns.npy", np.fft.fftshift(np.asfortranarray(PATTERNS), axes=(1, 2)))
    np.save(tmp_path / "points.npy", POINTS)
    recording = checked(NumPyDiffraction(path=tmp_path / "patterns.npy", positions="points.npy").read())
    np.testing.assert_array_equal(recording.intensities_NYX, PATTERNS)
    np.testing.assert_array_equal(recording.scan.positions_N2, POINTS)


def test_a_missing_array_is_answered_with_those_there_are(tmp_path):
    pack(tmp_path / "scan.npz", data=PATTERNS, scan=POINTS)
    with pytest.raises(DataError, match=r'no array "scans"; did you mean "scan"\?\nIt holds:\n  data \(12, 6, 8\)'):
        NumPyDiffraction(path=tmp_path / "scan.npz", positions="scans").read()


def test_pickled_objects_are_never_loaded(tmp_path):
    pack(tmp_path / "scan.npz", data=np.array([{"a": 1}], dtype=object), scan=POINTS)
    with pytest.raises(DataError, match="holds objects of Python"):
        NumPyDiffraction(path=tmp_path / "scan.npz").read()


def test_a_header_that_declares_more_than_there_is_is_refused_before_memory_is_asked_for(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999, 999, 999), }"
    forged = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    with zipfile.ZipFile(tmp_path / "scan.npz", "w") as archive:
        archive.writestr("data.npy", forged)
        archive.writestr("scan.npy", forged)
    with pytest.raises(DataError, match=r"declares 39,9.* bytes, but only \d+ are there"):
        NumPyDiffraction(path=tmp_path / "scan.npz").read()


@pytest.mark.parametrize("name", ["scan.npz", "scan.npz.bz2", "scan.npy"])
@pytest.mark.parametrize("content", [b"", b"no numbers here", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00\xff\xff{"])
def test_a_damaged_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError):
        NumPyDiffraction(path=tmp_path / name).read()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "npz", "npz.bz2", "deflated"])  # file_fuzz.py has HDF5 and CXI
def test_wrong_bytes_anywhere_never_raise_anything_but_a_data_error(tmp_path, kind):
    generator = np.random.default_rng(8)
    path = tmp_path / f"scan.{kind.replace('deflated', 'npz')}"
    if kind == "npy":
        np.save(path, PATTERNS)
        np.save(tmp_path / "points.npy", POINTS)
    elif kind == "deflated":
        np.savez_compressed(path, data=PATTERNS, scan=POINTS)
    else:
        pack(path, data=PATTERNS, scan=POINTS)
    settings = NumPyDiffraction(path=path, **({"positions": "points.npy"} if kind == "npy" else {}))
    checked(settings.read())
    whole, refused = np.frombuffer(path.read_bytes(), np.uint8), 0
    for attempt in range(150):
        damaged = whole.copy()
        damaged[generator.integers(0, len(whole), 1 + attempt % 8)] = generator.integers(0, 256, 1 + attempt % 8)
        path.write_bytes(damaged[: generator.integers(1, len(whole)) if attempt % 5 == 0 else None].tobytes())
        try:
            checked(settings.read())
        except DataError:
            refused += 1
    assert refused > 10


def test_an_unknown_kind_of_file_is_found_from_its_name():
    (problem,) = NumPyDiffraction(path=Path("scan.mat")).problems(None)
    assert isinstance(problem, Problem)
    assert problem.key == "path"


# ---- what every reader's scan has to pass ---------------------------------------------------------------------------


def recording(intensities: np.ndarray = PATTERNS, positions: np.ndarray = POINTS, **more: Any) -> Recording:
    return Recording(intensities, Scan(positions_N2=positions, source="a scan", **more))


def with_value(array: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    changed = array.copy()
    changed[place] = value
    return changed


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (recording(positions=POINTS[:-1]), r"12 patterns but positions of shape \(11, 2\)"),
        (recording(with_value(PATTERNS, (7, 0, 0), np.nan)), r"1 of 12 patterns hold .* pattern 7"),
        (recording(with_value(PATTERNS, (2, 1, 1), np.inf)), r"not finite, the first is pattern 2"),
        (recording(with_value(PATTERNS, (0, 0, 0), -3)), r"go down to -3, .* values = \"amplitude\""),
        (recording(np.zeros_like(PATTERNS)), "all patterns are zero"),
        (recording(PATTERNS[:0], POINTS[:0]), "there are no patterns"),
        (
            recording(positions=with_value(POINTS, (4, 1), np.nan)),
            "positions of 1 of 12 patterns are not finite, the first is that of pattern 4",
        ),
        (recording(probe_MYX=PROBE[:, :5]), r"the probe has 5 × 8 pixels, the patterns have 6 × 8"),
        (recording(probe_MYX=0 * PROBE), "the probe is zero"),
        (recording(truth=Truth(phase_KL=np.ones((9, 9)), positions_N2=POINTS[1:])), "12 patterns but true positions"),
    ],
)
def test_a_scan_that_cannot_be_right_is_refused_with_what_to_look_at(wrong, said):
    with pytest.raises(DataError, match=said) as caught:
        checked(wrong)
    assert str(caught.value).startswith("a scan: ")


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("data", PATTERNS[0], r"\(6, 8\)"),
        ("data", PROBE, "must be real"),
        ("data", np.ones((2, 3, 2, 6, 8)), "more than two axes"),
        ("scan", POINTS[:, :1], "a row and a column each"),
        ("probe", PROBE.real, "must be complex"),
    ],
)
def test_arrays_of_the_wrong_shape_are_refused_by_name(tmp_path, name, array, said):
    pack(tmp_path / "scan.npz", **{"data": PATTERNS, "scan": POINTS, "probe": PROBE, name: array})
    with pytest.raises(DataError, match=said) as caught:
        NumPyDiffraction(path=tmp_path / "scan.npz", probe="probe").read()
    assert f": {name}" in str(caught.value)


def test_the_summary_says_what_a_scientist_knows_the_scan_by(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data"], file["entry/points"] = np.full((12, 8, 8), 2.0), POINTS
    lines = "\n".join(inspected(hdf5(tmp_path / "scan.h5", pixel_size_angstrom=0.5, energy_kev=80.0)))
    for words in ("12 of 8 × 8", "128 a pattern", "0.5 Å", "41.76 mrad"):
        assert words in lines


# ---- real and simulated scans ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_siemens_star_is_read(shared_data):
    path = shared_data / "ptychography" / "siemens-star-small.npz.bz2"
    recording = checked(NumPyDiffraction(path=path, probe="probe", zero_frequency="corner").read())
    assert recording.intensities_NYX.shape == (516, 128, 128)
    assert recording.scan.positions_N2.shape == (516, 2)
    assert recording.scan.probe_MYX is not None
    assert recording.scan.probe_MYX.shape == (1, 128, 128)
    # Most of the light is near the beam, so near the corner.
    mean_YX = recording.survey.mean_YX
    assert np.fft.fftshift(mean_YX)[32:96, 32:96].sum() > 0.9 * mean_YX.sum()


def test_the_mos2_scan_is_read(shared_data):
    settings = HDF5Diffraction(
        path=shared_data / "ptychography" / "mos2_sim.h5",
        patterns="intensity",
        positions="positions_nominal_A",
        dk_per_angstrom=0.0390625,
        energy_kev=80.0,
        truth_phase="gt/phase_rad",
        truth_positions="positions_true_A",
    )
    recording = checked(settings.read())
    assert recording.intensities_NYX.shape == (1024, 64, 64)
    with h5py.File(settings.path) as file:
        assert recording.scan.pixel_size_angstrom == pytest.approx(file.attrs["px_A"])
        assert recording.scan.wavelength_angstrom == pytest.approx(file.attrs["wavelength_A"], rel=1e-6)
