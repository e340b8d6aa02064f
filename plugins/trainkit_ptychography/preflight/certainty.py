"""How certain a fitted step and a fitted defocus are.

Step and defocus together make the shadow of the specimen as large as it is. A fit (`physics.geometry_fit`) moves slowly
where both change in proportion, because the object that it has made by then holds on to its scale: within its epochs it
covers only a share of the way, the same from either side. So two fits, one from a smaller and one from a larger step,
tell where it would rest, and what share of the way is left tells how much patterns say about it.
"""

from __future__ import annotations

from math import exp, log

import attrs
import numpy as np

from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.sample import Sample

_AWAY = 1.07  # factor of the step from which fits begin
_LEFT = 0.75  # of the way: a fit that leaves more of it is not drawn anywhere
_FURTHEST = 0.12  # logarithm of a factor, from where the two fits began
_STEP_ERROR_OF_ELECTRONS = 4.5  # over the square root of a pattern's electrons: one of 1,015 was 13 % off
_STEP_ERROR = 0.035  # two standard errors of a step, of scans with a known one: thickness and vibrations bias it by 1 %
_DEFOCUS_ERROR = 2.0  # Å, the same of a defocus with the right step
_DEFOCUS_ERROR_OF_ELECTRONS = 400.0  # Å, over the square root of a pattern's electrons: few bias a defocus towards 0
_TWO_ERRORS = 3.2  # standard errors of the mean of four, beyond which one in twenty is (Student's t, three degrees)
_RIGHT_ANYWAY = 0.1  # by which a step may be wrong where patterns do not tell


@attrs.frozen
class FittedStep:
    """The step at which a fit rests.

    Attributes:
        factor: Over the one that is told; None: patterns do not tell.
        error: Two standard errors of its logarithm.
    """

    factor: float | None
    error: float


def in_proportion(geometry: Geometry, factor: float, told_angstrom: float) -> Geometry:
    """Return a geometry with step and defocus multiplied by a factor.

    Args:
        geometry: A geometry.
        factor: The factor.
        told_angstrom: The underfocus that trials are told.
    """
    defocus = factor * (told_angstrom + geometry.defocus_change_angstrom)
    return attrs.evolve(
        geometry, step_factor=factor * geometry.step_factor, defocus_change_angstrom=defocus - told_angstrom
    )


def fitted_step(sample: Sample, near: Geometry, told_angstrom: float, electrons: float) -> FittedStep:
    """Return the step at which a fit would rest, from two fits that begin at either side of a geometry.

    With few electrons, fits find steps that are too small: by 7 % with 3,000 in a pattern, by 13 % with 1,000.

    Args:
        sample: Patterns.
        near: The geometry.
        told_angstrom: The underfocus that trials are told.
        electrons: How many a pattern has.
    """
    ends = [log(sample.fit(in_proportion(near, each, told_angstrom)).step_factor) for each in (1 / _AWAY, _AWAY)]
    start, left = log(near.step_factor), (ends[1] - ends[0]) / (2 * log(_AWAY))
    if left > _LEFT:
        return FittedStep(None, _RIGHT_ANYWAY)
    change = (sum(ends) / 2 - start) / (1 - left)
    if abs(change) > _FURTHEST:
        return FittedStep(None, _RIGHT_ANYWAY)
    of_few = _STEP_ERROR_OF_ELECTRONS / max(electrons, 1.0) ** 0.5
    return FittedStep(exp(start + change), float(np.hypot(_STEP_ERROR, of_few)))


def defocus_error(sample: Sample, found: Geometry, step: FittedStep, told_angstrom: float, electrons: float) -> float:
    """Return two standard errors of a defocus in Å, from fits to quarters of the patterns, and from the step's error.

    With few electrons, all fits find a defocus that is too near to focus, so quarters agree although they are wrong:
    with 1,000 electrons in a pattern, four of five simulated scans were 5.5 to 8.2 Å off.

    Args:
        sample: Patterns.
        found: The geometry that was fitted to all of them.
        step: At which step the fit rests.
        told_angstrom: The underfocus that trials are told.
        electrons: How many a pattern has.
    """
    defoci = [each.fit(found, step_is_free=False).defocus_change_angstrom for each in sample.quarters()]
    scatter = _TWO_ERRORS * float(np.std(defoci, ddof=1)) / len(defoci) ** 0.5
    off = 0.0 if step.factor is None else log(step.factor / found.step_factor)
    of_step = abs(told_angstrom + found.defocus_change_angstrom) * float(np.hypot(step.error, off))
    of_few = _DEFOCUS_ERROR_OF_ELECTRONS / max(electrons, 1.0) ** 0.5
    return float(np.sqrt(_DEFOCUS_ERROR**2 + of_few**2 + scatter**2 + of_step**2))
