"""Compares scan, distance and probe that are told with images of the near field.

Images move along with the scan, and how far they move tells the magnification. Their Fresnel fringes tell the distance.

Shapes: M = probe modes, Y, X = rows and columns of the detector.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import atan2, degrees, sqrt
from typing import NamedTuple

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from trainkit import Problem
from trainkit_ptychography.constraints.told_probe import probe_at_start
from trainkit_ptychography.detector_propagations.near_field import NearField
from trainkit_ptychography.physics.propagation import propagate
from trainkit_ptychography.preflight.advice import orientation_lines
from trainkit_ptychography.preflight.geometry import ORIENTATIONS, Geometry
from trainkit_ptychography.probes.kind import Probe
from trainkit_ptychography.scans.fresnel_fringes import fresnel_fringes
from trainkit_ptychography.scans.kind import DiffractionData
from trainkit_ptychography.scans.near_field import motion_of_images
from trainkit_ptychography.scans.patterns import Patterns
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.sampling import edge_share
from trainkit_ptychography.scans.scan import Scan

_SCALED = 0.05  # by which images may move too far, or not far enough
_TURNED_DEG = 3.0
_FILLS = 0.5  # the detector's edge, against the brightest light
_LIKE_THE_BEAM = 0.7  # overlap of amplitudes; that of a flat beam with strong speckles is 0.89
_LOOKED_AT = 64  # patterns
_STRETCHED = 0.15  # by which a distance may differ from what fringes tell, which is right within 0.1
_WORSE = 16.0  # variances by which fringes must fit a distance worse to contradict it


def inspect_images(data: DiffractionData) -> Iterator[str | Problem]:
    """Yield lines about how patterns move and about their fringes, and a doubt if either contradicts what is told.

    Fringes are in pixels of the object, so they are compared only if nothing contradicts the size of a pixel.

    Raises:
        DataError: The scan cannot be read.
    """
    moved = list(inspect_motion(data))
    yield from moved
    if not any(isinstance(each, Problem) for each in moved):
        yield from inspect_distance(data)


def inspect_motion(data: DiffractionData) -> Iterator[str | Problem]:
    """Yield a line about how patterns move, and a doubt if that contradicts the scan that is told.

    Raises:
        DataError: The scan cannot be read.
    """
    patterns, scan = data.read()
    motion = motion_of_images(patterns, scan.positions_N2, scan.mask_YX)
    if motion is None:
        yield "geometry     not compared with the patterns: how they move from point to point is not seen"
        if (share := edge_share(_mean(patterns), scan.mask_YX)) < _FILLS:
            yield Problem(
                "patterns do not move along with the scan, and light does not fill the detector (its edge is "
                f"{100 * share:.0f} % as bright as the rest), as it does in the near field: if these are of the far "
                "field, take data.detector_propagation out",
                severity="warning",
            )
        return
    seen = geometry_of(-motion.matrix_22)  # images move against the beam
    turned = attrs.evolve(seen, rotation_deg=seen.rotation_deg if abs(seen.rotation_deg) > _TURNED_DEG else 0.0)
    found = f"{motion.num_pairs} pairs of neighbouring patterns"
    lines = list(orientation_lines(turned, data)) if turned != Geometry(step_factor=seen.step_factor) else []
    scaled = abs(seen.step_factor - 1) > _SCALED
    if not lines and not scaled:
        yield (
            f"geometry     as told: {found} move by {seen.step_factor:.3g} times what the scan tells, turned by "
            f"{seen.rotation_deg:.2g}°"
        )
        return
    yield f"geometry     not as told, by {found}"
    if lines:
        yield Problem(
            f"patterns move along with the scan, but not in the directions that are told: paste {', '.join(lines)}",
            severity="warning",
        )
    if scaled:
        yield Problem(
            f"patterns move {seen.step_factor:.3g} times as far as the scan and the size of an object pixel tell: "
            f"{' or '.join(_lines_of_scale(scan, seen.step_factor))}",
            severity="warning",
        )


def inspect_distance(data: DiffractionData) -> Iterator[str | Problem]:
    """Yield a line about what distance Fresnel fringes tell, and a doubt if it is not the one that is told.

    Raises:
        DataError: The scan cannot be read.
    """
    patterns, scan = data.read()
    found = _stretched(patterns, scan)
    if found is None:
        yield "distance     not compared with the patterns: they show no Fresnel fringes, or too few"
    elif not found.contradicts:
        yield f"distance     as told: Fresnel fringes fit {found.factor:.2g} times the effective distance (± 0.1)"
    else:
        yield "distance     not as told, by Fresnel fringes"
        lines = ", or ".join(_lines_of_distance(scan, found.factor))
        yield Problem(
            f"the Fresnel fringes of the patterns fit {found.factor:.3g} times the effective distance that is told, "
            f"unless the specimen has such rings in its spectrum, as spheres of one size have: {lines}",
            severity="warning",
        )


def contradictions(
    patterns: Patterns, scan: Scan, positions_N2: NDArray[np.float64], distance_factor: float = 1.0
) -> Iterator[str]:
    """Yield how images contradict the positions and the distance with which a reconstruction began, or ended.

    Args:
        patterns: The patterns.
        scan: What is told.
        positions_N2: Where the beam was, in pixels; any origin.
        distance_factor: The distance of the reconstruction over the one that is told.
    """
    motion = motion_of_images(patterns, positions_N2, scan.mask_YX)
    if motion is not None:
        seen = geometry_of(-motion.matrix_22)
        scaled, turned = abs(seen.step_factor - 1) > _SCALED, abs(seen.rotation_deg) > _TURNED_DEG
        if seen.swapped or seen.flips or turned:
            yield "images do not move in the directions in which the scan does"
        if scaled:
            yield f"images move {seen.step_factor:.3g} times as far as the scan and the size of an object pixel tell"
            return  # what follows is in pixels of the object
    found = _stretched(patterns, scan, distance_factor)
    if found is not None and found.contradicts:
        yield (
            f"Fresnel fringes fit {found.factor:.3g} times the effective distance, unless the specimen has such rings "
            "in its spectrum, as spheres of one size have"
        )


class _Stretched(NamedTuple):
    """What fringes say of a distance.

    Attributes:
        factor: The distance that they fit, over it.
        contradicts: Whether it is surely another one.
    """

    factor: float
    contradicts: bool


def _stretched(patterns: Patterns, scan: Scan, distance_factor: float = 1.0) -> _Stretched | None:
    """Return what fringes say of the distance that is told, times a factor; None: there are none."""
    square = scan.detector_propagation.squared_pixels(scan.exit_wave((patterns.shape[1], patterns.shape[2])))
    if square is None or (found := fresnel_fringes(patterns, scan.mask_YX, distance_factor * square)) is None:
        return None
    factor = found.squared_pixels / (distance_factor * square)
    return _Stretched(factor, max(factor, 1 / factor) > 1 + _STRETCHED and found.worse > _WORSE)


def inspect_beam(data: DiffractionData, probe: Probe, seed: int) -> Iterator[Problem]:
    """Yield a doubt if the probe that is told makes an image that is nothing like the mean pattern.

    Raises:
        DataError: The scan or the probe cannot be read.
    """
    patterns, scan = data.read()
    modes_MYX = probe_at_start(data, probe, seed)().detach().to(torch.complex128)
    transfer_YX = scan.detector_propagation.transfer(scan.exit_wave((patterns.shape[1], patterns.shape[2])))
    if transfer_YX is None or len(modes_MYX) < 1:
        return
    image_YX = propagate(modes_MYX, transfer_YX).abs().square().sum(0).numpy()
    counted_YX = np.ones(image_YX.shape, bool) if scan.mask_YX is None else scan.mask_YX
    told, seen = (np.sqrt(np.maximum(each_YX[counted_YX], 0)) for each_YX in (image_YX, _mean(patterns)))
    lengths = float(np.linalg.norm(told) * np.linalg.norm(seen))
    alike = float(told @ seen) / lengths if lengths > 0 else 0.0
    if alike < _LIKE_THE_BEAM:
        yield Problem(
            f"the image of the probe that is told is unlike the mean pattern (overlap of amplitudes {alike:.2f} of 1), "
            'which shows the beam: begin with probe = { use = "mean_pattern" }',
            "probe",
            "warning",
        )


def _mean(patterns: Patterns) -> NDArray[np.float64]:
    """Return the mean of a few dozen patterns (Y, X)."""
    some = np.unique(np.linspace(0, len(patterns) - 1, _LOOKED_AT).round().astype(np.int64))
    mean_YX: NDArray[np.float64] = np.nan_to_num(np.asarray(patterns[some], np.float64)).mean(axis=0)
    return mean_YX


def geometry_of(matrix_22: NDArray[np.floating]) -> Geometry:
    """Return the orientation, rotation (within ±45°) and step of a scan whose steps (row, column) @ matrix are seen."""

    def left(way: tuple[bool, tuple[str, ...]]) -> NDArray[np.float64]:
        return np.linalg.inv(oriented(np.eye(2), *way, 0.0)) @ matrix_22

    def angle(way: tuple[bool, tuple[str, ...]]) -> float:
        turned_22 = left(way)
        if np.linalg.det(turned_22) <= 0:
            return np.inf
        return degrees(atan2(turned_22[1, 0] - turned_22[0, 1], turned_22[0, 0] + turned_22[1, 1]))

    way = min(ORIENTATIONS, key=lambda each: abs(angle(each)))
    step = sqrt(abs(float(np.linalg.det(matrix_22))))
    return Geometry(swapped=way[0], flips=way[1], rotation_deg=angle(way), step_factor=step)


def _lines_of_scale(scan: Scan, factor: float) -> Iterator[str]:
    """Yield settings that make images move so many times as far."""
    propagation, distance_m = scan.detector_propagation, scan.detector_distance_m
    if scan.positions_unit == "pixels":
        yield "check positions_unit: positions in pixels are those of the object"
        return
    if isinstance(propagation, NearField) and distance_m is not None and propagation.effective_distance_mm is None:
        magnification = factor * propagation.magnification(distance_m)
        if magnification > 1:
            yield (
                'paste [data] detector_propagation = { use = "near_field", focus_distance_mm = '
                f"{1e3 * distance_m / (magnification - 1):.4g} }}"
            )
    assert scan.pixel_size_angstrom is not None
    yield f"check the size of an object pixel ({scan.pixel_size_angstrom / factor:.4g} Å would fit) and positions_unit"


def _lines_of_distance(scan: Scan, factor: float) -> Iterator[str]:
    """Yield settings that make the effective distance so many times as long, and leave the magnification as it is."""
    propagation, distance_m = scan.detector_propagation, scan.detector_distance_m
    if isinstance(propagation, NearField):
        effective_mm, focus_mm = propagation.effective_distance_mm, propagation.focus_distance_mm
        near_field = '[data] detector_propagation = { use = "near_field"'
        if effective_mm is not None:
            yield f"paste {near_field}, effective_distance_mm = {factor * effective_mm:.4g} }}"
        elif distance_m is not None:
            beam = "" if focus_mm is None else f"{near_field}, focus_distance_mm = {factor * focus_mm:.4g} }} and "
            place = "" if beam else "[data] "
            yield f"paste {beam}{place}detector_distance_m = {factor * distance_m:.4g}"
    yield "check the energy and the size of an object pixel"
