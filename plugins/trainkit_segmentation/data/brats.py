"""Folders of the BraTS challenges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from trainkit import INPUT_PATH, component
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.data.named import each_once

if TYPE_CHECKING:
    from trainkit_segmentation.cases.case import CaseList

Modality = Literal["t1", "t1c", "t2", "flair"]


@component
class BraTS(SegmentationData):
    """A folder of BraTS cases: each case is a folder with one file for each modality and one for the segmentation.

    Up to 2022, files end in ``_t1``, ``_t1ce``, ``_t2``, ``_flair``, ``_seg``, and the enhancing tumour is label 4.
    Since 2023, they end in ``-t1n``, ``-t1c``, ``-t2w``, ``-t2f``, ``-seg``, and it is label 3; 2024 adds label 4, the
    resection cavity. Cases of one patient (``BraTS-GLI-00005-100``, ``-101``) stay together in a split.

    Attributes:
        path: The folder that holds the cases' folders.
        edition: Edition of the challenge, which determines what label values mean; "2021" stands for 2017 to 2022.
            "auto": recognised from file names and label values, and logged.
        target: "regions": whole_tumor, tumor_core, enhancing_tumor (2024: also resection_cavity), which overlap; the
            challenge scores these. "labels": the label values themselves, which exclude each other.
        modalities: The channels of the image, in this order.
    """

    path: Path = attrs.field(metadata=INPUT_PATH)
    edition: Literal["auto", "2021", "2023", "2024"] = "auto"
    target: Literal["regions", "labels"] = "regions"
    modalities: tuple[Modality, ...] = attrs.field(default=("t1", "t1c", "t2", "flair"), validator=each_once)

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise a folder of cases by the names of their files."""
        from trainkit_segmentation.data.brats_live import has_cases

        return {"path": path} if has_cases(path) else None

    def find(self) -> CaseList:
        """Find the cases, and recognise the edition from their names and label values."""
        from trainkit_segmentation.data.brats_live import find

        return find(self)
