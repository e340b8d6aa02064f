"""When two things that were computed are the same, to the bit."""

from __future__ import annotations

from typing import Any

import torch


def bits(tensor: torch.Tensor) -> bytes:
    copy = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    return bytes(copy.reshape(-1).view(torch.uint8).numpy())


def same(one: Any, other: Any) -> bool:
    """Whether two contents have the same structure, order, types and bits; a tuple is the same as a list."""
    if isinstance(one, torch.Tensor):
        shaped = isinstance(other, torch.Tensor) and (one.dtype, one.shape) == (other.dtype, other.shape)
        return shaped and bits(one) == bits(other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def trained(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint without what tells runs apart: identity, and the folders in the recipe."""
    return {key: value for key, value in content.items() if key not in ("run", "recipe")}


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Return the names of the leaves that differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = list(dict.fromkeys([*one, *other]))
        return [each for key in keys for each in differences(one.get(key), other.get(key), f"{name}/{key}")]
    return [] if same(one, other) else [name]
