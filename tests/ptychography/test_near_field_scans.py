"""Near-field scans: the first probe, its power, how images move along with the scan, and what the array must hold."""

from __future__ import annotations

import logging
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

from trainkit import Context, Problem, RecipeError
from trainkit.console import Console
from trainkit.engine.start import ExitCode, start
from trainkit.recipe.resolve import resolve
from trainkit_ptychography.detector_propagations.kind import ExitWave
from trainkit_ptychography.detector_propagations.near_field import NearField
from trainkit_ptychography.physics.forward import intensities
from trainkit_ptychography.preflight.geometry import BOTH_AXES, ORIENTATIONS
from trainkit_ptychography.preflight.images import (
    contradictions,
    geometry_of,
    inspect_beam,
    inspect_distance,
    inspect_images,
    inspect_motion,
)
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.probes.mean_pattern import MeanPattern
from trainkit_ptychography.probes.modes import ProbeModes
from trainkit_ptychography.scans.fresnel_fringes import fresnel_fringes
from trainkit_ptychography.scans.kind_live import LiveDiffraction
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.scan import Recording, checked
from trainkit_ptychography.scans.simulated import SimulatedDiffraction
from trainkit_ptychography.scans.simulated_near_field import SimulatedNearField
from trainkit_ptychography.scans.simulated_near_field_live import Spheres
from trainkit_ptychography.scans.summary import doubts, summary

pytestmark = pytest.mark.geometry_search

ROOT = Path(__file__).parents[2]
SETTINGS = SimulatedNearField(num_points=40)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return SETTINGS.read()


@pytest.fixture(scope="module")
def data(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> LiveDiffraction:
    context = Context(0, torch.device("cpu"), tmp_path_factory.mktemp("run"))
    return LiveDiffraction(checked(recording), context, 8, 0.0, torch.float64)


def test_the_first_probe_makes_the_mean_pattern_on_the_detector(data):
    probe = torch.from_numpy(MeanPattern().guess(data))
    shape = data.detector_shape
    transfer = data.scan.detector_propagation.transfer(data.scan.exit_wave(shape))
    empty, still = torch.ones(1, *shape, dtype=torch.complex128), torch.zeros(1, 2, dtype=torch.float64)
    found = intensities(probe, still, empty, transfer)[0].numpy()
    mask = data.scan.mask_YX
    np.testing.assert_allclose(found[mask], data.mean_YX[mask], rtol=1e-9)
    assert found[~mask].mean() == pytest.approx(found[mask].mean(), rel=0.5)  # the beam goes on beyond the detector


def test_a_probe_has_power_one_on_the_pixels_that_the_detector_measures():
    modes = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(complex)
    counted = np.zeros((8, 8), dtype=bool)
    counted[2:6, 2:6] = True
    probe = ProbeModes(modes, torch.float64, torch.device("cpu"), counted_YX=counted)
    for _ in range(2):
        power = probe().abs().square().sum(0)
        assert float(power[counted].detach().sum()) == pytest.approx(1.0, rel=1e-12)
        assert float(power.detach().sum()) > 2
        with torch.no_grad():
            probe.modes.mul_(1.7)
        probe.keep_power()


def test_what_the_simulation_tells_is_not_doubted(recording):
    seen = checked(recording)
    assert list(doubts(seen)) == []
    assert any("effective distance 200 mm, magnified 5 times" in line for line in summary(seen, 10))
    (line,) = inspect_motion(SETTINGS)
    assert "as told" in line


@attrs.frozen
class Told:
    """Settings that tell a scan otherwise than it is."""

    recording: Recording

    def read(self) -> Recording:
        return self.recording


@pytest.mark.parametrize(("swapped", "flips"), ORIENTATIONS[1:])
def test_a_scan_that_lies_otherwise_than_told_is_seen_by_how_images_move(recording, swapped, flips):
    wrong_N2 = oriented(recording.scan.positions_N2, swapped, flips, 0.0)
    found = list(inspect_motion(Told(recording._replace(scan=attrs.evolve(recording.scan, positions_N2=wrong_N2)))))
    assert found[0].startswith("geometry     not as told")
    assert "not in the directions that are told" in found[1].message


def test_a_wrong_magnification_is_seen_and_the_right_focus_named(recording):
    told = NearField(focus_distance_mm=300.0)  # truly 250: images move 5 / 4.333 times as far
    scan = attrs.evolve(
        recording.scan,
        positions_N2=recording.scan.positions_N2 * 4.3333 / 5,
        pixel_size_angstrom=recording.scan.pixel_size_angstrom * 5 / 4.3333,
        detector_propagation=told,
        positions_unit="m",
    )
    _, problem = inspect_motion(Told(recording._replace(scan=scan)))
    assert "move 1.1" in problem.message
    assert float(problem.message.split("focus_distance_mm = ")[1].split(" ")[0]) == pytest.approx(250.0, rel=0.05)


@pytest.mark.parametrize(("swapped", "flips"), ORIENTATIONS)
@pytest.mark.parametrize("angle", [-20.0, 0.0, 31.0])
def test_a_motion_is_taken_apart_into_what_it_is_made_of(swapped, flips, angle):
    matrix = 1.3 * oriented(np.eye(2), swapped, flips, angle)
    found = geometry_of(matrix)
    assert found.step_factor == pytest.approx(1.3)
    np.testing.assert_allclose(
        1.3 * oriented(np.eye(2), found.swapped, found.flips, found.rotation_deg), matrix, atol=1e-12
    )
    assert set(found.flips) <= set(BOTH_AXES)


@pytest.mark.parametrize(
    ("padded", "distance_m", "said"),
    [(80, 0.1, None), (64, 0.1, "prepare.pad = [76, 76]"), (80, 1.5, "sampled too coarsely"), (64, 1e-6, "[66, 66]")],
)
def test_an_array_in_which_light_would_come_back_is_doubted(padded, distance_m, said):
    wave = ExitWave((padded, padded), 13000.0, 1.24, distance_m, "a scan")
    found = list(NearField().doubts(wave, (64, 64)))
    assert (found == []) if said is None else (said in found[0])


def test_a_sphere_is_as_thick_as_its_chord():
    spheres = Spheres(64, 12.0, np.random.default_rng(0))
    spheres._radius_A, spheres._middle_A2 = np.array([12.0]), np.array([[30.0, 33.0]])
    phase = spheres.phase(np.arange(64), np.arange(64))
    assert phase.min() == pytest.approx(-1.2, rel=0.02)
    assert phase[30, 33 + 6] / phase[30, 33] == pytest.approx(np.sqrt(1 - 0.25), rel=0.02)
    assert phase[30, 50] == 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.slices=4", "several slices are for the far field"),
        ('model.object={use="from_data"}', "direct methods are for patterns of the far field"),
        ('data.detector_propagation={use="far_field"}', 'is simulated by "diffraction_simulated"'),
    ],
)
def test_what_is_for_the_far_field_is_refused(setting, said):
    with pytest.raises(RecipeError, match=said):
        resolve(ROOT / "recipes" / "ptycho_near_field.toml", (setting, "model.thickness_angstrom=100.0"))


