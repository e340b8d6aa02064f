"""Every case is trained on and validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainkit import component
from trainkit_segmentation.splits.kind import Split


@component
class SameCases(Split):
    """Trains on all cases and validates on the same ones: for a first try, or to overfit on purpose."""

    def divide(self, subjects: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
        """Return all cases twice."""
        return {"train": sorted(subjects), "val": sorted(subjects)}
