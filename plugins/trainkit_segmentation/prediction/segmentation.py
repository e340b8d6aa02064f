"""The usual predictor of segmentation networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs
from attrs.validators import ge, gt, lt, optional

from trainkit import HARMLESS, Data, Member, Predictor, Progress, component
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.prediction.cleaning import Cleaning
from trainkit_segmentation.sizes import Size, at_least_one

if TYPE_CHECKING:
    import torch

    from trainkit_segmentation.prediction.segmentation_live import LiveSegmentationPredictor

Axis = Literal["x", "y", "z"]


def _each_once(instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    if len(set(value)) != len(value):
        raise ValueError(f"{attribute.name} must name each axis once, got {list(value)}")


@component
class SegmentationPredictor(Predictor):
    """Writes masks as NIfTI, on the grid of each image and with the label values of the training data.

    An image is one file with all channels, or a file for each channel, named as in the training data: ``case_0000``,
    ``case_0001``, …, or ``…_t1``, ``…_flair``, …. Inputs are such files, folders of them, folders that are a case, and
    folders of such folders. The mask of ``case`` is ``case.nii.gz``.

    Windows are predicted row by row, so the memory does not grow with the number of classes times the volume.

    Attributes:
        window_size: Voxels of a window along each axis; not given: as in the run's [inference], or else the data's
            ``patch_size``.
        overlap: Share of their size by which neighbouring windows overlap, 0 … 1; not given: as in the run's
            [inference].
        blending: Weight of the voxels of a window, "gaussian" or "constant"; not given: as in the run's [inference].
        windows_at_once: Number of windows that pass through the network together; not given: as in the run's
            [inference].
        flips: Axes along which each window is mirrored as well, in all combinations; the outputs are averaged. Three
            axes take eight times as long. The axes are those of the preprocessed image. If classes differ in their
            side, leave out the axis from left to right.
        combine: What is averaged over networks, mirrored windows and overlapping windows: "logits" or "probabilities".
            "auto": probabilities, which have the higher likelihood on held-out cases, if there are several networks or
            ``flips``; else logits, as in validation.
        probabilities: Whether to write ``case_probabilities.nii.gz`` too: a volume for each class, the background
            first where classes exclude each other.
        entropy: Whether to write ``case_entropy.nii.gz`` too, the uncertainty of each voxel in nats: 0 where the
            probabilities are certain, at most the logarithm of the number of classes with the background. Where classes
            overlap, it is the sum over classes of the entropy of being it or not, at most log 2 each.
        temperature: What logits are divided by before they become probabilities: above 1, these are less certain. Masks
            stay the same. It acts after all averaging; where probabilities are averaged, on their logarithms. Not
            given: what ``trainkit calibrate`` fitted for this prediction, or else 1.
        nan_as_zero: Whether voxels that are NaN are taken as 0, instead of refusing the image; not given: as in
            training.
        files: "labels" writes one file with a value for each class, "per_class" the mask of each class as
            ``case/class.nii.gz``. "auto": one file, unless classes overlap and had files of their own in training.
        post_processing: Class -> which parts of its mask are removed, for example
            ``{ liver = { keep_largest = true } }``. Probabilities stay as they are.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("monai", "nibabel")

    window_size: Size | None = attrs.field(default=None, validator=at_least_one)
    overlap: float | None = attrs.field(default=None, validator=optional([ge(0.0), lt(1.0)]))
    blending: Literal["gaussian", "constant"] | None = None
    windows_at_once: int | None = attrs.field(default=None, validator=optional(ge(1)), metadata=HARMLESS)
    flips: tuple[Axis, ...] = attrs.field(default=(), validator=_each_once)
    combine: Literal["auto", "logits", "probabilities"] = "auto"
    probabilities: bool = False
    entropy: bool = False
    temperature: float | None = attrs.field(default=None, validator=optional([gt(0.0), lt(float("inf"))]))
    nan_as_zero: bool | None = None
    files: Literal["auto", "labels", "per_class"] = "auto"
    post_processing: Mapping[str, Cleaning] = attrs.Factory(dict)

    def takes_calibration(self) -> bool:
        """Return whether probabilities or entropies are written, at a temperature that is not set."""
        return self.temperature is None and (self.probabilities or self.entropy)

    def build(
        self, members: tuple[Member, ...], device: torch.device, tell: Callable[[Progress], None]
    ) -> LiveSegmentationPredictor:
        """Make the live part.

        Args:
            members: The networks.
            device: Their device.
            tell: Shows how far the prediction of an image is.

        Raises:
            CheckpointError: The networks do not fit each other.
            RecipeError: The settings do not fit the networks.
        """
        from trainkit_segmentation.prediction.segmentation_live import LiveSegmentationPredictor

        return LiveSegmentationPredictor(self, members, device, tell)
