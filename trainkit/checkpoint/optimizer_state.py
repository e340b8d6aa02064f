"""Saves and loads the state that an optimizer keeps for each parameter, by the parameter's name.

torch saves this state by position. If the groups were reordered, it loads it without an error into a parameter of
another group or shape (pytorch#1489), and it overwrites new hyperparameters with the saved ones. Here, only the state
of the parameters is saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from trainkit.errors import CheckpointError
from trainkit.without_compiler import no_compiler_imported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.nn import Parameter
    from torch.optim import Optimizer


_FACTORED = ("Adafactor", "LBFGS")
"""Optimizers of torch whose states have other shapes than their parameters."""


class LoadReport(NamedTuple):
    """Which parameters did not match when an optimizer's state was loaded.

    Attributes:
        fresh: Parameters without a saved state, or with that of another optimizer: they start with an empty state.
        unused: Parameters with a saved state that are not in this run.
    """

    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def optimizer_state(optimizer: Optimizer, names: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return an optimizer's state for each parameter. Tensors are not copied: write them before the next step.

    Args:
        optimizer: The optimizer.
        names: Parameter name -> parameter, for every parameter of the optimizer.

    Returns:
        ``{"optimizer": class, "parameters": {name: {"shape": …, "state": …}}}``; the state of a parameter that has not
        been trained yet is empty.
    """
    parameters = {
        name: {"shape": list(parameter.shape), "state": dict(optimizer.state.get(parameter, {}))}
        for name, parameter in names.items()
    }
    return {"optimizer": class_name(optimizer), "parameters": parameters}


def load_optimizer_state(optimizer: Optimizer, names: Mapping[str, Parameter], state: Mapping[str, Any]) -> LoadReport:
    """Load what `optimizer_state` returned into an optimizer; its hyperparameters and groups stay as they are.

    Each value gets the device and dtype that torch itself would give it: those of its parameter, but ``step`` stays on
    the CPU unless the optimizer is capturable or fused.

    Args:
        optimizer: The optimizer; its groups may differ from those of the saved one.
        names: Parameter name -> parameter.
        state: What `optimizer_state` returned.

    Returns:
        The names that did not match, which the caller should report.

    Raises:
        CheckpointError: A parameter had another shape when its state was saved, or its state has another shape.
    """
    saved: Mapping[str, Any] = state["parameters"]
    unused = tuple(name for name in saved if name not in names)
    if state["optimizer"] != class_name(optimizer):
        return LoadReport(fresh=tuple(names), unused=unused)
    for name, parameter in names.items():
        if name in saved and list(parameter.shape) != saved[name]["shape"]:
            raise CheckpointError(
                f'parameter "{name}" has shape {tuple(parameter.shape)} in this run and '
                f"{tuple(saved[name]['shape'])} in the checkpoint; resume with the model settings of that run"
            )
    for name in names:
        if name in saved:
            _refuse_odd_state(optimizer, name, saved[name])
    with no_compiler_imported():
        ours = optimizer.state_dict()
    positions = {
        id(parameter): position
        for group, packed in zip(optimizer.param_groups, ours["param_groups"], strict=True)
        for parameter, position in zip(group["params"], packed["params"], strict=True)
    }
    ours["state"] = {
        positions[id(parameter)]: {key: _copied(value, parameter) for key, value in saved[name]["state"].items()}
        for name, parameter in names.items()
        if name in saved and saved[name]["state"] and id(parameter) in positions
    }
    groups = optimizer.param_groups
    with no_compiler_imported():
        optimizer.load_state_dict(ours)
    optimizer.param_groups = groups  # torch made new ones, but others hold references to the old ones
    return LoadReport(fresh=tuple(name for name in names if name not in saved), unused=unused)


def _refuse_odd_state(optimizer: Optimizer, name: str, entry: Mapping[str, Any]) -> None:
    """Make sure that a saved state has the form that torch's own optimizers give theirs.

    Raises:
        CheckpointError: It has not.
    """
    elementwise = type(optimizer).__module__.startswith("torch.optim.") and type(optimizer).__name__ not in _FACTORED
    for key, value in entry["state"].items() if elementwise else ():
        shape = getattr(value, "shape", ())
        scalar = isinstance(value, torch.Tensor | int | float | None) and len(shape) == 0
        if not scalar and not (isinstance(value, torch.Tensor) and list(shape) == list(entry["shape"])):
            raise CheckpointError(
                f'the state "{key}" of parameter "{name}" of {class_name(optimizer)} in the checkpoint is no tensor of '
                f"the shape {tuple(entry['shape'])}; resume from another checkpoint"
            )


def _copied(value: Any, parameter: torch.nn.Parameter) -> Any:
    """Return a copy of a value, because the optimizer may change it in place.

    A value for each number of a parameter gets the parameter's layout in memory, as the optimizer would have made it:
    kernels for other layouts may round otherwise.
    """
    if not isinstance(value, torch.Tensor):
        return value
    if value.shape != parameter.shape or not value.ndim:
        return value.clone()
    return torch.empty_strided(value.shape, parameter.stride(), dtype=value.dtype, device=value.device).copy_(value)


def class_name(optimizer: Optimizer) -> str:
    """Return the full name of an optimizer's class."""
    return f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
