"""Plans a training by the rules of nnU-Net: the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

from trainkit import Data, Planner, Progress, RecipeError, component, did_you_mean, structure_settings
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.planning.topology import Kind

_KINDS: Mapping[str, Kind] = {"plain": "plain", "dynunet": "plain", "resenc": "resenc", "resenc_unet": "resenc"}


@component
class NNUNetPlanner(Planner):
    """Spacing, patch, batch, network, normalisation and augmentation as nnU-Net plans them, and its way of training.

    ``memory_gb`` is what nnU-Net calls the GPU memory target. ``network`` is "plain" (``dynunet``) or "resenc"
    (``resenc_unet``).

    Source:
        Isensee et al., Nature Methods 18 (2021) 203, supplement; arXiv:2404.09556.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]

    def draft(self, use: str, data: type[Data], settings: Mapping[str, Any]) -> Iterator[str | Progress]:
        """Look at all cases, and yield progress, then the recipe."""
        from trainkit_segmentation.planning.nnunet_live import draft

        name = self.network or "plain"
        if name not in _KINDS:
            raise RecipeError(f'no network "{name}" can be planned; {did_you_mean(name, _KINDS)}')
        yield from draft(
            use,
            cast(SegmentationData, structure_settings(data, settings, "data")),
            settings,
            _KINDS[name],
            self.memory_gb,
        )
