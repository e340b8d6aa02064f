"""The network as an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from trainkit.contracts import Exporter, TrainedModel, component


@component
class ONNX(Exporter):
    """The network with its weights, as an ONNX graph: for ONNX Runtime, TensorRT, OpenVINO and programs without Python.

    The number of items in a batch may vary, and the sizes too where the network allows it. What the model was trained
    on, and what inputs and outputs mean, is in ``metadata_props``, as text, JSON where it is no string. The file is
    opened again with ONNX Runtime, and its outputs are compared with the network's. Complex numbers cannot be exported.

    Source:
        https://onnx.ai
    """

    requires: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    suffix: ClassVar[str] = ".onnx"

    def export(self, trained: TrainedModel, path: Path) -> Iterable[str]:
        """Write the graph."""
        from trainkit.export.onnx_live import write

        return write(trained, path)
