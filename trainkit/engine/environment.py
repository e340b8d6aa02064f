"""Describes where a run computes: versions, machine, threads, components."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import attrs

from trainkit.contracts import Component, Logger
from trainkit.engine.changes import flat
from trainkit.recipe.origin import dotted
from trainkit.recipe.tables import walk_settings

if TYPE_CHECKING:
    from trainkit.contracts import Context
    from trainkit.recipe.resolve import Resolved
    from trainkit.recipe.root import Recipe


def environment(resolved: Resolved) -> dict[str, Any]:
    """Return a description of this start of a run: time, command, host, versions, threads, components.

    ``versions`` has the packages that compute in every run, and those of the modules that the recipe's components need.
    ``origins`` says of each setting that is no default where it comes from.
    """
    import torch

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": platform.node(),
        "process": os.getpid(),
        "versions": versions() | _versions_of_modules(_needed_modules(resolved.recipe)),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda_devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "components": [attrs.asdict(used) for used in resolved.used],
        "origins": {
            dotted(where): str(resolved.origins[where]) for where, _ in flat(resolved.tree) if where in resolved.origins
        },
    }


PROCESSES = "number of processes"
"""The condition that a run without shards depends on; a checkpoint without it is of one process, or has shards."""


def conditions(context: Context, recipe: Recipe) -> dict[str, Any]:
    """Return the conditions on which equality to the bit depends: versions, processor, device, number of threads.

    Versions are those of the packages that compute in every run, and of the modules that the recipe's components need.
    The number of processes is a condition only without shards.
    """
    import torch

    device = context.device
    known: dict[str, Any] = {**versions(), **_versions_of_modules(_needed_modules(recipe))}
    known |= {"device": device.type, "threads": torch.get_num_threads(), "machine": platform.machine()}
    known["instruction set of the CPU"] = torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        known |= {"GPU": torch.cuda.get_device_name(device), "CUDA": torch.version.cuda}
        known["cuDNN"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if not recipe.run.shards:
        known[PROCESSES] = context.world
    return known


def _needed_modules(recipe: Recipe) -> tuple[str, ...]:
    parts = [part for _, part, _ in walk_settings(recipe) if isinstance(part, Component)]
    parts = [part for part in parts if not isinstance(part, Logger)]  # these compute nothing
    return tuple(sorted({module.partition(".")[0] for part in parts for module in type(part).requires}))


@cache
def _versions_of_modules(modules: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for module in modules:
        with contextlib.suppress(PackageNotFoundError):  # a module of another name than its package's
            found[module] = version(module)
    return found


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute; cached, because each checkpoint has them."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("trainkit", "torch", "numpy")}
