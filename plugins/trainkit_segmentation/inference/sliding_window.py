"""Whole volumes by overlapping windows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs
from attrs.validators import ge, lt

from trainkit import Batch, Data, Inference, Outputs, Problem, component, shape_in_words
from trainkit_segmentation.data.facts import SegmentationFacts
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.models.kind import SegmentationModel
from trainkit_segmentation.sizes import Size, at_least_one

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainkit import Depth, Progress, Recipe
    from trainkit_segmentation.data.kind_live import LiveSegmentation

_LOGGER = logging.getLogger("trainkit")


@component
class SlidingWindow(Inference):
    """Covers a volume with overlapping windows, and blends their scores. For volumes larger than a patch.

    Attributes:
        window_size: Voxels of a window along each axis; the data's ``patch_size`` if not given. A window that is larger
            than both a patch and a volume is filled up with zeros, more of them than the network was trained with.
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

    def inspect(self, recipe: Recipe, depth: Depth) -> Iterable[str | Problem | Progress]:
        """Yield a doubt if windows are larger than patches, and than cases."""
        data = recipe.data
        if self.window_size is None or not isinstance(data, SegmentationData):
            return
        from trainkit_segmentation.data.inspection import grid_of

        grids = [grid_of(data, case.inspect()) for case in data.cases().cases]
        doubt = self.doubt_about_padding(data.patch_size, [grid.shape for grid in grids if grid is not None])
        if doubt is not None:
            yield Problem(doubt, "window_size", "warning")

    def doubt_about_padding(self, patch_size: Size, shapes: Collection[Size]) -> str | None:
        """Return a doubt if windows hold more padding than patches do; None: they do not.

        Args:
            patch_size: Voxels of a training patch.
            shapes: Voxels of each volume, preprocessed.
        """
        size = self.window_size or patch_size
        padded = [
            shape
            for shape in shapes
            if any(n < edge > of_patch for n, edge, of_patch in zip(shape, size, patch_size, strict=True))
        ]
        if not padded:
            return None
        some = f"of {shape_in_words(padded[0])} voxels" + (f" and {len(padded) - 1} others" * (len(padded) > 1))
        return (
            f"windows of {shape_in_words(size)} are larger than the volume {some}, and are filled up with zeros, of "
            f"which training patches of {shape_in_words(patch_size)} have fewer. A network that normalises each window "
            "by itself can lose several points of Dice by that: leave inference.window_size out"
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

        told = False

        def infer(model: nn.Module, batch: Batch) -> Outputs:
            nonlocal told
            if not told and (doubt := self.doubt_about_padding(data.patch_size, [tuple(batch["image"].shape[2:])])):
                told = True
                _LOGGER.warning(doubt)

            def scores(window_BCXYZ: Tensor) -> Tensor:
                logits: Tensor = model({"image": window_BCXYZ})["logits"]
                return logits

            return {"logits": inferer(batch["image"], scores)}

        return infer
