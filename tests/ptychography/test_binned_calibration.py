"""What follows from trials that calibrate a scan, with trials that are made up.

How far a fine detector is binned: the probe has room with every defocus that is tried. And what defocus is written.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np
import pytest

from trainkit_ptychography.physics.trial import Trial
from trainkit_ptychography.preflight.calibration import Calibrated, calibrated
from trainkit_ptychography.preflight.certainty import FittedStep
from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.sample import Sample, middle_points, sample
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.scan import Recording
from trainkit_ptychography.scans.simulated import SimulatedDiffraction

SIZE, PIXEL, MRAD = 128, 0.3, 25.0
DIAMETER = 2e-3 * MRAD  # Å of the probe for an Å of defocus


@pytest.fixture(scope="module")
def recording() -> Recording:
    made = SimulatedDiffraction(
        scan_shape=(6, 6), detector_size=SIZE, pixel_size_angstrom=PIXEL, semiangle_mrad=MRAD, defocus_angstrom=40.0
    ).read()
    return made._replace(scan=attrs.evolve(made.scan, defocus_angstrom=None))


class Tried:
    """Calibrates with trials that cost nothing, and remembers them: those nearest to a defocus fit best."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, defocus: float, seen: float) -> None:
        self.trials: list[tuple[int, float, float]] = []  # binning, defocus, Å that the probe has
        self._defocus, self._seen = defocus, seen
        monkeypatch.setattr(Sample, "try_out", lambda part, geometry: self.trial(part, geometry))
        monkeypatch.setattr(Sample, "fit", lambda part, geometry, step_is_free=True: geometry)
        step, error = FittedStep(1.0, 0.035), 3.0
        monkeypatch.setattr("trainkit_ptychography.preflight.calibration.fitted_step", lambda *_: step)
        monkeypatch.setattr("trainkit_ptychography.preflight.calibration.defocus_error", lambda *_: error)

    def trial(self, part: Sample, geometry: Geometry) -> Trial:
        defocus = geometry.defocus_change_angstrom
        self.trials.append((part.binned, defocus, part.field_of_view() * PIXEL))
        off = min(((abs(defocus) - self._defocus) / 50) ** 2, 1.0) + 0.1 * geometry.swapped
        noise_T = np.random.default_rng(0).normal(0, 1.0 / self._seen, 64)
        return Trial(9.0 + off + noise_T, np.full(64, 10.0), 2.0)

    def calibrated(self, recording: Recording) -> Iterator[Calibrated]:
        def taken(num: int, binned: int) -> Sample:
            return sample(recording, middle_points(recording, num), Aperture(defocus_angstrom=0.0), 0, binned=binned)

        for each in calibrated(taken, 0.0):
            if isinstance(each, Calibrated):
                yield each


def test_a_small_probe_is_found_on_few_pixels(monkeypatch: pytest.MonkeyPatch, recording: Recording) -> None:
    tried = Tried(monkeypatch, 42.0, 4.0)
    (found,) = tried.calibrated(recording)
    assert {binned for binned, *_ in tried.trials} == {2}
    assert found.defocus_angstrom is not None
    assert max(abs(defocus) for _, defocus, _ in tried.trials) < 150


@pytest.mark.parametrize(("true", "seen"), [(42.0, 0.2), (300.0, 4.0), (500.0, 0.2)])
def test_the_probe_has_room_with_every_defocus(
    monkeypatch: pytest.MonkeyPatch, recording: Recording, true: float, seen: float
) -> None:
    tried = Tried(monkeypatch, true, seen)
    (found,) = tried.calibrated(recording)
    assert all(abs(defocus) * DIAMETER <= field * 1.001 for _, defocus, field in tried.trials)
    furthest = max(abs(defocus) for _, defocus, _ in tried.trials)
    assert furthest > 500  # 12 steps of defocus, for which all pixels have room
    assert found.defocus_angstrom is not None
    assert abs(abs(found.defocus_angstrom) - true) < 25


def test_the_field_of_view_is_larger_than_a_probe_that_is_fitted(
    monkeypatch: pytest.MonkeyPatch, recording: Recording
) -> None:
    tried = Tried(monkeypatch, 300.0, 4.0)
    (found,) = tried.calibrated(recording)
    *_, field = tried.trials[-1]
    assert found.defocus_angstrom is not None
    assert field >= 1.25 * DIAMETER * (abs(found.defocus_angstrom) + 80)


@pytest.mark.parametrize("true", [52.0, 60.0, 295.0])
def test_a_defocus_is_in_the_middle_between_fits_and_trials_and_as_uncertain(
    monkeypatch: pytest.MonkeyPatch, recording: Recording, true: float
) -> None:
    tried = Tried(monkeypatch, true, 4.0)
    (found,) = tried.calibrated(recording)
    step = sample(recording, middle_points(recording, 36), Aperture(defocus_angstrom=0.0), 0).defocus_step_angstrom()
    assert step is not None
    fitted = step * round(true / step)  # fits stay where the grid is
    assert found.defocus_angstrom is not None
    assert abs(found.defocus_angstrom) == pytest.approx((true + fitted) / 2, abs=0.1)
    assert found.defocus_error_angstrom == pytest.approx(np.hypot(3.0, (true - fitted) / 2), abs=0.1)
