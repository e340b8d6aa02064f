"""The device of a run, and the precision in which it computes there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from trainkit.errors import RecipeError
from trainkit.processes.place import ALONE

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from trainkit.processes.place import Place

_NATIVE = ("avx512", "amx")
"""Sets of instructions of a CPU that may have some for 16 bits."""

_NOT_SCALED = (torch.float16, torch.bfloat16, torch.complex32, torch.complex64, torch.complex128)


def choose_device(name: str, place: Place = ALONE) -> torch.device:
    """Return the device that a recipe names; "auto" is CUDA or MPS if one is available, else the CPU.

    Of several processes on a machine, each has a CUDA device of its own.

    Raises:
        RecipeError: The device is not available on this machine.
    """
    if place.world > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        if place.local_rank >= torch.cuda.device_count():
            raise RecipeError(
                f"process {place.rank} is number {place.local_rank} on its machine, which has "
                f"{torch.cuda.device_count()} CUDA devices, and each process needs one of its own: start fewer "
                'processes, or set run.device = "cpu"'
            )
        device = torch.device("cuda", place.local_rank)
        torch.cuda.set_device(device)
        return device
    if place.world > 1 and name.startswith("cuda:"):
        raise RecipeError(
            f'run.device = "{name}" names one device for {place.world} processes; with "cuda", each has one of its own'
        )
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RecipeError(
            f'run.device = "{name}", but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices here; '
            'use device = "auto" or "cpu"'
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RecipeError('run.device = "mps", but MPS is not available here; use device = "auto" or "cpu"')
    return device


def set_up_torch(threads: int | None, deterministic: bool) -> None:
    """Set for this process how many threads torch uses, and whether only deterministic operations.

    Args:
        threads: Number of threads; None: torch's default.
        deterministic: Whether torch refuses operations that may give other bits when they are repeated.
    """
    torch.set_num_threads(threads or _default_threads())
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch requires it for matrix products on CUDA
    if deterministic != torch.are_deterministic_algorithms_enabled():  # the call imports a compiler
        torch.use_deterministic_algorithms(deterministic)


@cache
def _default_threads() -> int:
    """Return how many threads torch uses by default; cached, because a run in this process may change the number."""
    return torch.get_num_threads()


def repeatability_doubt(device: torch.device, deterministic: bool) -> str | None:
    """Return why a run that is repeated or resumed on a device may give other bits.

    Args:
        device: The device.
        deterministic: Whether torch is set to use only deterministic operations.

    Returns:
        A sentence; None: there is no reason.
    """
    if device.type == "cuda" and not deterministic:
        return "on CUDA without run.deterministic = true, a run that is repeated or resumed is not the same bit for bit"
    if device.type == "mps":
        return "on MPS, a run that is repeated or resumed may not be the same bit for bit"
    return None


def slow_precision(precision: str, device: torch.device) -> str | None:
    """Return why a precision makes a run slower instead of faster; None: it is not known that it does.

    Convolutions of a CPU without instructions for bfloat16 take 2 to 9 times as long as in fp32, depending on the CPU.
    """
    if device.type != "cpu" or precision == "fp32":
        return None
    known = getattr(torch.cpu, "get_capabilities", dict)  # not in every version of torch that we support
    capabilities: dict[str, Any] = known()
    if capabilities.get("architecture") != "x86_64" or any(capabilities.get(f"{each}_{precision}") for each in _NATIVE):
        return None
    return (
        f'run.precision = "{precision}": this CPU has no instructions for it, and is several times slower with it; '
        'set run.precision = "fp32"'
    )


def autocast_of(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Return what makes the context in which a model computes in a precision."""
    if precision == "fp32":
        return contextlib.nullcontext
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return lambda: torch.autocast(device.type, dtype=dtype)


def scaler_of(precision: str, device: torch.device, model: torch.nn.Module) -> torch.amp.GradScaler | None:
    """Return what scales the loss; None: the precision does not need it.

    Raises:
        RecipeError: The gradients of the model cannot be scaled.
    """
    if precision != "fp16":
        return None
    for name, parameter in model.named_parameters():
        if parameter.dtype in _NOT_SCALED:
            raise RecipeError(
                f'run.precision = "fp16", but the parameter {name} is {str(parameter.dtype).removeprefix("torch.")}: '
                "fp16 needs a scaled loss, and torch cannot scale such gradients; use bf16 or fp32"
            )
    return torch.amp.GradScaler(device.type)
