"""Orientation, defocus, rotation and step of a scan, found from its patterns: against a simulation in plain numpy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import torch
from clients.planned import planned
from numpy.typing import NDArray

from trainkit import Problem, RecipeError
from trainkit.recipe.recognised import recognised
from trainkit.recipe.resolve import resolve_text
from trainkit_ptychography.physics.geometry_fit import fit_geometry
from trainkit_ptychography.physics.optics import aperture_probe, electron_wavelength
from trainkit_ptychography.physics.trial import Trial
from trainkit_ptychography.planning.staged import StagedPlanner
from trainkit_ptychography.preflight.calibration import SURE, worse_by
from trainkit_ptychography.preflight.search import rank_sureness, sureness
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.simulated_live import atoms, patterns

SIZE, PIXEL, KEV, MRAD, POINTS = 32, 0.4, 80.0, 25.0, 11
DEFOCUS, ROTATION, STEP = -45.0, 12.0, 0.5


def counts(
    points_N2: NDArray[np.float64], defocus: float, per_pattern: float, has_specimen: bool = True
) -> NDArray[np.float64]:
    """Simulate patterns at positions in pixels, zero frequency at [0, 0]."""
    rng = np.random.default_rng(1)
    points_N2 = points_N2 - points_N2.min(axis=0) + SIZE // 2 + 3
    shape = tuple(int(each) + SIZE // 2 + 4 for each in points_N2.max(axis=0))
    phase_KL = has_specimen * atoms(shape, 1.6 / PIXEL, 0.45 / PIXEL, rng)
    coefficients = {"C10": (-defocus, 0.0)}
    probe_YX = aperture_probe((SIZE, SIZE), PIXEL, electron_wavelength(KEV), MRAD, coefficients)
    expected_NYX = patterns(np.exp(1j * phase_KL), probe_YX.astype(np.complex128), points_N2)
    return rng.poisson(per_pattern * expected_NYX / expected_NYX[0].sum()).astype(np.float64)


def raster(step: float) -> NDArray[np.float64]:
    return np.stack(np.meshgrid(*[step * np.arange(POINTS)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)


def write(path: Path, counts_NYX: NDArray[np.float64], **attributes: float) -> Path:
    with h5py.File(path, "w") as file:
        file["patterns"] = np.fft.fftshift(counts_NYX, axes=(1, 2)).astype(np.float32)
        file["positions_A"] = raster(STEP)
        known = {"energy_kev": KEV, "semiangle_mrad": MRAD, "dk_per_angstrom": 1 / (SIZE * PIXEL)}
        file.attrs.update(known | attributes)
    return path


def drafted(path: Path, **settings: Any) -> tuple[str, list[str]]:
    """Return a calibrated recipe, and what is doubtful about it."""
    said = list(planned(StagedPlanner(calibrate=True, **settings), recognised(path, None)))
    text = "\n".join(each for each in said if isinstance(each, str))
    return text, [each.message for each in said if isinstance(each, Problem)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str], Path]:
    """Calibrate a scan with exchanged axes, turned, with a step that is 10 % longer than the file says."""
    folder = tmp_path_factory.mktemp("calibrated")
    points_N2 = oriented(1.1 * raster(STEP) / PIXEL, True, ("rows",), ROTATION)
    path = write(folder / "scan.h5", counts(points_N2, DEFOCUS, 2e4))
    return *drafted(path, picture=folder / "scan.png"), folder


@pytest.mark.slow  # 150 trials and four fits
def test_orientation_defocus_rotation_and_step_are_found(found: tuple[str, list[str], Path]) -> None:
    text, doubts, folder = found
    data: Any = resolve_text(text, folder).recipe.data
    assert (data.positions_order, data.positions_flip) == ("column_row", ("rows",))
    assert data.defocus_angstrom == pytest.approx(DEFOCUS, abs=5)
    assert data.positions_rotation_deg == pytest.approx(ROTATION, abs=2)
    assert data.positions_scale == pytest.approx(1.1, abs=0.03)
    assert 'use = "poisson"' in text  # the patterns are counts
    assert not doubts
    error = float(re.findall(r"defocus_angstrom = \S+ +# underfocus; calibrated, ± (\S+) Å", text)[0])
    assert abs(data.defocus_angstrom - DEFOCUS) < error < 5
    assert f"Defocus: {data.defocus_angstrom:.1f} Å, ± {error} Å (two standard errors" in text.replace("\n# ", " ")


@pytest.mark.slow
def test_the_evidence_shows_the_pair_that_no_misfit_tells_apart(found: tuple[str, list[str], Path]) -> None:
    text = found[0]
    (written,) = (line for line in text.split("\n") if "<- written" in line)
    (same,) = (line for line in text.split("\n") if "= the same" in line)
    assert written.split()[:3] == ["#", "column_row", '["rows"]']
    assert same.split()[:3] == ["#", "column_row", '["columns"]']
    # Positions are rounded to float32 in another order, which moves the last of the five figures that are printed.
    first, second = (min(float(each) for each in line.split() if each.startswith("0.0")) for line in (written, same))
    assert first == pytest.approx(second, abs=1.5e-5)
    assert "fits the same, with the phase negated" in text.replace("\n# ", " ")


@pytest.mark.slow
def test_the_picture_is_large_enough_for_a_slide(found: tuple[str, list[str], Path]) -> None:
    from PIL import Image

    with Image.open(found[2] / "scan.png") as picture:
        assert picture.width >= 1200


@pytest.mark.slow
def test_patterns_without_a_specimen_are_not_calibrated(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.h5", counts(raster(STEP) / PIXEL, 30.0, 2e4, has_specimen=False))
    text, doubts = drafted(path)
    assert "nothing fits" in doubts[0]
    assert "hardly more than by noise" in doubts[0]
    assert "# Not calibrated: nothing fits" in text
    assert 'defocus_angstrom = "<' in text
    assert "positions_rotation_deg" not in text


def test_what_trials_cannot_find_out_is_asked_for_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.h5", np.ones((POINTS**2, SIZE, SIZE)))
    with h5py.File(path, "a") as file:
        del file.attrs["energy_kev"], file.attrs["semiangle_mrad"]
    with pytest.raises(RecipeError, match="needs to be told") as caught:
        drafted(path)
    assert "--set data.energy_kev=" in str(caught.value)
    assert "--set data.semiangle_mrad=" in str(caught.value)
    assert "defocus" not in str(caught.value)


def test_a_disc_that_contradicts_the_aperture_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.h5", counts(raster(STEP) / PIXEL, 30.0, 1e4), semiangle_mrad=20.0)
    with pytest.raises(Exception, match=r"bright disc of the patterns is 1\.2\d* times as large"):
        drafted(path)


def test_distances_of_scan_points_are_scaled(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.h5", np.ones((POINTS**2, SIZE, SIZE)))
    use, cls, settings, *_ = recognised(path, None)
    told = cls(**settings)
    scaled: Any = attrs.evolve(told, positions_scale=1.1)  # type: ignore[misc]
    assert np.allclose(scaled.read().scan.positions_N2, 1.1 * told.read().scan.positions_N2)  # type: ignore[attr-defined]
    assert use == "diffraction_hdf5"


@pytest.mark.slow  # a fit of two seconds
def test_a_fit_ends_at_the_truth_from_a_start_that_is_off() -> None:
    points_N2 = oriented(raster(STEP) / PIXEL, False, (), 6.0)
    counts_NYX = counts(points_N2, 50.0, 1e5)
    wavelength = electron_wavelength(KEV)
    probe_YX = aperture_probe((SIZE, SIZE), PIXEL, wavelength, MRAD, {"C10": (-40.0, 0.0)})
    squared_YX = np.square(np.fft.fftfreq(SIZE, PIXEL))[:, None] + np.square(np.fft.fftfreq(SIZE, PIXEL))
    state = torch.get_rng_state()
    fit = fit_geometry(
        torch.from_numpy(counts_NYX / counts_NYX.sum(axis=(1, 2)).mean()).float(),
        None,
        probe_YX[None],
        np.pi * wavelength * squared_YX,
        0.96 * raster(STEP) / PIXEL,
        np.ones(2),
        step_is_free=True,
    )
    assert fit.defocus_angstrom == pytest.approx(10.0, abs=3)
    assert fit.rotation_deg == pytest.approx(6.0, abs=1)
    assert fit.step_factor == pytest.approx(1 / 0.96, abs=0.015)
    assert torch.equal(torch.get_rng_state(), state)


def test_orientations_that_all_patterns_fit_worse_are_no_second_answer_although_some_patterns_tell_much_more() -> None:
    explained_T = np.random.default_rng(0).pareto(1.5, 64)  # a few strong places
    found = Trial(np.full(64, 1.0), 1.0 + explained_T, 0.0)
    other = Trial(1.0 + 0.7 * explained_T, found.empty_T, 0.0)
    assert sureness(other, found) < SURE < worse_by(other, found)
    near = Trial(1.0 + 0.1 * explained_T, found.empty_T, 0.0)  # explains nine tenths of it: it may be right
    assert worse_by(near, found) == sureness(near, found) < SURE
    noise_T = np.random.default_rng(1).normal(0.0, 0.1, 64)
    assert abs(worse_by(Trial(1.0 + noise_T, found.empty_T, 0.0), found)) < SURE


def test_ranks_are_those_of_wilcoxon() -> None:
    stats = pytest.importorskip("scipy.stats")
    one_T, other_T = np.random.default_rng(2).normal([[0.0], [0.3]], 1.0, (2, 40))
    trials = [Trial(each, np.full(40, 9.0), 0.0) for each in (other_T, one_T)]
    known = stats.wilcoxon(other_T, one_T, alternative="greater", correction=False, method="asymptotic").zstatistic
    assert rank_sureness(*trials) == pytest.approx(known)
