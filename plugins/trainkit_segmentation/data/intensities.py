"""The intensities by which all cases of a run are normalised: those of the classes in its training cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import attrs

from trainkit import DataError
from trainkit_segmentation.cases.case import Case, CaseList
from trainkit_segmentation.preparing.cache_live import CaseStore
from trainkit_segmentation.preparing.fingerprints import Fingerprint, look_at_each
from trainkit_segmentation.preparing.foreground import pooled
from trainkit_segmentation.preparing.preprocessing import Preprocessing

if TYPE_CHECKING:
    from trainkit_segmentation.data.kind import SegmentationData


def with_intensities(
    settings: SegmentationData,
    listing: CaseList,
    cases: Sequence[Case],
    division: Mapping[str, Sequence[str]],
    store: CaseStore,
) -> Preprocessing:
    """Return the preprocessing with the numbers that it takes from the training cases, if it takes any.

    Cases that cannot be read are left out here: whoever preprocesses them says what is wrong.

    Args:
        settings: The data.
        listing: All cases, and what their labels mean.
        cases: The cases of the run.
        division: Split -> names of its cases, before it is balanced.
        store: The cache.

    Raises:
        DataError: No training case has a voxel of a class, or a channel has one value in all of them.
    """
    preprocessing = settings.preprocessing
    if preprocessing.normalization != "foreground" or preprocessing.intensities is not None:
        return preprocessing
    labels = listing.labels
    seen: dict[str, Fingerprint] = {}
    for name, outcome in look_at_each(cases, labels, preprocessing.nan_as_zero, store, settings.workers):
        if not isinstance(outcome, DataError):
            seen[name] = outcome
    if len(seen) == len(cases):
        present = {name: dict(zip(labels.classes, each.own_voxels, strict=True)) for name, each in seen.items()}
        division = settings.split.balance(division, {case.name: case.subject for case in listing.cases}, present)
    train = [seen[name].quantiles_CM for name in division.get("train", ()) if name in seen]
    found = pooled(train)
    for channel, (lower, upper, _, _) in zip(listing.channels, found, strict=True):
        if lower == upper:
            raise DataError(
                f'channel "{channel}" is {lower:g} nearly everywhere in the classes of the training cases, so '
                'data.preprocessing.normalization = "foreground" would clip it to this value; choose "zscore"'
            )
    changed: Preprocessing = attrs.evolve(cast(Any, preprocessing), intensities=found)
    return changed
