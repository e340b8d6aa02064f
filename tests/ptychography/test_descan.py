"""Light that moves along with a scan: against discs that are moved by a known matrix, and a simulated specimen."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from trainkit import Problem
from trainkit_ptychography.planning.staged_live import calibrate
from trainkit_ptychography.preflight.seen_images_live import look_for_images
from trainkit_ptychography.scans.descan import doubt_of_descan, motion_of_light
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.scan import Recording
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

SIZE = 32
RASTER_N2 = np.stack(np.meshgrid(*[1.5 * np.arange(12)] * 2, indexing="ij"), -1).reshape(-1, 2)


def discs(matrix_22: NDArray[np.float64], counts: float = 5e3) -> NDArray[np.float32]:
    """Return discs of light at [5, -3], with soft edges, moved along with the scan."""
    frequency = np.fft.fftfreq(SIZE, 1 / SIZE)
    centre_N2 = np.array([5.0, -3.0]) + (RASTER_N2 - RASTER_N2.mean(0)) @ matrix_22
    away_NYX = np.hypot(
        frequency[:, None] - centre_N2[:, 0, None, None], frequency[None, :] - centre_N2[:, 1, None, None]
    )
    light_NYX = np.clip(7.5 - away_NYX, 0, 1)
    return np.random.default_rng(0).poisson(counts * light_NYX / light_NYX[0].sum()).astype(np.float32)


@pytest.mark.parametrize("matrix", [[[0.2, 0.0], [0.0, 0.2]], [[0.0, -0.1], [0.15, 0.0]]])
def test_the_matrix_by_which_light_moves_is_found(matrix: list[list[float]]) -> None:
    patterns_NYX = discs(np.array(matrix))
    patterns_NYX[7] = 0  # no light at all
    patterns_NYX[50] = np.roll(patterns_NYX[50], 12, axis=0)  # a bad frame
    found = motion_of_light(patterns_NYX, RASTER_N2, None)
    assert found is not None
    assert found.is_seen()
    np.testing.assert_array_less(np.abs(found.matrix_22 - matrix), 4 * found.error_22 + 1e-3)


def test_light_that_stays_is_not_doubted() -> None:
    found = motion_of_light(discs(np.zeros((2, 2))), RASTER_N2, None)
    assert found is not None
    assert not found.is_seen()
    assert motion_of_light(discs(np.zeros((2, 2)))[:9], RASTER_N2[:9], None) is None


@pytest.fixture(scope="module")
def recording() -> Recording:
    return SimulatedDiffraction(scan_shape=(14, 14)).read()


def descanned(recording: Recording, pixels: float) -> Recording:
    """Return a scan whose patterns move by so many whole pixels, along both axes, from one end to the other."""
    patterns_NYX, scan = np.array(recording.intensities_NYX), recording.scan
    at_N2 = (scan.positions_N2 - scan.positions_N2.min(0)) / np.ptp(scan.positions_N2, axis=0)
    for each, at_2 in zip(patterns_NYX, np.round(pixels * (at_N2 - 0.5)).astype(int), strict=True):
        each[:] = np.roll(each, at_2, axis=(0, 1))
    return recording._replace(intensities_NYX=patterns_NYX)


def test_a_scan_with_a_specimen_is_doubted_only_if_its_light_moves(recording: Recording) -> None:
    assert doubt_of_descan(*recording) is None
    words = doubt_of_descan(*descanned(recording, 2.0))
    assert words is not None
    assert "(descan)" in words
    assert "about 0.6 rad" in words  # π/4 · 2.1 pixels · (13 steps of 0.5 Å) / (48 pixels of 0.4 Å)


@pytest.fixture(scope="module")
def scan(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> HDF5Diffraction:
    """Settings that read a scan whose beam is not tilted back."""
    path = tmp_path_factory.mktemp("descan") / "scan.h5"
    patterns_NYX = np.fft.fftshift(descanned(recording, 3.0).intensities_NYX, axes=(1, 2))
    with h5py.File(path, "w") as file:
        file["patterns"], file["positions"] = patterns_NYX, 0.4 * recording.scan.positions_N2
    return HDF5Diffraction(
        path=path,
        patterns="patterns",
        positions="positions",
        positions_unit="angstrom",
        energy_kev=80.0,
        semiangle_mrad=25.0,
        pixel_size_angstrom=0.4,
    )


def test_discs_that_move_with_the_scan_are_no_images_of_the_specimen(scan: HDF5Diffraction) -> None:
    assert look_for_images(scan) is None


def test_a_calibration_says_that_light_moves(scan: HDF5Diffraction) -> None:
    said = calibrate(scan, None)
    assert "(descan)" in next(each for each in said if isinstance(each, Problem)).message
