"""CXI and NeXus files: found by their standard places, in any unit, overruled by the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest

from trainkit import DataError
from trainkit_ptychography.detector_propagations.near_field import NearField
from trainkit_ptychography.scans.files.cxi import CXIDiffraction
from trainkit_ptychography.scans.files.kind import Raster
from trainkit_ptychography.scans.prepare import Prepare
from trainkit_ptychography.scans.prepare_live import prepared_probe
from trainkit_ptychography.scans.scan import Scan, checked

GENERATOR = np.random.default_rng(21)
PATTERNS = GENERATOR.poisson(9.0, (12, 16, 16)).astype(np.uint16)
TRANSLATIONS = np.concatenate([GENERATOR.uniform(-1e-6, 1e-6, (12, 2)), np.zeros((12, 1))], axis=1)  # x, y, z in m
JOULES = 8000 * 1.602176634e-19
WAVELENGTH = 1.5498024804  # Å, of 8 keV
PIXEL = WAVELENGTH * 2.0 / (16 * 75e-6)  # Å: λ · distance / (pixels · their size)

DETECTOR = "entry_1/instrument_1/detector_1"
CXI: dict[str, Any] = {
    "cxi_version": 160,
    f"{DETECTOR}/data": PATTERNS,
    f"{DETECTOR}/distance": 2.0,
    f"{DETECTOR}/x_pixel_size": 75e-6,
    f"{DETECTOR}/y_pixel_size": 75e-6,
    "entry_1/instrument_1/source_1/energy": JOULES,
    "entry_1/sample_1/geometry_1/translation": TRANSLATIONS,
}


def write(path: Path, content: Mapping[str, Any], units: Mapping[str, str] | None = None) -> CXIDiffraction:
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value
        for name, unit in (units or {}).items():
            file[name].attrs["units"] = unit
    return CXIDiffraction(path=path)


def changed(**changes: Any) -> dict[str, Any]:
    """Return the content with other datasets, by the end of their names; None takes one out."""
    content = dict(CXI)
    for end, value in changes.items():
        (name,) = (each for each in content if each.endswith(end))
        content[name] = value
        if value is None:
            del content[name]
    return content


def is_the_scan(scan: Scan) -> None:
    assert scan.wavelength_angstrom == pytest.approx(WAVELENGTH, rel=1e-6)
    assert scan.pixel_size_angstrom == pytest.approx(PIXEL, rel=1e-6)
    np.testing.assert_allclose(scan.positions_N2, TRANSLATIONS[:, [1, 0]] * 1e10 / PIXEL, rtol=1e-6)


def test_a_cxi_file_needs_nothing_but_its_path(tmp_path):
    recording = checked(write(tmp_path / "scan.cxi", CXI).read())
    np.testing.assert_array_equal(recording.intensities_NYX, np.fft.ifftshift(PATTERNS, axes=(1, 2)))
    is_the_scan(recording.scan)
    assert recording.scan.mask_YX is None


def test_soft_links_of_a_cxi_file_are_followed_and_links_to_other_files_are_said(tmp_path):
    settings = write(tmp_path / "scan.cxi", CXI)
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        file["entry_1/data_1/data"] = h5py.SoftLink(f"/{DETECTOR}/data")
        file["entry_1/data_1/translation"] = h5py.ExternalLink("other.h5", "/data")
    is_the_scan(settings.read().scan)
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        file.move(f"{DETECTOR}/data", "entry_1/elsewhere")
        file[f"{DETECTOR}/data"] = h5py.SoftLink("/entry_1/elsewhere")
    is_the_scan(settings.read().scan)
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        del file[f"{DETECTOR}/data"], file["entry_1/data_1/data"]
        file[f"{DETECTOR}/data"] = h5py.ExternalLink("other.h5", "/data")
    with pytest.raises(DataError, match=r'"other.h5", which the recipe does not name.*linked_files'):
        settings.read()


@pytest.mark.parametrize(
    ("content", "units"),
    [
        (changed(energy=8000.0), {"entry_1/instrument_1/source_1/energy": "eV"}),
        (changed(energy=8.0), {"entry_1/instrument_1/source_1/energy": "keV"}),
        (changed(energy=np.array([JOULES])), {}),
        (changed(distance=-2000.0), {f"{DETECTOR}/distance": "mm"}),
        (changed(x_pixel_size=75.0, y_pixel_size=75.0), {f"{DETECTOR}/{each}_pixel_size": "um" for each in "xy"}),
        (changed(translation=TRANSLATIONS * 1e6), {"entry_1/sample_1/geometry_1/translation": "µm"}),
        (changed(translation=TRANSLATIONS.T), {}),
        (
            changed(energy=None) | {"entry_1/instrument_1/source_1/wavelength": WAVELENGTH * 1e-10},
            {},
        ),
        (  # NXcxi_ptycho: the energy of the source is that of the machine
            changed(energy=3e9 * 1.6e-19) | {"entry_1/instrument_1/beam_1/energy": 8000.0},
            {"entry_1/instrument_1/beam_1/energy": "eV"},
        ),
        (
            changed(translation=None)
            | {"entry_1/sample_1/transformations/x": TRANSLATIONS[:, 0] * 1e3}
            | {"entry_1/sample_1/transformations/y": TRANSLATIONS[:, 1]},
            {"entry_1/sample_1/transformations/x": "mm"},
        ),
        (
            {name.replace("_1", ""): value for name, value in changed(energy=None, translation=None).items()}
            | {"entry/instrument/beam/incident_energy": 8.0, "entry/data/x": TRANSLATIONS[:, 0]}
            | {"entry/data/y": TRANSLATIONS[:, 1]},
            {"entry/instrument/beam/incident_energy": "keV"},
        ),
    ],
)
def test_every_spelling_gives_the_same_scan(tmp_path, content, units):
    recording = checked(write(tmp_path / "scan.cxi", content, units).read())
    np.testing.assert_array_equal(recording.intensities_NYX, np.fft.ifftshift(PATTERNS, axes=(1, 2)))
    is_the_scan(recording.scan)


def test_the_mask_of_a_cxi_file_leaves_pixels_with_signal_alone(tmp_path):
    marks = np.zeros((16, 16), np.uint32)
    marks[2, 3], marks[4, 5], marks[6, 7] = 0x1, 0x1000, 0x1001
    scan = write(tmp_path / "scan.cxi", CXI | {f"{DETECTOR}/mask": marks}).read().scan
    good = np.ones((16, 16), bool)
    good[2, 3] = good[6, 7] = False
    assert scan.mask_YX is not None
    np.testing.assert_array_equal(np.fft.fftshift(scan.mask_YX), good)


def test_the_recipe_comes_first(tmp_path):
    settings = write(tmp_path / "scan.cxi", CXI | {"own/points": TRANSLATIONS[:, :2] * 1e9, "own/data": PATTERNS[::-1]})
    own = CXIDiffraction(
        path=settings.path,
        patterns="own/data",
        positions="own/points",
        positions_unit="nm",
        energy_kev=4.0,
        detector_distance_m=1.0,
        prepare=Prepare(crop=(8, 8)),
    )
    recording = own.read()
    assert recording.scan.wavelength_angstrom == pytest.approx(2 * WAVELENGTH, rel=1e-6)
    assert recording.scan.pixel_size_angstrom == pytest.approx(2 * PIXEL, rel=1e-6)
    np.testing.assert_allclose(recording.scan.positions_N2, TRANSLATIONS[:, :2] * 1e10 / (2 * PIXEL), rtol=1e-6)
    np.testing.assert_array_equal(recording.intensities_NYX, np.fft.ifftshift(PATTERNS[::-1, 4:12, 4:12], axes=(1, 2)))
    raster = CXIDiffraction(path=settings.path, raster=Raster(step=1e-7, shape=(3, 4))).read().scan
    assert raster.positions_N2[-1] == pytest.approx([2e3 / PIXEL, 3e3 / PIXEL], rel=1e-6)
    pixels = CXIDiffraction(path=settings.path, pixel_size_angstrom=200.0).read().scan
    assert pixels.pixel_size_angstrom == 200.0


@pytest.mark.parametrize(
    ("content", "units", "said"),
    [
        (changed(energy=8000.0), {}, r"energy = 8000 would be .* keV.*no attribute \"units\".*set energy_kev"),
        (changed(energy=3.0), {"entry_1/instrument_1/source_1/energy": "GeV"}, 'is in "gev"; known here: j'),
        (changed(energy=3e9), {"entry_1/instrument_1/source_1/energy": "eV"}, "may be that of the machine"),
        (changed(energy=None), {}, "need the size of an object pixel: .*the energy"),
        (changed(distance=None), {}, "need the size of an object pixel"),
        (changed(distance=np.array([1.0, 2.0])), {}, "must be one number"),
        (changed(y_pixel_size=55e-6), {}, r"object pixels of .* × .* Å \(rows × columns\), which must be square"),
        (changed(translation=None), {}, r"no positions in the places of CXI(.|\n)*distance \(\)"),
        (changed(translation=np.ones((12, 4))), {}, r"must hold x, y \(and z\) for each point, its shape is \(12, 4\)"),
        (changed(translation=TRANSLATIONS[1:]), {}, r"12 patterns but positions of shape \(11, 2\)"),
        (CXI | {f"{DETECTOR}/mask": np.zeros((4, 4))}, {}, r"its mask \(prepare.mask\) has the shape \(4, 4\)"),
    ],
)
def test_a_cxi_file_that_lacks_or_says_something_impossible_is_refused(tmp_path, content, units, said):
    with pytest.raises(DataError, match=said) as caught:
        checked(write(tmp_path / "scan.cxi", content, units).read())
    assert "scan.cxi" in str(caught.value)


def near(settings: CXIDiffraction, **prepare: Any) -> Scan:
    propagation = NearField(focus_distance_mm=500.0)
    return attrs.evolve(settings, detector_propagation=propagation, prepare=Prepare(**prepare)).read().scan


@pytest.mark.parametrize(
    ("prepare", "larger"), [({}, 1), ({"crop": (8, 8)}, 1), ({"pad": (24, 24)}, 1), ({"bin": 2}, 2)]
)
def test_in_the_near_field_an_object_pixel_is_the_magnified_detector_s(tmp_path, prepare, larger):
    scan = near(write(tmp_path / "scan.cxi", CXI), **prepare)
    pixel = larger * 75e4 / 5  # Å: 500 mm from a focus, and 2 m on to the detector
    assert scan.pixel_size_angstrom == pytest.approx(pixel, rel=1e-6)
    np.testing.assert_allclose(scan.positions_N2, TRANSLATIONS[:, [1, 0]] * 1e10 / pixel, rtol=1e-6)


def test_in_the_near_field_the_distance_counts_even_if_the_recipe_tells_the_pixel(tmp_path):
    scan = near(attrs.evolve(write(tmp_path / "scan.cxi", CXI), pixel_size_angstrom=1e5))
    assert scan.pixel_size_angstrom == 1e5
    assert scan.detector_distance_m == 2.0


def test_a_probe_of_the_near_field_is_cropped_where_patterns_are_and_coarser_where_they_are_binned():
    rows, columns = np.meshgrid(np.arange(32) - 16, np.arange(32) - 16, indexing="ij")
    beam = np.exp(-((rows - 1) ** 2 + (columns + 2) ** 2) / 18).astype(complex)[None]
    cropped = prepared_probe(beam, (24, 24), 1, (False, False), images=True)
    np.testing.assert_array_equal(cropped, beam[:, 4:28, 4:28])
    padded = prepared_probe(beam, (36, 36), 1, (False, False), images=True)
    np.testing.assert_array_equal(padded[:, 2:34, 2:34], beam)
    assert padded.sum() == pytest.approx(beam.sum())
    binned = prepared_probe(beam, (16, 16), 2, (False, False), images=True)
    np.testing.assert_allclose(binned, 4 * beam[:, ::2, ::2], atol=1e-3)


@pytest.mark.parametrize("across", [False, True])
def test_a_detector_at_an_angle_to_the_beam_is_refused_as_bragg_geometry(tmp_path, across):
    angle = np.radians(40.0)
    vectors = 75e-6 * np.array([[0, -1, 0], [-np.cos(angle), 0, np.sin(angle)]])
    content = CXI | {f"{DETECTOR}/basis_vectors": vectors.T if across else vectors}
    settings = write(tmp_path / "scan.cxi", content)
    with pytest.raises(DataError, match=r"at 40° to the beam, as in Bragg"):
        settings.read()
    assert attrs.evolve(settings, pixel_size_angstrom=100.0).read().scan.pixel_size_angstrom == 100.0


def test_a_detector_across_the_beam_is_not(tmp_path):
    vectors = 75e-6 * np.array([[0, -1, 0.02], [-1, 0, 0]])
    is_the_scan(write(tmp_path / "scan.cxi", CXI | {f"{DETECTOR}/basis_vectors": vectors}).read().scan)
