"""Holds the geometry with which a reconstruction ended against what patterns fit best.

A run may repair what it was told wrong: a probe that trains makes up for a wrong defocus, and displacements for wrong
positions. So the probe and the positions of its result are tried out as those of a recipe are. A wrong geometry that
was not repaired fits held-out patterns worse than another one does, although the run may have fitted them all to noise.

Shapes: N = scan points, M = probe modes, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import nan
from typing import TYPE_CHECKING, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit_ptychography.physics.trial import Trial
from trainkit_ptychography.preflight.advice import matters
from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.look import Look, look_at_scan
from trainkit_ptychography.preflight.sample import Sample
from trainkit_ptychography.preflight.search import clearly_better, sureness, visibility
from trainkit_ptychography.preflight.single_scans import one_scan
from trainkit_ptychography.preflight.thick_step import doubt_of_step
from trainkit_ptychography.probes.kind import Probe
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.scan import Recording

if TYPE_CHECKING:
    from trainkit_ptychography.scans.kind import DiffractionData
    from trainkit_ptychography.scans.kind_live import LiveDiffraction

_SURE = 4.5  # standard errors
_LARGEST_SHARE = (
    0.85  # of what the best geometry explains; that of right ones was 0.97 and more, of wrong ones up to 0.74
)
_STEP = 0.08  # by which a step may be wrong without a word: patterns hardly tell
_HALF_THE_WAY = 0.5  # from a stretched scan to the one that patterns fit: trials tell it no better
_TURN_DEG = 3.0  # the same, of a rotation: the search is not finer
_LARGEST_SHARE_LEFT = 0.75
"""The same, where nothing is wrong with what was told: a short run, whose probe is on its way, had 0.87."""
_SEEN = 4.5  # standard errors by which a specimen must show in the best trial


class Ending(NamedTuple):
    """The geometry with which a reconstruction ended.

    Attributes:
        probe_MYX: The probe's modes, centred at pixel (Y//2, X//2); those of scans with probes of their own one after
            the other.
        positions_N2: Where the probe's centre was for each pattern of the data, in pixels; any origin.
        distance_factor: In the near field, the effective distance over the one that is told.
    """

    probe_MYX: NDArray[np.complexfloating]
    positions_N2: NDArray[np.float64]
    distance_factor: float = 1.0


class Verdict(NamedTuple):
    """What patterns say of the geometry with which a reconstruction ended.

    Attributes:
        is_judged: Whether they tell one geometry from another.
        line: What they say.
        doubt: Why the reconstruction is wrong by all appearance; None: it is not.
        share: What the geometry of the result explains, over what the best one does; NaN: not judged.
        sureness: By how many standard errors the best one fits better.
    """

    is_judged: bool
    line: str
    doubt: str | None = None
    share: float = nan
    sureness: float = nan


@attrs.frozen(eq=False)
class _Ended(Probe):
    """A probe with which a reconstruction ended."""

    modes_MYX: NDArray[np.complexfloating] = attrs.field(kw_only=True)

    def guess(self, data: LiveDiffraction) -> NDArray[np.complexfloating]:
        return self.modes_MYX


class GeometryJudge:
    """Knows what the patterns of a recipe's data fit best, so that endings can be held against it.

    Args:
        recording: The data.
        data: Its settings; None: they are not known, so no line of theirs can be named.
        probe: The probe's settings.
        seed: The run's seed.
        depth_angstrom: How deep in the specimen its middle is.
        tilts_differ: Whether the specimen was tilted between the scans that the data joins.
        probe_is_trained: Whether the run made up for a probe that is slightly wrong.
    """

    def __init__(
        self,
        recording: Recording,
        data: DiffractionData | None,
        probe: Probe,
        seed: int,
        *,
        depth_angstrom: float = 0.0,
        tilts_differ: bool = False,
        probe_is_trained: bool = False,
    ) -> None:
        self._num_probes, scan = probe.num_scans(), recording.scan
        self._points: list[NDArray[np.int64]] = [np.arange(len(scan.positions_N2))]
        recordings = [recording]
        if scan.num_scans > 1 and (self._num_probes > 1 or tilts_differ):
            assert scan.scan_N is not None
            recordings = [one_scan(recording, number) for number in range(scan.num_scans)]
            self._points = [np.flatnonzero(scan.scan_N == number) for number in range(scan.num_scans)]
        self._looks = [
            look_at_scan(each, data, probe.of_scan(number), seed, depth_angstrom, probe_is_trained)
            for number, each in enumerate(recordings)
        ]

    def judge(self, ending: Ending) -> Iterator[Verdict]:
        """Yield what patterns say of a geometry, for each scan that is looked at alone."""
        num = len(self._looks)
        probes = np.split(ending.probe_MYX, self._num_probes)
        for number, (look, points_N) in enumerate(zip(self._looks, self._points, strict=True)):
            if look is None:
                yield Verdict(False, "not judged: too few patterns")
                continue
            own = Ending(probes[number if self._num_probes > 1 else 0], ending.positions_N2[points_N])
            verdict = judge(look, own)
            if verdict.doubt is None and look.sample.depth_angstrom > 0:
                verdict = verdict._replace(doubt=_doubt_of_thick_step(_ended(look, own), look.sample.depth_angstrom))
            if num > 1:
                scan = f"scan {number} of {num}, counted from 0: "
                doubt = None if verdict.doubt is None else scan + verdict.doubt
                verdict = verdict._replace(line=scan + verdict.line, doubt=doubt)
            yield verdict


def judge(look: Look, ending: Ending) -> Verdict:
    """Return what the patterns of one scan say of the geometry with which a reconstruction of it ended."""
    ended, found = _tried_out(look, ending), look.found
    num = len(look.sample.points_N)
    # In a thick specimen, a trial's one slice may fit best at another depth, which is no contradiction.
    best = found.best if look.advice.doubts or look.sample.depth_angstrom == 0 else found.told
    figures = (
        f"misfit of held-out patterns {ended.misfit:.3g}, {best.misfit:.3g} at best, {best.empty:.3g} of an empty "
    )
    figures += "object"
    if not look.advice.is_judged or visibility(best) < _SEEN:
        unexplained = look.advice.doubts and visibility(ended) < _SEEN
        doubt = look.advice.doubts[0].message if unexplained else None
        return Verdict(False, f"not judged: {num} patterns tell no geometry from another", doubt)
    share, sure = (best.empty - ended.misfit) / max(best.gain, 1e-30), sureness(ended, best)
    verdict = Verdict(True, "", None, share, sure)
    surely = clearly_better(ended, best) if look.walks_otherwise else sure > _SURE
    if (share > _LARGEST_SHARE or not surely) and not _keeps_wrong_positions(look, ending):
        told = found.told.misfit > best.misfit and any(look.advice.doubts)
        words = "the run has repaired what it was told wrong" if told else "nothing that was tried fits clearly better"
        return verdict._replace(line=f"{words}, by trials with {num} patterns ({figures})")
    if not look.advice.doubts:
        where = "what was told fits better than the probe and the positions with which the run ended"
        if share > _LARGEST_SHARE_LEFT:
            line = f"{where}: it has not converged (trials with {num} patterns: {figures})"
            return verdict._replace(line=line)
        left = f"{where} ({figures}): lower the learning rates of the probe and the positions, or start them later"
        return verdict._replace(line=f"left by the run, by trials with {num} patterns ({figures})", doubt=left)
    return verdict._replace(
        line=f"wrong by all appearance, by trials with {num} patterns ({figures})",
        doubt="the geometry is wrong by all appearance: a trial with the probe and the positions of the result fits "
        f"held-out patterns worse than another geometry does ({figures}): {look.advice.doubts[0].message}",
    )


def _keeps_wrong_positions(look: Look, ending: Ending) -> bool:
    """Return whether patterns contradict how scan points lie, and the result has them as they were told.

    How well the result fits says less: a larger defocus and a larger specimen make up for much of a step that is too
    large, and a probe of several modes for some of a rotation (a scan turned by 10 degrees explained 0.90). But only
    positions that moved can have repaired either, and they are known.
    """
    if not look.advice.is_judged or look.walks_otherwise:
        return False
    geometry = look.found.geometry
    wrong = {each.name for each in look.found.changes if matters(each, look.found, look.sample, True)}
    told_N2, ended_N2 = look.sample.part.scan.positions_N2, ending.positions_N2[look.sample.points_N]
    if look.stretch is not None:
        ended_22 = np.linalg.lstsq(told_N2 - told_N2.mean(axis=0), ended_N2 - ended_N2.mean(axis=0), rcond=None)[0]
        along, across = np.linalg.norm(look.stretch.axes() @ ended_22, axis=1)
        return bool(np.log(along / across) / np.log(look.stretch.factor) < _HALF_THE_WAY)
    if "step_factor" in wrong:
        spreads = [float((each - each.mean(axis=0)).std()) for each in (told_N2, ended_N2)]
        if abs(geometry.step_factor * spreads[0] / spreads[1] - 1) > _STEP:
            return True
    if not wrong & {"orientation", "rotation_deg"}:
        return False
    ended_22, found_22 = (
        np.linalg.lstsq(told_N2 - told_N2.mean(axis=0), each - each.mean(axis=0), rcond=None)[0].T
        for each in (ended_N2, oriented(told_N2, geometry.swapped, geometry.flips, geometry.rotation_deg))
    )
    left_22 = found_22 @ np.linalg.inv(ended_22)  # how the scan of the result would have to be turned, or mirrored
    if np.linalg.det(left_22) < 0:
        return True
    turn = abs(np.degrees(np.arctan2(left_22[1, 0] - left_22[0, 1], left_22[0, 0] + left_22[1, 1])))
    # Half a turn with the probe conjugated gives the same patterns: whether the probe is, its fit says.
    return bool(min(turn, 180 - turn) > _TURN_DEG)


def _doubt_of_thick_step(ended: Sample, depth_angstrom: float) -> str | None:
    """Return why the positions of a thick specimen's result are wrong by all appearance; None: they are not."""
    words = doubt_of_step(ended, 2 * depth_angstrom)
    return None if words is None else f"the geometry of the result is wrong by all appearance: {words}"


def _tried_out(look: Look, ending: Ending) -> Trial:
    """Reconstruct an object with the probe and the positions with which a reconstruction ended."""
    return _ended(look, ending).try_out(Geometry())


def _ended(look: Look, ending: Ending) -> Sample:
    """Return the patterns with the probe and the positions with which a reconstruction ended."""
    part = look.sample.part
    scan = attrs.evolve(part.scan, positions_N2=ending.positions_N2[look.sample.points_N])
    spectrum_MYX = np.roll(np.fft.fft2(ending.probe_MYX), [-each for each in look.sample.beam_2], axis=(1, 2))
    told = _Ended(modes_MYX=np.fft.ifft2(spectrum_MYX))
    return attrs.evolve(look.sample, part=part._replace(scan=scan), told=told)
