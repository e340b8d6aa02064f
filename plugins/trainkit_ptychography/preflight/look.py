"""A look at the geometry of one scan: trials of the one that is told and of others, and what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.preflight.advice import Advice, advise, advise_to_walk, fits_nothing
from trainkit_ptychography.preflight.geometry import ORIENTATIONS, Geometry
from trainkit_ptychography.preflight.place import place_of_specimen
from trainkit_ptychography.preflight.sample import Sample, coarse_sample, middle_points, sample
from trainkit_ptychography.preflight.search import Found, Search, clearly_better, visibility
from trainkit_ptychography.preflight.stretch import Stretch, doubt_of_stretch, stretch
from trainkit_ptychography.preflight.walks import other_walks
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.scan import Recording

if TYPE_CHECKING:
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.scans.kind import DiffractionData

PATTERNS = 256
FEWEST = 25
_CLEAR = 12.0  # standard errors by which what is told is better than vacuum: then orientations are not tried out, too


class Look(NamedTuple):
    """What a look at a scan found.

    Attributes:
        advice: What is said of it.
        found: How well the patterns fit what is told, and what they fit best.
        sample: The patterns of the scan as it is told.
        walks_otherwise: Whether what was found is of the points in another order, and so of other patterns.
        stretch: What was found if the scan is stretched along one axis; None: it is not.
    """

    advice: Advice
    found: Found
    sample: Sample
    walks_otherwise: bool = False
    stretch: Stretch | None = None


def look_at_scan(
    recording: Recording,
    data: DiffractionData | None,
    probe: Probe,
    seed: int,
    depth_angstrom: float,
    probe_is_trained: bool,
) -> Look | None:
    """Return what the patterns of a scan say of its geometry; None: there are too few.

    Patterns of the middle of the scan are looked at, or, if these tell nothing, of a place where patterns
    differ more: much of the middle may be vacuum.

    A fine detector is binned. Where no geometry fits binned patterns, or they cannot tell, all its pixels are looked
    at: they leave room for a probe that is far more out of focus.

    Args:
        recording: The scan.
        data: Its settings; None: they are not known, so no line of theirs can be named.
        probe: The probe's settings.
        seed: The run's seed.
        depth_angstrom: How deep in the specimen its middle is: there it is tried out as if it were thin.
        probe_is_trained: Whether the run will make up for a probe that is slightly wrong.
    """
    asked = (data, probe, seed, depth_angstrom, probe_is_trained)
    look = _look_about(recording, None, *asked)
    if look is None or look.advice.is_judged:
        return look
    if (place_2 := place_of_specimen(recording)) is None:
        return look
    elsewhere = _look_about(recording, place_2, *asked)
    if elsewhere is None or not elsewhere.advice.is_judged:
        return look
    line = f"{elsewhere.advice.line}; they are away from the middle of the scan, which shows little or no specimen"
    return elsewhere._replace(advice=elsewhere.advice._replace(line=line))


def _look_about(
    recording: Recording,
    place_2: NDArray[np.float64] | None,
    data: DiffractionData | None,
    probe: Probe,
    seed: int,
    depth_angstrom: float,
    probe_is_trained: bool,
) -> Look | None:
    """Return what patterns about a place say; None: there are too few."""
    points_N = middle_points(recording, PATTERNS, place_2)
    if len(points_N) < FEWEST:
        return None
    part = sample(recording, points_N, probe, seed, depth_angstrom, about_2=place_2)
    if (coarse := coarse_sample(part, recording, points_N, place_2)) is not part:
        look = _look(recording, data, coarse, probe_is_trained)
        if look.advice.is_judged and not fits_nothing(look.found, coarse):
            return look
    return _look(recording, data, part, probe_is_trained)


def _look(recording: Recording, data: DiffractionData | None, part: Sample, probe_is_trained: bool) -> Look:
    search = Search(part)
    if isinstance(data, FileDiffraction) and (look := _look_at_walks(recording, data, search)):
        return look
    found = search()
    look = Look(advise(found, part, data, probe_is_trained), found, part)
    # A slice that stands for a thick specimen, or a rough guess of a probe, fits better at other distances anyway.
    if not look.advice.is_judged or look.advice.doubts or part.depth_angstrom > 0 or part.told_defocus() is None:
        return look
    if (other := stretch(part, found.geometry, found.best, data)) is None:
        return look
    doubt = doubt_of_stretch(other, found.best, data)
    advice = Advice((doubt,), f"geometry     not as told, by a trial with {len(part.points_N)} patterns")
    return Look(advice, attrs.evolve(found, best=other.trial), part, stretch=other)


def _look_at_walks(recording: Recording, data: FileDiffraction, told: Search) -> Look | None:
    """Return a look if the patterns fit clearly better with the points of a raster in another order; None: they do not.

    This is tried out before anything else, because in a wrong order no geometry fits.
    """
    as_told = told.trial(Geometry())
    geometries = [Geometry()]
    if visibility(as_told) < _CLEAR:
        geometries = [Geometry(swapped=swapped, flips=flips) for swapped, flips in ORIENTATIONS]
    best_told = max((told.trial(each) for each in geometries), key=lambda each: each.gain)
    best = None
    for walk in other_walks(recording):
        walked = recording._replace(scan=attrs.evolve(recording.scan, positions_N2=walk.positions_N2))
        points_N = middle_points(walked, PATTERNS)
        asked = (told.sample.told, told.sample.seed, told.sample.depth_angstrom)
        search = Search(sample(walked, points_N, *asked, binned=told.sample.binned))
        trial = max((search.trial(each) for each in geometries), key=lambda each: each.gain)
        if best is None or trial.gain > best[2].gain:
            best = walk, search, trial
    if best is None or not clearly_better(best_told, best[2]):
        return None
    walk, search, _ = best
    found = search()
    return Look(advise_to_walk(walk, found, as_told, search.sample, data), found, told.sample, True)
