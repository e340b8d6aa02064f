"""Plans a training by the rules of nnU-Net: the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import attrs

from trainkit import Data, Planner, Recognised, component, did_you_mean
from trainkit_segmentation.data.kind import SegmentationData
from trainkit_segmentation.planning.topology import Kind

_KINDS: Mapping[str, Kind] = {"plain": "plain", "dynunet": "plain", "resenc": "resenc", "resenc_unet": "resenc"}


def _can_be_planned(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and value not in _KINDS:
        raise ValueError(f'no network "{value}" can be planned; {did_you_mean(value, _KINDS)}')


@component
class NNUNetPlanner(Planner):
    """Spacing, patch, batch, network, normalisation and augmentation as nnU-Net plans them, and its way of training.

    ``memory_gb`` is what nnU-Net calls the GPU memory target. ``network`` is "plain" (``dynunet``) or "resenc"
    (``resenc_unet``).

    Source:
        Isensee et al., Nature Methods 18 (2021) 203, supplement; arXiv:2404.09556.
    """

    accepts: ClassVar[type[Data]] = SegmentationData  # type: ignore[type-abstract]

    network: str | None = attrs.field(default=None, validator=_can_be_planned)

    def draft(self, found: Recognised) -> Iterator[str]:
        """Write the recipe."""
        from trainkit_segmentation.planning.nnunet_live import draft

        yield from draft(found.use, found.contents, found.settings, _KINDS[self.network or "plain"], self.memory_gb)
