"""Applies the settings that say which classes are trained, and which were annotated in which case."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import attrs

from trainkit import DataError, did_you_mean, some_of
from trainkit_segmentation.cases.case import CaseList
from trainkit_segmentation.spelling import IGNORE

_IGNORED = "data.ignored_values"


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
    return attrs.evolve(listing, labels=listing.labels.only(classes))


def with_regions(listing: CaseList, regions: Mapping[str, Sequence[int | str]] | None) -> CaseList:
    """Return a list of cases with classes that combine others, or label values.

    Args:
        listing: The cases.
        regions: Class -> its label values or numbers of masks, or the classes that it is made of; None: the classes
            that the data has.

    Raises:
        DataError: There is no such value or class, or two regions are the same.
    """
    if regions is None:
        return listing
    if IGNORE in regions:
        wanted = json.dumps(list(regions[IGNORE]), ensure_ascii=False)
        raise DataError(f'data.regions: "{IGNORE}" would be a class; voxels that do not count: {_IGNORED} = {wanted}')
    labels = listing.labels
    values = {name: values_named(listing, wanted, f"data.regions.{name}") for name, wanted in regions.items()}
    what = "the masks" if labels.masks else "the label values"
    alike: dict[tuple[int, ...], str] = {}
    for name, of in values.items():
        other = alike.setdefault(of, name)
        if other != name:
            raise DataError(f"data.regions: {other} and {name} are two names for {what} {_in_words(listing, of)}")
    members = {value: tuple(k for k, of in enumerate(values.values()) if value in of) for value in labels.members}
    return attrs.evolve(listing, labels=attrs.evolve(labels, classes=tuple(regions), exclusive=False, members=members))


def values_named(listing: CaseList, wanted: Sequence[int | str], setting: str) -> tuple[int, ...]:
    """Return the label values, or numbers of masks, that a setting names by number or by class.

    Args:
        listing: The cases, with the classes that the data has.
        wanted: Numbers, and names of classes.
        setting: The setting, for messages.

    Raises:
        DataError: There is no such value or class.
    """
    labels = listing.labels
    found: set[int] = set()
    for each in wanted:
        if isinstance(each, str):
            check_known(listing, [each], setting)
            found.update(labels.values_of(each))
        elif each not in labels.members or each == 0:
            declared = [value for value in labels.members if value != 0]
            raise DataError(
                f"{setting}: {listing.source} declares no {'mask' if labels.masks else 'label value'} {each}, only "
                f"{_in_words(listing, declared)}"
            )
        else:
            found.add(each)
    return tuple(sorted(found))


def _in_words(listing: CaseList, values: Sequence[int]) -> str:
    """Return label values as a list, and masks with their names."""
    masks = listing.labels.masks
    return some_of([f"{value} ({masks[value]})" for value in sorted(values)]) if masks else f"{sorted(values)}"


def annotated_classes(
    listing: CaseList, patterns: Mapping[str, Sequence[str]] | None
) -> dict[str, frozenset[str]] | None:
    """Return case -> the classes that were annotated in it.

    Args:
        listing: The cases, with the classes that are trained.
        patterns: Pattern of case names -> classes; None: all classes were annotated in all cases, but where masks are
            missing.

    Raises:
        DataError: A pattern fits no case, two fit the same one, or there is no such class.
    """
    if patterns is None and not listing.unannotated:
        return None
    every = frozenset(listing.labels.classes)
    found = {case.name: every for case in listing.cases}
    pattern_of: dict[str, str] = {}
    for pattern, classes in (patterns or {}).items():
        check_known(listing, classes, f'data.annotated."{pattern}"')
        fitting = [name for name in found if fnmatchcase(name, pattern)]
        if not fitting:
            raise DataError(f'data.annotated: "{pattern}" fits no case; {did_you_mean(pattern, found)}')
        for name in fitting:
            if name in pattern_of:
                raise DataError(f'data.annotated: "{pattern_of[name]}" and "{pattern}" both fit the case {name}')
            pattern_of[name] = pattern
            found[name] = frozenset(classes)
    return {name: classes - listing.unannotated.get(name, frozenset()) for name, classes in found.items()}


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
