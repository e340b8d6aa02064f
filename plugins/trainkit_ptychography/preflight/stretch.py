"""Whether scan points lie further apart along one axis of the scan, against the other one, than is told.

A step that is wrong along both axes is found by the search. Along one axis it is not: an object and a probe that are
stretched as well make up for most of it, so that a run ends with a stretched specimen and says nothing. But patterns
tell it surely, because nearly all of those that are held out fit a little worse.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import Data, Problem
from trainkit_ptychography.physics.trial import Trial
from trainkit_ptychography.preflight.geometry import Geometry
from trainkit_ptychography.preflight.sample import Sample
from trainkit_ptychography.preflight.search import rank_sureness, sureness
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.positions import oriented

_FACTOR = 0.85
_SURE, _SURE_BY_RANKS = 6.0, 4.5  # standard errors; of six scans told rightly, none fitted better by more than 1
_NONE = 2.0  # standard errors
_FURTHEST = 2.0  # times as far as trials: a parabola tells no more


class Stretch(NamedTuple):
    """A scan that is stretched along one axis, which patterns fit better.

    Attributes:
        axis: Which axis: 0: from one row of the scan to the next, 1: from one column to the next.
        factor: By how much distances along it are larger than is told.
        angle_deg: By how much the scan is turned.
        trial: How well patterns fit it, or one that is nearly stretched so.
    """

    axis: int
    factor: float
    angle_deg: float
    trial: Trial

    def axes(self) -> NDArray[np.float64]:
        """Return a step along that axis, and one along the other (2, 2), as a scan that is turned has them."""
        return oriented(np.eye(2)[[self.axis, 1 - self.axis]], False, (), self.angle_deg)


def _matrix(axis: int, factor: float, angle_deg: float) -> NDArray[np.float64]:
    straight_22 = oriented(np.eye(2), False, (), -angle_deg)
    straight_22[:, axis] *= factor
    return oriented(straight_22, False, (), angle_deg)


def stretch(sample: Sample, geometry: Geometry, told: Trial, data: Data | None) -> Stretch | None:
    """Return a stretched scan that patterns fit better beyond doubt; None: there is none.

    Args:
        sample: The patterns.
        geometry: The geometry.
        told: How well patterns fit it.
        data: The settings that tell how the scan is turned; None: it is not turned.
    """
    angle_deg = data.positions_rotation_deg if isinstance(data, FileDiffraction) else 0.0
    shorter, longer = (
        [_of_positions(sample, _matrix(axis, each, angle_deg)).try_out(geometry) for axis in (0, 1)]
        for each in (_FACTOR, 1 / _FACTOR)
    )
    better = [min(pair, key=lambda each: each.misfit) for pair in zip(shorter, longer, strict=True)]
    axis = int(better[1].misfit < better[0].misfit)
    is_shorter = better[axis] is shorter[axis]
    if sureness(told, better[axis]) <= _SURE or rank_sureness(told, better[axis]) <= _SURE_BY_RANKS:
        return None
    if sureness(told, (shorter if is_shorter else longer)[1 - axis]) > _NONE:
        return None  # along either axis: that is no stretched scan, but what a hidden beam, for one, does to trials
    curved = shorter[axis].misfit + longer[axis].misfit - 2 * told.misfit
    vertex = 0.5 * (shorter[axis].misfit - longer[axis].misfit) / curved if curved > 0 else np.inf
    nearest = -1.0 if is_shorter else 1.0
    power = vertex if abs(vertex) < _FURTHEST and vertex * nearest > 0 else nearest
    return Stretch(axis, float(_FACTOR**-power), angle_deg, better[axis])


def doubt_of_stretch(found: Stretch, told: Trial, data: Data | None) -> Problem:
    """Return the doubt about a scan.

    Args:
        found: The stretched scan.
        told: How well patterns fit the scan as it is told.
        data: Its settings; None: they are not known, so no line of theirs can be named.
    """
    this, other = ("row", "column") if found.axis == 0 else ("column", "row")
    steps = "check both steps of the scan"
    if isinstance(data, FileDiffraction) and (raster := data.raster) is not None:
        step = list(raster.step) if isinstance(raster.step, tuple) else [raster.step] * 2
        step[found.axis if data.positions_order == "row_column" else 1 - found.axis] *= found.factor
        steps = f"try [data] raster.step = [{step[0]:.3g}, {step[1]:.3g}], and check again"
    return Problem(
        f"patterns fit better, nearly all of them, if scan points lie {found.factor:.2g} times as far apart from one "
        f"{this} of the scan to the next, and as told from one {other} to the next (misfit of held-out patterns "
        f"{told.misfit:.4g} as told, {found.trial.misfit:.4g} so, {told.empty:.4g} for an empty object): {steps}; or "
        "the probe is astigmatic, and not told so",
        severity="warning",
    )


def _of_positions(sample: Sample, matrix_22: NDArray[np.float64]) -> Sample:
    scan = sample.part.scan
    moved = attrs.evolve(scan, positions_N2=scan.positions_N2 @ matrix_22)
    return attrs.evolve(sample, part=sample.part._replace(scan=moved))
