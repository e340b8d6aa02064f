"""The evaluator of masks: Dice, distances of surfaces, and volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from trainkit import Data, Evaluator, HeldOut, HeldOutEvaluation, Progress, component
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.evaluation.class_table import read_class_table

if TYPE_CHECKING:
    from trainkit_segmentation.evaluation.segmentation_live import LiveSegmentationEvaluator


def _class_table(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None:
        read_class_table(value)


@component
class SegmentationEvaluator(Evaluator):
    """Compares masks with the truth: Dice, HD95, surface Dice and volumes of each case and class.

    A case is a file of label values, ``case.nii.gz``; a folder with the file ``…_seg`` or ``…-seg`` of a BraTS case; or
    a folder with the mask of each class, ``case/class.nii.gz`` or ``case/segmentations/class.nii.gz``. Prediction and
    truth must have the same voxels; their axes may differ.

    What the values mean is known from ``classes``, from the run or the recipe that is given, or from ``dataset.json``
    in the folder of the truth or above it.

    Attributes:
        classes: Class and label value, for example "liver=1, tumour=2". A class may join several values, "whole=1+2+4",
            and may overlap with others. Where each class has a mask file, names are enough. Voxels whose true value is
            that of "ignore" do not count.
        tolerance_mm: Distance up to which surfaces agree, for the surface Dice.
        absent: How a class counts that is missing from a case. "brats": as in the BraTS challenge; if it is in neither
            truth nor prediction, Dice and surface Dice are 1 and HD95 is 0 mm; if it is in only one of them, they are 0
            and 373.13 mm, the diagonal of a BraTS volume. "left_out": in neither, there is no value, as in the
            validation of a training; in only one, HD95 is the diagonal of the case's volume.
        only_predicted: Whether cases that were not predicted are left out without a warning.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("nibabel", "scipy")

    classes: str | None = attrs.field(default=None, validator=_class_table)
    tolerance_mm: float = attrs.field(default=1.0, validator=attrs.validators.ge(0.0))
    absent: Literal["brats", "left_out"] = "brats"
    only_predicted: bool = False

    def build(
        self,
        data: Data | None,
        facts: Mapping[str, Any] | None,
        truth: Path,
        tell: Callable[[Progress], None],
    ) -> LiveSegmentationEvaluator:
        """Make the live part, which knows what label values mean.

        Args:
            data: The data of a recipe.
            facts: What a checkpoint says of its training data.
            truth: The folder of the truth, or its file.
            tell: Shows how far the comparison is.

        Raises:
            RecipeError: Nothing says what the values mean.
            DataError: What should say it cannot be read.
        """
        from trainkit_segmentation.evaluation.meaning import meaning_of_values
        from trainkit_segmentation.evaluation.segmentation_live import LiveSegmentationEvaluator

        return LiveSegmentationEvaluator(self, meaning_of_values(self.classes, data, facts, truth), tell)

    def evaluate_held_out(self, held_out: Iterable[HeldOut]) -> HeldOutEvaluation:
        """Score every case, and choose the post-processing of each class that raises the mean Dice."""
        from trainkit_segmentation.evaluation.held_out import evaluate_held_out

        return evaluate_held_out(held_out, self.tolerance_mm, self.absent)
