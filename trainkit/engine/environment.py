"""Describes where a run computes: versions, machine, threads, components."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    import torch

    from trainkit.recipe.resolve import Resolved


def environment(resolved: Resolved) -> dict[str, Any]:
    """Return a description of this start of a run: time, command, versions, machine, threads, components."""
    import torch

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda_devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "components": [attrs.asdict(used) for used in resolved.used],
    }


def conditions(device: torch.device) -> dict[str, Any]:
    """Return the conditions on which equality to the bit depends: versions, type of device, CPU threads."""
    import torch

    return {**versions(), "device": device.type, "threads": torch.get_num_threads()}


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute; cached, because each checkpoint has them."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("trainkit", "torch", "numpy")}
