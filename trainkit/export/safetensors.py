"""The weights alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from trainkit.contracts import Exporter, TrainedModel, component


@component
class SafeTensors(Exporter):
    """The weights as a safetensors file, which holds no code. For any model, and for loading into one's own network.

    What the model was trained on is in the file's metadata, as text, JSON where it is no string. Complex tensors are
    written as pairs of real numbers along a last axis of two; the metadata ``complex`` lists their names.

    Source:
        https://huggingface.co/docs/safetensors
    """

    suffix: ClassVar[str] = ".safetensors"

    def export(self, trained: TrainedModel, path: Path) -> Iterable[str]:
        """Write the weights."""
        from trainkit.export.safetensors_live import write

        return write(trained, path)
