"""How certain a calibrated step and defocus are said to be: against fits whose errors are known."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, hypot, log
from typing import Any

import attrs
import numpy as np
import pytest
from numpy.typing import NDArray

from trainkit_ptychography.physics.trial import Trial
from trainkit_ptychography.preflight.calibration import Profile
from trainkit_ptychography.preflight.certainty import FittedStep, defocus_error, fitted_step, in_proportion
from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.sample import Sample, sample
from trainkit_ptychography.probes.aperture import Aperture
from trainkit_ptychography.scans.scan import Recording, Scan

TOLD, MANY = 30.0, 1e9  # Å; electrons


@attrs.frozen
class Patterns:
    """Stands in for a sample: a fit leaves a share of the way to the true step, and finds a defocus that is off."""

    true_step: float = 1.0
    left: float = 0.3
    off_angstrom: float = 0.0
    of_quarters: Sequence[float] = (0.0, 0.0, 0.0, 0.0)

    def fit(self, geometry: Geometry, step_is_free: bool = True) -> Geometry:
        if step_is_free:
            away = log(geometry.step_factor / self.true_step)
            return attrs.evolve(geometry, step_factor=self.true_step * exp(self.left * away))
        return attrs.evolve(geometry, defocus_change_angstrom=geometry.defocus_change_angstrom + self.off_angstrom)

    def quarters(self) -> list[Patterns]:
        return [attrs.evolve(self, off_angstrom=each) for each in self.of_quarters]


def as_sample(patterns: Patterns) -> Sample:
    made: Any = patterns
    return made  # type: ignore[no-any-return]


def found(defocus: float, step: float = 1.0) -> Geometry:
    return Geometry(defocus_change_angstrom=defocus - TOLD, step_factor=step)


def test_step_and_defocus_change_in_proportion() -> None:
    changed = in_proportion(found(-40.0, 0.9), 1.1, TOLD)
    assert changed.step_factor == pytest.approx(0.99)
    assert changed.defocus_change_angstrom + TOLD == pytest.approx(-44.0)


@pytest.mark.parametrize("left", [0.0, 0.3, 0.6])
@pytest.mark.parametrize(("near", "true"), [(1.0, 1.0), (0.95, 1.02), (1.05, 0.96)])
def test_fits_that_end_on_their_way_tell_where_they_would_rest(left: float, near: float, true: float) -> None:
    step = fitted_step(as_sample(Patterns(true, left)), found(50.0, near), TOLD, MANY)
    assert step.factor == pytest.approx(true)


@pytest.mark.parametrize("patterns", [Patterns(1.0, 0.95), Patterns(1.4, 0.3)])
def test_a_step_that_draws_no_fit_or_lies_far_off_is_not_told(patterns: Patterns) -> None:
    step = fitted_step(as_sample(patterns), found(50.0), TOLD, MANY)
    assert step.factor is None
    assert step.error >= 0.1


def errors_of(scatter: NDArray[np.float64], defocus: float, step: FittedStep) -> float:
    return defocus_error(as_sample(Patterns(of_quarters=scatter.tolist())), found(defocus), step, TOLD, MANY)


def test_quarters_that_disagree_make_the_error_that_the_mean_of_four_has() -> None:
    # Of means of four normal numbers, one in twenty is further off than Student's t says: so are the errors here, which
    # hold a little more besides.
    drawn = np.random.default_rng(0).normal(0, 10, (400, 4))
    within = [abs(each.mean()) <= errors_of(each, 5.0, FittedStep(1.0, 0.0)) for each in drawn]
    assert 0.93 < np.mean(within) < 0.985


@pytest.mark.parametrize("defocus", [-80.0, 20.0])
def test_a_step_that_is_uncertain_or_contradicted_makes_the_defocus_as_uncertain(defocus: float) -> None:
    sharp = errors_of(np.zeros(4), defocus, FittedStep(1.0, 0.0))
    for step in (FittedStep(1.0, 0.05), FittedStep(exp(0.05), 0.0), FittedStep(None, 0.05)):
        error = errors_of(np.zeros(4), defocus, step)
        assert error == pytest.approx(hypot(sharp, 0.05 * abs(defocus)))


# Electrons in a pattern, and by how many Å the defocus of a simulated scan was off (docs/geometry_calibration.md).
@pytest.mark.parametrize(("electrons", "off"), [(3040, 5.7), (1144, 5.5), (1019, 7.0), (1015, 8.2)])
def test_few_electrons_make_a_defocus_uncertain_even_if_quarters_agree(electrons: float, off: float) -> None:
    sharp, step = as_sample(Patterns()), FittedStep(1.0, 0.0)
    assert defocus_error(sharp, found(40.0), step, TOLD, electrons) > off
    many = defocus_error(sharp, found(40.0), step, TOLD, 1e6)
    assert many == pytest.approx(errors_of(np.zeros(4), 40.0, step), abs=0.05)


# Likewise by how many percent a fitted step was off.
@pytest.mark.parametrize(("electrons", "off"), [(3040, -7.4), (2100, -6.2), (1015, -12.9)])
def test_few_electrons_make_a_fitted_step_uncertain(electrons: float, off: float) -> None:
    step = fitted_step(as_sample(Patterns()), found(40.0), TOLD, electrons)
    assert step.error > -log(1 + off / 100)
    assert fitted_step(as_sample(Patterns()), found(40.0), TOLD, 1e6).error == pytest.approx(0.035, abs=1e-3)


def of_misfits(*misfits: float) -> tuple[Trial, ...]:
    return tuple(Trial(np.array([each]), np.array([9.0]), 0.0) for each in misfits)


def test_the_best_value_of_a_profile_is_where_a_parabola_is_least() -> None:
    values = (0.0, 4.0, 5.0, 7.0, 12.0)
    assert Profile(values, of_misfits(*(1 + (each - 5.7) ** 2 for each in values)), 4.0).best() == pytest.approx(5.7)
    assert Profile(values, of_misfits(*values), 4.0).best() == 0.0
    assert Profile(values, of_misfits(2, 1, 1, 1, 2), 4.0).best() == pytest.approx(5.0, abs=1.1)


def test_electrons_of_patterns_that_are_no_counts_are_not_overestimated() -> None:
    rng = np.random.default_rng(0)
    mean_YX = np.exp(-0.02 * (np.fft.fftfreq(32, 1 / 32)[:, None] ** 2 + np.fft.fftfreq(32, 1 / 32) ** 2))
    mean_YX *= 2000 / mean_YX.sum()
    counts_NYX = rng.poisson(mean_YX, (30, 32, 32)).astype(np.float32)
    roots_NYX = np.sqrt(counts_NYX / 2000)
    misfit = float(np.square(roots_NYX - np.sqrt(mean_YX / 2000)).sum((1, 2)).mean())
    scan = Scan(positions_N2=rng.uniform(0, 40, (30, 2)), source="made up")
    for values_NYX, limits in (
        (counts_NYX, (1950, 2050)),
        (counts_NYX + 1e-3 * rng.random(counts_NYX.shape), (1800, 2100)),
    ):
        part = sample(Recording(values_NYX.astype(np.float32), scan), np.arange(30), Aperture(defocus_angstrom=0.0), 0)
        least, most = limits
        assert least < part.electrons(misfit) < most
    assert part.electrons(3 * misfit) < 1000  # what a wrong model adds is taken for noise
