"""What an HDF5 file says about itself that a recipe does not take into account."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from trainkit import without_controls
from trainkit_ptychography.scans.files.hdf5_live import HDF5File
from trainkit_ptychography.scans.patterns import PreparedPatterns
from trainkit_ptychography.scans.scan import Recording

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction

_MASKS = ("mask", "pixel_mask", "bad_pixels", "badpixels", "bad_pixel_mask")
_PROPAGATION = ("propagation", "propagation_type", "propagation_mode")
_NEAR = ("near", "fresnel")


def with_doubts(
    recording: Recording, settings: FileDiffraction, file: HDF5File, look_for_masks: bool = True
) -> Recording:
    """Return a recording with the doubts that its file raises."""
    with file.reading():
        found = tuple(_doubts(recording, settings, file, look_for_masks))
    return recording._replace(scan=attrs.evolve(recording.scan, doubts=found)) if found else recording


def _doubts(recording: Recording, settings: FileDiffraction, file: HDF5File, look_for_masks: bool) -> Iterator[str]:
    patterns = settings.patterns
    if patterns is not None and settings.pattern_axes is None and file.is_matlab(patterns):
        yield (
            f"{without_controls(patterns)} was written by Matlab, which reverses the order of axes, so patterns may be "
            'transposed: say it, pattern_axes = "nxy" if Matlab held (rows, columns, points), "nyx" if the order is '
            "right"
        )
    if settings.probe is not None and settings.probe_axes is None and file.is_matlab(settings.probe):
        yield (
            f"{without_controls(settings.probe)} was written by Matlab, which reverses the order of axes, so the "
            'probe may be transposed: say it, probe_axes = "mxy" if Matlab held (rows, columns, modes), "myx" if the '
            "order is right"
        )
    known, _ = file.datasets()
    for name, shape in known.items():
        leaf = name.rsplit("/", 1)[-1].lower()
        if (
            leaf in _PROPAGATION
            and shape in ((), (1,))
            and any(each in (file.text(name) or "").lower() for each in _NEAR)
        ):
            yield (
                f"{without_controls(name)} says that these are near-field patterns; the models here are for the far "
                "field alone"
            )
        if look_for_masks and leaf in _MASKS and settings.prepare.mask is None and name != patterns:
            yield from _unused_mask(recording, name, shape, file)


def _unused_mask(recording: Recording, name: str, shape: tuple[int, ...], file: HDF5File) -> Iterator[str]:
    patterns = recording.intensities_NYX
    if not isinstance(patterns, PreparedPatterns) or shape != patterns.frame_shape:
        return
    marked_VU = file.array(name) != 0
    marks = int(marked_VU.sum())
    if 2 * marks > marked_VU.size:  # then it marks the good ones
        marks, marked_VU = marked_VU.size - marks, ~marked_VU
        line = f'prepare = {{ mask = "{without_controls(name)}", mask_marks = "good" }}'
    else:
        line = f'prepare = {{ mask = "{without_controls(name)}" }}'
    if (marked_VU & patterns.preparation.used()).any():
        yield f"the file has a mask that is not used, {without_controls(name)}, with {marks} pixels: use it, {line}"
