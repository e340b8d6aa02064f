"""Finds the geometry that patterns fit best, beginning with the one that is told.

One property after the other is varied, and what fits held-out patterns best is kept. Which of these changes matter is
decided at the end: each is taken back alone.

Most geometries are far off, which few patterns tell: those that a quarter of them refute beyond doubt are tried out on
these alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import numpy as np

from trainkit_ptychography.physics.trial import Trial
from trainkit_ptychography.preflight.geometry import BOTH_AXES, ORIENTATIONS, Geometry
from trainkit_ptychography.preflight.sample import Sample
from trainkit_ptychography.scans.positions import likely_steps
from trainkit_ptychography.scans.sampling import (
    bright_radius,
    disc_radius,
    mirrored_where_hidden,
    neighbour_distances,
)

_SURE = 6.0  # standard errors
_SURE_OF_OTHERS = 4.0  # the same, between different patterns
_DECISIVE = 0.6  # of the best gain: nothing else is near
_WIDE_STEPS, _NEAR_STEPS = (0.8, 1.25), (0.9, 1.1)
_COARSE_ROTATION, _FINE_ROTATIONS = 22.5, (11.25, 5.0, 2.5)
_NOT_THE_DISC = 0.04  # by how much the measured radius of the bright disc may be off
_UNITS = (0.01, 0.1, 10.0, 100.0)  # pm and nm, taken for Å, and the other way round
_GLANCE_SHARE = 0.25  # of the patterns, the nearest to the middle
_FEWEST_GLANCED_AT = 48  # with fewer, all are looked at
_Limits = tuple[tuple[float, float], ...]
_REFUTED: _Limits = ((4.0, 0.8), (6.0, 0.95))
"""More standard errors of a glance, with a smaller share of what a better geometry gains, than one of these pairs."""
_FAR_WORSE: _Limits = ((4.0, _DECISIVE),)


@attrs.frozen
class Change:
    """A property of the geometry that is not as told.

    Attributes:
        name: Which: an attribute of `Geometry`, or "orientation".
        without: What the patterns fit if this change alone is taken back.
        share: Gain over vacuum without the change, over the gain with it.
        sureness: By how many standard errors the misfits of held-out patterns differ.
    """

    name: str
    without: Trial
    share: float
    sureness: float


@attrs.frozen
class Found:
    """The outcome of a search.

    Attributes:
        told: How well the patterns fit the geometry that is told.
        geometry: The geometry that they fit best.
        best: How well they fit it.
        changes: The properties in which it differs from what is told, with what each is worth.
        seen: By how many standard errors the best fit is better than vacuum; a few mean that nothing can be told.
    """

    told: Trial
    geometry: Geometry
    best: Trial
    changes: tuple[Change, ...]
    seen: float


def sureness(worse: Trial, better: Trial) -> float:
    """Return by how many standard errors the held-out patterns fit ``better`` better."""
    return _standard_errors(worse.misfit_T - better.misfit_T)


def rank_sureness(worse: Trial, better: Trial) -> float:
    """Return the same from the ranks of the differences: a few patterns that differ most do not make it small.

    Where few places scatter strongly, the scatter of the differences is large because some patterns tell much more than
    others, and not because patterns disagree: of 64 patterns that all fit ``better`` better, `sureness` made 4.3, and
    ranks make 7.

    Source:
        Wilcoxon, Biometrics Bulletin 1 (1945) 80 (signed ranks, in their normal approximation).
    """
    difference_T = worse.misfit_T - better.misfit_T
    rank_T = np.abs(difference_T).argsort().argsort() + 1.0
    return float((np.sign(difference_T) * rank_T).sum() / np.sqrt(np.square(rank_T).sum()))


def visibility(trial: Trial) -> float:
    """Return by how many standard errors the held-out patterns fit a reconstruction better than vacuum."""
    return _standard_errors(trial.empty_T - trial.misfit_T)


def clearly_better(told: Trial, other: Trial) -> bool:
    """Return whether a trial with other patterns explains much more than this one, beyond doubt."""
    errors = [(each.empty_T - each.misfit_T).std() / np.sqrt(len(each.misfit_T)) for each in (told, other)]
    sure = other.gain - told.gain > _SURE_OF_OTHERS * float(np.hypot(*errors))
    return sure and visibility(other) > _SURE and told.gain < _DECISIVE * other.gain


def _standard_errors(difference_T: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    spread = float(difference_T.std()) / np.sqrt(len(difference_T))
    return float(difference_T.mean()) / spread if spread > 0 else 0.0


def largest_defocus_angstrom(sample: Sample) -> float:
    """Return the defocus at which the probe fills its array."""
    semiangle, size = sample.told_semiangle(), sample.scan.pixel_size_angstrom
    if not semiangle or size is None:
        return np.inf
    return sample.field_of_view() * size / (2e-3 * semiangle)


def unit_factors(sample: Sample) -> dict[str, float]:
    """Return the units that positions may have instead -> by what the distances of points would grow."""
    scan, room = sample.scan, min(sample.part.intensities_NYX.shape[1:])
    step = float(np.median(neighbour_distances(scan.positions_N2)))
    likely = likely_steps(step, scan.positions_unit, scan.pixel_size_angstrom, room) if step > 0 else {}
    return {unit: pixels / step for unit, pixels in likely.items()}


class Search:
    """The search over geometries.

    Args:
        sample: The patterns.
        tried: Is called with the number of geometries that were tried so far.
    """

    def __init__(self, sample: Sample, tried: Callable[[int], None] = lambda number: None) -> None:
        self.sample, self._tried = sample, tried
        self._known: dict[Geometry, Trial] = {}
        num = round(_GLANCE_SHARE * len(sample.points_N))
        self._few = sample.nearest_to_middle(num) if num >= _FEWEST_GLANCED_AT else None
        self._glances: dict[Geometry, Trial] = {}

    def trial(self, geometry: Geometry) -> Trial:
        """Try out a geometry, or return what was found before."""
        if geometry not in self._known:
            self._known[geometry] = self.sample.try_out(geometry)
            self._tried(len(self._known))
        return self._known[geometry]

    @property
    def num_trials(self) -> int:
        """Number of geometries that were tried so far."""
        return len(self._known)

    def __call__(self) -> Found:
        """Return what was found."""
        told = self.trial(Geometry())
        best = self._searched(self._disc(Geometry()))
        best = self._as_told(self._other_unit(best).folded())
        return Found(told, best, self.trial(best), tuple(self._changes(best)), visibility(self.trial(best)))

    def _searched(self, best: Geometry) -> Geometry:
        for _ in range(2):  # what a wrong value of one property hides of another shows the second time
            before = best
            best = self._orientation(best)
            best = self._defocus(best)
            best = self._rotation(best)
            best = self._steps(best)
            if best == before or visibility(self.trial(best)) < _SURE:
                break
        return best

    def _better(self, best: Geometry, *others: Geometry) -> Geometry:
        for each in others:
            if not self._is_refuted(each, best) and self.trial(each).misfit < self.trial(best).misfit:
                best = each
        return best

    def _is_refuted(self, geometry: Geometry, better: Geometry, limits: _Limits = _REFUTED) -> bool:
        """Return whether few patterns tell that a geometry explains less than another one, so that all would.

        Args:
            geometry: The geometry.
            better: The other one.
            limits: What is beyond doubt.
        """
        if self._few is None or geometry in self._known:
            return False
        seen, other = self._glance(geometry), self._glance(better)
        sure = sureness(seen, other)
        return any(sure > least and seen.gain < share * other.gain for least, share in limits)

    def _glance(self, geometry: Geometry) -> Trial:
        assert self._few is not None
        if geometry not in self._glances:
            self._glances[geometry] = self._few.try_out(geometry)
        return self._glances[geometry]

    def _as_told(self, best: Geometry) -> Geometry:
        """Return of two geometries that make the same patterns the one that lies as told, if that fits no worse.

        They are the detector turned by 180°, with the other sign of the defocus. Told from the other one, both the
        orientation and the defocus would seem wrong, because either alone is, although the two together change nothing.
        """
        told = self.sample.told_defocus()
        if told is None or best.swapped or best.flips != BOTH_AXES:
            return best
        if sureness(self.trial(Geometry()), self.trial(best)) > _SURE:
            return best
        reversed_change = -(told + best.defocus_change_angstrom) - told
        paired = attrs.evolve(best, flips=(), defocus_change_angstrom=reversed_change)
        return best if sureness(self.trial(paired), self.trial(best)) > _SURE else paired

    def _disc(self, best: Geometry) -> Geometry:
        """Make the aperture as large as the bright disc, by the size of a detector pixel or by the angle."""
        semiangle, scan = self.sample.told_semiangle(), self.sample.scan
        if semiangle is None or not self.sample.has_aperture():
            return best
        if scan.wavelength_angstrom is None or scan.pixel_size_angstrom is None:
            return best
        mean_YX = mirrored_where_hidden(self.sample.part.survey.mean_YX, scan.mask_YX)
        told = disc_radius(mean_YX.shape, scan.pixel_size_angstrom, scan.wavelength_angstrom, semiangle)
        # An aperture as large as the detector, which can be lit up to its corners.
        largest = scan.wavelength_angstrom / (2e-3 * semiangle * scan.pixel_size_angstrom)
        measured = min(bright_radius(mean_YX) / told, 0.99 * largest)
        if abs(measured - 1) <= _NOT_THE_DISC:
            return best
        found = []
        for name, sense in (("detector_factor", -1), ("semiangle_factor", 1)):
            fitting = attrs.evolve(best, **{name: measured**sense})  # type: ignore[arg-type]
            for change in (0.05, 0.02, 0.01):
                now = getattr(fitting, name)
                near = [each for each in (now * (1 - change), now * (1 + change)) if each**sense < largest]
                fitting = self._better(fitting, *(attrs.evolve(fitting, **{name: each}) for each in near))
            found.append(fitting)
        return self._better(best, *found)

    def _other_unit(self, best: Geometry) -> Geometry:
        """Take positions to be in another unit, if all else that was found explains little of what that explains."""
        others = [Geometry(step_factor=each) for each in unit_factors(self.sample).values()]
        found = self._better(best, *others)
        return self._searched(found) if self.trial(best).gain < _DECISIVE * self.trial(found).gain else best

    def _orientation(self, best: Geometry) -> Geometry:
        turned = [attrs.evolve(best, swapped=swapped, flips=flips) for swapped, flips in ORIENTATIONS]
        found = self._better(best, *turned)
        if all(self._is_far_worse(each, found) for each in turned if each != found):
            return found
        step = self.sample.defocus_step_angstrom()
        if step is not None:  # a defocus that is far off hides the orientation
            found = self._better(
                found, *(each for one in turned for away in (step, 2 * step) for each in self._defocused(one, away))
            )
        here = found.defocus_change_angstrom
        between = [
            attrs.evolve(each, rotation_deg=each.rotation_deg + 45, defocus_change_angstrom=here) for each in turned
        ]
        return self._better(found, *between)

    def _is_far_worse(self, geometry: Geometry, best: Geometry) -> bool:
        """Return whether a geometry explains so much less than another one that nothing can be near."""
        if self._is_refuted(geometry, best, _FAR_WORSE):
            return True
        gain = self.trial(best).gain
        return self.trial(geometry).gain < _DECISIVE * gain and sureness(self.trial(geometry), self.trial(best)) > _SURE

    def _rotation(self, best: Geometry) -> Geometry:
        if self._stands(best, *self._turned(best, _COARSE_ROTATION / 2)):
            return best
        for angle in (_COARSE_ROTATION, *_FINE_ROTATIONS):
            best = self._better(best, *self._turned(best, angle))
        return best

    def _turned(self, geometry: Geometry, angle: float) -> tuple[Geometry, ...]:
        here = geometry.rotation_deg
        return tuple(attrs.evolve(geometry, rotation_deg=here + side * angle) for side in (-1, 1))

    def _defocus(self, best: Geometry) -> Geometry:
        step, told = self.sample.defocus_step_angstrom(), self.sample.told_defocus()
        if step is None or told is None:
            return best
        if self._stands(best, *self._defocused(best, step)):
            return best
        changes = [2 * step, 3 * step]
        in_other_units = ((factor - 1) * told - best.defocus_change_angstrom for factor in _UNITS)
        changes += [each for each in in_other_units if abs(abs(each) - step) > step / 8]  # else it was tried already
        best = self._better(best, *(each for change in changes for each in self._defocused(best, change)))
        while (found := self._better(best, *self._defocused(best, step))) != best:
            best = found
        for part in (step / 2, step / 4, step / 8):
            best = self._better(best, *self._defocused(best, part))
        return best

    def _defocused(self, geometry: Geometry, change: float) -> tuple[Geometry, ...]:
        """Return a geometry with less and with more defocus, as far as the probe fits into its array.

        Beyond that, its phase is sampled too coarsely, so that it looks like a probe of less defocus.
        """
        told, here = self.sample.told_defocus(), geometry.defocus_change_angstrom
        largest = largest_defocus_angstrom(self.sample)
        assert told is not None
        changed = (here + side * change for side in (-1, 1))
        return tuple(
            attrs.evolve(geometry, defocus_change_angstrom=each) for each in changed if abs(told + each) <= largest
        )

    def _stands(self, best: Geometry, *others: Geometry) -> bool:
        """Return whether a geometry fits better than its neighbours beyond doubt."""
        return all(
            self._is_refuted(each, best) or sureness(self.trial(each), self.trial(best)) > _SURE for each in others
        )

    def _steps(self, best: Geometry) -> Geometry:
        if self.sample.told_defocus() is None:
            return best  # a rough guess of a probe fits better at any other distance of the points
        wide, near = (
            tuple(attrs.evolve(best, step_factor=each) for each in some) for some in (_WIDE_STEPS, _NEAR_STEPS)
        )
        if not self._stands(best, *wide):
            best = self._better(best, *wide, *near)
        return self._step_and_defocus(best)

    def _step_and_defocus(self, best: Geometry) -> Geometry:
        """Change both in proportion, which leaves the shadow of the specimen in the bright disc as large as it is.

        A defocus that was fitted to a wrong step is wrong by as much, and then no change of one alone is better.
        """
        for factors in (_WIDE_STEPS, _NEAR_STEPS):
            found = self._better(best, *(self._scaled(best, each) for each in factors))
            if found == best:
                return best
            if sureness(self.trial(best), self.trial(found)) >= _SURE:  # if not, a smaller change may be a sure one
                best = found
        return best

    def _scaled(self, geometry: Geometry, factor: float) -> Geometry:
        told = self.sample.told_defocus()
        assert told is not None
        defocus = told + geometry.defocus_change_angstrom
        wanted = np.sign(defocus) * min(abs(factor * defocus), largest_defocus_angstrom(self.sample))
        step = geometry.step_factor * factor
        return attrs.evolve(geometry, step_factor=step, defocus_change_angstrom=float(wanted) - told)

    def _changes(self, best: Geometry) -> Iterator[Change]:
        taken_back = {
            "orientation": {"swapped": False, "flips": ()},
            "rotation_deg": {"rotation_deg": 0.0},
            "defocus_change_angstrom": {"defocus_change_angstrom": 0.0},
            "step_factor": {"step_factor": 1.0},
            "detector_factor": {"detector_factor": 1.0},
            "semiangle_factor": {"semiangle_factor": 1.0},
        }
        with_all = self.trial(best)
        for name, values in taken_back.items():
            geometry = attrs.evolve(best, **values)  # type: ignore[arg-type]
            if geometry == best:
                continue
            without = self.trial(geometry)
            share = without.gain / with_all.gain if with_all.gain > 0 else 1.0
            if name in ("detector_factor", "semiangle_factor"):  # without them, vacuum is not a fair comparison
                share = with_all.misfit / without.misfit
            yield Change(name, without, share, sureness(without, with_all))
