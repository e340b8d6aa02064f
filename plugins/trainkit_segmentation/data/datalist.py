"""Lists of files, as MONAI's bundles and Auto3DSeg have them."""

from __future__ import annotations

import json
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
class Datalist(SegmentationData):
    """A JSON list of images and labels: ``{"training": [{"image": …, "label": …, "fold": 0}, …], "validation": […]}``.

    The image is one file, or a list with a file for each channel. An entry may have the name of its case ("name" or
    "id") and of the person that it is of ("subject"). Which cases are held out is up to the split:
    ``split = { use = "listed", fold = 0 }`` takes the list's own folds, or its cases for validation. What the list has
    for "testing" is not read.

    Attributes:
        path: The list.
        root: The folder that the list's paths are relative to. Not given: the folder of the list.
        channels: Names of the channels. Not given: the list's "channel_names" or "modality".
        labels: Name of a class -> its label value, for example ``{ liver = 1, tumour = 2 }``. Not given: the list's
            "labels".
    """

    path: Path = attrs.field(metadata=INPUT_PATH)
    root: Path | None = attrs.field(default=None, metadata=INPUT_PATH)
    channels: tuple[str, ...] | None = attrs.field(default=None, validator=each_once)
    labels: Mapping[str, int] | None = attrs.field(default=None, validator=each_value_once)

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise a JSON file with a list "training" that is not ``dataset.json``."""
        if path.suffix != ".json" or path.name == "dataset.json" or not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return {"path": path} if isinstance(content, dict) and isinstance(content.get("training"), list) else None

    def find(self) -> CaseList:
        """Read the list and find its files."""
        from trainkit_segmentation.data.msd_live import find

        return find(self.path, channels=self.channels, label_values=self.labels, root=self.root)
