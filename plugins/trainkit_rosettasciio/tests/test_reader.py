"""Files that RosettaSciIO writes, or that are made by hand after the formats' descriptions, are read back."""

from __future__ import annotations

import struct
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from trainkit import DataError
from trainkit.testing import cases
from trainkit_ptychography import Raster, Recording
from trainkit_ptychography.scans.files.any_format import AnyFormatDiffraction
from trainkit_rosettasciio.reader import RosettaSciIOReader

pytest.importorskip("rsciio", reason="RosettaSciIO is not installed: pip install plugins/trainkit_rosettasciio")
pytestmark = pytest.mark.filterwarnings(  # RosettaSciIO leaves files open where it fails
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

PATTERNS = np.random.default_rng(2).poisson(9.0, (3, 4, 16, 16)).astype(np.uint16)
FLAT = PATTERNS.reshape(12, 16, 16)
WAVELENGTH = 0.0417572  # Å, at 80 keV


@pytest.mark.parametrize("case", cases("trainkit-rosettasciio"), ids=str)
def test_conformance(case):
    case.check()


def read(path: Path, signal: int | None = None, **settings: Any) -> Recording:
    told = {"zero_frequency": "corner", **settings}
    return AnyFormatDiffraction(path=path, reader=RosettaSciIOReader(signal=signal), **told).read()


def signal(
    data: np.ndarray = PATTERNS,
    units: tuple[str, ...] = ("nm", "nm", "1/nm", "1/nm"),
    scales: tuple[float, ...] = (0.11, 0.11, 0.5, 0.5),
) -> dict[str, Any]:
    axes = [
        {"name": name, "size": size, "units": unit, "scale": scale, "offset": 0.0, "navigate": place < data.ndim - 2}
        for place, (name, size, unit, scale) in enumerate(zip("abcd", data.shape, units, scales, strict=False))
    ]
    axes = [
        axis | {"index_in_array": place, "_type": "UniformDataAxis", "is_binned": False}
        for place, axis in enumerate(axes)
    ]
    instrument = {"TEM": {"beam_energy": 80.0}}
    metadata = {"General": {"title": "scan"}, "Signal": {"signal_type": ""}, "Acquisition_instrument": instrument}
    return {
        "data": data,
        "axes": axes,
        "metadata": metadata,
        "original_metadata": {},
        "attributes": {"_lazy": False},
        "package_info": {"package": "trainkit", "package_version": "0"},
        "learning_results": {},
        "models": None,
        "tmp_parameters": {},
    }


def hspy(path: Path, **changes: Any) -> Path:
    from rsciio.hspy import file_writer

    file_writer(str(path), signal(**changes), show_progressbar=False)
    return path


def test_steps_detector_pixels_and_energy_come_from_the_file(tmp_path):
    found = read(hspy(tmp_path / "scan.hspy"))
    np.testing.assert_array_equal(found.intensities_NYX[:], FLAT)
    np.testing.assert_array_equal(found.intensities_NYX[np.array([7, 2])], FLAT[[7, 2]])
    assert found.scan.pixel_size_angstrom == pytest.approx(1 / (16 * 0.05))
    assert found.scan.wavelength_angstrom == pytest.approx(WAVELENGTH, rel=1e-5)
    scanned = found.scan.positions_N2 * found.scan.pixel_size_angstrom
    np.testing.assert_allclose(scanned, 1.1 * np.stack(np.divmod(np.arange(12), 4), axis=1), atol=1e-12)
    assert found.scan.doubts == ()


@pytest.mark.parametrize(
    ("unit", "scale", "dk"),
    [
        ("nm^-1", 0.5, 0.05),
        ("Å⁻¹", 0.05, 0.05),
        ("1 / A", 0.05, 0.05),
        ("1/m", 5e8, 0.05),
        ("mrad", 2.0, 2e-3 / WAVELENGTH),
        ("rad", 2e-3, 2e-3 / WAVELENGTH),
    ],
)
def test_units_of_the_detector_are_understood_however_they_are_written(tmp_path, unit, scale, dk):
    path = hspy(tmp_path / "scan.hspy", units=("Å", "Å", unit, unit), scales=(1.1, 1.2, scale, scale))
    found = read(path)
    assert found.scan.pixel_size_angstrom == pytest.approx(1 / (16 * dk), rel=1e-5)
    step = np.ptp(found.scan.positions_N2, axis=0) * found.scan.pixel_size_angstrom
    np.testing.assert_allclose(step, [2 * 1.1, 3 * 1.2])


def test_what_the_file_does_not_say_in_a_known_unit_must_be_said(tmp_path):
    path = hspy(tmp_path / "scan.hspy", units=("", "", "px", "px"))
    with pytest.raises(DataError, match=r"does not say the step of its scan in a unit of length \(units .* none, px\)"):
        read(path)
    with pytest.raises(DataError, match="need the size of an object pixel"):
        read(path, raster=Raster(step=1.1))
    found = read(path, raster=Raster(step=1.1), dk_per_angstrom=0.05)
    np.testing.assert_array_equal(found.intensities_NYX[:], FLAT)


def test_the_recipe_takes_precedence_and_what_differs_is_doubted(tmp_path):
    path = hspy(tmp_path / "scan.hspy")
    found = read(path, raster=Raster(step=11.0), dk_per_angstrom=0.06, energy_kev=300.0)
    assert found.scan.pixel_size_angstrom == pytest.approx(1 / (16 * 0.06))
    assert [doubt.split(" ")[0] for doubt in found.scan.doubts] == ["energy_kev", "dk_per_angstrom", "raster.step"]


def test_exchanged_axes_are_seen_by_their_units_and_can_be_said(tmp_path):
    exchanged = np.ascontiguousarray(PATTERNS.transpose(2, 3, 0, 1))
    units, scales = ("1/nm", "1/nm", "nm", "nm"), (0.5, 0.5, 0.11, 0.11)
    path = hspy(tmp_path / "scan.hspy", data=exchanged, units=units, scales=scales)
    with pytest.raises(DataError, match=r'the detector\'s axes come first.*pattern_axes = "yxrc"'):
        read(path)
    found = read(path, pattern_axes="yxrc")
    np.testing.assert_array_equal(found.intensities_NYX[:], FLAT)
    assert found.scan.pixel_size_angstrom == pytest.approx(1 / (16 * 0.05))


def test_a_link_to_another_file_is_not_followed(tmp_path):
    hspy(tmp_path / "secret.hspy")
    path = hspy(tmp_path / "scan.hspy")
    with h5py.File(path, "a") as file:
        (name,) = file["Experiments"]
        del file[f"Experiments/{name}/data"]
        file[f"Experiments/{name}/data"] = h5py.ExternalLink("secret.hspy", f"/Experiments/{name}/data")
    with pytest.raises(DataError, match="leads to another file"):
        read(path)


# ---- files made by hand ---------------------------------------------------------------------------------------------


def mib(path: Path) -> None:
    """Write frames as a Merlin detector does: a header of text before each, and the highest byte first."""
    with path.open("wb") as file:
        for number, frame in enumerate(FLAT, 1):
            head = f"MQ1,{number:06d},00384,01,0016,0016,U16,   1x1,01,2026-01-01 10:00:00.{number:06d},0.001,0,0,0,"
            text = head + "2026-01-01T10:00:00.000000Z,1.0ms,12,"
            file.write(text.ljust(384).encode())
            file.write(frame.astype(">u2").tobytes())


def mrc(path: Path) -> None:
    header = bytearray(1024)
    header[:16] = struct.pack("<4i", 16, 16, 12, 6)  # columns, rows, sections; 16-bit numbers without sign
    header[28:52] = struct.pack("<3i3f", 16, 16, 12, 16.0, 16.0, 12.0)
    header[64:76] = struct.pack("<3i", 1, 2, 3)
    header[208:212] = b"MAP "
    header[212:214] = b"\x44\x44"
    path.write_bytes(bytes(header) + FLAT.astype("<u2").tobytes())


def _dm4_tag(name: str, content: bytes, is_group: bool) -> bytes:
    head = bytes([20 if is_group else 21]) + struct.pack(">H", len(name)) + name.encode()
    return head + struct.pack(">q", len(content)) + content


def _dm4_group(tags: dict[str, Any]) -> bytes:
    parts = []
    for name, value in tags.items():
        name = "" if name.startswith("#") else name
        if isinstance(value, dict):
            parts.append(_dm4_tag(name, _dm4_group(value), True))
            continue
        if isinstance(value, str):  # an array of 16-bit characters
            info, data = (20, 4, len(value)), value.encode("utf-16-le")
        elif isinstance(value, np.ndarray):
            info, data = (20, 4, value.size), value.astype("<u2").tobytes()
        elif isinstance(value, float):
            info, data = (7,), struct.pack("<d", value)
        else:
            info, data = (5,), struct.pack("<L", value)
        parts.append(_dm4_tag(name, b"%%%%" + struct.pack(f">{len(info) + 1}q", len(info), *info) + data, False))
    return bytes([0, 0]) + struct.pack(">q", len(parts)) + b"".join(parts)


def dm4(path: Path) -> None:
    """Write what DigitalMicrograph 3 calls an image of four dimensions: its sizes are those of x, y, and the scan's."""
    pixel, step = {"Origin": 0.0, "Scale": 0.5, "Units": "1/nm"}, {"Origin": 0.0, "Scale": 0.11, "Units": "nm"}
    dimensions = {"#0": 16, "#1": 16, "#2": 4, "#3": 3}
    calibrations = {
        "Brightness": {"Origin": 0.0, "Scale": 1.0, "Units": ""},
        "Dimension": {"#0": pixel, "#1": pixel, "#2": step, "#3": step},
    }
    data = {"Calibrations": calibrations, "Data": PATTERNS, "DataType": 10, "Dimensions": dimensions, "PixelDepth": 2}
    tags = {"Microscope Info": {"Voltage": 80000.0}}
    image = {"ImageData": data, "ImageTags": tags, "Name": "scan"}
    root = _dm4_group({"ImageList": {"#0": image}})
    path.write_bytes(struct.pack(">iqi", 4, len(root), 1) + root + bytes(8))


def test_dm4_is_read_with_its_steps_pixels_and_energy(tmp_path):
    dm4(tmp_path / "scan.dm4")
    found = read(tmp_path / "scan.dm4")
    np.testing.assert_array_equal(found.intensities_NYX[:], FLAT)
    assert found.scan.pixel_size_angstrom == pytest.approx(1 / (16 * 0.05))
    assert found.scan.wavelength_angstrom == pytest.approx(WAVELENGTH, rel=1e-5)
    step = np.ptp(found.scan.positions_N2, axis=0) * found.scan.pixel_size_angstrom
    np.testing.assert_allclose(step, [2 * 1.1, 3 * 1.1], rtol=1e-6)


def test_blo_is_read(tmp_path):
    from rsciio.blockfile._api import get_default_header

    header = get_default_header()
    header["NX"], header["NY"], header["DP_SZ"], header["SX"], header["SY"], header["SDP"] = 4, 3, 16, 1.1, 1.1, 1000
    header["Data_offset_2"] = header["Data_offset_1"] + 12
    frames = [struct.pack("<HI", 0x55AA, number) + frame.astype("u1").tobytes() for number, frame in enumerate(FLAT)]
    content = header.tobytes().ljust(int(header["Data_offset_1"][0]), b"\0") + bytes(12) + b"".join(frames)
    (tmp_path / "scan.blo").write_bytes(content)
    found = read(tmp_path / "scan.blo", raster=Raster(step=1.1), dk_per_angstrom=0.05)
    np.testing.assert_array_equal(found.intensities_NYX[:], FLAT)


def test_mib_is_read_with_the_shape_that_the_recipe_says(tmp_path):
    mib(tmp_path / "scan.mib")
    told = {"raster": Raster(step=1.1, shape=(3, 4)), "dk_per_angstrom": 0.05, "pattern_flip": ("rows",)}
    found = read(tmp_path / "scan.mib", **told)
    rows = -np.arange(16) % 16  # turned around about the zero frequency, after RosettaSciIO turned them upside down
    np.testing.assert_array_equal(found.intensities_NYX[:], FLAT[:, ::-1][:, rows])
    assert np.ptp(found.scan.positions_N2, axis=0) / (16 * 0.05) == pytest.approx([2.2, 3.3])


def test_mrc_is_read(tmp_path):
    mrc(tmp_path / "scan.mrc")
    found = read(tmp_path / "scan.mrc", raster=Raster(step=1.1, shape=(3, 4)), dk_per_angstrom=0.05)
    np.testing.assert_array_equal(found.intensities_NYX[:], FLAT)


def test_emd_of_ncem_is_read(tmp_path):
    with h5py.File(tmp_path / "scan.emd", "w") as file:
        file.attrs["version_major"], file.attrs["version_minor"] = 0, 2
        group = file.create_group("signals/scan")
        group.attrs["emd_group_type"] = 1
        group["data"] = PATTERNS
        for number, (size, unit, scale) in enumerate(
            zip(PATTERNS.shape, ("nm", "nm", "1/nm", "1/nm"), (0.11, 0.11, 0.5, 0.5), strict=True), 1
        ):
            group[f"dim{number}"] = scale * np.arange(size)
            group[f"dim{number}"].attrs["name"], group[f"dim{number}"].attrs["units"] = "abcd"[number - 1], f"[{unit}]"
    with pytest.raises(
        DataError, match="the detector's axes come first"
    ):  # RosettaSciIO turns the order of axes around
        read(tmp_path / "scan.emd", energy_kev=80.0)
    found = read(tmp_path / "scan.emd", energy_kev=80.0, pattern_axes="xycr")
    np.testing.assert_array_equal(found.intensities_NYX[:], FLAT)
    assert found.scan.pixel_size_angstrom == pytest.approx(1 / (16 * 0.05))


# ---- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scan.mib", "scan.mrc", "scan.dm4", "scan.blo", "scan.ser", "scan.hspy", "scan.emd"])
@pytest.mark.parametrize(
    "content", [b"", b"no file of a microscope", b"\x00\x00\x00\x04" + b"\xff" * 60, b"MQ1,1,00384"]
)
def test_what_is_no_such_file_is_refused_in_one_message(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        read(tmp_path / name, raster=Raster(step=1.0, shape=(3, 4)), dk_per_angstrom=0.05)


def test_wrong_bytes_anywhere_never_raise_anything_but_a_data_error(tmp_path):
    generator = np.random.default_rng(4)
    told = {"raster": Raster(step=1.1, shape=(3, 4)), "dk_per_angstrom": 0.05}
    for name, write in (("scan.mib", mib), ("scan.mrc", mrc), ("scan.hspy", hspy)):
        path = tmp_path / name
        write(path)
        whole, refused = path.read_bytes(), 0
        for attempt in range(60):
            damaged = bytearray(whole)
            for _ in range(1 + attempt % 4):
                damaged[int(generator.integers(1500 if attempt % 2 else len(damaged)))] = int(generator.integers(256))
            path.unlink()  # HDF5 takes what is written in place for the file that it has still open
            path.write_bytes(damaged[: int(generator.integers(1, len(damaged)))] if attempt % 5 == 0 else damaged)
            try:
                np.asarray(read(path, **told).intensities_NYX)
            except DataError:
                refused += 1
        assert refused > 5, name


@pytest.mark.skipif(sys.platform != "linux", reason="files are tried in a process of their own on Linux alone")
def test_a_file_that_declares_more_than_it_holds_is_refused_before_memory_is_asked_for(tmp_path):
    mrc(tmp_path / "scan.mrc")
    content = bytearray((tmp_path / "scan.mrc").read_bytes())
    content[:12] = struct.pack("<3i", 2**15, 2**15, 2**15)
    (tmp_path / "scan.mrc").write_bytes(content)
    began = time.process_time()
    with pytest.raises(DataError, match="made to do harm"):
        read(tmp_path / "scan.mrc", raster=Raster(step=1.1, shape=(3, 4)), dk_per_angstrom=0.05)
    assert time.process_time() - began < 1


def test_an_ending_that_says_no_format_asks_for_it(tmp_path):
    (tmp_path / "scan.xyz").write_bytes(b"?")
    with pytest.raises(DataError, match="say reader = "):
        read(tmp_path / "scan.xyz")


def test_a_signal_that_is_not_there_is_answered_with_those_there_are(tmp_path):
    path = hspy(tmp_path / "scan.hspy")
    with pytest.raises(DataError, match=r"has no signal 3; it holds:\n  0: 3 × 4 × 16 × 16"):
        read(path, signal=3)


def test_a_signal_that_cannot_be_patterns_is_refused_with_what_there_is(tmp_path):
    image = signal()
    image["data"], image["axes"] = image["data"][0, 0], image["axes"][2:]
    from rsciio.hspy import file_writer

    file_writer(str(tmp_path / "image.hspy"), image, show_progressbar=False)
    with pytest.raises(DataError, match=r"signal 0 has 2 axes, .*holds:\n  0: 16 × 16"):
        read(tmp_path / "image.hspy", signal=0)


def test_a_package_that_is_missing_is_not_called_damage(tmp_path, monkeypatch):
    import rsciio.hspy

    def without(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("The 'sparse' library was not found")

    path = hspy(tmp_path / "scan.hspy")
    monkeypatch.setattr(rsciio.hspy, "file_reader", without)
    with pytest.raises(DataError, match="RosettaSciIO lacks a package: The 'sparse' library was not found"):
        read(path)
