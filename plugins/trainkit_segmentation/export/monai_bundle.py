"""The network as a MONAI bundle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from trainkit import Exporter, TrainedModel, component


@component
class MONAIBundle(Exporter):
    """The network as a MONAI bundle, a folder that ``monai.bundle.load`` opens without trainkit.

    ``models/model.pt`` holds the weights, ``configs/inference.json`` the network and the inferer that validation used,
    ``configs/metadata.json`` channels, classes and sizes. Its key ``trainkit`` says how images were prepared in
    training (orientation, spacing, normalisation): the bundle does not prepare them. Only networks of MONAI itself
    can be written. The bundle is opened again, and its scores are compared with the network's.

    Source:
        https://docs.monai.io/en/stable/mb_specification.html
    """

    requires: ClassVar[tuple[str, ...]] = ("monai",)

    def export(self, trained: TrainedModel, path: Path) -> Iterable[str]:
        """Write the bundle."""
        from trainkit_segmentation.export.monai_bundle_live import write

        return write(trained, path)
