"""Recognises labels in which each channel is the mask of a class."""

from __future__ import annotations

import attrs

from trainkit import DataError, some_of
from trainkit_segmentation.cases.case import CaseList, FileCase
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.files.images import read_header


def with_classes_in_channels(listing: CaseList) -> CaseList:
    """Return a list of cases, with a class in each channel of a label if labels have several channels.

    The first label that can be read decides. With a channel more than there are classes, the first is the background.
    """
    header = None
    for case in listing.cases:
        if not isinstance(case, FileCase) or case.label is None:
            return listing
        try:
            header = read_header(case.label)
            break
        except DataError:  # reported when the case is inspected or read
            continue
    if header is None or header.channels == 1:
        return listing
    classes = listing.labels.classes
    if listing.labels.ignored:
        problem = f"{header.path}: each channel of the label is the mask of a class, so no label value can be ignored"
        return attrs.evolve(listing, problems=(*listing.problems, problem))
    first = header.channels - len(classes)
    if first not in (0, 1):
        problem = (
            f"{header.path}: the label has {header.channels} channels, but the data set names {len(classes)} classes, "
            f"{some_of(classes)}: where each channel is the mask of a class, it must have one for each"
        )
        cases = tuple(
            attrs.evolve(case, label_channels=header.channels) for case in listing.cases if isinstance(case, FileCase)
        )
        return attrs.evolve(listing, cases=cases, problems=(*listing.problems, problem))
    value_of = {of[0]: value for value, of in listing.labels.members.items() if of and listing.labels.exclusive}
    by_value = sorted(range(len(classes)), key=lambda k: (value_of.get(k, 0), k))
    channels = tuple(first + by_value.index(k) for k in range(len(classes)))
    named = ", ".join(f"{channel} is {name}" for channel, name in sorted(zip(channels, classes, strict=True)))
    how = "a voxel may be of several classes" if first == 0 else "channel 0 is the background"
    cases = tuple(
        attrs.evolve(case, label_channels=header.channels, class_channels=channels, has_background_channel=first == 1)
        for case in listing.cases
        if isinstance(case, FileCase)
    )
    return attrs.evolve(
        listing,
        cases=cases,
        labels=Labels(classes, first == 1, members=listing.labels.members if first == 1 else {}),
        notes=(*listing.notes, f"each channel of a label is the mask of a class: channel {named}; {how}"),
    )
