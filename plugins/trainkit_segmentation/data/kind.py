"""The kind of data that a segmentation network accepts: a reader of folders is a subclass with one method, ``find``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from trainkit import Context, Data, component
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.patches.augmentation import Augmentation
from trainkit_segmentation.preparing.cache import Cache
from trainkit_segmentation.preparing.preprocessing import Preprocessing
from trainkit_segmentation.splits.fraction import Fraction
from trainkit_segmentation.splits.kind import Split

if TYPE_CHECKING:
    from trainkit_segmentation.cases.case import CaseList
    from trainkit_segmentation.data.kind_live import LiveSegmentation


@component
class SegmentationData(Data):
    """Images with a label for each voxel.

    Attributes:
        batch_size: Patches in a step.
        steps_per_epoch: Steps in an epoch; None: a pass over the cases, as many as it takes to draw a patch of each.
        patch_size: Voxels of a training patch along x, y, z. Where a preprocessed volume is smaller, the patch is
            padded with zeros (background) on both sides.
        foreground_probability: How often a patch is centred on a voxel of a class (each class that the case has is
            as probable), as far as it then lies in the volume; otherwise it is anywhere.
        workers: Processes that prepare batches; any number gives the same ones. 0: the training process itself.
        split: Which cases are trained on, and which are validated.
        preprocessing: What is done to each case once.
        augmentation: What is done to each patch, anew each time.
        cache: Where preprocessed cases are kept.
    """

    requires: ClassVar[tuple[str, ...]] = ("nibabel", "safetensors")

    batch_size: int = attrs.field(default=2, validator=attrs.validators.ge(1))
    steps_per_epoch: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))
    patch_size: tuple[int, int, int] = attrs.field(
        default=(96, 96, 96), validator=attrs.validators.deep_iterable(attrs.validators.ge(1))
    )
    foreground_probability: float = attrs.field(
        default=0.33, validator=[attrs.validators.ge(0.0), attrs.validators.le(1.0)]
    )
    workers: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    split: Split = Fraction()
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    cache: Cache = Cache()

    def splits(self) -> tuple[str, ...]:
        """Return the splits there are, "train" first."""
        return self.split.splits()

    @abstractmethod
    def find(self) -> CaseList:
        """Find the cases and what their labels mean; what is wrong with single cases is listed, not raised.

        Raises:
            DataError: There is nothing to list.
        """

    def inspect(self) -> Iterable[str]:
        """Look at each case's headers and label, and sum them up."""
        from trainkit_segmentation.data.inspection import inspect

        return inspect(self)

    def build(self, context: Context) -> LiveSegmentation:
        """Preprocess what is not in the cache yet, and open it."""
        from trainkit_segmentation.data.kind_live import LiveSegmentation

        return LiveSegmentation(self, context)

    def recall(self, facts: Mapping[str, Any]) -> SegmentationFacts:
        """Return a stand-in for the opened data, from which a network can be built.

        Raises:
            DataError: The facts are of other data, or incomplete.
        """
        return SegmentationFacts.from_json(facts)
