"""Compares the scan that is told with how patterns of the near field move: they are images, and move along with it."""

from __future__ import annotations

from collections.abc import Iterator
from math import atan2, degrees, sqrt

import attrs
import numpy as np
from numpy.typing import NDArray

from trainkit import Problem
from trainkit_ptychography.detector_propagations.near_field import NearField
from trainkit_ptychography.preflight.advice import orientation_lines
from trainkit_ptychography.preflight.geometry import ORIENTATIONS, Geometry
from trainkit_ptychography.scans.kind import DiffractionData
from trainkit_ptychography.scans.near_field import motion_of_images
from trainkit_ptychography.scans.positions import oriented
from trainkit_ptychography.scans.scan import Scan

_SCALED = 0.05  # by which images may move too far, or not far enough
_TURNED_DEG = 3.0


def inspect_motion(data: DiffractionData) -> Iterator[str | Problem]:
    """Yield a line about how patterns move, and a doubt if that contradicts the scan that is told.

    Raises:
        DataError: The scan cannot be read.
    """
    patterns, scan = data.read()
    motion = motion_of_images(patterns, scan.positions_N2, scan.mask_YX)
    if motion is None:
        yield "geometry     not compared with the patterns: how they move from point to point is not seen"
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


def geometry_of(matrix_22: NDArray[np.float64]) -> Geometry:
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
