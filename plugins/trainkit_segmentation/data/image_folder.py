"""A folder of images beside a folder of labels."""

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
class ImageFolder(SegmentationData):
    """A folder with ``images/`` and ``labels/``, in which the files of a case have the same name.

    A label may also be called ``NAME_seg``, ``NAME_label`` or ``NAME_mask``. An image with several channels is one
    file, or one for each: ``NAME_0000``, ``NAME_0001``, … or ``NAME_t1``, ``NAME_t2``, … for ``channels = ["t1",
    "t2"]``. In sub-folders, names need to be the same in the same sub-folder only; a sub-folder of ``images/`` that is
    called as the case may hold a DICOM series, or the image. Planes (PNG, TIFF, …) are volumes of one slice.

    Attributes:
        path: The folder that holds both folders.
        image_folder: Name of the folder of images.
        label_folder: Name of the folder of labels.
        channels: Names of the channels. Not given: numbered.
        labels: Name of a class -> its label value, for example ``{ liver = 1, tumour = 2 }``.
    """

    path: Path = attrs.field(metadata=INPUT_PATH)
    image_folder: str = "images"
    label_folder: str = "labels"
    channels: tuple[str, ...] | None = attrs.field(default=None, validator=each_once)
    labels: Mapping[str, int] | None = attrs.field(default=None, validator=each_value_once)

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise a folder with ``images/`` and ``labels/``; classes are numbered by the values of a few labels.

        The value 255 beside others is ignored: it usually marks voxels that nobody annotated.
        """
        if not all((path / name).is_dir() for name in ("images", "labels")):
            return None
        from trainkit_segmentation.data.image_folder_live import classes_of

        return {"path": path, "labels": classes_of(path / "labels")}

    def find(self) -> CaseList:
        """Find the labels, and the images that have their names."""
        from trainkit_segmentation.data.image_folder_live import find

        return find(self)
