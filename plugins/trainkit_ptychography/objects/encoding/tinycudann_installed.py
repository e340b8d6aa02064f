"""Whether NVIDIA's package `tinycudann` is installed, and how to get it; without importing it, or torch."""

from __future__ import annotations

from importlib import metadata, util

HOW_TO_GET = (
    "it is not on the package index: where torch has CUDA and the CUDA toolkit of the same version is there, "
    "pip install --no-build-isolation git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"
)
"""Instructions to install it; its build imports torch, which an isolated build would not find."""


def is_installed() -> bool:
    """Return whether the package is there; only importing it shows whether that succeeds."""
    return util.find_spec("tinycudann") is not None


def version() -> str:
    """Return the package's version; "of unknown version" if no installer put it there."""
    try:
        return metadata.version("tinycudann")
    except metadata.PackageNotFoundError:
        return "of unknown version"
