"""Whether torch can update parameters by one fused kernel, which is several times as fast as one operation a tensor."""

from __future__ import annotations

from typing import Any

_DEVICES = ("cpu", "cuda")


def can_be_fused(groups: list[dict[str, Any]]) -> bool:
    """Return whether torch has a fused kernel for all parameters of the groups: real ones, on the CPU or CUDA.

    A fused step rounds otherwise than the same step in single operations, by about one part in a million.

    Args:
        groups: One dict for each parameter group, with ``params``.
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    return all(each.is_floating_point() and each.device.type in _DEVICES for each in parameters)
