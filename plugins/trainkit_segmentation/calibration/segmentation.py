"""The usual calibrator of segmentation networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import attrs
from attrs.validators import ge, gt, le

from trainkit import Calibration, Calibrator, Data, OpenedRun, Predictor, Progress, RecipeError, component
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.prediction.segmentation import SegmentationPredictor

if TYPE_CHECKING:
    import torch


@component
class SegmentationCalibrator(Calibrator):
    """Fits a temperature, which divides logits before they become probabilities; masks stay the same.

    The held-out cases are predicted as ``trainkit predict`` would. On one half of them, dealt by subject, the
    temperature is fitted: near boundaries, it has the lowest negative log-likelihood of the true labels (NLL). On the
    other half, it is measured: the NLL in nats, the Brier score, and the expected calibration error (ECE) of the
    confidence in the most likely label, in bins of equal width. Most voxels of a volume are easy, so a predictor that
    is certain of everything has a low ECE there, and it is shown beside the others; near boundaries its ECE is high.

    A voxel is near a boundary if, at most ``boundary_mm`` away from it, there is a voxel that has a face in common with
    one of another label, true or predicted. Ignored voxels do not count. Classes that were not annotated in a case are
    background there. Where classes overlap, each one is looked at by itself, in the cases in which it was annotated.

    Attributes:
        boundary_mm: Distance from a true or predicted boundary up to which a voxel is near it.
        bins: Number of bins of confidence.
        largest_ece: The result is called doubtful if the ECE near boundaries is larger than this.
        seed: Another seed deals the subjects into other halves.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("monai", "nibabel", "scipy")

    boundary_mm: float = attrs.field(default=3.0, validator=gt(0.0))
    bins: int = attrs.field(default=15, validator=[ge(2), le(1000)])
    largest_ece: float = attrs.field(default=0.03, validator=gt(0.0))
    seed: int = 0

    def calibrate(
        self, runs: tuple[OpenedRun, ...], predictor: Predictor, device: torch.device, tell: Callable[[Progress], None]
    ) -> Calibration:
        """Fit a temperature, and measure it.

        Raises:
            RecipeError: The predictor is of another kind.
            DataError: Fewer than two subjects are held out.
        """
        from trainkit_segmentation.calibration.segmentation_live import calibrate

        if not isinstance(predictor, SegmentationPredictor):
            raise RecipeError(f"calibrate: {type(predictor).__name__} has no temperature")
        return calibrate(self, runs, predictor, device, tell)