def test_a_probe_that_is_nothing_like_the_beam_is_doubted(recording):
    told = Told(recording)
    assert list(inspect_beam(told, MeanPattern(), 0)) == []
    (doubt,) = inspect_beam(told, Aperture(semiangle_mrad=0.01, defocus_angstrom=0.0), 0)
    assert 'begin with probe = { use = "mean_pattern" }' in doubt.message


def test_patterns_of_the_far_field_are_doubted_if_the_near_field_is_told():
    patterns, scan = SimulatedDiffraction(scan_shape=(6, 6), detector_size=32).read()
    near = attrs.evolve(scan, detector_propagation=NearField(effective_distance_mm=1e-6))
    line, doubt = inspect_motion(Told(Recording(patterns, near)))
    assert "not compared" in line
    assert "take data.detector_propagation out" in doubt.message


def _sets_of_distance(factor: float) -> NearField:
    return NearField(effective_distance_mm=200.0 * factor)  # truly 200 mm: 250 mm and 1 m


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.3, 2.0])
def test_a_wrong_distance_is_seen_by_the_fringes_and_the_right_one_named(recording: Recording, factor: float) -> None:
    told = attrs.evolve(recording.scan, detector_propagation=_sets_of_distance(factor))
    moved, line, problem = inspect_images(Told(recording._replace(scan=told)))  # type: ignore[arg-type]
    assert isinstance(moved, str)
    assert "as told" in moved  # how far images move does not tell
    assert isinstance(line, str)
    assert line.startswith("distance     not as told")
    assert isinstance(problem, Problem)
    found = float(problem.message.split("effective_distance_mm = ")[1].split(" ")[0])
    assert found == pytest.approx(200.0, rel=0.1)


