"""Sees whether a training step waits for the device: it is repeated on torch's meta device, which has no values."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import SkipTest

import torch
from torch import nn

from trainkit.randomness import generators_kept

_META = torch.device("meta")
_NEEDS_VALUES = ("meta tensor", "nonzero", "_local_scalar_dense", "type Meta", "meta device type tensor")
_OTHER_DEVICE = ("same device", "is on cpu", "cpu and meta", "meta and cpu")


def step_without_values(network: nn.Module, batch: Mapping[str, Any], loss: Any) -> None:
    """Raise AssertionError if a step needs values of tensors: on a GPU, it waits until all before it is computed.

    Args:
        network: The network; it is left as it is.
        batch: A batch.
        loss: What a loss built; None: the sum of the outputs is differentiated.

    Raises:
        SkipTest: torch cannot say it, for example because it does not know an operator.
    """
    network = copy.deepcopy(network).to(_META)
    there = _moved(batch)
    try:
        with generators_kept():
            outputs = network(there)
            if loss is None:
                tensors = [each for each in outputs.values() if isinstance(each, torch.Tensor) and each.requires_grad]
                total = torch.stack([each.abs().sum() for each in tensors]).sum()
            else:
                total = loss(outputs, there, network)
            if isinstance(total, torch.Tensor) and total.requires_grad:
                torch.autograd.backward(total)
    except (RuntimeError, TypeError) as error:  # NotImplementedError is a RuntimeError
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if any(each in str(error) for each in _OTHER_DEVICE):
            raise SkipTest(f"a tensor of the step stays on the CPU{_place(error)}, which is no device here") from error
        if any(each in str(error) for each in _NEEDS_VALUES):
            raise AssertionError(
                f"a step has to know the values of a tensor{_place(error)}, so on a GPU it waits there until "
                "everything before it is computed; compute with tensors instead, for example with torch.where. "
                f"torch says: {said[:200]}"
            ) from error
        raise SkipTest(f"a step cannot be repeated on torch's meta device{_place(error)}: {said[:200]}") from error


def _moved(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(_META)
    if isinstance(value, Mapping):
        return {name: _moved(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(each) for each in value)
    return value


def _place(error: BaseException) -> str:
    """Return where it happened: the last line of code outside of torch."""
    inside = Path(torch.__file__).parent
    frames = traceback.extract_tb(error.__traceback__)[1:]  # without the line of this file
    own = [each for each in frames if inside not in Path(each.filename).parents]
    return f" in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
