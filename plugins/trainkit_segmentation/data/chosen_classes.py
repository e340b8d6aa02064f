"""Applies the settings that say which classes are trained, and which were annotated in which case."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from trainkit import DataError, did_you_mean, some_of
from trainkit_segmentation.cases.case import CaseList

_LEAST_CASES = 3  # of a source; with fewer, a class may well be absent from all


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
    _check_known(listing, classes, "data.classes")
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
        _check_known(listing, classes, f'data.annotated."{pattern}"')
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


def advice_without(name: str, classes: Sequence[str]) -> str:
    """Return how to train without a class that is in no case."""
    others = [each for each in classes if each != name]
    if not others:
        return "check the label values"
    listed = ", ".join(f'"{each}"' for each in others)
    return f"check the label values, or train without it: data.classes = [{listed}]"


def _check_known(listing: CaseList, classes: Sequence[str], setting: str) -> None:
    for name in classes:
        if name not in listing.labels.classes:
            raise DataError(f'{setting}: there is no class "{name}"; {did_you_mean(name, listing.labels.classes)}')


def doubts_about_classes(
    classes: Sequence[str], division: Mapping[str, Sequence[str]], present: Mapping[str, Mapping[str, int]]
) -> Iterator[str]:
    """Yield which classes a split lacks, and why if no other division could help.

    Args:
        classes: All classes.
        division: Split -> names of its cases.
        present: Case -> class -> number of voxels.
    """
    for split, cases in division.items():
        if absent := [k for k in classes if not any(present[name][k] for name in cases)]:
            one = len(absent) == 1
            consequence = "cannot be learned" if split == "train" else f"{'has' if one else 'have'} no score there"
            alone = all(sum(bool(voxels[k]) for voxels in present.values()) == 1 for k in absent)
            reason = f", because only one case has {'it' if one else 'each'}" if alone else ""
            what = f"{some_of(absent)}: {'it' if one else 'they'}"
            yield f'no case of the split "{split}" has {what} {consequence}{reason}'


def doubts_about_sources(
    classes: Sequence[str],
    patterns: Mapping[str, Sequence[str]] | None,
    annotated: Mapping[str, frozenset[str]] | None,
    present: Mapping[str, Mapping[str, int]],
) -> Iterator[str]:
    """Yield which classes are in no case of a whole source, where cases of several sources are told apart by name.

    Args:
        classes: All classes.
        patterns: What ``data.annotated`` says. The lines to paste keep it, and each holds what those before it add.
        annotated: Case -> the classes that were annotated in it; None: all.
        present: Case -> class -> number of voxels.
    """
    sources: dict[str, list[str]] = {}
    for name in present:
        sources.setdefault(re.split(r"[\W_]*\d", name, maxsplit=1)[0], []).append(name)
    if not all(sources) or any(len(names) < _LEAST_CASES for names in sources.values()):
        return  # the names do not tell sources apart
    having = {
        source: {k: sum(bool(present[name][k]) for name in names) for k in classes} for source, names in sources.items()
    }
    usual = [k for k in classes if any(2 * having[source][k] >= len(names) for source, names in sources.items())]
    said = dict(patterns or {})
    for source, names in sources.items():
        known = [k for k in classes if annotated is None or any(k in annotated[name] for name in names)]
        lacking = [k for k in usual if k in known and not having[source][k]]
        rest = [k for k in known if k not in lacking]
        if not lacking or not rest:
            continue
        pattern = _pattern_of(source, names, present)
        said = {old: of for old, of in said.items() if not any(fnmatchcase(name, old) for name in names)}
        said[pattern] = rest
        line = ", ".join(f"{_quoted([old])} = [{_quoted(of)}]" for old, of in said.items())
        one = len(lacking) == 1
        yield (
            f"{some_of(lacking)} {'is' if one else 'are'} in none of the {len(names)} cases {pattern}, but usual in "
            f"others: if {'it was' if one else 'they were'} not annotated there, say so: data.annotated = {{ {line} }}"
        )


def _pattern_of(source: str, names: Sequence[str], every: Iterable[str]) -> str:
    """Return a pattern that fits all cases of a source, and no other case."""
    ends = {re.split(r"\d", name[len(source) :], maxsplit=1)[0] for name in names}
    between = ends.pop() if len(ends) == 1 else ""
    for pattern in (f"{source}*", f"{source}{between}*", f"{source}{between}[0-9]*"):
        if sum(fnmatchcase(name, pattern) for name in every) == len(names):
            return pattern
    return f"{source}{between}[0-9]*"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(json.dumps(name, ensure_ascii=False) for name in names)
