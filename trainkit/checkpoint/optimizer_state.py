"""What an optimizer remembers of each parameter, kept by the parameter's name.

torch keeps it by position, and loads it in silence into a parameter of another group or shape when the groups were
reordered (pytorch#1489); it also overwrites the new hyperparameters with the saved ones. Here only the memory is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from trainkit.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.nn import Parameter
    from torch.optim import Optimizer


class LoadReport(NamedTuple):
    """What did not match when an optimizer's state was loaded.

    Attributes:
        fresh: Parameters of which nothing was saved, or by another optimizer: they start anew.
        unused: Parameters of which something was saved that are not in this run.
    """

    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def optimizer_state(optimizer: Optimizer, names: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return what the optimizer remembers, to be written into a checkpoint now: tensors are not copied.

    Args:
        optimizer: Of which every parameter has a name.
        names: Parameter name -> parameter.

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
    """Give an optimizer back what `optimizer_state` returned; its hyperparameters and groups stay as they are.

    Each value goes where torch itself would put it: to its parameter's device and dtype, but ``step`` stays on the CPU
    unless the optimizer is capturable or fused.

    Args:
        optimizer: Of any grouping of the parameters.
        names: Parameter name -> parameter.
        state: What was saved.

    Returns:
        The names that did not match; it is for the caller to say so.

    Raises:
        CheckpointError: A parameter had another shape when its state was saved.
    """
    saved: Mapping[str, Any] = state["parameters"]
    unused = tuple(name for name in saved if name not in names)
    if state["optimizer"] != class_name(optimizer):
        return LoadReport(fresh=tuple(names), unused=unused)
    for name, parameter in names.items():
        if name in saved and list(parameter.shape) != saved[name]["shape"]:
            raise CheckpointError(
                f'parameter "{name}" has shape {tuple(parameter.shape)} in this run and '
                f"{tuple(saved[name]['shape'])} in the checkpoint; resume with the model's settings of that run"
            )
    ours = optimizer.state_dict()
    positions = {
        id(parameter): position
        for group, packed in zip(optimizer.param_groups, ours["param_groups"], strict=True)
        for parameter, position in zip(group["params"], packed["params"], strict=True)
    }
    ours["state"] = {
        positions[id(parameter)]: {key: _copied(value) for key, value in saved[name]["state"].items()}
        for name, parameter in names.items()
        if name in saved and saved[name]["state"] and id(parameter) in positions
    }
    groups = optimizer.param_groups
    optimizer.load_state_dict(ours)
    optimizer.param_groups = groups  # torch made new ones; whoever holds the old ones must go on seeing the optimizer's
    return LoadReport(fresh=tuple(name for name in names if name not in saved), unused=unused)


def _copied(value: Any) -> Any:
    """Return a value that the optimizer may change in place."""
    return value.clone() if isinstance(value, torch.Tensor) else value


def class_name(optimizer: Optimizer) -> str:
    """Return the full name of an optimizer's class."""
    return f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
