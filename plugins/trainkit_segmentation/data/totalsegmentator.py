"""Folders of TotalSegmentator's data sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from trainkit import INPUT_PATH, component
from trainkit_segmentation.cases.missing_masks import MissingMasks
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.data.named import each_once

if TYPE_CHECKING:
    from trainkit_segmentation.cases.case import CaseList


@component
class TotalSegmentator(SegmentationData):
    """Folders of subjects, each with an image and one mask file for each structure in ``segmentations/``.

    Attributes:
        path: The folder that holds the subjects' folders.
        structures: The classes: names of mask files without their ending, for example ``["liver", "spleen"]``.
        image: File name of the image in a subject's folder; ``mri.nii.gz`` in the MR data set.
        overlap: If masks share voxels, "error" refuses the case; "multi_label" lets a voxel belong to several classes.
            Masks that ``regions`` combine may share voxels in any case.
        missing_masks: What it means if a subject has no file for a structure. "error": the subject is refused, unless
            ``annotated`` says that the class was not annotated there. "not_annotated": nobody looked for it, and the
            classes that it belongs to do not count there. "empty": it is not there.
    """

    path: Path = attrs.field(metadata=INPUT_PATH)
    structures: tuple[str, ...] = attrs.field(validator=each_once)
    image: str = "ct.nii.gz"
    overlap: Literal["error", "multi_label"] = "error"
    missing_masks: MissingMasks = "error"

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise folders with ``segmentations`` in them; the structures are those that all subjects have."""
        from trainkit_segmentation.data.totalsegmentator_live import settings_for

        return settings_for(path)

    def find(self) -> CaseList:
        """Find the subjects and their masks."""
        from trainkit_segmentation.data.totalsegmentator_live import find

        return find(self)
