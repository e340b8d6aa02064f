"""Makes a network of planes take volumes that are one voxel thick, without a change of its parameters' names."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn


def take_volumes(network: nn.Module, axis: int) -> None:
    """Let a network of planes take and return volumes.

    Args:
        network: (B, C, X, Y) -> scores (B, K, X, Y), or several of these. Afterwards, both have three axes.
        axis: The axis along which volumes are one voxel thick.
    """
    network.register_forward_pre_hook(partial(_without_axis, axis=axis - 3))
    network.register_forward_hook(partial(_with_axis, axis=axis - 3))


def _without_axis(network: nn.Module, inputs: tuple[Any, ...], axis: int) -> tuple[Any, ...]:
    return (inputs[0].squeeze(axis), *inputs[1:])


def _with_axis(network: nn.Module, inputs: tuple[Any, ...], outputs: Any, axis: int) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.unsqueeze(axis)
    return [_with_axis(network, inputs, each, axis) for each in outputs]
