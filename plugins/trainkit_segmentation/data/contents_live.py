"""What is in a data set: its cases, each of which was looked at, for planners."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from trainkit import DataError, Progress
from trainkit_segmentation.cases.case import CaseList
from trainkit_segmentation.preparing.cache_live import CaseStore
from trainkit_segmentation.preparing.fingerprints import Fingerprint, look_at_each

if TYPE_CHECKING:
    from trainkit_segmentation.data.kind import SegmentationData


@attrs.frozen
class CaseContents:
    """All cases of a data set.

    Attributes:
        data: The settings that read it, with defaults for all that is planned.
        listing: The cases and classes.
        fingerprints: Name of a case -> what it is like; in the order of the list.
    """

    data: SegmentationData
    listing: CaseList
    fingerprints: Mapping[str, Fingerprint]


def contents_of(data: SegmentationData) -> Iterator[Progress | CaseContents]:
    """Look at all cases, and yield progress, then what they are like.

    Args:
        data: The settings that read them.

    Raises:
        DataError: Some cases cannot be read; the message names all of them.
    """
    listing = data.cases()
    problems = list(listing.problems)
    seen: dict[str, Fingerprint] = {}
    looks = look_at_each(listing.cases, listing.labels, False, CaseStore(data.cache))
    for done, (name, outcome) in enumerate(looks, start=1):
        yield Progress(done, len(listing.cases), "cases looked at")
        if isinstance(outcome, DataError):
            problems.append(f"{name}: {outcome}")
        else:
            seen[name] = outcome
    if problems or not seen:
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        raise DataError("\n  ".join([f"{listing.source}: {count}", *problems, *listing.doubts]))
    yield CaseContents(data, listing, {case.name: seen[case.name] for case in listing.cases})
