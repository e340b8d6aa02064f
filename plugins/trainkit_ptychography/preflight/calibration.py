"""Finds how a scan lies against the detector, its defocus, rotation and step, if nobody wrote them down.

There are three steps: trials on a grid that covers all orientations and defoci, with few patterns; from the best of
them fits of the exact values (`physics.geometry_fit`), which also tell how certain these are (`certainty`); and trials
around the result, which are the evidence. Orientations are always decided by the misfit of held-out patterns.

A fine detector is binned, as far as the probe has room with all defoci that are tried. Nobody has said how large the
probe is: the grid has to have room for any, and what follows it for those that the grid leaves.

The detector turned by 180°, with the other sign of the defocus, gives the same patterns if the probe is round. So the
grid covers half a turn, and which of the two is right is decided at the end.

Shapes: N = scan points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import hypot, log

import attrs
import numpy as np

from trainkit import Progress
from trainkit_ptychography.physics.trial import Trial
from trainkit_ptychography.preflight.advice import Pair, fits_nothing
from trainkit_ptychography.preflight.certainty import FittedStep, defocus_error, fitted_step, in_proportion
from trainkit_ptychography.preflight.geometry import BOTH_AXES, ORIENTATIONS, Geometry
from trainkit_ptychography.preflight.sample import Sample
from trainkit_ptychography.preflight.search import (
    Found,
    Search,
    largest_defocus_angstrom,
    rank_sureness,
    sureness,
    visibility,
)

_TURN_DEG = 22.5  # patterns still fit half as well when a scan is turned by 20° too much
_FIRST, _MOST = 3, 12  # steps of defocus to either side
PATTERNS, _FEW = 256, 100  # that are fitted; on the grid
_BEYOND_DOUBT = 6.0  # standard errors by which a specimen shows in the best of a hundred trials
_FITTED = 3  # of the best on the grid
_WORTH_IT = 0.4  # of the best gain on the grid, to be fitted
SURE = 4.5  # standard errors by which patterns have to fit worse, for it to be beyond doubt
_AROUND = 3  # steps of defocus to either side of one that is fitted, for which the probe has room
_FIELD = 1.25  # of view, over the diameter of the probe
_HALF = 0.5  # of what is explained: what explains less is not another answer
_MUCH, _LOST = 0.1, 0.25  # of the misfit of an empty object; of what is explained
_CONTRADICTED = 0.04  # logarithm of a factor between the step that is told and the fitted one, at least
_ALIKE = 0.25  # steps of defocus
_MOST_MOVED = 0.5  # steps of defocus, from that of a fit towards that of trials
_ANGSTROM = (5.0, 10.0, 20.0, 40.0, 80.0)
_DEGREES = (2.0, 5.0, 10.0, 20.0)
_FACTORS = (1.02, 1.05, 1.1, 1.25)


@attrs.frozen
class Profile:
    """Trials in which one property differs from what was found; with the step, the defocus differs as much.

    Step and defocus together make the shadow of the specimen in the bright disc as large as it is, so patterns tell
    their ratio far better than either.

    Attributes:
        values: Its values, in order.
        trials: A trial of each.
        found: The value that was found, which is among them.
    """

    values: tuple[float, ...]
    trials: tuple[Trial, ...]
    found: float

    def best(self) -> float:
        """Return where the misfit is least: the vertex of a parabola through the best trial and its two neighbours."""
        misfits = [each.misfit for each in self.trials]
        least = misfits.index(min(misfits))
        if least in (0, len(misfits) - 1):
            return self.values[least]
        near = slice(least - 1, least + 2)
        curved, sloped, _ = np.polyfit(np.subtract(self.values[near], self.values[least]), misfits[near], 2)
        return self.values[least] - (float(sloped / (2 * curved)) if curved > 0 else 0.0)

    def excluded(self) -> tuple[float | None, float | None]:
        """Return the nearest values below and above that patterns fit worse beyond doubt; None: none was tried."""
        best = self.trials[self.values.index(self.found)]
        worse = [value for value, each in zip(self.values, self.trials, strict=True) if sureness(each, best) > SURE]
        below, above = (each for each in worse if each < self.found), (each for each in worse if each > self.found)
        return max(below, default=None), min(above, default=None)


@attrs.frozen
class Cell:
    """A trial of one of the eight orientations with one sign of the defocus; all else is as it was found.

    Attributes:
        geometry: The geometry.
        trial: The trial.
        worse_by: By how many standard errors patterns fit what was found better.
    """

    geometry: Geometry
    trial: Trial
    worse_by: float


@attrs.frozen
class Calibrated:
    """What was found, and the evidence for it.

    Attributes:
        geometry: The geometry, with a rotation within ±45°.
        best: How well patterns fit it.
        fits_nothing: Whether nothing that was tried is better beyond doubt than a specimen that is not there.
        undecided: Why nothing decides between the geometry and its `conjugate`; "": something does.
        reason: What decided; "": the conjugate fits worse.
        cells: The eight orientations with the defocus that was found; then, if there is one, with its negative.
        profiles: Name of a property (of `Geometry`) -> trials around what was found.
        defocus_angstrom: The underfocus; None: the probe is not made from one.
        defocus_error_angstrom: Two standard errors of it, with what is left open by the step; None: the same.
        step: The step at which fits rest.
        resolved_angstrom: The change of defocus for which a trained probe makes up; None: the same.
        num_patterns: Patterns that it was fitted to.
        num_trials: Trials.
    """

    geometry: Geometry
    best: Trial
    fits_nothing: bool
    undecided: str
    reason: str
    cells: tuple[Cell, ...]
    profiles: dict[str, Profile]
    defocus_angstrom: float | None
    defocus_error_angstrom: float | None
    step: FittedStep
    resolved_angstrom: float | None
    num_patterns: int
    num_trials: int

    def equal(self) -> tuple[Cell, ...]:
        """Return the cells, besides the geometry and its conjugate, that patterns do not fit worse beyond doubt."""
        return tuple(each for each in self.cells if each.worse_by <= SURE)


def worse_by(other: Trial, found: Trial) -> float:
    """Return by how many standard errors patterns fit another orientation worse than what was found.

    Ranks count as well, if the other one explains less than half as much: then it is no second answer, and what they
    add is only that its being worse is not that of a few patterns.
    """
    ranks = rank_sureness(other, found) if other.gain < _HALF * found.gain else -float("inf")
    return max(sureness(other, found), ranks)


def conjugate(geometry: Geometry, told_angstrom: float) -> Geometry:
    """Return the geometry with the same patterns: turned by 180°, with the other sign of the defocus.

    Args:
        geometry: A geometry.
        told_angstrom: The underfocus that trials are told.
    """
    flips = tuple(each for each in BOTH_AXES if each not in geometry.flips)
    change = -geometry.defocus_change_angstrom - 2 * told_angstrom
    return attrs.evolve(geometry, flips=flips, defocus_change_angstrom=change)


def calibrated(taken: Callable[[int, int], Sample], sign_told: float) -> Iterator[Progress | Calibrated]:
    """Yield progress, and at last what was found.

    Args:
        taken: Returns so many patterns at most, with so many pixels of the detector, along each axis, in one.
        sign_told: A number with the sign of the defocus that is told, which chooses where nothing else does; 0: it is
            not told, and underfocus is chosen.
    """
    grid = _Grid(taken)
    yield from grid.tried(grid.first())
    yield from grid.tried(grid.wider())
    starts = grid.starts()
    large = grid.patterns_for(starts)
    calibration = _Calibration(large, sign_told, grid.num_trials)
    fitted = []
    for number, each in enumerate(starts):
        yield Progress(number, len(starts), "fits of defocus, rotation and step")
        fitted.append(large.fit(each))
    best, step, electrons = calibration.best(fitted), FittedStep(None, 0.0), 0.0
    if calibration.fits_defocus:
        yield Progress(0, 2, "fits from smaller and larger steps, and to quarters of the patterns")
        electrons = large.electrons(calibration.misfit(best))
        step = fitted_step(large, best, large.told_defocus() or 0.0, electrons)
    best = calibration.with_likely_step(best, step)
    error = None
    if calibration.fits_defocus:
        yield Progress(1, 2, "fits from smaller and larger steps, and to quarters of the patterns")
        error = defocus_error(large, best, step, large.told_defocus() or 0.0, electrons)
        best, of_gap = calibration.between_fit_and_trials(best)
        error = hypot(error, of_gap)
    yield from calibration.evidence(best.folded(), step, error)


def _explains(found: Found, sample: Sample) -> bool:
    """Return whether the best fit explains much that is lost if the patterns are exchanged with each other.

    Where few places scatter most, patterns differ so much that standard errors alone hide it.
    """
    gain = found.best.gain
    return gain > _MUCH * found.best.empty and sample.in_disorder().try_out(found.geometry).gain < _LOST * gain


class _Grid:
    """Trials of all orientations and defoci with few patterns; the argument is that of `calibrated`."""

    def __init__(self, taken: Callable[[int, int], Sample]) -> None:
        self._taken, self._whole = taken, taken(_FEW, 1)
        self._step, self._told = self._whole.defocus_step_angstrom(), self._whole.told_defocus() or 0.0
        self._search = Search(self._within(_FIRST))
        self._geometries: list[Geometry] = []
        self._num_before = 0

    @property
    def num_trials(self) -> int:
        """Number of geometries that were tried so far."""
        return self._num_before + self._search.num_trials

    def _within(self, steps: float) -> Sample:
        """Return patterns with room for the probe within so many steps of defocus, as far as all pixels have it."""
        whole = self._whole
        most = min(steps * (self._step or 0.0), largest_defocus_angstrom(whole))
        binned = whole.coarsest_binning_within(PATTERNS, most)
        return self._taken(_FEW, binned) if binned > 1 else whole

    def first(self) -> list[Geometry]:
        """Return geometries of all orientations and small defoci."""
        return self._of_defoci(range(-_FIRST, _FIRST + 1))

    def wider(self) -> list[Geometry]:
        """Return geometries of all orientations and large defoci, if the small ones do not suffice."""
        best = min(self._geometries, key=lambda each: self._search.trial(each).misfit)
        if self._step is None:
            return []
        inside = abs(self._told + best.defocus_change_angstrom) < (_FIRST - 0.5) * self._step
        if inside and visibility(self._search.trial(best)) > _BEYOND_DOUBT:
            return []
        within = self._within(_MOST)
        most = min(_MOST, int(largest_defocus_angstrom(within) / self._step))
        if within.binned == self._search.sample.binned:
            return self._of_defoci(each for each in range(-most, most + 1) if abs(each) > _FIRST)
        self._num_before = self._search.num_trials
        self._search, self._geometries = Search(within), []  # misfits of other pixels do not compare
        return self._of_defoci(range(-most, most + 1))

    def _of_defoci(self, numbers: Iterable[int]) -> list[Geometry]:
        changes, turns = [0.0], range(-8, 8)
        if self._step is not None:
            changes, turns = [number * self._step - self._told for number in numbers], range(-4, 4)
        return [
            Geometry(swapped=swapped, rotation_deg=_TURN_DEG * turn, defocus_change_angstrom=change)
            for swapped in (False, True)
            for turn in turns
            for change in changes
        ]

    def tried(self, geometries: list[Geometry]) -> Iterator[Progress]:
        """Try out geometries."""
        for number, each in enumerate(geometries):
            self._search.trial(each)
            yield Progress(number + 1, len(geometries), "orientations and defoci")
        self._geometries += geometries

    def starts(self) -> list[Geometry]:
        """Return the best that are not neighbours of a better one."""
        found: list[Geometry] = []
        ranked = sorted(self._geometries, key=lambda each: self._search.trial(each).misfit)
        for each in ranked:
            worth = self._search.trial(each).gain >= _WORTH_IT * self._search.trial(ranked[0]).gain
            if len(found) < _FITTED and worth and not any(self._are_neighbours(each, other) for other in found):
                found.append(each)
        return found

    def _are_neighbours(self, one: Geometry, other: Geometry) -> bool:
        if one.swapped != other.swapped:
            return False
        for same in (other, conjugate(other, self._told)) if self._step is not None else (other,):
            turned = abs(one.rotation_deg - same.rotation_deg - 180.0 * (set(same.flips) == set(BOTH_AXES)))
            apart = abs(one.defocus_change_angstrom - same.defocus_change_angstrom)
            if min(turned % 360, -turned % 360) < 1.5 * _TURN_DEG and apart < 1.5 * (self._step or 1.0):
                return True
        return False

    def patterns_for(self, starts: list[Geometry]) -> Sample:
        """Return many patterns, with room for the probe around geometries from which fits begin."""
        further = max(_AROUND * (self._step or 0.0), max(_ANGSTROM))
        largest = max(abs(self._told + each.defocus_change_angstrom) for each in starts) + further
        return self._taken(PATTERNS, self._whole.coarsest_binning_within(PATTERNS, _FIELD * largest))


class _Calibration:
    """What follows the grid, in order.

    Args:
        large: Patterns.
        sign_told: As for `calibrated`.
        num_trials: How many trials there were before.
    """

    def __init__(self, large: Sample, sign_told: float, num_trials: int) -> None:
        self._search, self._sign_told, self._num_before = Search(large), sign_told, num_trials
        self._step, self._told = large.defocus_step_angstrom(), large.told_defocus() or 0.0

    def best(self, geometries: list[Geometry]) -> Geometry:
        """Return the geometry that patterns fit best."""
        return min(geometries, key=lambda each: self._search.trial(each).misfit)

    def misfit(self, geometry: Geometry) -> float:
        """Return the misfit of patterns that are held out."""
        return self._search.trial(geometry).misfit

    @property
    def fits_defocus(self) -> bool:
        """Whether the probe is made from a defocus, which is fitted together with the step."""
        return self._step is not None

    def with_likely_step(self, best: Geometry, step: FittedStep) -> Geometry:
        """Return a geometry with the step as told, or as fitted if that contradicts it; all else is fitted anew."""
        factor = step.factor
        if factor is None or abs(log(factor)) < max(_CONTRADICTED, step.error):
            factor = 1.0
        scaled = in_proportion(best, factor / best.step_factor, self._told)
        return self._search.sample.fit(scaled, step_is_free=False)

    def between_fit_and_trials(self, fitted: Geometry) -> tuple[Geometry, float]:
        """Return a geometry with the defocus in the middle between fits and trials, and how many Å either is off it.

        Noise draws fits towards focus, and trials away from it.
        """
        assert self._step is not None
        around = self._around(fitted, "defocus_change_angstrom")
        here = fitted.defocus_change_angstrom
        profile = Profile(
            tuple(each.defocus_change_angstrom for each in around), tuple(map(self._search.trial, around)), here
        )
        half = (profile.best() - here) / 2
        most = _MOST_MOVED * self._step
        return attrs.evolve(fitted, defocus_change_angstrom=here + max(-most, min(half, most))), abs(half)

    def evidence(self, best: Geometry, step: FittedStep, error: float | None) -> Iterator[Progress | Calibrated]:
        """Try out what is around a geometry, and yield the result, in which phases are positive."""
        trial, sample = self._search.trial(best), self._search.sample
        found = Found(trial, best, trial, (), visibility(trial))
        undecided = reason = ""
        if self._step is not None:
            pair = Pair.choose(found, sample)
            other = conjugate(best, self._told)
            if pair.is_decided:
                best = other if pair.geometry != best else best
                reason = pair.reason
            else:
                undecided = pair.reason
                if (self._told + best.defocus_change_angstrom) * (self._sign_told or 1.0) < 0:
                    best = other
        around = {name: self._around(best, name) for name in ("defocus_change_angstrom", "rotation_deg", "step_factor")}
        if self._step is None:
            around = {"rotation_deg": around["rotation_deg"]}
        ways = [attrs.evolve(best, swapped=swapped, flips=flips) for swapped, flips in ORIENTATIONS]
        if self._step is not None:
            ways += [attrs.evolve(each, defocus_change_angstrom=self._reversed(best)) for each in ways]
        wanted = [*ways, *(each for geometries in around.values() for each in geometries)]
        for number, each in enumerate(wanted):
            self._search.trial(each)
            yield Progress(number + 1, len(wanted), "trials around what was found")
        trial = self._search.trial(best)
        profiles = {
            name: Profile(
                tuple(getattr(each, name) for each in geometries),
                tuple(self._search.trial(each) for each in geometries),
                getattr(best, name),
            )
            for name, geometries in around.items()
        }
        yield Calibrated(
            best,
            trial,
            fits_nothing(found, sample) and not _explains(found, sample),
            undecided,
            reason,
            tuple(Cell(each, self._search.trial(each), self._worse_by(each, best)) for each in ways),
            profiles,
            None if self._step is None else self._told + best.defocus_change_angstrom,
            error,
            step,
            self._step,
            len(sample.points_N),
            self._num_before + self._search.num_trials,
        )

    def _reversed(self, geometry: Geometry) -> float:
        return -geometry.defocus_change_angstrom - 2 * self._told

    def _worse_by(self, geometry: Geometry, best: Geometry) -> float:
        """Return by how many standard errors patterns fit a geometry worse; infinite for the best and its conjugate."""
        same = (best,) if self._step is None else (best, conjugate(best, self._told))
        near = _ALIKE * (self._step or 1.0)
        for each in same:
            apart = abs(each.defocus_change_angstrom - geometry.defocus_change_angstrom)
            if (each.swapped, set(each.flips)) == (geometry.swapped, set(geometry.flips)) and apart <= near:
                return float("inf")
        return worse_by(self._search.trial(geometry), self._search.trial(best))

    def _around(self, best: Geometry, name: str) -> list[Geometry]:
        """Return a geometry with other values of a property, in order."""
        here = getattr(best, name)
        if name == "step_factor":
            values = [here / each for each in _FACTORS[::-1]] + [here] + [here * each for each in _FACTORS]
        else:
            away = _DEGREES if name == "rotation_deg" else _ANGSTROM
            values = [here - each for each in away[::-1]] + [here] + [here + each for each in away]
        if name == "defocus_change_angstrom":
            largest = max(largest_defocus_angstrom(self._search.sample), abs(self._told + here))
            values = [each for each in values if abs(self._told + each) <= largest]
        if name == "step_factor" and self._step is not None:
            defoci = [(self._told + best.defocus_change_angstrom) * each / here for each in values]
            most = max(largest_defocus_angstrom(self._search.sample), abs(self._told + best.defocus_change_angstrom))
            return [
                attrs.evolve(best, step_factor=each, defocus_change_angstrom=defocus - self._told)
                for each, defocus in zip(values, defoci, strict=True)
                if abs(defocus) <= most
            ]
        return [attrs.evolve(best, **{name: each}) for each in values]
