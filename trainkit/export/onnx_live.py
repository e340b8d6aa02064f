"""Writes a model as an ONNX graph."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor

from trainkit.contracts import TrainedModel
from trainkit.errors import RecipeError
from trainkit.export.graph import Graph, compare, graph_of
from trainkit.export.metadata import as_text

_MOST_BYTES = 2**31 - 2**20  # an ONNX file is one protobuf message


def write(trained: TrainedModel, path: Path) -> list[str]:
    """Write the graph of a model, and return sentences.

    Raises:
        RecipeError: It computes complex numbers, is too large, or cannot be made a graph.
        CheckpointError: It cannot be built, or the graph computes something else.
    """
    settings = trained.settings()
    if settings.computes_complex:
        raise RecipeError(
            f"{trained.name}: {type(settings).__name__} computes complex numbers, for which ONNX has no operations; "
            "--to safetensors writes its weights"
        )
    graph = graph_of(trained, "onnx")
    size = sum(value.nbytes for value in trained.weights.values() if isinstance(value, Tensor))
    if size > _MOST_BYTES:
        raise RecipeError(f"{trained.name}: its weights take {size / 1e9:.1f} GB, and an ONNX file holds 2 GB")
    path.write_bytes(_model(graph, trained).SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def opened(tensors: tuple[Tensor, ...]) -> Sequence[Tensor]:
        arrays = {name: value.numpy() for name, value in zip(names, tensors, strict=True)}
        return [torch.from_numpy(each) for each in session.run(None, arrays)]

    return [*graph.notes, compare(graph, trained, opened, "ONNX Runtime")]


def _model(graph: Graph, trained: TrainedModel) -> onnx.ModelProto:
    example = graph.example
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said):
        warnings.simplefilter("ignore")  # torch's own, about its own code
        try:
            program = torch.onnx.export(
                graph.program,
                tuple(example.inputs.values()),
                input_names=list(example.inputs),
                output_names=list(example.outputs),
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # whatever torch raises about an operation that ONNX lacks
            reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
            raise RecipeError(
                f"{trained.name}: {type(trained.settings()).__name__} cannot be written as ONNX: "
                f"{type(error).__name__}: {reason}; --to torch_export may work"
            ) from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    for value in model.graph.input:
        _name_axes(value, {0: "batch", **example.sizes.get(value.name, {})})
    for key, text in as_text(graph.about(trained)).items():
        model.metadata_props.add(key=key, value=text)
    return model


def _name_axes(value: onnx.ValueInfoProto, names: dict[int, str]) -> None:
    """Give the axes of an input readable names."""
    for axis, size in enumerate(value.type.tensor_type.shape.dim):
        if axis in names:
            size.dim_param = names[axis]
