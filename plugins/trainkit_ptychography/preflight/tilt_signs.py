"""Whether several scans of a tilted specimen were tilted the way that is told: signs and axes of tilt pairs.

Each scan alone says nothing: a tilted beam through straight columns makes the patterns of a straight beam through
columns that lean. Together they do: with wrong signs, the columns would have to lean one way for one scan and the other
way for another. So an object of several slices is reconstructed from a few hundred patterns of all scans at once, for
each way in which the tilts can lie, and patterns that were held out tell these ways apart.

A tilt also moves what a scan shows, and so does a specimen that moved between the scans. So each way is tried out with
positions as they are told, and with scans that are moved to where they show the same.

Shapes: N = patterns, T = those held out, B = those of a step, R = scans, S = slices, M = probe modes, V, U = rows and
columns of the part of the detector that is used, H, W = those of the object.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trainkit import Problem, Progress
from trainkit_ptychography.physics.trial import Trial
from trainkit_ptychography.preflight.geometry import ORIENTATIONS
from trainkit_ptychography.preflight.in_slices import InSlices, Tilts
from trainkit_ptychography.preflight.look import FEWEST
from trainkit_ptychography.preflight.sample import parts_of_scans
from trainkit_ptychography.preflight.search import sureness, visibility

if TYPE_CHECKING:
    from trainkit_ptychography.probes.kind import Probe
    from trainkit_ptychography.scans.scan import Recording

_PATTERNS = 400  # of all scans together
_FEWEST_OF_SCAN = 49
_PIXELS = 2**20  # of all patterns together
_SURE = 4.5  # standard errors
_LARGEST_SHARE = 0.95  # of the gain of the best way, that one has which is wrong


class Way(NamedTuple):
    """A way in which the tilts may lie.

    Attributes:
        tilts_mrad: Of each scan, (rows, columns), without what all have in common.
        words: How it differs from what is told.
    """

    tilts_mrad: Tilts
    words: str


def ways(tilts_mrad: Sequence[tuple[float, float]]) -> list[Way]:
    """Return the ways in which tilts may lie that differ from each other; the first is as told.

    Example:
        >>> [each.tilts_mrad for each in ways([(-15.0, 0.0), (15.0, 0.0)])][:2]
        [((-15.0, 0.0), (15.0, 0.0)), ((15.0, 0.0), (-15.0, 0.0))]
    """
    found: list[Way] = []
    for swapped, flips in ORIENTATIONS:
        signs = (-1.0 if "rows" in flips else 1.0, -1.0 if "columns" in flips else 1.0)
        tilts = tuple((signs[0] * each[swapped] + 0.0, signs[1] * each[not swapped] + 0.0) for each in tilts_mrad)
        words = ["rows and columns exchanged"] if swapped else []
        words += [f"the opposite sign along {' and '.join(flips)}"] if flips else []
        if all(tilts != each.tilts_mrad for each in found):
            found.append(Way(tilts, ", ".join(words)))
    return found


def inspect_tilts(
    recording: Recording,
    probe: Probe,
    seed: int,
    thickness_angstrom: float,
    tilt_mrad: tuple[float, float],
    scan_tilts_mrad: Sequence[tuple[float, float]],
) -> Generator[str | Problem | Progress, None, Tilts]:
    """Yield whether tilts lie as told, and a doubt if another way fits clearly better; return the tilts that fit.

    Args:
        recording: Several scans.
        probe: The probe's settings.
        seed: The run's seed.
        thickness_angstrom: Thickness of the specimen.
        tilt_mrad: What all scans have in common.
        scan_tilts_mrad: The tilts as told.
    """
    as_told, num_scans = tuple(scan_tilts_mrad), recording.scan.num_scans
    num_of_scan = max(_FEWEST_OF_SCAN, _PATTERNS // num_scans)
    parts = parts_of_scans(recording, probe, seed, 0.0, num_of_scan, _PIXELS // num_scans)
    scan = recording.scan
    if parts is None or min(len(each.points_N) for each in parts) < FEWEST:
        yield "tilts        not compared with the patterns: too few of them"
        return as_told
    if scan.pixel_size_angstrom is None or scan.wavelength_angstrom is None:
        return as_told  # it is asked for elsewhere
    most_mrad = float(np.abs(np.array(tilt_mrad) + np.array(scan_tilts_mrad)).max())
    together = InSlices(parts, thickness_angstrom, tilt_mrad, most_mrad)
    tried = list[tuple[Way, Trial]]()
    all_ways = ways(scan_tilts_mrad)
    for number, way in enumerate(all_ways):
        yield Progress(number, len(all_ways), "ways in which the tilts may lie")
        tried.append((way, together.try_out(way.tilts_mrad)))
    told, (best_way, best) = tried[0][1], min(tried, key=lambda each: each[1].misfit)
    num = sum(len(each.points_N) for each in parts)
    figures = f"misfit of held-out patterns {told.misfit:.3g} as told, {best.misfit:.3g} so, {best.empty:.3g} of vacuum"
    if visibility(best) < _SURE:
        yield f"tilts        not judged: {num} patterns hardly differ from those of vacuum"
    elif best is not told and sureness(told, best) > _SURE and told.gain < _LARGEST_SHARE * best.gain:
        pasted = ", ".join(f"[{rows:g}, {columns:g}]" for rows, columns in best_way.tilts_mrad)
        yield Problem(
            f"the patterns contradict how the scans were tilted: {best_way.words} fits clearly better ({figures}): "
            f"paste scan_tilts_mrad = [{pasted}]",
            "scan_tilts_mrad",
            "warning",
        )
        return best_way.tilts_mrad
    else:
        others = [each for each in tried[1:] if sureness(told, each[1]) > -_SURE]
        if others:
            words = "; ".join(f"{way.words} ({trial.misfit:.3g})" for way, trial in others)
            yield (
                f"tilts        {num} patterns do not tell their signs and axes surely: misfit {told.misfit:.3g} as "
                f"told, and {words}"
            )
        else:
            nearest = min((trial.misfit for _, trial in tried[1:]), default=told.empty)
            yield (
                f"tilts        as told, by a trial with {num} patterns: misfit {told.misfit:.3g}, with other signs and "
                f"axes {nearest:.3g} at least"
            )
    return as_told
