"""A model as a graph, from positional tensors to a tuple of tensors, and how it is compared with the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainkit.contracts import ExampleBatch, Model, TrainedModel
from trainkit.errors import CheckpointError, RecipeError

TOLERANCE = 1e-4
"""By how much outputs may differ, as a share of the largest value (or of 1, if all are smaller)."""


@attrs.frozen
class Graph:
    """An exported model.

    Attributes:
        program: The graph.
        positional: The model that it was made from; takes and returns tensors in the order of the example.
        example: What the model takes; ``sizes`` holds only what may vary in the graph.
        notes: Sentences about what may vary.
    """

    program: ExportedProgram
    positional: nn.Module
    example: ExampleBatch
    notes: tuple[str, ...]

    def about(self, trained: TrainedModel) -> dict[str, Any]:
        """Return what an exported file says about itself, as JSON values."""
        varying = sorted({name for axes in self.example.sizes.values() for name in axes.values()})
        multiples = {name: self.example.multiples.get(name, 1) for name in varying}
        return {**trained.about, **self.example.meaning, "sizes_that_may_vary": {"batch": 1} | multiples}


class _Positional(nn.Module):
    """Takes tensors one by one, and returns a tuple."""

    def __init__(self, model: nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found: Mapping[str, Tensor] = self.model(dict(zip(self._inputs, tensors, strict=True)))
        return tuple(found[name] for name in self._outputs)


def graph_of(trained: TrainedModel, form: str) -> Graph:
    """Return the graph of a model, with as many sizes left open as the model allows.

    Args:
        trained: The model.
        form: Name of the form that it is exported to, for messages.

    Raises:
        RecipeError: No example of its inputs is known, or it cannot be made a graph.
        CheckpointError: It cannot be built.
    """
    settings = trained.settings()
    if type(settings).example is Model.example:
        raise RecipeError(
            f"{trained.name}: {type(settings).__name__} gives no example of its inputs, which {form} needs; "
            "--to safetensors writes the weights of any model"
        )
    built = trained.build()
    example = settings.example(built.data)
    if example is None:
        raise RecipeError(
            f"{trained.name}: {type(settings).__name__} gives no example of its inputs for this data, which {form} "
            "needs; --to safetensors writes the weights of any model"
        )
    positional = _Positional(built.model, list(example.inputs), example.outputs).eval()
    fixed = example._replace(sizes={})
    refused = []
    for tried in (example, fixed) if any(example.sizes.values()) else (example,):
        try:
            program = _program(positional, tried)
        except Exception as error:  # whatever torch raises about an operation that it cannot make a graph of
            refused.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
            continue
        notes = (
            []
            if tried is example
            else [f"the sizes are fixed to those of a patch, since torch.export cannot leave them open: {refused[0]}"]
        )
        return Graph(program, positional, tried, tuple(notes))
    raise RecipeError(f"{trained.name}: torch.export makes no graph of {type(settings).__name__}: {refused[-1]}")


def _program(positional: nn.Module, example: ExampleBatch) -> ExportedProgram:
    sizes: dict[str, Any] = {name: Dim(name) for axes in example.sizes.values() for name in axes.values()}
    batch = Dim("batch")

    def size(name: str) -> Any:
        multiple = example.multiples.get(name, 1)
        return sizes[name] if multiple == 1 else multiple * sizes[name]

    # `positional` takes *tensors: torch.export wants their dimensions as one tuple.
    shapes = tuple(
        {0: batch, **{axis: size(name) for axis, name in example.sizes.get(each, {}).items()}}
        for each in example.inputs
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own code
        return torch.export.export(positional, tuple(example.inputs.values()), dynamic_shapes=(shapes,), strict=False)


def compare(
    graph: Graph, trained: TrainedModel, opened: Callable[[tuple[Tensor, ...]], Sequence[Tensor]], program: str
) -> str:
    """Compare an exported file with the model, for a single patch and for one of another size if sizes may vary.

    Args:
        graph: The graph that was exported.
        trained: The model.
        opened: Computes the outputs with the exported file.
        program: What opened the file, for messages.

    Returns:
        A sentence with the largest difference.

    Raises:
        CheckpointError: The outputs differ by more than `TOLERANCE`.
    """
    one = {name: value[:1] for name, value in graph.example.inputs.items()}
    tried = [one]
    if varying := {name: axes for name, axes in graph.example.sizes.items() if axes}:
        tried.append({name: _longer(value, varying.get(name, {}), graph.example) for name, value in one.items()})
    largest = 0.0
    for inputs in tried:
        tensors = tuple(inputs.values())
        with torch.no_grad():
            expected = graph.positional(*tensors)
        for name, mine, theirs in zip(graph.example.outputs, expected, opened(tensors), strict=True):
            shapes = f"{tuple(theirs.shape)}, and the model's {tuple(mine.shape)}"
            if mine.shape != theirs.shape:
                raise CheckpointError(f"{trained.name}: opened with {program}, {name} has the shape {shapes}")
            difference = (mine - theirs).abs().max().item()
            if not difference <= TOLERANCE * max(1.0, mine.abs().max().item()):
                raise CheckpointError(
                    f"{trained.name}: opened with {program}, {name} differs from the model's by {difference:.2g}, more "
                    f"than {TOLERANCE:g} of its largest value {mine.abs().max().item():.4g}; nothing was exported"
                )
            largest = max(largest, difference)
    return f"opened again with {program}: its outputs differ by at most {largest:.1g} from the model's"


def _longer(value: Tensor, axes: Mapping[int, str], example: ExampleBatch) -> Tensor:
    """Return a tensor that is longer by one step along the first axis that may vary."""
    for axis, name in list(axes.items())[:1]:
        more = value.narrow(axis, 0, min(example.multiples.get(name, 1), value.shape[axis]))
        value = torch.cat([value, more], axis)
    return value
