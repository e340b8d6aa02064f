"""Writes a model as a graph of torch.export."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import torch

from trainkit.contracts import TrainedModel
from trainkit.export.graph import compare, graph_of


def write(trained: TrainedModel, path: Path) -> list[str]:
    """Write the graph of a model, and return sentences.

    Raises:
        RecipeError: It cannot be made a graph.
        CheckpointError: It cannot be built, or the graph computes something else.
    """
    graph = graph_of(trained, "torch_export")
    about = json.dumps(graph.about(trained), indent=2, ensure_ascii=False, default=str)
    buffer = io.BytesIO()  # torch wants a name that ends in .pt2, and the file is still unfinished
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own code
        torch.export.save(graph.program, buffer, extra_files={"trainkit.json": about})
        path.write_bytes(buffer.getvalue())
        buffer.seek(0)
        opened = torch.export.load(buffer).module()
    with torch.no_grad():
        return [*graph.notes, compare(graph, trained, lambda tensors: opened(*tensors), "torch.export.load")]
