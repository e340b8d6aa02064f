"""Applies the setting that says which label values or masks mark voxels that do not count."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

from trainkit import DataError, some_of
from trainkit_segmentation.cases.case import CaseList
from trainkit_segmentation.data.chosen_classes import values_named
from trainkit_segmentation.preparing.cached_cases import OpenCase
from trainkit_segmentation.spelling import IGNORE

if TYPE_CHECKING:
    from trainkit_segmentation.cases.labels import Labels
    from trainkit_segmentation.data.kind import SegmentationData


def ignored_named(listing: CaseList, wanted: Sequence[int | str]) -> tuple[int, ...]:
    """Return the label values or numbers of masks that a setting names by number or by class.

    Args:
        listing: The cases, with the classes that the data has.
        wanted: Numbers, and names of classes.

    Raises:
        DataError: There is no such class.
    """
    numbers = tuple(each for each in wanted if not isinstance(each, str))
    names = [each for each in wanted if isinstance(each, str) and not (each == IGNORE and listing.labels.ignored)]
    return (*numbers, *values_named(listing, names, "data.ignored_values"))


def with_ignored_values(listing: CaseList, values: Sequence[int], regions: Collection[str] = ()) -> CaseList:
    """Return a list of cases in which some label values, or masks, say that voxels do not count.

    Args:
        listing: The cases, with the classes that are trained.
        values: Label values or numbers of masks, beside those that the data set itself declares to be ignored.
        regions: Names of the classes that ``data.regions`` makes.

    Raises:
        DataError: A value is that of a class, or there is no such mask.
    """
    labels = listing.labels
    for value in values:
        if of := [labels.classes[k] for k in labels.members.get(value, ())]:
            rest = ", ".join(f'"{name}"' for name in labels.classes if name not in of)
            hint = f": to ignore its voxels, train without it: data.classes = [{rest}]" if rest else ""
            what, meaning = "mask" if labels.masks else "label value", f"is {some_of(of)}"
            if made := [name for name in of if name in regions]:
                meaning = f"belongs to {some_of(made)}"
                hint = f": to ignore its voxels, take it out of data.regions.{made[0]}"
            raise DataError(f"data.ignored_values: the {what} {value} {meaning}{hint}")
        if labels.masks and value not in labels.masks:
            known = some_of([f"{number} ({name})" for number, name in labels.masks.items()])
            raise DataError(f"data.ignored_values: {listing.source} has no mask {value}, only {known}")
    ignored = tuple(sorted({*labels.ignored, *values}))
    members = {value: of for value, of in labels.members.items() if value not in ignored}
    return attrs.evolve(listing, labels=attrs.evolve(labels, members=members, ignored=ignored))


def ignored_in_words(labels: Labels, cases: Mapping[str, OpenCase]) -> str | None:
    """Return a sentence on how much is ignored; None: nothing says what to ignore, or no voxels were read."""
    if not labels.ignored or not cases:
        return None
    some = {name: case for name, case in cases.items() if case.own_ignored}
    if not some:
        named = some_of([labels.masks.get(value, str(value)) for value in labels.ignored])
        return f"ignored: no voxel of any case, although {named} says what to ignore"
    share = sum(case.own_ignored for case in some.values()) / sum(_voxels(case) for case in cases.values())
    return f"ignored: {share:.3%} of all voxels, in {len(some)} of {len(cases)} cases; they count nowhere"


def doubts_about_ignored(settings: SegmentationData, cases: Mapping[str, OpenCase]) -> Iterator[str]:
    """Yield whether what a person ignores is in no case, and where too much is ignored.

    That is in cases that have nothing but ignored voxels, and along an axis along which only fixed places count.
    """
    if settings.ignored_values and cases and not any(case.own_ignored for case in cases.values()):
        named = some_of([str(each) for each in settings.ignored_values])
        yield f"data.ignored_values names {named}, but no case has such a voxel, so nothing is ignored"
    if whole := sorted(name for name, case in cases.items() if case.own_ignored == _voxels(case)):
        have = "case has" if len(whole) == 1 else "cases have"
        yield f"{len(whole)} {have} nothing but ignored voxels, and so nothing can be learned there: {some_of(whole)}"
    some = [case for case in cases.values() if 0 < case.own_ignored < _voxels(case)]
    if not some or len(some) < len(cases) or settings.augmentation.affine or settings.augmentation.elastic:
        return
    flip = settings.augmentation.flip
    for axis, name in enumerate("xyz"):
        if _is_in_fixed_places(some, settings.patch_size[axis], axis, flip is not None and axis in flip.axes):
            yield (
                f"along {name}, slices with voxels that count are never beside each other, and always in the same "
                f"places of a patch, since no volume is larger there: a network may learn nothing of the places "
                f"between. Make data.patch_size smaller along {name}, or add data.augmentation.affine = {{}}"
            )


def _is_in_fixed_places(cases: Sequence[OpenCase], n: int, axis: int, is_mirrored: bool) -> bool:
    """Return whether no two places beside each other, of the n of a patch along an axis, ever count."""
    if any(case.grid.shape[axis] > n or case.grid.shape[axis] == 1 for case in cases):
        return False
    places = np.zeros(n, dtype=bool)
    for case in cases:
        counts_XYZ = ~case.ignored(case.tensors["label_codes"]).numpy()
        first = (n - case.grid.shape[axis]) // 2
        others = tuple(other for other in range(3) if other != axis)
        places[first : first + case.grid.shape[axis]] |= counts_XYZ.any(axis=others)
        if is_mirrored:
            places |= places[::-1]
        if (places[1:] & places[:-1]).any():
            return False
    return True


def _voxels(case: OpenCase) -> int:
    x, y, z = case.grid.own_shape
    return x * y * z
