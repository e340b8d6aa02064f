"""docs/ptychography_conventions.md, line by line: turn one round, and patterns of a known object do not fit.

Each case is held against a scan that we simulate ourselves and, where the shared data are, against one that abTEM has.
"""

from __future__ import annotations

from math import cos, radians, sin
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import torch

from trainkit import Context
from trainkit_ptychography.models.ptychography import Ptychography
from trainkit_ptychography.models.ptychography_live import PtychographyModule
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.files.hdf5 import HDF5Diffraction
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

ROOT = Path(__file__).parents[2]
TURN_DEG = 20.0


@attrs.frozen
class Known:
    """A file whose true positions and phase are known, and the settings that read it rightly."""

    settings: HDF5Diffraction
    defocus_angstrom: float
    noise: float


def turned(points_N2: np.ndarray, angle_deg: float) -> np.ndarray:
    """Turn (row, column) so that what is on the right goes down."""
    angle = radians(angle_deg)
    return np.stack(
        [
            cos(angle) * points_N2[:, 0] + sin(angle) * points_N2[:, 1],
            -sin(angle) * points_N2[:, 0] + cos(angle) * points_N2[:, 1],
        ],
        axis=1,
    )


def written(path: Path, centred_NYX: np.ndarray, positions_N2: np.ndarray, phase_KL: np.ndarray, **known: Any) -> Known:
    """Write a file as microscopes do: patterns with the beam in the middle, positions in Å; and as they do not."""
    with h5py.File(path, "w") as file:
        file["patterns"], file["positions"], file["phase"] = centred_NYX, positions_N2, phase_KL
        file["as_xy"], file["turned_back"] = positions_N2[:, ::-1], turned(positions_N2, -TURN_DEG)
    pixel, defocus, noise = (known.pop(name) for name in ("pixel", "defocus", "noise"))
    settings = HDF5Diffraction(
        path=path,
        patterns="patterns",
        positions="positions",
        pixel_size_angstrom=pixel,
        truth_phase="phase",
        truth_positions="positions",
        validation_fraction=0.0,
        **known,
    )
    return Known(settings, defocus, noise)


def of_our_own(folder: Path) -> Known:
    scan = SimulatedDiffraction(scan_shape=(5, 6), detector_size=40, step_angstrom=0.9, dose_per_square_angstrom=1e8)
    recording = scan.read()
    truth = recording.scan.truth
    assert truth is not None
    patterns = np.fft.fftshift(recording.intensities_NYX[:], axes=(1, 2))
    return written(
        folder / "own.h5",
        patterns,
        truth.positions_N2 * scan.pixel_size_angstrom,
        truth.phase_KL,
        pixel=scan.pixel_size_angstrom,
        energy_kev=80.0,
        semiangle_mrad=25.0,
        defocus=60.0,
        noise=0.0002,
    )


def of_abtem(folder: Path, shared_data: Path) -> Known:
    with h5py.File(shared_data / "ptychography" / "mos2_sim.h5") as file:
        size = file["intensity_noiseless"].shape[-1]
        patterns = file["intensity_noiseless"][()].reshape(-1, size, size)[::34].astype(np.float32)
        positions = file["positions_true_A"][()][::34]
        attributes = dict(file.attrs)
        return written(
            folder / "mos2.h5",
            patterns,
            positions,
            file["gt/phase_rad"][()],
            pixel=float(attributes["px_A"]),
            energy_kev=float(attributes["energy_eV"]) / 1e3,
            semiangle_mrad=1e3 * float(attributes["semiangle_rad"]),
            defocus=float(attributes["defocus_A"]),
            noise=0.001,
        )


@pytest.fixture(scope="module", params=["our own scan", pytest.param("mos2_sim.h5", marks=pytest.mark.data)])
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("known")
    if request.param == "our own scan":
        return of_our_own(folder)
    return of_abtem(folder, request.getfixturevalue("shared_data"))


def misfit(known: Known, *, sign: float = 1.0, transposed: bool = False, defocus: float = 1.0, **changes: Any) -> float:
    """Return Σ(√I − √I_measured)² / Σ I_measured of the true object at the true positions, read with some settings."""
    data = attrs.evolve(known.settings, **changes).build(Context(0, torch.device("cpu"), Path()))
    model = Ptychography(probe=Aperture(defocus_angstrom=defocus * known.defocus_angstrom)).build(data)
    assert isinstance(model, PtychographyModule)
    assert data.scan.truth is not None
    phase_KL = data.scan.truth.phase_KL.T if transposed else data.scan.truth.phase_KL
    rows, columns = (
        (int(np.rint(first)) + np.arange(length)) % period
        for first, length, period in zip(
            model.motion.origin_2, model.object.maps.shape[1:], phase_KL.shape, strict=True
        )
    )
    with torch.no_grad():
        model.object.maps[0] = sign * torch.from_numpy(phase_KL[np.ix_(rows, columns)].astype(np.float32))
        error = total = 0.0
        for batch in data.evaluate("train"):
            error += float((model(batch)["intensities"].sqrt() - batch["amplitudes"]).square().sum())
            total += float(batch["amplitudes"].square().sum())
    return error / total


@pytest.fixture(scope="module")
def right(known: Known) -> float:
    return misfit(known)


def test_read_as_the_page_says_the_true_object_makes_the_patterns_that_were_measured(known, right):
    assert right < known.noise


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"defocus": -1.0}, id="overfocus"),
        pytest.param({"sign": -1.0}, id="a phase that goes the other way"),
        pytest.param({"transposed": True}, id="an object (column, row)"),
        pytest.param({"positions_order": "column_row"}, id="positions (column, row)"),
        pytest.param({"positions_flip": ("rows",)}, id="rows that count upwards"),
        pytest.param({"positions_flip": ("columns",)}, id="columns that count to the left"),
        pytest.param({"positions_rotation_deg": 5.0}, id="a scan turned by 5 degrees"),
        pytest.param({"zero_frequency": "corner"}, id="the beam in the corner"),
        pytest.param({"pattern_axes": "nxy"}, id="patterns (column, row)"),
        pytest.param({"pattern_flip": ("rows",)}, id="patterns upside down"),
        pytest.param({"values": "amplitude"}, id="intensities taken for amplitudes"),
    ],
)
def test_a_convention_turned_round_fits_ten_times_worse(known, right, wrong):
    assert misfit(known, **wrong) > 10 * right


def test_positions_in_other_orders_and_turned_scans_are_brought_back_by_their_settings(known, right):
    assert misfit(known, positions="as_xy", positions_order="column_row") == pytest.approx(right, rel=1e-3)
    assert misfit(known, positions="turned_back", positions_rotation_deg=TURN_DEG) == pytest.approx(right, rel=1e-3)
    assert misfit(known, positions="turned_back", positions_rotation_deg=-TURN_DEG) > 10 * right


def test_a_positive_defocus_is_c10_with_a_minus(known, right):
    assert Aperture().coefficients(60.0)["C10"] == (-60.0, 0.0)
    assert misfit(known, defocus=0.0) > 5 * right
