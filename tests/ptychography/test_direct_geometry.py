"""The geometry that patterns show without a reconstruction, held against simulations of which it is known."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from trainkit import Context
from trainkit_ptychography.direct.evidence import Evidence
from trainkit_ptychography.direct.geometry import DirectGeometry, find_geometry, slopes_between
from trainkit_ptychography.output.geometry_picture import geometry
from trainkit_ptychography.physics.geometry import place
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.scan import Recording, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction
from trainkit_ptychography.scans.simulated_live import simulate

SETTINGS = SimulatedDiffraction(scan_shape=(20, 20), detector_size=32, pixel_size_angstrom=0.5)


def found(of: Recording, told_angstrom: float) -> DirectGeometry:
    data = LiveDiffraction(checked(of), Context(0, torch.device("cpu"), Path()), 32, 0.05)
    probe_1YX = Aperture(defocus_angstrom=told_angstrom).build(data)
    placement = place(data.scan.positions_N2, data.detector_shape, 4)
    wave_1YX = torch.from_numpy(probe_1YX).to(torch.complex64)
    return find_geometry(
        Evidence(data, data.train_index, wave_1YX, placement.origin_2, placement.shape_HW, told_angstrom)
    )


def told_otherwise(of: Recording, exchanged: bool, degrees: float) -> Recording:
    """Return a recording whose positions are true once they are exchanged and turned."""
    angle = np.radians(degrees)
    turn_22 = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    told_N2 = of.scan.positions_N2 @ np.linalg.inv(turn_22[:, ::-1] if exchanged else turn_22).T
    np.testing.assert_allclose(oriented(told_N2, exchanged, (), degrees), of.scan.positions_N2)
    return of._replace(scan=attrs.evolve(of.scan, positions_N2=told_N2, truth=None))


@pytest.mark.parametrize(
    ("defocus", "exchanged", "degrees"),
    [(60.0, False, 0.0), (-60.0, False, -12.0), (20.0, True, 25.0), (0.0, False, 70.0)],
)
def test_rotation_exchange_and_signed_defocus_are_found_whatever_is_told(defocus, exchanged, degrees):
    of = simulate(attrs.evolve(SETTINGS, defocus_angstrom=defocus))  # type: ignore[misc]  # mypy does not know @component
    seen = found(told_otherwise(of, exchanged, degrees), told_angstrom=40.0)
    assert seen.rotation is not None
    assert seen.defocus is not None
    assert seen.rotation.is_clear
    assert seen.rotation.exchanged == exchanged
    assert seen.rotation.degrees == pytest.approx(degrees, abs=5.0)
    assert seen.rotation.as_told == (degrees == 0)
    assert seen.defocus.is_clear
    assert 40 + seen.defocus.change_angstrom == pytest.approx(defocus, abs=6.0)
    assert "(told 40)" in seen.in_words()


def test_patterns_in_disorder_tell_nothing_and_this_is_said():
    of = simulate(SETTINGS)
    order_N = np.random.default_rng(0).permutation(len(of.intensities_NYX))
    seen = found(of._replace(intensities_NYX=of.intensities_NYX[order_N]), 60.0)
    assert "rotation cannot be told" in seen.in_words()
    assert "defocus cannot be told" in seen.in_words()
    assert geometry(seen, "a run").shape[1:] == (1440, 3)


def test_slopes_of_a_linear_field_are_exact_on_scattered_points():
    points_N2 = np.random.default_rng(1).uniform(0, 10, (60, 2))
    slopes_22 = np.array([[0.3, -1.2], [2.0, 0.7]])
    seen_N22, _ = slopes_between(points_N2, points_N2 @ slopes_22.T)
    np.testing.assert_allclose(seen_N22, np.broadcast_to(slopes_22, seen_N22.shape), atol=1e-10)


def test_points_on_a_line_have_no_slope_across_it():
    line_N2 = np.arange(30)[:, None] * np.array([1.0, 2.0])
    seen_N22, places_N2 = slopes_between(line_N2, line_N2)
    assert len(seen_N22) == len(places_N2) == 0
