"""Evaluates the encoding with tiny-cuda-nn's CUDA kernels, from the tables that are an object's parameters.

No other file uses the package `tinycudann`, and this one uses only its `Encoding`, in single precision. What is trained
is one table for each level, so checkpoints, optimizer state and groups do not depend on the backend. The package takes
one flat tensor, level after level and row after row; so the tables of the first n levels, joined, are the parameters of
an encoding with n levels.

Gradients are added up by atomic operations, in the order in which threads arrive, so bits differ from run to run.

Shapes: N = positions, D = dimensions, L = levels, E = entries of a level, F = features of an entry.

Source: tiny-cuda-nn 2.0, https://github.com/NVlabs/tiny-cuda-nn.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trainkit_ptychography.objects.encoding.hash_grid import Interpolation, cell, encode
from trainkit_ptychography.objects.encoding.levels import Level
from trainkit_ptychography.objects.encoding.tinycudann_installed import HOW_TO_GET, is_installed

if TYPE_CHECKING:
    from trainkit_ptychography.objects.hash_encoding import HashEncoding

_DEVICES = ("cuda",)
_TRIED_POSITIONS = 4096
# The kernels compute a level's scale themselves, by a fast exponential that may be off by some units in the last place.
_SCALE_WITHIN = 4 * torch.finfo(torch.float32).eps
_STEEPEST = {"nearest": 0.0, "linear": 2.0, "smoothstep": 3.0}  # change per cell, of values between -1 and 1
_ROUNDING = 1e-5


def flat_from_tables(tables: Sequence[Tensor]) -> Tensor:
    """Return the tables (E, F) of all levels as tinycudann's parameters (sum of E·F); differentiable.

    Args:
        tables: For each level, from the coarsest.
    """
    return torch.cat([table_EF.flatten() for table_EF in tables])


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why tinycudann cannot be used for a run, as a clause about "it"; None if it can.

    Args:
        device: Device of the run.
        dtype: Dtype of its parameters.
    """
    if device.type not in _DEVICES:
        return f"it needs CUDA, and the run is on {device.type}"
    if dtype != torch.float32:
        return f"it is used in float32, and the run is in {str(dtype).removeprefix('torch.')}"
    if torch.are_deterministic_algorithms_enabled():
        return "it adds up gradients in no fixed order, and the run is to be deterministic"
    if not is_installed():
        return f"it is not installed; {HOW_TO_GET}"
    try:
        importlib.import_module("tinycudann")
    except (ImportError, OSError) as error:  # OSError: it finds no GPU, or was not built for the one that is there
        return f"its import fails ({error}); build it anew for this torch and GPU: {HOW_TO_GET}"
    return None


class TinyCudaEncoding:
    """Evaluates the first levels of a hash encoding, as many as it is given tables for.

    Args:
        settings: Settings of the encoding.
        per_level_scale: How much finer each grid is than the one before.
        dimensions: Dimensions of space.
    """

    def __init__(self, settings: HashEncoding, per_level_scale: float, dimensions: int = 2) -> None:
        self.dimensions = dimensions
        self._config = {
            "otype": "HashGrid",
            "n_features_per_level": settings.features,
            "log2_hashmap_size": settings.log2_hashmap_size,
            "base_resolution": settings.base_resolution,
            "per_level_scale": per_level_scale,
            "interpolation": settings.interpolation.capitalize(),
        }
        self._modules: dict[int, nn.Module] = {}  # by number of levels: the package evaluates all of them

    def __call__(self, positions_ND: Tensor, tables: Sequence[Tensor]) -> Tensor:
        """Return the features (N, L·F), all of the coarsest level first; differentiable in the tables.

        Args:
            positions_ND: 0 … 1, float32, first the axis whose vertices are neighbours in a table.
            tables: One table (E, F) for each of the first levels.

        Raises:
            RuntimeError: The kernels fail, or expect another number of parameters.
        """
        flat = flat_from_tables(tables)
        with torch.cuda.device_of(positions_ND):  # type: ignore[no-untyped-call]
            module = self._module(len(tables), len(flat))
            found: Tensor = torch.func.functional_call(module, {"params": flat}, (positions_ND,))
        if found.requires_grad:
            found.register_hook(_whole_rows)  # type: ignore[no-untyped-call]
        return found

    def _module(self, num_levels: int, num_parameters: int) -> nn.Module:
        if num_levels not in self._modules:
            package = importlib.import_module("tinycudann")
            made = package.Encoding(self.dimensions, {**self._config, "n_levels": num_levels}, dtype=torch.float32)
            if made.params.numel() != num_parameters:
                raise RuntimeError(
                    f"{num_levels} levels have {made.params.numel()} parameters in tinycudann, {num_parameters} here"
                )
            made.params.data = made.params.data.new_empty(0)  # each call passes the object's own
            self._modules[num_levels] = made
        return self._modules[num_levels]


def _whole_rows(gradient_NC: Tensor) -> Tensor:
    """Return a gradient in C order: the package refuses a transposed one if N is a multiple of 256."""
    return gradient_NC.contiguous()


def try_out(
    encoding: TinyCudaEncoding, levels: Sequence[Level], num_features: int, how: Interpolation, device: torch.device
) -> str | None:
    """Return how tinycudann differs from `encode`, beyond rounding, at random positions; None if it does not.

    It may differ at scales where one unit in the last place decides how many vertices a level has: there the kernels
    and `levels` can come to different numbers.

    Args:
        encoding: The encoding by tinycudann.
        levels: All its levels.
        num_features: Features of an entry.
        how: Its interpolation.
        device: Where to try it.
    """
    generator = torch.Generator().manual_seed(0)
    positions_ND = torch.rand(_TRIED_POSITIONS, encoding.dimensions, generator=generator).to(device)
    tables = [(torch.rand(e.entries, num_features, generator=generator) * 2 - 1).to(device) for e in levels]
    try:
        with torch.no_grad():
            theirs_NLF = encoding(positions_ND, tables).reshape(-1, len(levels), num_features)
    except RuntimeError as error:
        return f"it fails: {error}"
    ours_NLF = encode(positions_ND, tables, levels, how).reshape(-1, len(levels), num_features)
    for number, level in enumerate(levels):
        within = _SCALE_WITHIN * level.scale  # cells
        difference_N = (theirs_NLF[:, number] - ours_NLF[:, number]).abs().amax(1)
        if how == "nearest":  # on the edge of a cell either side is right
            difference_N = difference_N[_inside(positions_ND, level, within)]
        allowed = _ROUNDING + 2 * _STEEPEST[how] * within
        if not bool((difference_N <= allowed).all()):  # NaN differs too
            return (
                f"its level {number} ({level.resolution} vertices a side here) gives values that differ by up to "
                f"{float(difference_N.max()):.2g}, where rounding explains {allowed:.1g}; another per_level_scale or "
                "base_resolution may agree"
            )
    return None


def _inside(positions_ND: Tensor, level: Level, margin: float) -> Tensor:
    """Return which positions are further than this many cells from the edge of their cell."""
    above_ND = cell(positions_ND, level, "linear", torch.float32)[1]
    return ((above_ND > margin) & (above_ND < 1 - margin)).all(1)
