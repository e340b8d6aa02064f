"""What an HDF5 file says about itself that a recipe does not take into account."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from trainkit import without_controls
from trainkit_ptychography.scans.files.hdf5_live import HDF5File
from trainkit_ptychography.scans.files.points_file import unit_named
from trainkit_ptychography.scans.patterns import PreparedPatterns
from trainkit_ptychography.scans.scan import Recording

if TYPE_CHECKING:
    from trainkit_ptychography.scans.files.kind import FileDiffraction

_MASKS = ("mask", "pixel_mask", "bad_pixels", "badpixels", "bad_pixel_mask")
_PROPAGATION = ("propagation", "propagation_type", "propagation_mode")
_NEAR = ("near", "fresnel")
_PART = re.compile(r"(chunk|part|block|data|frame|pattern)s?[\W_]*#?$", re.IGNORECASE)
_MOST_LISTED = 8


def with_doubts(
    recording: Recording,
    settings: FileDiffraction,
    file: HDF5File,
    look_for_masks: bool = True,
    more: Sequence[HDF5File] = (),
) -> Recording:
    """Return a recording with the doubts that its file raises, and those about units that files of ``more`` raise."""
    with file.reading():
        found = list(_doubts(recording, settings, file, look_for_masks))
    if settings.positions_path is None:
        for each in (file, *more):
            with each.reading():
                found += _other_unit(settings, each, "the file" if each is file else each.source)
    return recording.with_doubts(found)


def _doubts(recording: Recording, settings: FileDiffraction, file: HDF5File, look_for_masks: bool) -> Iterator[str]:
    named = (settings.patterns,) if isinstance(settings.patterns, str) else settings.patterns or ()
    patterns = named[0] if named else None
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
    if named and not settings.says_geometry:
        yield from _others_of_the_scan(named, known)
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


def _others_of_the_scan(named: Sequence[str], known: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yield whether patterns seem to go on in arrays whose names differ by the number of a part alone."""
    used = [each.strip("/") for each in named]
    shape = known.get(used[0])
    if shape is None:
        return
    others = [
        name
        for name, other in known.items()
        if name not in used and other[-2:] == shape[-2:] and len(other) == len(shape) and _is_next_part(used[0], name)
    ]
    if others:
        whole = sorted({*used, *others}, key=lambda name: [int(each) for each in re.findall(r"\d+", name)])
        listed = ", ".join(f'"{without_controls(each)}"' for each in whole[:_MOST_LISTED])
        more = ", …" if len(whole) > _MOST_LISTED else ""
        yield (
            f"{without_controls(used[0])} may be a part of the scan: the file has {len(others)} more like it, for "
            f"example {without_controls(others[0])}; name all in order, and their positions and masks: "
            f"patterns = [{listed}{more}]"
        )


def _is_next_part(name: str, other: str) -> bool:
    """Return whether two names differ in one number, of what is called a part: "chunks/0/data", "data_000002"."""
    ways, other_ways = name.split("/"), other.split("/")
    if len(ways) != len(other_ways):
        return False
    differ = [place for place, (one, two) in enumerate(zip(ways, other_ways, strict=True)) if one != two]
    if len(differ) != 1:
        return False
    (place,) = differ
    one, two = (re.sub(r"\d+", "#", each[place]) for each in (ways, other_ways))
    around = ways[place - 1] if one == "#" and place else one
    return one == two and bool(_PART.match(around))


def _other_unit(settings: FileDiffraction, file: HDF5File, where: str) -> Iterator[str]:
    """Yield whether a file says another unit of its positions than the recipe takes."""
    names = (settings.positions,) if isinstance(settings.positions, str) else settings.positions or ()
    for name in names:
        said = unit_named(file.units(name) or "")
        if said is not None and said != settings.unit:
            taken = "as the recipe says" if settings.positions_unit else "since the recipe says none"
            yield (
                f'{without_controls(name)} has the unit "{said}" in {where}, but is taken in {settings.unit}, '
                f'{taken}: positions_unit = "{said}"'
            )
            return


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
