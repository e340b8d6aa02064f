"""Leaves out the mask files of no class, and decides what it means for a case that a mask has no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from trainkit import some_of
from trainkit_segmentation.cases.case import CaseList, FileCase
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.data.chosen_classes import annotated_classes

_MEANS = {"not_annotated": "not annotated", "empty": "empty"}


def with_masks_in_use(listing: CaseList, patterns: Mapping[str, Sequence[str]] | None) -> CaseList:
    """Return a list of cases with the masks that they need, and with what is known of those that have no file.

    Args:
        listing: The cases, with the classes that are trained and the masks that are ignored.
        patterns: What ``data.annotated`` says. A class that was not annotated in a case needs no mask there.
    """
    labels = listing.labels
    if not labels.masks or not any(isinstance(case, FileCase) and case.label is None for case in listing.cases):
        return listing
    annotated = annotated_classes(listing, patterns) or {}
    cases: list[FileCase] = []
    problems: list[str] = []
    lost: dict[str, frozenset[str]] = {}
    lacking_in: dict[int, int] = {}
    for case in listing.cases:
        assert isinstance(case, FileCase)
        pairs = [each for each in zip(case.mask_values, case.masks, strict=True) if labels.is_used(each[0])]
        lacking = {value: why for value, why in listing.missing.get(case.name, {}).items() if labels.is_used(value)}
        for value in lacking:
            lacking_in[value] = lacking_in.get(value, 0) + 1
        of_classes = [value for value in lacking if value not in labels.ignored]
        needed = annotated.get(case.name, frozenset(labels.classes))
        wrong = [value for value in of_classes if needed & set(_classes_of(labels, value))]
        if listing.missing_masks == "error" and wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            what, _, hint = lacking[wrong[0]].partition("; ")
            problems.append(f"{case.name}: {what}{more}; {hint}")
            continue
        unknown = () if listing.missing_masks == "empty" else tuple(of_classes)
        gone = frozenset(name for value in unknown for name in _classes_of(labels, value))
        if len(gone) == len(labels.classes):
            problems.append(f"{case.name}: no class is known there, since masks are missing: leave the case out")
            continue
        lost |= {case.name: gone} if gone else {}
        values, paths = tuple(value for value, _ in pairs), tuple(path for _, path in pairs)
        cases.append(attrs.evolve(case, mask_values=values, masks=paths, unknown_masks=unknown))
    if problems and listing.missing_masks == "error":
        problems[-1] += (
            "; if nobody looked for what has no mask, say so: data.missing_masks = "
            '"not_annotated"; if somebody did, and it is not there: data.missing_masks = "empty"'
        )
    if all_lack := [labels.masks[value] for value in labels.ignored if lacking_in.get(value) == len(listing.cases)]:
        problems.append(f"the mask {some_of(all_lack)}, which says what to ignore, is in no case")
    return attrs.evolve(
        listing,
        cases=tuple(cases),
        problems=(*listing.problems, *problems),
        notes=(*listing.notes, *_notes(listing, lacking_in)),
        unannotated=lost,
    )


def _notes(listing: CaseList, lacking_in: Mapping[int, int]) -> list[str]:
    """Return what missing files of masks are taken as."""
    labels, number = listing.labels, len(listing.cases)
    in_words = {value: f"{labels.masks[value]} in {of} of {number} cases" for value, of in sorted(lacking_in.items())}
    notes = []
    if listing.missing_masks != "error" and (some := [in_words[v] for v in in_words if v not in labels.ignored]):
        notes.append(f"masks without a file count as {_MEANS[listing.missing_masks]}: {some_of(some)}")
    if some := [in_words[value] for value in in_words if value in labels.ignored]:
        notes.append(f"nothing is ignored where there is no mask that says so: {some_of(some)}")
    return notes


def _classes_of(labels: Labels, value: int) -> list[str]:
    return [labels.classes[k] for k in labels.members[value]]
