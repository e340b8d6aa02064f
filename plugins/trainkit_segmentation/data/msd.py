"""Folders of the Medical Segmentation Decathlon and of nnU-Net: a ``dataset.json`` says what is where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit import component
from trainkit_segmentation.data.kind import SegmentationData

if TYPE_CHECKING:
    from trainkit_segmentation.cases.case import CaseList


@component
class MSD(SegmentationData):
    """A folder with ``dataset.json``, as the Decathlon (MSD) has it, or nnU-Net's raw data of version 1 or 2.

    Images may be files of three dimensions, of four (the last one the channels), or one file a channel
    (``case_0000.nii.gz``, ``case_0001.nii.gz``, …). Labels of nnU-Net's regions are taken as classes that overlap.

    Attributes:
        path: The folder that holds ``dataset.json``.
        regions: Classes made from several label values each, as ``{ tumour = [2, 3], liver = [1, 2, 3] }``; they may
            overlap. None: the classes of ``dataset.json``.
    """

    path: Path
    regions: Mapping[str, tuple[int, ...]] | None = None

    def find(self) -> CaseList:
        """Read ``dataset.json`` and look for the files it is about."""
        from trainkit_segmentation.data.msd_live import find

        return find(self.path, self.regions)
