"""The geometry with which a reconstruction ended, held against simulated scans whose geometry is known."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from trainkit import Context
from trainkit_ptychography.physics.optics import aperture_probe
from trainkit_ptychography.preflight.ending import Ending, GeometryJudge, Verdict
from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.live_patterns import LivePatterns
from trainkit_ptychography.preflight.sample import sample
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.resolution.fourier_ring_live import doubts_of_geometry
from trainkit_ptychography.scans.scan import Recording, Scan
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

from .small_crystal import CRYSTAL

pytestmark = pytest.mark.geometry_search

TRUE_DEFOCUS = 120.0
SETTINGS = SimulatedDiffraction(scan_shape=(14, 14), step_angstrom=0.8, detector_size=40, defocus_angstrom=TRUE_DEFOCUS)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return SETTINGS.read()


def lens(scan: Scan, defocus: float) -> np.ndarray:
    """The modes of a lens without other aberrations, by the formula that is tested against abTEM."""
    assert scan.pixel_size_angstrom is not None
    assert scan.wavelength_angstrom is not None
    coefficients = {"C10": (-defocus, 0.0)}
    return aperture_probe((40, 40), scan.pixel_size_angstrom, scan.wavelength_angstrom, 25.0, coefficients)[None]


def judged(judge: GeometryJudge, scan: Scan, defocus: float, positions_N2: np.ndarray) -> Verdict:
    (verdict,) = judge.judge(Ending(lens(scan, defocus), positions_N2))
    return verdict


def turned(scan: Scan, degrees: float) -> np.ndarray:
    angle, middle_2 = np.radians(degrees), scan.positions_N2.mean(0)
    turn_22 = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (scan.positions_N2 - middle_2) @ turn_22.T + middle_2


@pytest.mark.slow
def test_what_was_told_wrong_is_doubted_unless_the_result_has_repaired_it(recording: Recording) -> None:
    scan = recording.scan
    judge = GeometryJudge(recording, SETTINGS, Aperture(defocus_angstrom=-TRUE_DEFOCUS), 0, probe_is_trained=True)
    wrong = judged(judge, scan, -TRUE_DEFOCUS, scan.positions_N2)
    assert wrong.is_judged
    assert wrong.doubt is not None
    assert "the patterns contradict the sign of the defocus" in wrong.doubt
    assert scan.truth is not None
    repaired = judged(judge, scan, TRUE_DEFOCUS, scan.truth.positions_N2)
    assert repaired.doubt is None
    assert "repaired" in repaired.line


@pytest.mark.slow
def test_a_result_that_left_a_geometry_that_was_told_rightly_is_doubted(recording: Recording) -> None:
    scan = recording.scan
    judge = GeometryJudge(recording, SETTINGS, Aperture(defocus_angstrom=TRUE_DEFOCUS), 0, probe_is_trained=True)
    right = judged(judge, scan, TRUE_DEFOCUS, scan.positions_N2)
    assert right.doubt is None
    assert "nothing that was tried fits clearly better" in right.line
    for defocus, positions_N2 in (
        (1.6 * TRUE_DEFOCUS, scan.positions_N2),
        (TRUE_DEFOCUS, turned(scan, 12.0)),
    ):
        assert judged(judge, scan, defocus, positions_N2).doubt is not None
    # A step and a defocus that are wrong by the same 10 % make nearly the same patterns, of a larger specimen.
    assert judged(judge, scan, 1.1 * TRUE_DEFOCUS, 1.1 * scan.positions_N2).doubt is None


@pytest.mark.slow
def test_a_step_that_was_told_much_too_large_is_doubted_however_well_the_result_fits(recording: Recording) -> None:
    told = recording._replace(scan=attrs.evolve(recording.scan, positions_N2=1.25 * recording.scan.positions_N2))
    judge = GeometryJudge(told, SETTINGS, Aperture(defocus_angstrom=TRUE_DEFOCUS), 0, probe_is_trained=True)
    kept = judged(judge, told.scan, 1.25 * TRUE_DEFOCUS, told.scan.positions_N2)  # a probe that makes up for it
    assert kept.doubt is not None
    assert "times as far apart as told" in kept.doubt
    assert judged(judge, told.scan, TRUE_DEFOCUS, recording.scan.positions_N2).doubt is None  # group scan repaired it


@pytest.mark.slow
def test_a_rotation_that_the_result_keeps_is_doubted_and_one_that_it_repaired_is_not(recording: Recording) -> None:
    told = recording._replace(scan=attrs.evolve(recording.scan, positions_N2=turned(recording.scan, 10.0)))
    judge = GeometryJudge(told, SETTINGS, Aperture(defocus_angstrom=TRUE_DEFOCUS), 0, probe_is_trained=True)
    (kept,) = judge.judge(Ending(lens(told.scan, TRUE_DEFOCUS), told.scan.positions_N2))
    assert kept.doubt is not None
    (repaired,) = judge.judge(Ending(lens(told.scan, TRUE_DEFOCUS), recording.scan.positions_N2))
    assert repaired.doubt is None
    assert repaired.share > 0.95


def test_patterns_that_tell_nothing_raise_no_doubt() -> None:
    few = SimulatedDiffraction(scan_shape=(4, 4), detector_size=24)
    recording = few.read()
    (verdict,) = GeometryJudge(recording, few, Aperture(), 0).judge(
        Ending(np.ones((1, 24, 24), complex), recording.scan.positions_N2)
    )
    assert (verdict.is_judged, verdict.doubt) == (False, None)
    assert "too few patterns" in verdict.line


def test_halves_with_a_wrong_geometry_are_one_doubt() -> None:
    assert list(doubts_of_geometry([Verdict(True, "fine"), Verdict(False, "not judged")])) == []
    (said,) = doubts_of_geometry([Verdict(True, "wrong", "the sign"), Verdict(True, "wrong", "the sign")])
    assert said == "both halves share a geometry, so they can agree on a wrong object, and the sign"


def test_the_patterns_of_a_run_are_those_of_its_file(tmp_path: Path) -> None:
    few = SimulatedDiffraction(scan_shape=(4, 4), detector_size=24)
    live = LivePatterns(few.build(Context(0, torch.device("cpu"), tmp_path)))
    measured = np.asarray(few.read().intensities_NYX)
    assert live.shape == measured.shape
    np.testing.assert_allclose(live[np.array([3, 0, 7])], measured[[3, 0, 7]], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(live[2:5], measured[2:5], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_the_step_of_a_thick_specimen_is_told_by_trials_with_several_slices() -> None:
    thick = attrs.evolve(CRYSTAL, grains=1)
    recording = thick.read()
    for factor, doubted in ((1.0, False), (1.25, True)):
        positions_N2 = factor * recording.scan.positions_N2
        told = recording._replace(scan=attrs.evolve(recording.scan, positions_N2=positions_N2))
        judge = GeometryJudge(told, thick, Aperture(), 0, depth_angstrom=35.0, probe_is_trained=True)
        modes_MYX = sample(told, np.arange(144), Aperture(), 0).cut_down(Geometry())
        (verdict,) = judge.judge(Ending(modes_MYX, positions_N2))
        assert (verdict.doubt is not None) == doubted, verdict
