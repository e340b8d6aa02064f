"""Whole volumes by overlapping windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs
from attrs.validators import ge, lt

from trainkit import Batch, Data, Inference, Outputs, Problem, component
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.sizes import Size, at_least_one

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit import Recipe
    from trainkit_segmentation.data.kind_live import LiveSegmentation


@component
class SlidingWindow(Inference):
    """Covers a volume with overlapping windows, and blends their scores. For volumes larger than a patch.

    Attributes:
        window_size: Voxels of a window along each axis; the data's ``patch_size`` if not given.
        overlap: Share of their size by which neighbouring windows overlap; 0 … 1. More is smoother and slower.
        blending: Weight of the voxels of a window: "gaussian" decreases towards the edge, where the network sees less
            context; "constant" is the same everywhere.
        windows_at_once: Number of windows that pass through the network together.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]
    requires: ClassVar[tuple[str, ...]] = ("monai",)

    window_size: Size | None = attrs.field(default=None, validator=at_least_one)
    overlap: float = attrs.field(default=0.5, validator=[ge(0.0), lt(1.0)])
    blending: Literal["gaussian", "constant"] = "gaussian"
    windows_at_once: int = attrs.field(default=1, validator=ge(1))

    def problems(self, recipe: Recipe) -> Iterable[Problem | str]:
        """Yield what does not fit together."""
        model, size = recipe.model, self.window_size
        if size is not None and isinstance(model, SegmentationModel) and (reason := model.refusal(size)):
            yield Problem(reason, "window_size")
        data = recipe.data
        if size is not None and isinstance(model, SegmentationModel) and isinstance(data, SegmentationData):
            flat = model.flat_axis(data.patch_size)
            if flat != model.flat_axis(size):
                planes = "planes" if flat is not None else "volumes"
                yield Problem(
                    f"the network is one of {planes}, as data.patch_size is, and windows are not", "window_size"
                )

    def build(self, data: LiveSegmentation | SegmentationFacts) -> Callable[[nn.Module, Batch], Outputs]:
        """Make the function.

        Args:
            data: The opened data, or its facts.
        """
        from monai.inferers.inferer import SlidingWindowInferer

        inferer = SlidingWindowInferer(
            roi_size=self.window_size or data.patch_size,
            sw_batch_size=self.windows_at_once,
            overlap=self.overlap,
            mode=self.blending,
        )

        def infer(model: nn.Module, batch: Batch) -> Outputs:
            def scores(window_BCXYZ: Tensor) -> Tensor:
                logits: Tensor = model({"image": window_BCXYZ})["logits"]
                return logits

            return {"logits": inferer(batch["image"], scores)}

        return infer
