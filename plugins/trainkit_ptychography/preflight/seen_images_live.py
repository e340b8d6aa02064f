"""Finds out whether patterns are images of the specimen, and how the beam that makes them diverges."""

from __future__ import annotations

from typing import Any, cast

import attrs
import numpy as np

from trainkit import DataError
from trainkit_ptychography.detector_propagations.near_field import NearField
from trainkit_ptychography.preflight.images import geometry_of
from trainkit_ptychography.preflight.sample import lit_part
from trainkit_ptychography.preflight.seen_images import Images
from trainkit_ptychography.scans.descan import motion_of_light
from trainkit_ptychography.scans.files.kind import FileDiffraction
from trainkit_ptychography.scans.near_field import Motion, motion_of_images
from trainkit_ptychography.scans.scan import Recording, unsaid_near_field

_LOOKED_AT = 64  # patterns
_STAYS = 0.5  # of a motion, at least, that is one within light that stays where it is
_DIVERGES = 1.05  # magnification, above which a beam is not taken to be parallel


def look_for_images(data: FileDiffraction) -> Images | None:
    """Return what images tell of the beam; None: patterns do not look like images, or it is not known where they lie.

    Args:
        data: The settings, of which some that a run needs may be missing.
    """
    if data.with_points() is not data and data.raster is None and data.positions is None:
        return None  # nobody told the points
    try:
        if data.detector_propagation.patterns_are_images:
            return Images("as --set says", data.detector_propagation)
        recording = data.read()
        scan = recording.scan
        motion = motion_of_images(recording.intensities_NYX, scan.positions_N2, scan.mask_YX)
        why = None if unsaid_near_field(*recording) is None else "light fills the detector"
        if why is None and motion is not None:
            why = _too_wide(recording, motion)
        if why is None:
            return None
        magnification = None
        parallel = attrs.evolve(cast(Any, data), detector_propagation=NearField()).read().scan  # not magnified
        if motion is not None and scan.pixel_size_angstrom and parallel.pixel_size_angstrom:
            pixels = parallel.pixel_size_angstrom / scan.pixel_size_angstrom
            magnification = pixels * geometry_of(-motion.matrix_22).step_factor
        return _in_words(why, magnification, parallel.detector_distance_m)
    except DataError:
        return None  # what is wrong is said where patterns are looked into


def _too_wide(recording: Recording, motion: Motion) -> str | None:
    """Return that the beam cannot be that of a far field, by how its shadow images move; None: it can.

    A beam that is far out of focus makes shadow images in the far field, too. But these tell the beam's width on the
    specimen, and in the far field it has to fit into an array with as many pixels as the detector.
    """
    patterns, scan = recording
    light = motion_of_light(patterns, scan.positions_N2, scan.mask_YX)
    if light is not None and light.is_seen():
        left_22 = motion.matrix_22 - light.matrix_22
        if np.linalg.norm(left_22) < _STAYS * np.linalg.norm(motion.matrix_22):
            return None  # all the light moves, and so does what is in it: the beam is not tilted back
    some = np.unique(np.linspace(0, len(patterns) - 1, _LOOKED_AT).round().astype(np.int64))
    lit_2 = lit_part(np.nan_to_num(np.asarray(patterns[some], np.float64)).mean(axis=0))
    pixels = max(lit_2) / np.sqrt(abs(np.linalg.det(motion.matrix_22)))
    if pixels <= max(patterns.shape[1:]):
        return None
    return (
        f"in the far field the beam would be {pixels:.3g} pixels wide, more than its array of {max(patterns.shape[1:])}"
    )


def _in_words(why: str, magnification: float | None, distance_m: float | None) -> Images:
    """Return what the magnification of images tells of the beam."""
    if magnification is None or distance_m is None:
        return Images(f"{why}; for a diverging beam add focus_distance_mm, from the focus to the specimen", NearField())
    found = f"{why}; images move {magnification:.3g} times as far as the scan"
    if magnification < _DIVERGES:
        return Images(f"{found}: a parallel beam", NearField())
    focus_mm = float(f"{1e3 * distance_m / (magnification - 1):.3g}")
    return Images(f"{found}: so far is the specimen behind the focus", NearField(focus_distance_mm=focus_mm))
