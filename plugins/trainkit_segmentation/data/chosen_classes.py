"""Applies the settings that say which classes are trained, and which were annotated in which case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from trainkit import DataError, did_you_mean, some_of
from trainkit_segmentation.cases.case import CaseList


def only_classes(listing: CaseList, classes: Sequence[str] | None) -> CaseList:
    """Return a list of cases with some of the classes.

    Args:
        listing: The cases.
        classes: The classes to keep; None: all.

    Raises:
        DataError: There is no such class.
    """
    if classes is None:
        return listing
    check_known(listing, classes, "data.classes")
    chosen = [listing.labels.classes.index(name) for name in classes]
    return attrs.evolve(
        listing,
        labels=listing.labels.only(classes),
        cases=tuple(_with_masks(case, chosen) for case in listing.cases),
    )


def with_regions(listing: CaseList, regions: Mapping[str, Sequence[int]] | None) -> CaseList:
    """Return a list of cases with classes that combine label values.

    Args:
        listing: The cases.
        regions: Class -> its label values; None: the classes that the data has.

    Raises:
        DataError: There is no such value, two regions are the same, or labels have no values.
    """
    if regions is None:
        return listing
    check_has_values(listing, "data.regions")
    labels = listing.labels
    declared = sorted({*labels.members} - {0})
    alike: dict[tuple[int, ...], str] = {}
    for name, wanted in regions.items():
        if unknown := [value for value in wanted if value not in declared]:
            raise DataError(
                f"data.regions.{name}: {listing.source} declares no label value {unknown[0]}, only {declared}"
            )
        other = alike.setdefault(tuple(sorted(set(wanted))), name)
        if other != name:
            raise DataError(f"data.regions: {other} and {name} are two names for the label values {list(wanted)}")
    members = {value: tuple(k for k, of in enumerate(regions.values()) if value in of) for value in labels.members}
    return attrs.evolve(listing, labels=attrs.evolve(labels, classes=tuple(regions), exclusive=False, members=members))


def check_has_values(listing: CaseList, setting: str) -> None:
    """Check that labels have values, which a setting names.

    Raises:
        DataError: Each class has a mask of its own.
    """
    if not listing.labels.members or any(getattr(case, "class_channels", ()) for case in listing.cases):
        raise DataError(f"{setting}: {listing.source} has a mask for each class, so its labels have no values to name")


def _with_masks(case: Any, chosen: Sequence[int]) -> Any:
    """Return a case with the masks of some classes, if it has a mask for each class."""
    for of_each_class in ("masks", "class_channels"):
        if masks := getattr(case, of_each_class, ()):
            return attrs.evolve(case, **{of_each_class: tuple(masks[k] for k in chosen)})
    return case


def annotated_classes(
    listing: CaseList, patterns: Mapping[str, Sequence[str]] | None
) -> dict[str, frozenset[str]] | None:
    """Return case -> the classes that were annotated in it.

    Args:
        listing: The cases, with the classes that are trained.
        patterns: Pattern of case names -> classes; None: all classes were annotated in all cases.

    Raises:
        DataError: A pattern fits no case, two fit the same one, or there is no such class.
    """
    if patterns is None:
        return None
    every = frozenset(listing.labels.classes)
    found = {case.name: every for case in listing.cases}
    pattern_of: dict[str, str] = {}
    for pattern, classes in patterns.items():
        check_known(listing, classes, f'data.annotated."{pattern}"')
        fitting = [name for name in found if fnmatchcase(name, pattern)]
        if not fitting:
            raise DataError(f'data.annotated: "{pattern}" fits no case; {did_you_mean(pattern, found)}')
        for name in fitting:
            if name in pattern_of:
                raise DataError(f'data.annotated: "{pattern_of[name]}" and "{pattern}" both fit the case {name}')
            pattern_of[name] = pattern
            found[name] = frozenset(classes)
    return found


def contradictions(annotated: Mapping[str, frozenset[str]], present: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a sentence for each class that is in a case although it was not annotated there.

    Args:
        annotated: Case -> the classes that were annotated in it.
        present: Case -> class -> number of voxels.
    """
    return [
        f"{name}: has {some_of(wrong)}, which data.annotated says were not annotated there"
        for name, voxels in present.items()
        if (wrong := [k for k, number in voxels.items() if number and k not in annotated[name]])
    ]


def check_known(listing: CaseList, classes: Sequence[str], setting: str) -> None:
    """Check that a setting names classes that there are.

    Raises:
        DataError: There is no such class.
    """
    for name in classes:
        if name not in listing.labels.classes:
            raise DataError(f'{setting}: there is no class "{name}"; {did_you_mean(name, listing.labels.classes)}')
