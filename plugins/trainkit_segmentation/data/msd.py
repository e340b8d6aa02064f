"""Folders of the Medical Segmentation Decathlon and of nnU-Net, described by a ``dataset.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from trainkit import INPUT_PATH, component
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.data.named import each_once, each_value_once

if TYPE_CHECKING:
    from trainkit_segmentation.cases.case import CaseList


@component
class MSD(SegmentationData):
    """A folder with ``dataset.json``: a task of the Decathlon (MSD), or nnU-Net's raw data of version 1 or 2.

    Images may be files of three dimensions, files of four dimensions (the last one for channels), or one file for each
    channel (``case_0000.nii.gz``, ``case_0001.nii.gz``, …; or a list of files as "image"). Regions of nnU-Net become
    classes that overlap. Where a label has several channels, each is the mask of a class.

    Attributes:
        path: The folder that holds ``dataset.json``.
        channels: Names of the channels. Not given: those of ``dataset.json``.
        labels: Name of a class -> its label value, for example ``{ liver = 1, tumour = 2 }``. Not given: as in
            ``dataset.json``.
    """

    path: Path = attrs.field(metadata=INPUT_PATH)
    channels: tuple[str, ...] | None = attrs.field(default=None, validator=each_once)
    labels: Mapping[str, int] | None = attrs.field(default=None, validator=each_value_once)

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise a folder with ``dataset.json``, or that file."""
        folder = path.parent if path.name == "dataset.json" else path
        return {"path": folder} if (folder / "dataset.json").is_file() else None

    def find(self) -> CaseList:
        """Read ``dataset.json`` and find the files that it lists."""
        from trainkit_segmentation.data.msd_live import find

        return find(self.path, channels=self.channels, label_values=self.labels)
