"""Says in words which parts of the told geometry the patterns contradict, and what to write into the recipe instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import Data, Problem
from trainkit_ptychography.physics.trial import Trial
from trainkit_ptychography.preflight.geometry import BOTH_AXES, ORIENTATIONS, Geometry
from trainkit_ptychography.preflight.sample import Sample
from trainkit_ptychography.preflight.search import (
    Change,
    Found,
    rank_sureness,
    sureness,
    unit_factors,
)
from trainkit_ptychography.preflight.walks import Walk
from trainkit_ptychography.scans.files.kind import FileDiffraction

_SEEN = 4.5  # standard errors by which a specimen must show, before anything is said; noise reached 3
_SURE = 4.5
_SURE_OF_STEP = 6.0
_MUCH = 0.4  # of the misfit of vacuum, that a geometry explains
_HALF = 0.5  # of what the right order explains
VARIED = 1.5  # times what noise alone does; noise reached 1.05, and weak specimens that are still judged 1.5
_LARGEST_SHARE = {  # of the gain with a change that is left without it, for the change to matter
    "orientation": 0.8,
    "rotation_deg": 0.9,
    "defocus_change_angstrom": 0.85,
    "step_factor": 0.88,
    "detector_factor": 0.8,
    "semiangle_factor": 0.8,
}
_LARGEST_SHARE_OF_ALL = 0.5
_REPAIRED = 1.2  # steps of 2 rad at the aperture's edge that a probe makes up for if it is trained
_NOT_REPAIRED = 0.5
_SKEWED = 1.0  # skewness from which the sign of a phase is taken to be known: see `Pair`
_LONGEST_ELECTRON_WAVE = 0.12  # Å, 10 keV
_LEAST_OF_A_UNIT = 1.5
_NEAR_A_UNIT = (
    2.0  # a factor: with few electrons a wrong defocus makes up for much of a wrong step; units differ by more
)
_SNAP_DEG = 2.5  # an angle is not known better than that


class Advice(NamedTuple):
    """What is said.

    Attributes:
        doubts: What the patterns contradict.
        line: A line of the summary.
        is_judged: Whether the patterns tell one geometry from another.
    """

    doubts: tuple[Problem, ...]
    line: str
    is_judged: bool = True


def advise(found: Found, sample: Sample, data: Data | None, probe_is_trained: bool) -> Advice:
    """Put the outcome of a search into words.

    Args:
        found: The outcome.
        sample: What geometries were tried out on.
        data: The settings that tell the geometry; None: they are not known, so no line of theirs can be named.
        probe_is_trained: Whether the run will make up for a probe that is slightly wrong.
    """
    nothing_fits = fits_nothing(found, sample)
    doubts = tuple(_doubts(found, sample, data, probe_is_trained, nothing_fits))
    num = len(sample.points_N)
    if doubts:
        line = f"not as told, by a trial with {num} patterns"
    elif not nothing_fits:
        line = (
            f"as told, by a trial with {num} patterns: misfit {found.told.misfit:.3g} of those that were held out, "
            f"{found.told.empty:.3g} of an empty object"
        )
    elif (times := sample.variation()) > VARIED:
        line = f"not judged: nothing that was tried explains {num} patterns"
        if explains_much(found, sample):  # but the patterns are too few, or too unlike each other, to be sure
            line = f"probably as told, by a trial with {num} patterns, which are too few to be sure: misfit "
            line += f"{found.best.misfit:.3g}, {found.best.empty:.3g} of an empty object"
            return Advice((), f"geometry     {line}", is_judged=False)
        doubts = (
            _doubt(
                f"{num} patterns differ from each other ({times:.2g} times as much as by noise alone), but no geometry "
                f"that was tried explains how (misfit of held-out patterns {found.best.misfit:.3g}, "
                f"{found.best.empty:.3g} for an empty object): check the probe (its aberrations, the order of its "
                "axes), the order of the scan points (positions, raster, pattern_axes), and their step"
            ),
        )
    else:
        line = f"not judged: {num} patterns hardly differ from those of an empty object"
    return Advice(doubts, f"geometry     {line}", is_judged=not nothing_fits)


def advise_to_walk(walk: Walk, found: Found, told: Trial, sample: Sample, data: FileDiffraction) -> Advice:
    """Say that the points of a raster follow one another otherwise than is told.

    Args:
        walk: How they follow one another.
        found: The outcome of a search with it.
        told: A trial of what is told.
        sample: What geometries were tried out on with it.
        data: The settings that tell the raster.
    """
    lines = [walk.line(data)]
    chosen = Pair.choose(found, sample)
    turned = any(
        each.name in ("orientation", "rotation_deg") and matters(each, found, sample, True) for each in found.changes
    )
    lies_otherwise = turned or chosen.both_reversed
    lines += orientation_lines(chosen.geometry if lies_otherwise else Geometry(), data, walk)
    if lies_otherwise and chosen.reversed_defocus:
        defocus = (sample.told_defocus() or 0.0) + found.geometry.defocus_change_angstrom
        lines.append(f"{_place(sample, 'defocus_angstrom')} defocus_angstrom = {_round(-defocus, sample):g}")
    doubt = _doubt(
        f"the patterns fit clearly better if {walk.words} (misfit of held-out patterns {told.misfit:.3g} as told, "
        f"{found.best.misfit:.3g} so, {found.best.empty:.3g} for an empty object): {', '.join(lines)}; then check again"
    )
    return Advice((doubt,), f"geometry     not as told, by a trial with {len(sample.points_N)} patterns")


def explains_much(found: Found, sample: Sample) -> bool:
    """Return whether the best fit explains much of what vacuum does not, and a random order far less.

    With few patterns that can be so although no number of standard errors says it.
    """
    best = found.best
    if best.gain < _MUCH * best.empty:
        return False
    return sample.in_disorder().try_out(found.geometry).gain < _HALF * best.gain


def fits_nothing(found: Found, sample: Sample) -> bool:
    """Return whether the best fit is hardly better than vacuum, or than with the patterns in a random order.

    Vacuum alone is no measure if the probe is not quite right: an object makes up for some of that in any order.
    """
    return found.seen < _SEEN or sureness(sample.in_disorder().try_out(found.geometry), found.best) < _SURE


def _doubts(
    found: Found, sample: Sample, data: Data | None, probe_is_trained: bool, nothing_fits: bool
) -> Iterator[Problem]:
    changes = {each.name: each for each in found.changes if matters(each, found, sample, probe_is_trained)}
    if nothing_fits and not changes.keys() & {"detector_factor", "semiangle_factor"}:
        return
    if not changes:
        yield from _of_all_together(found, sample, data)
    chosen = Pair.choose(found, sample)
    factor = found.geometry.step_factor
    near = [unit for unit, each in unit_factors(sample).items() if max(each / factor, factor / each) < _NEAR_A_UNIT]
    if max(factor, 1 / factor) < _LEAST_OF_A_UNIT:
        near = []
    is_unit = "step_factor" in changes and bool(near)  # of the trial's defocus nothing can be said before that is right
    turned = changes.get("orientation") or changes.get("rotation_deg")
    if turned is not None or chosen.both_reversed:
        yield from _of_orientation(chosen, found, turned, sample, data)
    elif "defocus_change_angstrom" in changes and not is_unit:
        yield _of_defocus(found, changes["defocus_change_angstrom"], sample)
    if "step_factor" in changes:
        unit = f'paste [data] positions_unit = "{near[0]}"; or ' if near and isinstance(data, FileDiffraction) else ""
        scale = ""
        if isinstance(data, FileDiffraction) and not unit:
            scale = f"paste [data] positions_scale = {data.positions_scale * factor:.3g}; or "
        yield _doubt(
            f"patterns fit better if scan points are {factor:.3g} times as far apart as told "
            f"({_figures(changes['step_factor'], found)}): {unit}{scale}check the scan's step and positions_unit, or "
            "pixel size and semiangle_mrad together"
        )
    if "detector_factor" in changes:
        yield _of_detector(found, changes["detector_factor"], sample, data)
    if "semiangle_factor" in changes:
        told = sample.told_semiangle()
        assert told is not None
        factor = found.geometry.semiangle_factor
        detector = " or ".join(_detector_lines(1 / factor, data)) or "the size of a detector pixel"
        yield _doubt(
            f"the bright disc of the patterns is {factor:.3g} times as large as an aperture of {told:.3g} mrad "
            f"({_figures(changes['semiangle_factor'], found)}): paste {_place(sample, 'semiangle_mrad')} "
            f"semiangle_mrad = {told * factor:.3g}; or, if the angle is right, {detector}; or check the energy"
        )


def _of_all_together(found: Found, sample: Sample, data: Data | None) -> Iterator[Problem]:
    """Yield a doubt if no single change matters, but all together do."""
    share = found.told.gain / found.best.gain if found.best.gain > 0 else 1.0
    if len(found.changes) < 2 or share > _LARGEST_SHARE_OF_ALL or sureness(found.told, found.best) < _SURE:
        return
    lines = list(orientation_lines(found.geometry, data))
    told, change = sample.told_defocus(), found.geometry.defocus_change_angstrom
    if told is not None and change:
        lines.append(f"{_place(sample, 'defocus_angstrom')} defocus_angstrom = {_round(told + change, sample):g}")
    if found.geometry.step_factor != 1:
        lines.append(f"a scan step {found.geometry.step_factor:.3g} times as large")
    yield _doubt(
        f"patterns fit the geometry that is told hardly better than an empty object (misfit {found.told.misfit:.3g} of "
        f"those that were held out, {found.told.empty:.3g} for an empty object), and several changes together clearly "
        f"better ({found.best.misfit:.3g}): {', '.join(lines)}; check each of them"
    )


def matters(change: Change, found: Found, sample: Sample, probe_is_trained: bool) -> bool:
    """Return whether a property that is not as told is worth a word."""
    if change.name == "step_factor" and _is_surely_smaller(change, found, sample):
        return True
    if change.sureness < _SURE or change.share > _LARGEST_SHARE[change.name]:
        return False
    if change.name == "defocus_change_angstrom":
        step = sample.defocus_step_angstrom()
        assert step is not None
        change_angstrom = abs(found.geometry.defocus_change_angstrom)
        if change_angstrom <= sample.depth_angstrom:
            return False  # a trial's one slice fits best where most of a thick specimen is, which may not be its middle
        steps = change_angstrom / step
        return steps > (_REPAIRED if probe_is_trained else _NOT_REPAIRED)
    return True


def _is_surely_smaller(change: Change, found: Found, sample: Sample) -> bool:
    """Return whether patterns fit a smaller step surely better, be it by little.

    A specimen and a defocus that are larger make up for a step that is too large, so the fit hardly gets worse: told
    1.25 times too large, steps explained 0.98 and more. But misfits lean towards larger steps, so a smaller one that
    fits surely better is no accident. Where few places scatter, few patterns differ much, and standard errors are large
    although nearly all patterns agree: then ranks are as sure. Of a thick specimen, a trial's one slice tells steps
    badly.
    """
    if found.geometry.step_factor >= 1 or sample.depth_angstrom > 0:
        return False
    agree = change.sureness > _SURE and rank_sureness(change.without, found.best) > _SURE_OF_STEP
    return agree or change.sureness > _SURE_OF_STEP


class Pair(NamedTuple):
    """One of two geometries that no loss can tell apart.

    The detector turned by 180°, with the probe conjugated (which is the other sign of the defocus) and the object
    conjugated, gives the same patterns.

    Phases decide where few places have large ones, as atoms have. A lattice of three waves does not: the holes of a
    honeycomb, seen at the limit of resolution, look as atoms do, and its skewness is 0.82 = sqrt(2/3) with either sign.

    Attributes:
        geometry: The one of the two in which phases are positive; the one that was found if that is not known.
        reversed_defocus: Whether this one has the other sign of the defocus than the one that was found.
        both_reversed: Whether the geometry fits as it is told, but phases are negative.
        reason: Why this one was chosen.
        is_decided: Whether phases decided; otherwise it is the slip that is made more often.
    """

    geometry: Geometry
    reversed_defocus: bool
    both_reversed: bool
    reason: str
    is_decided: bool

    @classmethod
    def choose(cls, found: Found, sample: Sample) -> Pair:
        """Choose the one in which phases are positive, as those of atoms are for electrons."""
        geometry, skewness, wavelength = found.geometry, found.best.phase_skewness, sample.scan.wavelength_angstrom
        electrons = wavelength is not None and wavelength < _LONGEST_ELECTRON_WAVE
        defocus = (sample.told_defocus() or 0.0) + geometry.defocus_change_angstrom
        other = attrs.evolve(geometry, flips=tuple(each for each in BOTH_AXES if each not in geometry.flips))
        as_told = not geometry.swapped and not geometry.flips
        if not electrons or abs(skewness) < _SKEWED:
            # Of the two, the other sign of the defocus is the slip that is made more often.
            sign_alone = set(geometry.flips) == set(BOTH_AXES) and not geometry.swapped and defocus != 0
            reason = "the phases do not decide between the two"
            return cls(other, True, False, reason, False) if sign_alone else cls(geometry, False, False, reason, False)
        reason = f"that phases are then positive, as those of atoms are, decided (skewness {abs(skewness):.2g})"
        if skewness > 0:
            return cls(geometry, False, False, reason, True)
        both = as_told and found.seen > _SEEN
        return cls(other, defocus != 0, both, reason, True)


def _of_orientation(
    chosen: Pair, found: Found, change: Change | None, sample: Sample, data: Data | None
) -> Iterator[Problem]:
    defocus = (sample.told_defocus() or 0.0) + found.geometry.defocus_change_angstrom
    told = sample.told_defocus()
    lines = list(orientation_lines(chosen.geometry, data))
    wrong = ["how the scan lies against the detector"] if lines else []
    changed_defocus = any(each.name == "defocus_change_angstrom" and each.share < 0.85 for each in found.changes)
    if chosen.reversed_defocus or (changed_defocus and told is not None):
        value = -defocus if chosen.reversed_defocus else defocus
        lines.append(f"{_place(sample, 'defocus_angstrom')} defocus_angstrom = {_round(value, sample):g}")
        wrong.append("the sign of the defocus" if told is not None and told * value < 0 else "the defocus")
    text = f"the patterns contradict {' and '.join(wrong)}"
    if change is not None:
        text += f" ({_figures(change, found)})"
    elif chosen.both_reversed:
        text = (
            "the patterns fit as told, but with negative phases, which atoms do not have: probably the detector is "
            "turned by 180° and the defocus has the other sign"
        )
    yield _doubt(f"{text}: paste {', '.join(lines)}. {_pair_in_words(chosen, sample)}")


def _pair_in_words(chosen: Pair, sample: Sample) -> str:
    if sample.told_defocus() is None:
        return f"With the probe conjugated, the detector turned by 180° gives the same patterns; {chosen.reason}"
    return (
        'The detector turned by 180° (pattern_flip = ["rows", "columns"]) with the other sign of the defocus gives '
        f"the same patterns, with the phase negated, so no loss tells these two apart; {chosen.reason}"
    )


def _of_defocus(found: Found, change: Change, sample: Sample) -> Problem:
    told = sample.told_defocus()
    assert told is not None
    value = told + found.geometry.defocus_change_angstrom
    unit = next(
        (f" (it may be given in {name})" for factor, name in _UNITS.items() if _is_near(value, factor * told)), ""
    )
    return _doubt(
        f"a defocus of about {_round(value, sample):g} Å fits clearly better than {told:g} Å{unit} "
        f"({_figures(change, found)}): paste {_place(sample, 'defocus_angstrom')} "
        f"defocus_angstrom = {_round(value, sample):g}; a single slice stands for the middle of a specimen, so for a "
        "thick one this defocus is half the thickness off that of the surface"
    )


_UNITS = {10.0: "nm", 0.01: "pm", 0.1: "0.1 Å", 100.0: "10 nm"}


def _is_near(value: float, other: float) -> bool:
    return other != 0 and abs(value / other - 1) < 0.25


def _of_detector(found: Found, change: Change, sample: Sample, data: Data | None) -> Problem:
    factor, told = found.geometry.detector_factor, sample.told_semiangle()
    assert told is not None
    paste = " or ".join(f"paste {line}" for line in _detector_lines(factor, data)) or "check the pixel size"
    return _doubt(
        f"the bright disc of the patterns is {1 / factor:.3g} times as large as it would be with the pixels that are "
        f"told ({_figures(change, found)}): {paste}; or, if they are right, {_place(sample, 'semiangle_mrad')} "
        f"semiangle_mrad = {told / factor:.3g}; or check the energy"
    )


def _detector_lines(factor: float, data: Data | None) -> Iterator[str]:
    """Yield the setting that makes a detector pixel so many times as large."""
    powers = {"dk_per_angstrom": 1, "pixel_size_angstrom": -1, "detector_distance_m": -1}
    for name, power in powers.items():
        told = getattr(data, name, None)
        if told is not None:
            yield f"[data] {name} = {told * factor**power:.4g}"


def orientation_lines(geometry: Geometry, data: Data | None, walk: Walk | None = None) -> Iterator[str]:
    """Yield settings that give this orientation, of a raster that is walked otherwise; empty if they are as told."""
    told = (False, frozenset[str](), 0.0)
    if isinstance(data, FileDiffraction):
        told = (data.positions_order == "column_row", frozenset(data.positions_flip), data.positions_rotation_deg)
    before = told if walk is None else _orientation_of(walk.axes_22)
    ways = [_snapped(each, told[2]) for each in _quarter_turns(*combined(before, geometry))]
    swapped, flips, angle = min(
        ways, key=lambda way: (sum(a != b for a, b in zip(way, told, strict=True)), abs(way[2]))
    )
    if swapped != told[0]:
        yield f'[data] positions_order = "{"column_row" if swapped else "row_column"}"'
    if flips != told[1]:
        named = ", ".join(f'"{each}"' for each in BOTH_AXES if each in flips)
        yield f"[data] positions_flip = [{named}]"
    if angle != told[2]:
        yield f"[data] positions_rotation_deg = {angle:.3g}"


def _quarter_turns(swapped: bool, flips: frozenset[str], angle: float) -> Iterator[tuple[bool, frozenset[str], float]]:
    """Yield the four ways to write an orientation, with quarter turns as such or as exchange and flips."""
    for quarter in range(4):
        turned = Geometry(swapped=swapped, flips=tuple(flips), rotation_deg=90.0 * quarter).folded()
        yield turned.swapped, frozenset(turned.flips), (angle - 90.0 * quarter + 180.0) % 360.0 - 180.0


def _snapped(way: tuple[bool, frozenset[str], float], told: float) -> tuple[bool, frozenset[str], float]:
    """Return an orientation with the angle that was told, or no angle, if it is as good as that."""
    near = next((each for each in (told, 0.0, 90.0, -90.0, 180.0) if abs(way[2] - each) <= _SNAP_DEG), way[2])
    return way[0], way[1], near


def combined(told: tuple[bool, frozenset[str], float], geometry: Geometry) -> tuple[bool, frozenset[str], float]:
    """Return the settings of positions (swapped, flips, rotation) that have the effect of those told, then a geometry.

    Example:
        >>> combined((True, frozenset(), 0.0), Geometry(flips=("rows",)))
        (True, frozenset({'rows'}), 0.0)
    """
    axes_22 = _axes(geometry.swapped, geometry.flips)
    sense = 1.0 if np.linalg.det(axes_22) > 0 else -1.0  # a mirror turns a rotation around
    whole_22 = axes_22 @ _axes(told[0], told[1])
    angle = (geometry.rotation_deg + sense * told[2] + 180.0) % 360.0 - 180.0
    swapped = bool(whole_22[0, 0] == 0)
    flips = frozenset(name for name, row in zip(BOTH_AXES, whole_22, strict=True) if row.sum() < 0)
    return swapped, flips, float(angle)


def _orientation_of(axes_22: NDArray[np.float64]) -> tuple[bool, frozenset[str], float]:
    """Return the settings of positions that lay the two axes of a raster, rows first, along these columns."""
    ways = []
    for swapped, flips in ORIENTATIONS:
        turn_22 = axes_22 @ _axes(swapped, flips).T
        if np.linalg.det(turn_22) > 0:
            ways.append((swapped, frozenset(flips), float(np.degrees(np.arctan2(turn_22[0, 1], turn_22[0, 0])))))
    return min(ways, key=lambda way: abs(way[2]))


def _axes(swapped: bool, flips: frozenset[str] | tuple[str, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    signs_2 = np.array([-1.0 if name in flips else 1.0 for name in BOTH_AXES])
    axes_22: np.ndarray[tuple[int, int], np.dtype[np.float64]] = signs_2[:, None] * np.eye(2)[:: -1 if swapped else 1]
    return axes_22


def _place(sample: Sample, name: str) -> str:
    """Return the table of the recipe in which a setting of the probe is told."""
    in_probe = getattr(sample.told, name, None) is not None
    return "[model.probe]" if in_probe else "[data]"


def _round(defocus: float, sample: Sample) -> float:
    """Round a defocus to what the patterns tell."""
    step = sample.defocus_step_angstrom() or 1.0
    digits = -int(np.floor(np.log10(step / 8)))
    return float(round(defocus, digits))


def _figures(change: Change, found: Found) -> str:
    return (
        f"misfit of held-out patterns {change.without.misfit:.3g} as told, {found.best.misfit:.3g} so, "
        f"{found.best.empty:.3g} for an empty object"
    )


def _doubt(message: str) -> Problem:
    return Problem(message, severity="warning")
