"""From frames to patterns and from tables to positions: every option of a reader, against plain numpy and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from trainkit import DataError, Problem
from trainkit.cli.show import command as show
from trainkit.console import Console
from trainkit.engine.start import start
from trainkit.recipe.problems import InvalidRecipe
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.physics.optics import electron_wavelength
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.files.kind import Raster
from trainkit_ptychography.scans.files.numpy import NumPyDiffraction
from trainkit_ptychography.scans.prepare import Prepare
from trainkit_ptychography.scans.prepare_live import rows_and_columns
from trainkit_ptychography.scans.scan import Recording, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

ROOT = Path(__file__).parents[2]
GENERATOR = np.random.default_rng(11)
STORED = GENERATOR.poisson(20.0, (12, 16, 20)).astype(np.float32)  # zero frequency at [8, 10]
POINTS = GENERATOR.uniform(0, 20, (12, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"], file["points"] = STORED, POINTS
    return tmp_path


def read(folder: Path, **settings: Any) -> Recording:
    given: dict[str, Any] = {"patterns": "data", "positions": "points", "positions_unit": "pixels", **settings}
    if "raster" in given:
        del given["positions"]
    return HDF5Diffraction(path=folder / "scan.h5", **given).read()


def add(folder: Path, **arrays: Any) -> None:
    with h5py.File(folder / "scan.h5", "a") as file:
        for name, array in arrays.items():
            file[name] = array


def centred(recording: Recording) -> np.ndarray:
    """Return the patterns with their zero frequency at [rows//2, columns//2]."""
    return np.fft.fftshift(np.asarray(recording.intensities_NYX), axes=(1, 2))


# ---- which pixels make up which -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 20), (16, 10), (7, 9), (16, 20)])
def test_a_crop_keeps_the_middle(folder, shape):
    top, left = 8 - shape[0] // 2, 10 - shape[1] // 2
    expected = STORED[:, top : top + shape[0], left : left + shape[1]]
    np.testing.assert_array_equal(centred(read(folder, prepare=Prepare(crop=shape))), expected)


def test_binning_sums_up_and_keeps_the_beam_in_the_middle(folder):
    pairs = STORED.reshape(12, 8, 2, 10, 2).sum(axis=(2, 4))
    np.testing.assert_array_equal(centred(read(folder, prepare=Prepare(bin=2))), pairs)
    # Three by three around the beam's own pixel: 5 × 6 whole bins, the beam in bin [2, 3], whose middle is [8, 10].
    threes = STORED[:, 1:16, 0:18].reshape(12, 5, 3, 6, 3).sum(axis=(2, 4))
    recording = read(folder, prepare=Prepare(bin=3))
    np.testing.assert_array_equal(centred(recording), threes)
    assert recording.scan.mask_YX is None


def test_bins_that_are_not_wholly_on_the_detector_do_not_count(folder):
    # Four by four around [8, 10]: rows from -1, 3, 7 and 11, columns from 1, 5, 9, 13 and 17.
    recording = read(folder, prepare=Prepare(bin=4))
    assert recording.scan.mask_YX is not None
    expected = np.ones((4, 5), bool)
    expected[0], expected[:, 4] = False, False
    np.testing.assert_array_equal(np.fft.fftshift(recording.scan.mask_YX), expected)
    for row, column in np.argwhere(expected):
        top, left = 4 * row - 1, 4 * column + 1
        whole = STORED[:, top : top + 4, left : left + 4].sum((1, 2))
        np.testing.assert_array_equal(centred(recording)[:, row, column], whole)


@pytest.mark.parametrize("beyond", ["unknown", "dark"])
def test_padding_surrounds_the_detector(folder, beyond):
    recording = read(folder, prepare=Prepare(pad=(20, 25), beyond_detector=beyond))
    expected = np.pad(STORED, ((0, 0), (2, 2), (2, 3)))  # 25 columns: their middle is the 13th
    np.testing.assert_array_equal(centred(recording), expected)
    mask = recording.scan.mask_YX
    if beyond == "dark":
        assert mask is None
    else:
        np.testing.assert_array_equal(np.fft.fftshift(mask), np.pad(np.ones((16, 20), bool), ((2, 2), (2, 3))))


def test_what_is_cropped_away_does_not_come_back_by_padding(folder):
    recording = read(folder, prepare=Prepare(crop=(8, 8), bin=2, pad=(10, 10)))
    kept = STORED[:, 4:12, 6:14].reshape(12, 4, 2, 4, 2).sum(axis=(2, 4))
    np.testing.assert_array_equal(centred(recording), np.pad(kept, ((0, 0), (3, 3), (3, 3))))
    assert recording.scan.mask_YX is not None
    assert recording.scan.mask_YX.sum() == 16


@pytest.mark.parametrize("flips", [("rows",), ("columns",), ("columns", "rows")])
def test_a_flip_turns_frequencies_around(folder, flips):
    corner = np.fft.ifftshift(STORED, axes=(1, 2))
    rows = -np.arange(16) % 16 if "rows" in flips else np.arange(16)
    columns = -np.arange(20) % 20 if "columns" in flips else np.arange(20)
    found = np.asarray(read(folder, pattern_flip=flips).intensities_NYX)
    np.testing.assert_array_equal(found, corner[:, rows][:, :, columns])


@pytest.mark.parametrize(
    ("axes", "order"), [("nyx", (0, 1, 2)), ("nxy", (0, 2, 1)), ("xyn", (2, 1, 0)), ("ynx", (1, 0, 2))]
)
@pytest.mark.parametrize("leading", [0, 2])
def test_axes_may_stand_in_any_order(folder, axes, order, leading):
    add(folder, turned=STORED.transpose(order)[(None,) * leading])
    np.testing.assert_array_equal(centred(read(folder, patterns="turned", pattern_axes=axes)), STORED)


@pytest.mark.parametrize("axes", ["rcyx", "crxy", "yxrc", "ycxr"])
def test_axes_of_a_raster_may_stand_in_any_order(folder, axes):
    whole = STORED.reshape(3, 4, 16, 20)
    add(folder, turned=whole.transpose(["rcyx".index(letter) for letter in axes]))
    recording = read(folder, patterns="turned", pattern_axes=axes)
    np.testing.assert_array_equal(centred(recording), STORED)
    some = np.array([7, 2, 2, 11, 3, 4, 5])  # runs, single points, one twice, across the ends of lines
    np.testing.assert_array_equal(recording.intensities_NYX[some], np.fft.ifftshift(STORED, axes=(1, 2))[some])
    np.testing.assert_array_equal(recording.intensities_NYX[2:9], np.fft.ifftshift(STORED, axes=(1, 2))[2:9])


# ---- where the beam is ----------------------------------------------------------------------------------------------


def spots(row: int, column: int) -> np.ndarray:
    """Return patterns with a symmetric spot around a pixel."""
    down, right = np.ogrid[:16, :20]
    return np.exp(-0.5 * ((down - row) ** 2 + (right - column) ** 2)).astype(np.float32) * np.ones((12, 1, 1), "f4")


def test_the_beam_is_found_by_its_centre_of_mass_or_said(folder):
    add(folder, off=spots(6, 12))
    expected = np.zeros((16, 20), np.float32)
    expected[2:, :18] = spots(6, 12)[0, :14, 2:]  # moved to [8, 10]
    for said in ("centre_of_mass", (6.0, 12.0), (6.4, 11.6)):
        recording = read(folder, patterns="off", zero_frequency=said)
        np.testing.assert_array_equal(centred(recording)[5], expected)
        assert recording.scan.mask_YX is not None  # what was moved in from beyond the detector does not count
        np.testing.assert_array_equal(
            np.fft.fftshift(recording.scan.mask_YX), np.pad(np.ones((14, 18), bool), ((2, 0), (0, 2)))
        )


def test_a_crop_around_a_beam_off_the_middle_is_all_on_the_detector(folder):
    add(folder, off=spots(6, 12))
    recording = read(folder, patterns="off", zero_frequency="centre_of_mass", prepare=Prepare(crop=(10, 10)))
    np.testing.assert_array_equal(centred(recording), spots(6, 12)[:, 1:11, 7:17])
    assert recording.scan.mask_YX is None


def test_patterns_with_the_beam_at_the_corner_are_cropped_and_padded_around_it(folder):
    add(folder, corner=np.fft.ifftshift(STORED, axes=(1, 2)))
    for prepare in (Prepare(crop=(8, 10)), Prepare(bin=2), Prepare(pad=(32, 32)), Prepare(crop=(9, 9), bin=3)):
        at_corner = read(folder, patterns="corner", zero_frequency="corner", prepare=prepare)
        in_middle = read(folder, prepare=prepare)
        np.testing.assert_array_equal(at_corner.intensities_NYX, in_middle.intensities_NYX)
        np.testing.assert_array_equal(at_corner.scan.mask_YX, in_middle.scan.mask_YX)


# ---- values ---------------------------------------------------------------------------------------------------------


def test_a_background_is_subtracted_down_to_zero(folder):
    dark = GENERATOR.uniform(0, 30, (16, 20))
    add(folder, dark=dark)
    np.testing.assert_array_equal(centred(read(folder, prepare=Prepare(background=17.5))), np.maximum(STORED - 17.5, 0))
    found = centred(read(folder, prepare=Prepare(background="dark")))
    np.testing.assert_allclose(found, np.maximum(STORED - dark, 0), rtol=1e-5, atol=1e-5)
    add(folder, roots=np.sqrt(STORED))
    of_amplitudes = read(folder, patterns="roots", values="amplitude", prepare=Prepare(background=17.5))
    np.testing.assert_allclose(centred(of_amplitudes), np.maximum(STORED - 17.5, 0), atol=1e-4)


def test_a_background_must_be_a_number_where_pixels_count(folder):
    dark = np.zeros((16, 20))
    dark[3, 4] = np.nan
    add(folder, dark=dark, marks=np.zeros((16, 20)))
    with pytest.raises(DataError, match=r"dark \(prepare.background\) is not finite at 1 pixels .* \[3, 4\]"):
        read(folder, prepare=Prepare(background="dark", bad_values=(-1.0,)))
    found = centred(read(folder, prepare=Prepare(background="dark", bad_values=(-1.0,), bad_pixels=((3, 4),))))
    np.testing.assert_array_equal(found[:, 3, 4], 0)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("marks", ["bad", "good"])
def test_bad_pixels_do_not_count_and_may_hold_anything(folder, marks):
    bad = np.zeros((16, 20), bool)
    bad[3, 4] = bad[8, 2] = True
    broken = STORED.copy()
    broken[:, bad] = np.nan
    broken[:, 15] = -7.0
    broken[:, :, 0] = np.inf
    broken[:, 1, 1] = 1e30
    add(folder, broken=broken, mask=(bad if marks == "bad" else ~bad).astype(np.uint8))
    prepare = Prepare(mask="mask", mask_marks=marks, bad_pixels=((1, 1),), bad_rows=(15,), bad_columns=(0,))
    recording = checked(read(folder, patterns="broken", prepare=prepare))
    bad[15], bad[:, 0], bad[1, 1] = True, True, True
    np.testing.assert_array_equal(recording.scan.mask_YX, np.fft.ifftshift(~bad))
    np.testing.assert_array_equal(centred(recording), np.where(bad, 0, STORED))


def test_a_bin_with_a_bad_pixel_does_not_count(folder):
    mask = read(folder, prepare=Prepare(bin=2, bad_pixels=((5, 7),), pad=(12, 14))).scan.mask_YX
    assert mask is not None
    inner = np.ones((8, 10), bool)
    inner[2, 3] = False
    np.testing.assert_array_equal(np.fft.fftshift(mask), np.pad(inner, 2))


def test_a_bin_that_does_not_count_adds_nothing_to_its_pattern(folder):
    sums = STORED.reshape(len(STORED), 8, 2, 10, 2).sum((2, 4))
    sums[:, 2, 3] = 0
    found = centred(read(folder, prepare=Prepare(bin=2, bad_pixels=((5, 7),))))
    np.testing.assert_allclose(found, sums, rtol=1e-6)


# ---- the probe ------------------------------------------------------------------------------------------------------


def far_field(probe_MYX: np.ndarray) -> np.ndarray:
    return (np.abs(np.fft.fft2(np.fft.ifftshift(probe_MYX, axes=(1, 2)))) ** 2).sum(0)


@pytest.mark.parametrize(
    "settings",
    [
        {"prepare": Prepare(crop=(8, 10))},
        {"prepare": Prepare(pad=(32, 32))},
        {"pattern_flip": ("rows",)},
        {"pattern_flip": ("rows", "columns"), "prepare": Prepare(crop=(12, 12))},
    ],
)
def test_a_probe_stays_that_of_its_patterns(folder, settings):
    """The patterns of vacuum are the probe's own far field, before and after."""
    probe = (GENERATOR.normal(size=(2, 16, 20, 2)) @ [1, 1j]).astype(np.complex128)
    add(folder, vacuum=np.repeat(far_field(probe)[None], 12, axis=0), guess=probe)
    recording = read(folder, patterns="vacuum", probe="guess", zero_frequency="corner", **settings)
    assert recording.scan.probe_MYX is not None
    pattern = recording.intensities_NYX[0:1][0]
    np.testing.assert_allclose(far_field(recording.scan.probe_MYX), pattern, rtol=2e-4, atol=1e-4 * pattern.max())


def test_a_binned_detector_sees_a_probe_of_less_room(folder):
    probe = np.zeros((16, 20), np.complex128)
    probe[5:11, 6:14] = GENERATOR.normal(size=(6, 8, 2)) @ [1, 1j]  # fits into the smaller array
    add(folder, guess=probe)
    found = read(folder, probe="guess", prepare=Prepare(bin=2)).scan.probe_MYX
    assert found is not None
    np.testing.assert_array_equal(found[0], probe[4:12, 5:15])
    np.testing.assert_allclose(far_field(found), far_field(probe[None])[::2, ::2], rtol=1e-9)


# ---- sizes ----------------------------------------------------------------------------------------------------------


SQUARE = np.ones((12, 16, 16), np.float32)


@pytest.mark.parametrize(
    ("prepare", "larger"),
    [
        (Prepare(), 1.0),
        (Prepare(crop=(8, 8)), 2.0),
        (Prepare(bin=2), 1.0),
        (Prepare(pad=(32, 32)), 0.5),
        (Prepare(crop=(8, 8), bin=2, pad=(12, 12)), 2 / 3),
    ],
)
def test_a_crop_makes_object_pixels_larger_and_padding_smaller(folder, prepare, larger):
    add(folder, square=SQUARE)
    by_dk = read(folder, patterns="square", positions_unit="nm", dk_per_angstrom=0.1, prepare=prepare).scan
    by_size = read(folder, patterns="square", pixel_size_angstrom=0.625, prepare=prepare).scan
    for scan in (by_dk, by_size):
        assert scan.pixel_size_angstrom == pytest.approx(0.625 * larger)
    np.testing.assert_allclose(by_dk.positions_N2, POINTS * 10 / (0.625 * larger))
    np.testing.assert_allclose(by_size.positions_N2, POINTS / larger)


def test_a_distant_detector_gives_the_pixel_size(folder):
    add(folder, square=SQUARE)
    settings = {"detector_pixel_um": 75.0, "detector_distance_m": 2.0, "energy_kev": 8.0, "radiation": "photons"}
    scan = read(folder, patterns="square", **settings).scan
    assert scan.wavelength_angstrom == pytest.approx(12.398419843 / 8.0)
    assert scan.pixel_size_angstrom == pytest.approx(scan.wavelength_angstrom * 2.0 / (16 * 75e-6))
    electrons = read(folder, patterns="square", energy_kev=80.0).scan
    assert electrons.wavelength_angstrom == pytest.approx(electron_wavelength(80.0))


def test_a_detector_that_is_not_square_is_padded_or_cropped_where_sizes_matter(folder):
    with pytest.raises(DataError, match=r"object pixels of 0.625 × 0.5 Å .* prepare.pad = \[20, 20\], or prepare.crop"):
        read(folder, dk_per_angstrom=0.1)
    assert read(folder, dk_per_angstrom=0.1, prepare=Prepare(pad=(20, 20))).scan.pixel_size_angstrom == pytest.approx(
        0.5
    )
    assert read(folder, dk_per_angstrom=0.1, prepare=Prepare(crop=(16, 16))).scan.pixel_size_angstrom == pytest.approx(
        0.625
    )
    assert read(folder).scan.pixel_size_angstrom is None


def test_detector_pixels_may_differ_along_the_two_axes_if_object_pixels_do_not(folder):
    # 16 × 20 pixels of 0.1 × 0.08 1/Å: both fields of view are 1.6 1/Å, so an object pixel is 0.625 Å along both axes.
    assert read(folder, dk_per_angstrom=(0.1, 0.08)).scan.pixel_size_angstrom == pytest.approx(0.625)
    with pytest.raises(DataError, match=r"object pixels of 0.625 × 0.25 Å \(rows × columns\), which must be square"):
        read(folder, dk_per_angstrom=(0.1, 0.2))
    micrometres = {"detector_pixel_um": (50.0, 40.0), "detector_distance_m": 1.0, "wavelength_angstrom": 0.02}
    assert read(folder, **micrometres).scan.pixel_size_angstrom == pytest.approx(0.02 * 1e10 / (16 * 50e4))


@pytest.mark.parametrize(
    ("prepare", "size", "expected"),
    [
        (Prepare(pad=(20, 20)), 0.5, 0.5),  # 20 columns stay: that is their pixel
        (Prepare(crop=(16, 16)), 0.625, 0.625),  # 16 rows stay
        (Prepare(pad=(20, 20)), (0.625, 0.5), 0.5),
    ],
)
def test_one_pixel_size_belongs_to_the_side_that_stays_as_it_is(folder, prepare, size, expected):
    found = read(folder, pixel_size_angstrom=size, prepare=prepare).scan.pixel_size_angstrom
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("prepare", [Prepare(), Prepare(crop=(8, 8)), Prepare(pad=(30, 30))])
def test_one_pixel_size_for_a_rectangular_detector_is_refused_with_both_that_it_can_mean(folder, prepare):
    with pytest.raises(DataError, match=r"16 × 20 pixels.*0.5 × 0.4 Å \(rows × columns\) or 0.625 × 0.5 Å"):
        read(folder, pixel_size_angstrom=0.5, prepare=prepare)


# ---- positions ------------------------------------------------------------------------------------------------------


ROOT_HALF = np.sqrt(0.5)


@pytest.mark.parametrize(
    ("raster", "more", "expected"),
    [
        (Raster(step=2.0, shape=(2, 3)), {}, [(0, 0), (0, 2), (0, 4), (2, 0), (2, 2), (2, 4)]),
        (Raster(step=(3.0, -1.0), shape=(3, 2)), {}, [(0, 0), (0, -1), (3, 0), (3, -1), (6, 0), (6, -1)]),
        (Raster(step=2.0, shape=(2, 3), snake=True), {}, [(0, 0), (0, 2), (0, 4), (2, 4), (2, 2), (2, 0)]),
        (
            Raster(step=2.0, shape=(2, 3)),
            {"positions_order": "column_row"},
            [(0, 0), (2, 0), (4, 0), (0, 2), (2, 2), (4, 2)],
        ),
        (
            Raster(step=2.0, shape=(2, 3)),
            {"positions_flip": ("rows",)},
            [(0, 0), (0, 2), (0, 4), (-2, 0), (-2, 2), (-2, 4)],
        ),
        (  # right becomes down, down becomes left
            Raster(step=2.0, shape=(2, 3)),
            {"positions_rotation_deg": 90.0},
            [(0, 0), (2, 0), (4, 0), (0, -2), (2, -2), (4, -2)],
        ),
        (  # turned after it was turned around
            Raster(step=2.0, shape=(2, 3)),
            {"positions_rotation_deg": 90.0, "positions_flip": ("columns",)},
            [(0, 0), (-2, 0), (-4, 0), (0, -2), (-2, -2), (-4, -2)],
        ),
        (
            Raster(step=2.0, shape=(2, 3)),
            {"positions_rotation_deg": 45.0},
            [(ROOT_HALF * (r + c), ROOT_HALF * (c - r)) for r in (0, 2) for c in (0, 2, 4)],
        ),
    ],
)
def test_a_raster_lies_where_it_was_scanned(tmp_path, raster, more, expected):
    np.save(tmp_path / "six.npy", STORED[:6])
    found = NumPyDiffraction(path=tmp_path / "six.npy", raster=raster, **more).read().scan.positions_N2
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_raster_takes_its_shape_from_the_patterns_and_its_step_in_any_unit(folder):
    add(folder, whole=STORED.reshape(3, 4, 16, 20)[..., :16])
    settings = {"patterns": "whole", "raster": Raster(step=0.2), "pixel_size_angstrom": 0.5, "positions_unit": "nm"}
    expected = np.stack(np.meshgrid(np.arange(3), np.arange(4), indexing="ij"), -1).reshape(-1, 2) * 4.0
    np.testing.assert_allclose(read(folder, **settings).scan.positions_N2, expected)


def test_positions_may_be_turned_around_or_in_two_arrays(folder):
    add(folder, rows=POINTS[:, 0].reshape(3, 4), columns=POINTS[:, 1], across=POINTS.T)
    swapped = read(folder, positions_order="column_row", positions_flip=("columns",)).scan.positions_N2
    np.testing.assert_array_equal(swapped, np.stack([POINTS[:, 1], -POINTS[:, 0]], 1))
    np.testing.assert_array_equal(read(folder, positions=("rows", "columns")).scan.positions_N2, POINTS)
    np.testing.assert_array_equal(read(folder, positions="across").scan.positions_N2, POINTS)


def test_two_arrays_of_positions_must_be_of_one_length(folder):
    add(folder, rows=POINTS[:, 0], columns=POINTS[1:, 1])
    with pytest.raises(DataError, match="rows has 12 values, columns has 11"):
        read(folder, positions=("rows", "columns"))


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated scan as a microscope would leave it: DC in the middle, positions in Å in the axes of the stage."""
    intensities, scan = SimulatedDiffraction(scan_shape=(12, 12), detector_size=32, position_error_angstrom=0.0).read()
    folder = tmp_path_factory.mktemp("scanned")
    angle = np.radians(25.0)  # the stage is turned: right on the detector is right and up on the stage
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # on (row, column)
    with h5py.File(folder / "scan.h5", "w") as file:
        file["data"] = np.fft.fftshift(np.asarray(intensities), axes=(1, 2))
        file["points"] = scan.positions_N2 * 0.4
        file["turned"] = scan.positions_N2 @ turn.T * 0.4
    return folder


def loss_after(scanned: Path, folder: Path, *sets: str) -> float:
    text = """
[run]
epochs = 8
device = "cpu"
threads = 1
[data]
use = "diffraction_hdf5"
patterns = "data"
pixel_size_angstrom = 0.4
energy_kev = 80.0
semiangle_mrad = 25.0
defocus_angstrom = 60.0
batch_size = 12
[model]
use = "single_slice_ptychography"
probe = { use = "aperture" }
[losses.data]
use = "amplitude"
[optimizer]
use = "adam"
lr = 1e-2
"""
    (folder / "own.toml").write_text("trainkit = 1\n" + text)
    fixed = (f"data.path={scanned / 'scan.h5'}", f"run.dir={folder}", "checkpoint.every_epochs=100")
    state = start(resolve(folder / "own.toml", (*fixed, *sets)), Console(quiet=True)).run.state
    return state.metrics["train/loss"]


@pytest.mark.slow
def test_patterns_and_positions_must_be_turned_alike_to_be_explained_by_one_object(scanned, tmp_path):
    right = loss_after(scanned, tmp_path, "data.positions=points")
    for alike in (
        ("data.positions=points", 'data.pattern_flip=["rows"]', 'data.positions_flip=["rows"]'),
        ("data.positions=points", 'data.pattern_axes="nxy"', 'data.positions_order="column_row"'),
        ("data.positions=turned", "data.positions_rotation_deg=25"),
    ):
        assert loss_after(scanned, tmp_path, *alike) == pytest.approx(right, rel=0.02)
    for apart in (
        ("data.positions=points", 'data.pattern_flip=["rows"]'),
        ("data.positions=points", 'data.pattern_axes="nxy"'),
        ("data.positions=turned",),
        ("data.positions=turned", "data.positions_rotation_deg=-25"),
    ):
        assert loss_after(scanned, tmp_path, *apart) > 1.1 * right


# ---- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"raster": Raster(step=1.0, shape=(5, 3))}, r"a raster of 5 × 3 has 15 points, but there are 12 patterns"),
        ({"raster": Raster(step=1.0)}, r"one scan axis \(12 points\), so the raster needs its shape"),
        ({"pattern_axes": "rcyx"}, r'pattern_axes = "rcyx" must have 3 letters'),
        ({"zero_frequency": (20.0, 3.0)}, r"zero_frequency = \[20, 3\] is not on the detector of 16 × 20"),
        (
            {"prepare": Prepare(mask="points")},
            r"points \(prepare.mask\) has the shape \(12, 2\), but a pattern has 16 × 20",
        ),
        ({"prepare": Prepare(background="points")}, r"points \(prepare.background\) has the shape"),
        ({"prepare": Prepare(bad_pixels=((3, 20),))}, r"prepare.bad_pixels \[3, 20\] is not on the detector"),
        ({"prepare": Prepare(bad_rows=(16,))}, "prepare.bad_rows 16 is not on the detector"),
        ({"prepare": Prepare(bad_rows=tuple(range(16)))}, 'all pixels are masked; .*mask_marks = "good"'),
        ({"prepare": Prepare(pad=(12, 32))}, r"prepare.pad = \[12, 32\] is smaller than the 16 pixels"),
        ({"prepare": Prepare(bin=17)}, "bin = 17 leaves nothing of 16 pixels"),
        ({"patterns": "nothing", "zero_frequency": "centre_of_mass"}, "no centre of mass can be found"),
        ({"positions_unit": "nm"}, r"positions in nm need the size of an object pixel: set data.pixel_size_angstrom"),
    ],
)
def test_settings_that_do_not_fit_the_file_are_refused_by_name(folder, settings, said):
    add(folder, nothing=np.zeros((12, 16, 20)))
    with pytest.raises(DataError, match=said) as caught:
        read(folder, **settings)
    assert "scan.h5" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"pattern_axes": "nyy"}, "pattern_axes"),
        ({"pattern_axes": "ncyx"}, "pattern_axes"),
        ({"prepare": Prepare(crop=(9, 8), bin=2)}, "prepare.crop"),
        ({"prepare": Prepare(crop=(8, 8), bin=2, pad=(3, 8))}, "prepare.pad"),
        ({"dk_per_angstrom": 0.1, "detector_distance_m": 1.0}, "detector_distance_m"),
        ({"positions_unit": "m", "detector_distance_m": 1.0}, "positions_unit"),
        ({"positions_unit": "m", "detector_distance_m": 1.0, "detector_pixel_um": 55.0}, "detector_distance_m"),
        ({"truth_phase": "a", "truth_positions": "b", "prepare": Prepare(crop=(8, 8))}, "truth_phase"),
        ({"truth_phase": "a", "truth_positions": "b", "positions_rotation_deg": 3.0}, "truth_phase"),
        ({"raster": Raster(step=1.0)}, ""),
    ],
)
def test_settings_that_cannot_go_together_are_found_without_the_file(settings, key):
    given: dict[str, Any] = {"patterns": "data", "positions": "points", "positions_unit": "pixels", **settings}
    problems = list(HDF5Diffraction(path=Path("nix.h5"), **given).problems(None))  # type: ignore[arg-type]
    assert [problem.key for problem in problems if isinstance(problem, Problem)] == [key]


def test_show_lists_the_settings_of_a_table_within_a_table():
    lines = CliRunner().invoke(show, ["diffraction_hdf5"]).output.splitlines()
    assert "  prepare: Prepare, a table" in lines
    assert "  prepare.bin: int = 1, ≥ 1" in lines
    assert "  raster.step: float | tuple[float, float], required" in lines


def test_a_recipe_says_all_of_it_in_toml(folder):
    recipe = (ROOT / "recipes" / "ptycho_siemens.toml").read_text()
    table = """[data]
use = "diffraction_hdf5"
path = "scan.h5"
patterns = "data"
pattern_axes = "nyx"
pattern_flip = ["rows"]
zero_frequency = [8, 10]
raster = { step = [1, 2.5], shape = [3, 4], snake = true }
positions_unit = "pixels"
positions_rotation_deg = 30

[data.prepare]
background = 2
bad_pixels = [[1, 1], [2, 3]]
bad_rows = [4]
bin = 2
pad = [12, 12]
"""
    start, end = recipe.index("[data]"), recipe.index("[model]")
    (folder / "own.toml").write_text(recipe[:start] + table + recipe[end:])
    data = resolve(folder / "own.toml").recipe.data
    assert isinstance(data, HDF5Diffraction)
    assert data.prepare == Prepare(background=2.0, bad_pixels=((1, 1), (2, 3)), bad_rows=(4,), bin=2, pad=(12, 12))
    assert data.raster == Raster(step=(1.0, 2.5), shape=(3, 4), snake=True)
    assert data.zero_frequency == (8.0, 10.0)
    checked(data.read())
    for wrong, said in (
        ("bin = 2", "bin = 0"),
        ("step = [1, 2.5]", "step = [1, 0]"),
        ('pattern_flip = ["rows"]', 'pattern_flip = ["row"]'),
        ("pad = [12, 12]", "pad = [0, 12]"),
        ("bad_rows = [4]", "bad_rows = [-4]"),
    ):
        (folder / "own.toml").write_text(recipe[:start] + table.replace(wrong, said) + recipe[end:])
        with pytest.raises(InvalidRecipe, match=r"own\.toml:\d+"):
            resolve(folder / "own.toml")


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (np.arange(6), np.arange(7)),
        (np.fft.ifftshift(np.arange(6)), np.fft.ifftshift(np.arange(7))),
        (np.arange(6)[::-1], np.arange(7)),
        (np.clip(np.arange(8) - 1, 0, 5), np.arange(2, 5)),
        (np.array([3]), np.array([0, 2, 4, 6])),
    ],
)
def test_rows_and_columns_are_those_that_are_named_however_they_lie(rows, columns):
    values = np.random.default_rng(0).random((3, 6, 7), np.float32)
    found = rows_and_columns(values, rows, columns)
    assert np.array_equal(found, values[:, rows][:, :, columns])
    assert not np.shares_memory(found, values)
