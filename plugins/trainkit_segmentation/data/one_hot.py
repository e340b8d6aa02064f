"""Recognises labels in which each channel is a mask."""

from __future__ import annotations

import attrs

from trainkit import DataError, some_of
from trainkit_segmentation.cases.case import CaseList, FileCase
from trainkit_segmentation.cases.labels import Labels
from trainkit_segmentation.files.images import read_header
from trainkit_segmentation.spelling import IGNORE


def with_masks_in_channels(listing: CaseList) -> CaseList:
    """Return a list of cases, with a mask in each channel of a label if labels have several channels.

    The first label that can be read decides. Masks are in the order of their label values. With a channel more than
    there are classes and ignored values, the first is the background.
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
    masks = _numbered(listing.labels)
    has_background = header.channels == len(masks) + 1
    problem = None
    if not has_background and header.channels != len(masks):
        problem = (
            f"{header.path}: the label has {header.channels} channels, but the data set names {len(masks)} classes, "
            f"{some_of(list(masks.values()))}: where each channel is the mask of a class, it must have one for each"
        )
    elif 0 in listing.labels.ignored:
        problem = (
            f'{header.path}: each channel of the label is a mask, and "{IGNORE}" has the value 0, which is that of no '
            "mask: give it the value that its channel has in order"
        )
    values = (0, *masks) if has_background else tuple(masks)
    cases = tuple(
        attrs.evolve(case, label_channels=header.channels, mask_values=values if problem is None else ())
        for case in listing.cases
        if isinstance(case, FileCase)
    )
    if problem is not None:
        return attrs.evolve(listing, cases=cases, problems=(*listing.problems, problem))
    named = ", ".join(
        f"{channel} is {masks[value]}" for channel, value in enumerate(values) if not (has_background and channel == 0)
    )
    how = "channel 0 is the background" if has_background else "a voxel may be of several classes"
    classes = listing.labels.classes
    value_of = {name: value for value, name in masks.items()}
    members = {0: (), **{value_of[name]: (k,) for k, name in enumerate(classes)}}
    labels = Labels(classes, has_background, members, listing.labels.ignored, {} if has_background else masks)
    note = f"each channel of a label is the mask of a class: channel {named}; {how}"
    return attrs.evolve(listing, cases=cases, labels=labels, notes=(*listing.notes, note))


def _numbered(labels: Labels) -> dict[int, str]:
    """Return label value -> class, or "ignore", in order; where classes share values, they are numbered as listed."""
    if labels.exclusive:
        named = {value: labels.classes[of[0]] for value, of in labels.members.items() if of}
    else:
        named = dict(enumerate(labels.classes, start=1))
    return dict(sorted((named | dict.fromkeys(labels.ignored, IGNORE)).items()))
