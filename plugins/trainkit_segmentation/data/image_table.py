"""A table of files: a CSV file with a case in each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from trainkit import INPUT_PATH, Problem, component
from trainkit_segmentation.cases.missing_masks import MissingMasks
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.data.named import each_once, each_value_once

if TYPE_CHECKING:
    from trainkit import Recipe
    from trainkit_segmentation.cases.case import CaseList


@component
class ImageTable(SegmentationData):
    """A CSV file with a case in each row, and columns of paths: one for each channel, and one for the label.

    Paths are relative to the table. The column of folds may also say "train" and "val"; it is used by ``split = { use =
    "listed", fold = 0 }``.

    Attributes:
        path: The table. Columns are separated by commas, semicolons or tabs, and the first row names them.
        channels: The columns of images, which name the channels. Files of a single column may have several channels.
        label: The column of labels.
        masks: The columns of masks, one for each class, which name the classes: in place of ``label``.
        missing_masks: What an empty cell of these columns means. "error": the case is refused, unless ``annotated``
            says that the class was not annotated there. "not_annotated": nobody looked for it, and the classes that it
            belongs to do not count there. "empty": it is not there.
        labels: Name of a class -> its label value, for example ``{ liver = 1, tumour = 2 }``.
        case: The column of names of cases. Not given: cases are named after their files.
        subject: The column of the person that a case is of. Not given: each case is of another person.
        fold: The column of folds.
    """

    path: Path = attrs.field(metadata=INPUT_PATH)
    channels: tuple[str, ...] = attrs.field(default=("image",), validator=each_once)
    label: str = "label"
    masks: tuple[str, ...] | None = attrs.field(default=None, validator=each_once)
    missing_masks: MissingMasks = "error"
    labels: Mapping[str, int] | None = attrs.field(default=None, validator=each_value_once)
    case: str | None = None
    subject: str | None = None
    fold: str | None = None

    @classmethod
    def recognise(cls, path: Path) -> Mapping[str, Any] | None:
        """Recognise a CSV or TSV file with columns of paths; what columns are for is told by their names."""
        if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
            return None
        from trainkit_segmentation.data.image_table_live import columns_of

        return columns_of(path)

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield settings that exclude each other."""
        if self.masks is not None and self.labels is not None:
            yield Problem("has no effect beside masks, whose columns name the classes", "labels")
        yield from super().problems(recipe)

    def find(self) -> CaseList:
        """Read the table."""
        from trainkit_segmentation.data.image_table_live import find

        return find(self)
