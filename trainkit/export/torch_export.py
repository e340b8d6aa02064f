"""The network as a graph of torch.export."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from trainkit.contracts import Exporter, TrainedModel, component


@component
class TorchExport(Exporter):
    """The network with its weights, as a graph that ``torch.export.load`` opens without the code of the network.

    The number of items in a batch may vary, and the sizes too where the network allows it. What the model was trained
    on, and what inputs and outputs mean, is in the extra file ``trainkit.json``. The file is opened again, and its
    outputs are compared with the network's.

    Source:
        https://docs.pytorch.org/docs/stable/export.html
    """

    suffix: ClassVar[str] = ".pt2"

    def export(self, trained: TrainedModel, path: Path) -> Iterable[str]:
        """Write the graph."""
        from trainkit.export.torch_export_live import write

        return write(trained, path)
