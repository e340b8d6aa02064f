"""Compares masks with the truth, case by case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import DataError, Evaluation, Progress, some_of
from trainkit_segmentation.evaluation.mask_files import MaskFiles, Pairs, pair
from trainkit_segmentation.evaluation.mask_scores import BRATS_DIAGONAL_MM, mask_scores
from trainkit_segmentation.evaluation.masks import Masks, open_masks
from trainkit_segmentation.evaluation.meaning import Meaning, refuse_other_values
from trainkit_segmentation.evaluation.summary import Row, as_row, class_summary, mean_over_classes, summary_table
from trainkit_segmentation.files.header import grid_difference, voxel_volume_ml
from trainkit_segmentation.files.placing import Placement, placement

if TYPE_CHECKING:
    from trainkit_segmentation.evaluation.segmentation import SegmentationEvaluator


class LiveSegmentationEvaluator:
    """Compares masks with the truth.

    Args:
        settings: The settings.
        meaning: What label values mean.
        tell: Shows how far the comparison is.
    """

    def __init__(self, settings: SegmentationEvaluator, meaning: Meaning, tell: Callable[[Progress], None]) -> None:
        self._settings, self._meaning, self._tell = settings, meaning, tell
        self._unknown: dict[str, int] = {}  # class -> the number of cases in which it was not annotated
        self._unmarked: dict[str, int] = {}  # mask that says what to ignore -> the number of cases without it

    def evaluate(self, predictions: Path, truth: Path) -> Evaluation:
        """Compare two folders, or two files."""
        refuse_other_values(self._meaning, predictions)
        pairs = pair(predictions, truth, self._meaning.names_of_files)
        rows: list[Row] = []
        failed: dict[str, str] = {}
        doubts: dict[str, list[str]] = {}
        for number, (found, true) in enumerate(pairs.both, start=1):
            try:
                rows += self._rows_of_case(found, true, doubts)
            except DataError as error:
                failed[true.name] = str(error)
            self._tell(Progress(number, len(pairs.both), "cases"))
        unpaired = tuple(_unpaired(pairs, self._settings.only_predicted))
        classes = {name: class_summary(row for row in rows if row["class"] == name) for name in self._meaning.classes}
        absent = [row for row in rows if row["true_ml"] == 0 or row["predicted_ml"] == 0]
        summary: dict[str, Any] = {
            "num_cases": len(pairs.both) - len(failed),
            "classes": classes,
            "mean_over_classes": mean_over_classes(classes),
            "settings": {
                "values": {name: list(values) for name, values in self._meaning.values.items()},
                "values_from": self._meaning.source,
                "tolerance_mm": self._settings.tolerance_mm,
                "absent": self._settings.absent,
            },
            "missing": list(pairs.missing),
            "extra": list(pairs.extra),
        }
        lines = (
            *summary_table(classes, self._settings.tolerance_mm),
            *self._notes(absent, doubts, len(pairs.both) - len(failed)),
        )
        return Evaluation(tuple(rows), summary, lines if rows else (), failed, unpaired)

    def _rows_of_case(self, found: MaskFiles, true: MaskFiles, doubts: dict[str, list[str]]) -> list[Row]:
        """Return the lines of a case, and add its name to those of each sentence of doubt that concerns it."""
        of_found = open_masks(found, self._meaning, are_true=False)
        of_true = open_masks(true, self._meaning, are_true=True)
        place = placement(of_true.header, of_found.header)
        difference = grid_difference(of_true.header, of_found.header)
        if difference and not (place and place.is_whole):
            raise DataError(
                f"{of_found.header.path} is on another voxel grid than {of_true.header.path}: {difference}; resample "
                "the prediction to the grid of the truth, to the nearest voxel"
            )
        rows = list(self._rows(true.name, of_found, of_true, place if difference else None))
        for doubt in _doubts(of_found, of_true):
            doubts.setdefault(doubt, []).append(true.name)
        for name in self._meaning.classes:
            if not of_true.is_known(name):
                self._unknown[name] = self._unknown.get(name, 0) + 1
        for mask in of_true.lacking_ignored():
            self._unmarked[mask] = self._unmarked.get(mask, 0) + 1
        return rows

    def _rows(self, name: str, found: Masks, true: Masks, place: Placement | None) -> Iterator[Row]:
        header, settings = true.header, self._settings
        voxel_ml = voxel_volume_ml(header.affine)
        ignored_XYZ = true.ignored()
        for each in self._meaning.classes:
            if not true.is_known(each):
                continue
            found_XYZ, true_XYZ = found.mask(each), true.mask(each)
            if place is not None:  # the same voxels, with other axes
                found_XYZ = place.apply(found_XYZ[None])[0]
            if ignored_XYZ is not None:
                found_XYZ, true_XYZ = found_XYZ & ~ignored_XYZ, true_XYZ & ~ignored_XYZ
            scores = mask_scores(
                found_XYZ, true_XYZ, header.spacing_mm, voxel_ml, settings.tolerance_mm, settings.absent, ignored_XYZ
            )
            yield as_row(name, each, scores)

    def _notes(self, absent: list[Row], doubts: dict[str, list[str]], cases: int) -> Iterator[str]:
        values = ", ".join(
            f"{name} ({'+'.join(map(str, made_of))})" if (made_of := of or self._meaning.masks.get(name)) else name
            for name, of in self._meaning.values.items()
        )
        yield f"classes and their label values, from {self._meaning.source}: {values}"
        if self._unknown:
            lacking = some_of([f"{name} in {number}" for name, number in self._unknown.items()])
            yield f"classes that were not annotated have no score; number of such cases: {lacking}"
        if self._unmarked:
            lacking = some_of([f"{name} in {number} of {cases} cases" for name, number in self._unmarked.items()])
            nowhere = "warning: " if cases in self._unmarked.values() else ""
            yield f"{nowhere}nothing is ignored where there is no mask that says so: {lacking}"
        for doubt, names in doubts.items():
            yield f"warning: {doubt}: {some_of(names)}"
        neither = sum(row["true_ml"] == 0 and row["predicted_ml"] == 0 for row in absent)
        times = f"{neither} times in neither truth nor prediction, {len(absent) - neither} times in only one"
        if not absent:
            yield "every class is in the truth and in the prediction of every case"
        elif self._settings.absent == "brats":
            yield (
                f"absent classes ({times}) count as in BraTS: in neither, Dice 1 and HD95 0 mm; in only one, Dice 0 "
                f"and HD95 {BRATS_DIAGONAL_MM} mm. --set evaluate.absent=left_out leaves out what is in neither"
            )
        else:
            yield (
                f"absent classes ({times}): in neither, there is no score; in only one, Dice 0 and the diagonal of "
                "the volume as HD95"
            )


def _doubts(found: Masks, true: Masks) -> Iterator[str]:
    for value in sorted(found.undeclared | true.undeclared):
        yield f"the label value {value} means no class and counts as background"
    if true.meaning.ignored and true.files.label is None:
        yield "each class has a file of its own, which does not say which voxels to ignore: all count"
    if true.header.has_no_spacing:
        yield (
            "files do not say how large a voxel is, so distances and volumes are those of voxels of 1 mm (--run or "
            "--recipe gives data.file_spacing_mm)"
        )


def _unpaired(pairs: Pairs, only_predicted: bool) -> Iterator[str]:
    missing = [name + (f" (there is {pairs.alike[name]})" if name in pairs.alike else "") for name in pairs.missing]
    if missing and not only_predicted:
        one = len(missing) == 1
        yield f"{len(missing)} case{' was' if one else 's were'} not predicted: {some_of(missing)}"
    if pairs.extra:
        one = len(pairs.extra) == 1
        yield f"{len(pairs.extra)} prediction{' has' if one else 's have'} no truth: {some_of(pairs.extra)}"
