"""How much worse than by counting noise a result fits its patterns, held against patterns without noise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainkit import Context
from trainkit_ptychography.models.residuals import residuals
from trainkit_ptychography.preflight.live_patterns import LivePatterns
from trainkit_ptychography.preflight.noise import electrons_in
from trainkit_ptychography.preflight.watch import GeometryWatch
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

SCAN = SimulatedDiffraction(scan_shape=(10, 10), detector_size=32, position_error_angstrom=0.0, defocus_angstrom=80.0)
EXACT = attrs.evolve(SCAN, dose_per_square_angstrom=1e12).read().intensities_NYX[:]


def changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
    """Let the simulation's patterns be changed as a detector does it."""
    whole = SimulatedDiffraction.read
    monkeypatch.setattr(
        SimulatedDiffraction,
        "read",
        lambda self: (found := whole(self))._replace(intensities_NYX=change(found.intensities_NYX[:])),
    )


def said(settings: SimulatedDiffraction, caplog: pytest.LogCaptureFixture, modelled_NYX: np.ndarray[Any, Any]) -> str:
    """Return what is said of a model that expects such patterns, in any unit."""
    data = settings.build(Context(0, torch.device("cpu"), Path()))
    scaled_NYX = torch.from_numpy(modelled_NYX / modelled_NYX.sum((1, 2)).mean()).float()
    doubts: list[str] = []
    with caplog.at_level(logging.INFO, "trainkit"):
        GeometryWatch(data, None).judge(
            SimpleNamespace(doubt=doubts.append),  # type: ignore[arg-type]
            lambda points_B: (scaled_NYX[points_B], torch.full_like(scaled_NYX[points_B], 1e-3)),
        )
    assert not doubts
    return caplog.records[-1].getMessage() if caplog.records else ""


@pytest.mark.parametrize("dose", [2e3, 1e4, 1e5, 1e6])
def test_the_expected_patterns_fit_as_well_as_noise_lets_them(dose, caplog):
    text = said(attrs.evolve(SCAN, dose_per_square_angstrom=dose), caplog, EXACT)
    assert float(text.split(" times")[0].split()[-1]) == pytest.approx(1.0, abs=0.025)
    assert text.endswith("alone makes")


@pytest.mark.parametrize("dose", [2e3, 1e5])
def test_residuals_of_expected_patterns_are_those_of_noise_also_where_a_part_of_the_detector_is_hidden(dose):
    data = attrs.evolve(SCAN, dose_per_square_angstrom=dose).build(Context(0, torch.device("cpu"), Path()))
    scaled_NYX = torch.from_numpy(EXACT / EXACT.sum((1, 2)).mean()).float()
    electrons = electrons_in(data)
    assert electrons == pytest.approx(data.mean_counts)
    hidden_YX = torch.ones(data.detector_shape, dtype=torch.bool)
    hidden_YX[:, :12] = False
    for mask_YX in (None, hidden_YX):
        data.mask_YX = mask_YX
        found = residuals(lambda batch: {"intensities": scaled_NYX[batch["index"]]}, data, electrons)
        assert found.of_noise_N is not None
        share = np.square(found.of_all_N).mean() / np.square(found.of_noise_N).mean()
        assert share == pytest.approx(1.0, abs=0.025)


@pytest.mark.parametrize("gain", [7, 0.37])
def test_what_the_detector_gives_for_an_electron_changes_nothing(gain, caplog, monkeypatch):
    in_electrons = said(SCAN, caplog, EXACT)
    changed(monkeypatch, lambda counts_NYX: counts_NYX * np.float32(gain))
    assert said(SCAN, caplog, EXACT) == in_electrons


def test_a_model_of_a_beam_that_stands_still_does_not_fit_patterns_of_one_that_moves(caplog):
    moving = attrs.evolve(SCAN, dose_per_square_angstrom=1e6, exposure_motion_angstrom=2.0)
    text = said(moving, caplog, EXACT)
    assert float(text.split(" times")[0].split()[-1]) > 2
    assert "probe modes for blur" in text


def test_patterns_that_are_no_counts_are_not_judged_by_noise(caplog, monkeypatch):
    noise_NYX = np.random.default_rng(0).normal(0, 0.3, EXACT.shape).astype(np.float32)
    changed(monkeypatch, lambda counts_NYX: np.maximum(7 * counts_NYX + noise_NYX, 0))  # as the electronics give it
    assert said(SCAN, caplog, EXACT) == ""


def test_a_run_keeps_roots_and_gives_the_counts_back():
    data = SCAN.build(Context(0, torch.device("cpu"), Path()))
    np.testing.assert_array_equal(LivePatterns(data)[:], SCAN.read().intensities_NYX[:])


def test_a_beam_that_moves_makes_the_mean_of_the_patterns_on_its_way():
    step = SCAN.step_angstrom
    still_NYX = EXACT.reshape(10, 10, 32, 32)
    moving = attrs.evolve(SCAN, dose_per_square_angstrom=1e12, exposure_motion_angstrom=2 * step)
    moving_NYX = moving.read().intensities_NYX[:].reshape(10, 10, 32, 32)
    simpson_NYX = (still_NYX[:, :-2] + 4 * still_NYX[:, 1:-1] + still_NYX[:, 2:]) / 6
    off = np.abs(moving_NYX[:, 1:-1] - simpson_NYX).sum() / np.abs(moving_NYX[:, 1:-1] - still_NYX[:, 1:-1]).sum()
    assert off < 0.2  # 1 if the beam stood still, or moved along columns