def test_a_distance_that_is_told_rightly_is_not_doubted_and_one_without_fringes_is_left_open(
    recording: Recording,
) -> None:
    _, line = inspect_images(SETTINGS)
    assert isinstance(line, str)
    assert line.startswith("distance     as told")
    wrong = attrs.evolve(recording.scan, detector_propagation=_sets_of_distance(2.0))
    generator = np.random.default_rng(0)
    beam_YX = np.asarray(recording.intensities_NYX).mean(axis=0)
    noise = generator.poisson(np.repeat(beam_YX[None], 40, axis=0)).astype(np.float32)
    (line,) = inspect_distance(Told(Recording(noise, wrong)))  # type: ignore[arg-type]
    assert isinstance(line, str)
    assert "not compared" in line


@pytest.mark.parametrize(
    ("told", "distance_m", "lines"),
    [
        (NearField(focus_distance_mm=375.0), 1.5, ("focus_distance_mm = 25", " and detector_distance_m = 1.0")),
        (NearField(), 0.3, ("paste [data] detector_distance_m = 0.20",)),
    ],
)
def test_the_line_for_a_wrong_distance_leaves_the_magnification_as_it_is(
    recording: Recording, told: NearField, distance_m: float, lines: tuple[str, ...]
) -> None:
    scan = attrs.evolve(recording.scan, detector_propagation=told, detector_distance_m=distance_m)
    _, problem = inspect_distance(Told(recording._replace(scan=scan)))  # type: ignore[arg-type]
    assert isinstance(problem, Problem)
    for line in lines:
        assert line in problem.message


@pytest.mark.parametrize("period", [9.0, 14.0, 20.0])
def test_rings_tell_the_distance_that_made_them(period: float) -> None:
    """Noise in the phase, filtered by sin(πλz k²) in a formula of its own, without a beam and without a simulation."""
    size, generator = 96, np.random.default_rng(3)
    square = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.fftfreq(size) ** 2
    contrast = np.sin(np.pi * period * square) / (0.01 + square)
    white = generator.normal(size=(24, size, size))
    images = 1 + 4e-4 * np.fft.ifft2(np.fft.fft2(white) * contrast).real
    patterns = np.fft.ifftshift(images + 1e-3 * generator.normal(size=images.shape), axes=(1, 2)).astype(np.float32)
    found = fresnel_fringes(patterns, None, 1.5 * period)
    assert found is not None
    assert found.squared_pixels == pytest.approx(period, rel=0.08)
    assert found.worse > 16
    right = fresnel_fringes(patterns, None, period)
    assert right is not None
    assert right.worse < 16


def test_a_result_is_held_against_its_own_positions_and_distance(recording: Recording) -> None:
    patterns, scan = recording
    told = attrs.evolve(scan, detector_propagation=_sets_of_distance(1.5))
    assert list(contradictions(patterns, scan, scan.positions_N2)) == []
    (said,) = contradictions(patterns, told, scan.positions_N2)
    assert "0.66" in said or "0.67" in said
    assert list(contradictions(patterns, told, scan.positions_N2, 1 / 1.5)) == []  # group distance has found it
    (said,) = contradictions(patterns, scan, 1.2 * scan.positions_N2)
    assert "times as far as the scan" in said
    (said,) = contradictions(patterns, scan, oriented(scan.positions_N2, True, (), 0.0))
    assert "not move in the directions" in said


@pytest.mark.slow
def test_a_run_with_a_wrong_distance_warns_and_ends_as_doubtful(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("trainkit"), "propagate", True)
    sets = ("run.epochs=5", "run.device=cpu", "run.threads=1", "pictures.every_epochs=0", "data.num_points=40")
    read = SimulatedNearField.read
    monkeypatch.setattr(SimulatedNearField, "read", lambda settings: _stretched(read(settings), 1.5))
    sets += ('drop=["groups.dr", "loggers", "hooks"]',)
    outcome = start(resolve(ROOT / "recipes" / "ptycho_near_field.toml", sets), Console(quiet=True))
    assert "the patterns contradict what is told: Fresnel fringes fit 0.6" in caplog.text
    (said,) = outcome.run.state.doubts
    assert "the geometry of the result is wrong by all appearance: Fresnel fringes fit 0.6" in said
    assert outcome.code is ExitCode.DOUBTFUL


def _stretched(recording: Recording, factor: float) -> Recording:
    scan = attrs.evolve(recording.scan, detector_propagation=_sets_of_distance(factor))
    return recording._replace(scan=scan)
